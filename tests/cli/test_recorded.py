"""`gymrail reverify` and `gymrail replay`, on runs of ours and on files of NeMo Gym's shape."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

COUNTER = '''
from random import Random

from gymrail import Environment, Rollout, Task, ToolError, ToolServer, Verdict, call, tool
from gymrail.environment import Config


class CountTask(Task):
    goal: int


class Store(ToolServer):
    def seed(self) -> None:
        self.things = set()

    @tool
    def put(self, thing: str) -> int:
        """Put a thing in."""
        if not thing:
            raise ToolError("name a thing")
        self.things.add(thing)
        return len(self.things)


class Count(Environment[CountTask]):
    """Put so many things into the store."""

    store: Store

    class Config(Config):
        slack: int = 0

    @classmethod
    def generate(cls, rng: Random) -> CountTask:
        goal = rng.randint(1, 4)
        return CountTask.ask(f"Put {goal} things in ({rng.randint(0, 10**6)}).", goal=goal)

    def seed(self) -> None:
        self.store.seed()

    def verify(self, rollout: Rollout) -> Verdict:
        missing = abs(self.task.goal - len(self.store.things))
        return Verdict(float(missing <= self.config.slack), reason=f"{missing} off")

    def solve(self):
        for index in range(self.task.goal):
            yield call("put", thing=str(index))
        yield "Done."

    def sabotage(self, turn, rng):
        return call("put", thing="")
'''


BLOCKING_VERIFY = """
    async def verify(self, rollout: Rollout) -> Verdict:
        import asyncio
        import sys
        from pathlib import Path

        type(self).judged = getattr(type(self), "judged", 0) + 1
        if self.judged > 7 and not Path(__file__).with_name("go").exists():
            print("blocked", file=sys.stderr, flush=True)
            await asyncio.Event().wait()
        if self.judged == 3 and not Path(__file__).with_name("go").exists():
            raise ValueError("the judge is down")
        missing = abs(self.task.goal - len(self.store.things))
        return Verdict(float(missing <= 1), reason=f"{missing} off")

    def old_verify("""


@pytest.fixture
def played(run, tmp_path: Path) -> tuple[Path, Path]:
    """An environment with state in a tool server, and a run of it."""
    file, folder = tmp_path / "count.py", tmp_path / "run"
    file.write_text(COUNTER, encoding="utf-8")
    done = run("rollout", file, "--model", "oracle:0.2", "--tasks", 10, "--repeats", 2, "--run", folder)
    assert done.code == 0
    return file, folder


def rows(folder: Path) -> dict[str, dict]:
    lines = (folder / "rollouts.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["gymrail"]["id"]: row for row in map(json.loads, lines)}


def test_the_same_verifier_changes_nothing_and_the_old_run_stays(run, played) -> None:
    _, folder = played
    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    done = run("reverify", folder)
    assert done.code == 0
    assert "Of 20 rollouts 0 changed, 20 did not, 0 cannot be judged again." in done.stdout
    assert {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()} == before
    assert rows(folder.with_name("run-reverified")) == rows(folder)
    again = run("reverify", folder)
    assert again.code == 2
    assert "is there already, and a run is never changed" in again.stderr


def test_a_setting_that_changes_the_verifier_lists_exactly_what_changed(run, played, tmp_path: Path) -> None:
    _, folder = played
    old = rows(folder)
    wanted = {id for id, row in old.items() if row["gymrail"]["verdict"] == "1 off"}
    assert 0 < len(wanted) < len(old)

    done = run("reverify", folder, "--config", "slack=1", "--output", tmp_path / "new", "--json")

    document = json.loads(done.stdout)
    assert (done.code, document["changed"], document["unchanged"]) == (0, len(wanted), len(old) - len(wanted))
    assert {change["id"] for change in document["changes"]} == wanted
    assert all((c["before"], c["after"], c["reason_after"]) == (0.0, 1.0, "1 off") for c in document["changes"])
    new = rows(tmp_path / "new")
    assert {id for id in old if old[id]["reward"] != new[id]["reward"]} == wanted
    assert json.loads(run("metrics", tmp_path / "new", "--json").stdout)["overall"]["rollouts"] == 20
    # What was asked is remembered: judged again, nothing changes.
    assert json.loads(run("reverify", tmp_path / "new", "--json").stdout)["changed"] == 0


def test_a_tool_that_answers_otherwise_makes_its_rollouts_unjudged_and_exits_with_1(run, played) -> None:
    file, folder = played
    file.write_text(COUNTER.replace("return len(self.things)", "return -len(self.things)"), encoding="utf-8")
    done = run("reverify", folder, "--json")
    document = json.loads(done.stdout)
    assert done.code == 1
    assert document["unjudged"] == len([row for row in rows(folder).values() if _put_anything(row)]) > 0
    assert {change["after"] for change in document["changes"]} == {None}
    assert "call 1 (put) gave '1' and gives '-1' now" in document["changes"][0]["reason_after"]
    failures = (folder.with_name("run-reverified") / "failures.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(failures) == document["unjudged"]
    assert not any("reward" in json.loads(line) for line in failures)


def test_a_run_that_is_judged_again_keeps_its_tasks_and_what_they_came_from(run, played) -> None:
    _, folder = played
    run("reverify", folder)
    again = folder.with_name("run-reverified")
    assert (again / "tasks.jsonl").read_bytes() == (folder / "tasks.jsonl").read_bytes()
    before, after = (yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8")) for path in (folder, again))
    assert after["datasets"] == before["datasets"] != {}
    assert after["environments"] == before["environments"]
    assert after["config"]["reverified"] == str(folder)


def test_an_interrupted_reverify_goes_on_and_lists_every_change_once(run, played, tmp_path: Path) -> None:
    file, folder = played
    old = rows(folder)
    file.write_text(COUNTER.replace("\n    def verify(", BLOCKING_VERIFY, 1), encoding="utf-8")
    again = tmp_path / "again"
    arguments = ["reverify", str(folder), "--output", str(again), "-c", "1"]
    command = [sys.executable, "-m", "gymrail", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            assert any(line == "blocked\n" for line in process.stderr)
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 130
    assert f"gymrail {' '.join(arguments)} --resume" in stderr
    judged = rows(again)
    assert len(judged) == 6  # of seven; the third has no verdict
    (file.with_name("go")).touch()
    done = run(*arguments, "--resume", "--json")
    document = json.loads(done.stdout)
    assert (done.code, document["rollouts"], document["earlier"], document["unjudged"]) == (0, 20, 6, 0)
    assert rows(again).items() >= judged.items()
    changed = {id for id, row in old.items() if row["gymrail"]["verdict"] == "1 off"}
    assert changed
    assert sorted(change["id"] for change in document["changes"]) == sorted(changed)
    assert {id for id, row in rows(again).items() if row["reward"] != old[id]["reward"]} == changed
    metrics = json.loads((again / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["overall"]["outcomes"]["scored"] == metrics["overall"]["rollouts"] == 20


def test_replay_shows_messages_and_the_state_of_tool_servers_at_each_step(run, played) -> None:
    _, folder = played
    gold = next(row for row in rows(folder).values() if row["goal"] >= 2 and row["reward"] == 1.0)
    id, goal = gold["gymrail"]["id"], gold["goal"]
    document = json.loads(run("replay", folder, "--rollout", id, "--json").stdout)
    assert [step["number"] for step in document["steps"]] == list(range(goal + 2))
    sizes = [len(step["state"]["store"]["things"]) for step in document["steps"]]
    assert sizes == [*range(goal + 1), goal]
    place = f"{gold['_ng_task_index']}:{gold['_ng_rollout_index']}"
    for step in range(goal + 2):
        part = json.loads(run("replay", folder, "--rollout", place, "--to-step", step, "--json").stdout)["steps"]
        wanted = document["steps"][: step + 1]
        assert [(s["items"], s["state"]) for s in part] == [(s["items"], s["state"]) for s in wanted]
    shown = run("replay", folder, "--rollout", id, "--to-step", 1)
    assert shown.code == 0
    for part in ('calls put {"thing":"0"}', "hears 1", "state after step 1", '"things": ['):
        assert part in shown.stdout
    assert "step 2" not in shown.stdout


def test_replay_names_what_differs_and_exits_with_1(run, played) -> None:
    file, folder = played
    id = next(id for id, row in rows(folder).items() if _put_anything(row))
    file.write_text(COUNTER.replace("return len(self.things)", "return -len(self.things)"), encoding="utf-8")
    done = run("replay", folder, "--rollout", id)
    assert done.code == 1
    assert "differs: call 1 (put) gave '1' and gives '-1' now" in done.stdout


def test_files_of_nemo_gyms_shape_are_read_with_the_environment_named(run, played, tmp_path: Path) -> None:
    file, folder = played
    theirs = []
    for row in rows(folder).values():
        kept = {key: value for key, value in row.items() if key != "gymrail" and not key.startswith("_ng_")}
        theirs.append(json.dumps(kept))
    rollouts = tmp_path / "theirs.jsonl"
    rollouts.write_text("\n".join(theirs) + "\n", encoding="utf-8")

    document = json.loads(run("reverify", rollouts, "--env", file, "--json").stdout)
    assert (document["rollouts"], document["unchanged"]) == (20, 20)
    assert json.loads(run("metrics", document["output"], "--json").stdout)["overall"]["rollouts"] == 20
    shown = json.loads(run("replay", rollouts, "--env", file, "--rollout", "0:0", "--json").stdout)
    assert shown["steps"][0]["state"]["store"] == {"things": []}
    unnamed = run("reverify", rollouts, "--output", tmp_path / "other")
    assert unnamed.code == 2
    assert "add --env" in unnamed.stderr


@pytest.mark.parametrize("has_places", [True, False])
def test_rollouts_that_leave_out_their_tasks_fields_get_them_from_the_tasks_file(
    run, played, tmp_path: Path, has_places: bool
) -> None:
    file, folder = played
    ours = sorted(rows(folder).values(), key=lambda row: (row["_ng_task_index"], row["_ng_rollout_index"]))
    kept = ["responses_create_params", "response", "reward"]
    kept += ["_ng_task_index", "_ng_rollout_index"] if has_places else []
    rollouts, tasks = tmp_path / "theirs.jsonl", tmp_path / "tasks.jsonl"
    rollouts.write_text("".join(json.dumps({name: row[name] for name in kept}) + "\n" for row in ours))
    lines = {
        row["_ng_task_index"]: {"responses_create_params": row["responses_create_params"], "goal": row["goal"]}
        for row in ours
    }
    tasks.write_text("".join(json.dumps(row) + "\n" for row in lines.values()))
    alone = run("reverify", rollouts, "--env", file, "--output", tmp_path / "alone", "--json")
    assert (alone.code, json.loads(alone.stdout)["unjudged"]) == (1, 20)
    assert "field 'goal': Field required. --tasks FILE gives the fields that the rollouts leave out." in alone.stdout
    unjudged = run("replay", rollouts, "--env", file, "--rollout", "3:0", "--json")
    assert (unjudged.code, json.loads(unjudged.stdout)["task_index"]) == (0, 3)
    assert "Field required.) --tasks FILE gives what is left out." in unjudged.stderr
    done = run("reverify", rollouts, "--env", file, "--tasks", tasks, "--output", tmp_path / "again", "--json")
    assert done.code == 0
    assert json.loads(done.stdout)["unchanged"] == 20
    assert all(row["goal"] for row in rows(tmp_path / "again").values())
    shown = run("replay", rollouts, "--env", file, "--rollout", "3:0", "--tasks", tasks)
    assert shown.code == 0
    # A corrected answer in the tasks file is what the run is judged by.
    tasks.write_text("".join(json.dumps({**row, "goal": row["goal"] + 10}) + "\n" for row in lines.values()))
    wrong = run("reverify", rollouts, "--env", file, "--tasks", tasks, "--output", tmp_path / "wrong", "--json")
    earned = sum(row["reward"] == 1.0 for row in ours)
    assert (json.loads(wrong.stdout)["changed"], earned > 0) == (earned, True)
    tasks.write_text(json.dumps(lines[0]) + "\n")
    missing = run("reverify", rollouts, "--env", file, "--tasks", tasks, "--output", tmp_path / "missing")
    assert missing.code == 2
    assert "give the file that the run was played from" in missing.stderr.lower()
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("replay", "RUN", "--rollout", "99:0"), "has no rollout '99:0'"),
        (("replay", "RUN", "--rollout", "0:0", "--to-step", "99"), "--to-step is 99; rollout"),
        (("reverify", "RUN", "--config", "slak=1"), "Did you mean 'slack'?"),
        (("reverify", "RUN", "--config", "slack"), "'slack' is no setting; write key=value"),
        (("reverify", "no_such_run"), "'no_such_run' does not exist"),
    ],
)
def test_what_is_wrong_with_the_command_line_is_said_in_a_sentence(run, played, arguments, said: str) -> None:
    done = run(*(played[1] if argument == "RUN" else argument for argument in arguments))
    assert done.code == 2
    assert said in done.stderr
    assert not played[1].with_name("run-reverified").exists()


def test_a_secret_that_the_run_does_not_hold_must_be_given(run, tmp_path: Path) -> None:
    file, folder = tmp_path / "count.py", tmp_path / "run"
    file.write_text(
        COUNTER.replace("slack: int = 0", "slack: int = 0\n        api_key: str = 'k-1234'"), encoding="utf-8"
    )
    assert run("rollout", file, "--model", "oracle", "--tasks", 2, "--run", folder).code == 0
    done = run("reverify", folder)
    assert done.code == 2
    assert "does not hold the secret setting 'api_key' of count; give it by --config api_key=VALUE" in done.stderr
    given = run("reverify", folder, "--config", "api_key=k-5678")
    assert (given.code, "2 did not" in given.stdout) == (0, True)
    assert "k-5678" not in (folder.with_name("run-reverified") / "config.yaml").read_text(encoding="utf-8")


def test_check_measures_the_load_when_asked(run, played) -> None:
    done = run("check", played[0], "--tasks", 4, "--load", 20, "--json")
    document = json.loads(done.stdout)
    assert document["load"]["episodes"] == 20
    assert document["load"]["failed"] == 0
    assert [check["name"] for check in document["checks"]][-1] == "load"
    assert "load" not in json.loads(run("check", played[0], "--tasks", 4, "--json").stdout)


def _put_anything(row: dict) -> bool:
    return any(not call["is_error"] for call in row["gymrail"]["calls"])
