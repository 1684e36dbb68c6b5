import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from gymrail.limits import Limits, Prices

BLOCKING_SEED = """
    async def seed(self) -> None:
        import asyncio
        import sys
        from pathlib import Path

        type(self).seeded = getattr(type(self), "seeded", 0) + 1
        if self.seeded > 3 and not Path(__file__).with_name("go").exists():
            print("blocked", file=sys.stderr, flush=True)
            await asyncio.Event().wait()

    def verify("""


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "rollouts.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_oracle_earns_the_maximum_in_two_environments_of_one_run(run, echo: Path, tmp_path: Path) -> None:
    done = run("rollout", echo, "word_math", "-m", "oracle", "-n", 5, "-k", 2, "--run", tmp_path / "run", "--json")
    found = json.loads(done.stdout)
    assert done.code == 0
    assert {name: row["reward"]["mean"] for name, row in found["environments"].items()} == {
        "echo": 1.0,
        "word_math": 1.0,
    }
    assert found["overall"]["outcomes"] == {"scored": 20, "truncated": 0, "failed": 0, "cancelled": 0}
    assert len(rows(tmp_path / "run")) == 20
    assert "20/20 rollouts" in done.stderr


def test_a_noisy_oracle_errs_the_same_way_for_the_same_seed(run, echo: Path, tmp_path: Path) -> None:
    rewards = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run("rollout", echo, "-m", "oracle:0.5", "-n", 20, "--seed", seed, "--run", tmp_path / name)
        rewards.append([row["reward"] for row in sorted(rows(tmp_path / name), key=lambda row: row["_ng_task_index"])])
    assert rewards[0] == rewards[1] != rewards[2]
    assert 0 < sum(rewards[0]) < 20


def test_the_summary_and_the_metrics_show_the_same_table(run, echo: Path, tmp_path: Path) -> None:
    played = run("rollout", echo, "-m", "oracle", "-n", 4, "-k", 2, "--run", tmp_path / "run")
    shown = run("metrics", tmp_path / "run")
    table = played.stdout.partition("\n\n")[0]
    assert "echo" in table
    assert "1.000" in table
    assert shown.stdout.startswith(table)
    assert "4 tasks played more than once, 100% of them with equal rewards" in shown.stdout
    assert json.loads(run("metrics", tmp_path / "run", "--json").stdout)["overall"]["rollouts"] == 8


def test_a_compressed_run_goes_on_and_every_command_reads_it(run, echo: Path, tmp_path: Path) -> None:
    pytest.importorskip("zstandard")
    folder, again = tmp_path / "run", tmp_path / "again"
    arguments = ("rollout", echo, "-m", "oracle:0.5", "-k", 2, "--run", folder)
    assert run(*arguments, "-n", 4, "--compress", "zstd").code == 0
    assert run(*arguments, "-n", 6, "--resume").code == 0
    assert sorted(path.name for path in folder.iterdir() if ".jsonl" in path.name and path.suffix == ".zst") == [
        "failures.jsonl.zst",
        "rollouts.jsonl.zst",
        "tasks.jsonl.zst",
    ]
    found = json.loads(run("metrics", folder, "--json").stdout)
    assert found["overall"]["rollouts"] == 12
    assert json.loads(run("metrics", folder / "rollouts.jsonl.zst", "--json").stdout)["overall"] == found["overall"]
    assert run("profile", folder, "-o", tmp_path / "profile.jsonl").stdout.startswith("Wrote 6 tasks")
    assert run("export", "sft", folder, "-o", tmp_path / "sft.jsonl").code == 0
    assert run("replay", folder, "--rollout", "5:1").code == 0
    assert "Of 12 rollouts 0 changed" in run("reverify", folder, "--output", again).stdout
    assert (
        "Of 12 rollouts 0 changed"
        in run("reverify", folder / "rollouts.jsonl.zst", "--env", echo, "--output", tmp_path / "third").stdout
    )


def test_a_plain_run_is_not_compressed_half_way(run, echo: Path, tmp_path: Path) -> None:
    arguments = ("rollout", echo, "-m", "oracle", "-n", 2, "--run", tmp_path / "run")
    run(*arguments)
    done = run(*arguments, "--resume", "--compress", "zstd")
    assert done.code == 2
    assert "is not compressed, and a run has one form: leave out --compress to go on with it" in done.stderr


def test_a_run_remembers_its_tasks_and_what_they_come_from(run, echo: Path, tmp_path: Path) -> None:
    arguments = ("rollout", echo, "word_math", "-m", "oracle", "-n", 3, "-k", 2, "--run", tmp_path / "run")
    run(*arguments)
    run(*arguments, "--resume")
    tasks = [json.loads(line) for line in (tmp_path / "run/tasks.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(task["agent_ref"]["name"], task["_ng_task_index"]) for task in tasks] == [
        (name, index) for index in range(3) for name in ("echo", "word_math")
    ]
    config = yaml.safe_load((tmp_path / "run/config.yaml").read_text(encoding="utf-8"))
    assert sorted(config["datasets"]) == ["echo", "word_math"]
    assert list(config["resumed"][0]) == ["at"]  # nothing was different


def test_a_scripted_model_plays_its_turns(run, tmp_path: Path) -> None:
    script = tmp_path / "turns.json"
    script.write_text('[{"name": "add", "arguments": {"a": 1, "b": "x"}}, "I give up."]')
    done = run("rollout", "word_math", "-m", f"script:{script}", "-n", 3, "--run", tmp_path / "run", "--json")
    assert done.code == 0
    assert json.loads(done.stdout)["environments"]["word_math"]["tools"]["add"]["errors"] == 3


def test_when_every_rollout_fails_the_command_fails_and_says_why(run, echo: Path, tmp_path: Path) -> None:
    echo.write_text(echo.read_text().replace("return float(", "return {}['missing'] or float("))
    done = run("rollout", echo, "-m", "oracle", "-n", 6, "--run", tmp_path / "run")
    assert done.code == 1
    assert "6 x verifier failure at stage verify (echo)" in done.stdout
    assert "KeyError: 'missing'" in done.stdout
    assert done.stderr.endswith("Error: None of the 6 rollouts has a reward: all of them failed (6 verifier).\n")
    line = next(number for number, text in enumerate(echo.read_text().splitlines(), 1) if "missing" in text)
    assert f"{echo}:{line}" in done.stdout
    assert (tmp_path / "run/rollouts.jsonl").read_text() == ""
    found = json.loads(run("metrics", tmp_path / "run", "--json").stdout)
    assert found["overall"]["reward"]["mean"] is None
    assert [failure["count"] for failure in found["failures"]] == [6]


def test_one_rollout_with_a_reward_is_enough_for_exit_code_0(run, echo: Path, tmp_path: Path) -> None:
    echo.write_text(echo.read_text().replace("return float(", "return {1: 1.0}[self.task.number % 2] and float("))
    done = run("rollout", echo, "-m", "oracle", "-n", 12, "--run", tmp_path / "run", "--json")
    outcomes = json.loads(done.stdout)["overall"]["outcomes"]
    assert done.code == 0
    assert 0 < outcomes["failed"] < 12
    assert outcomes["failed"] + outcomes["scored"] == 12


def test_resume_plays_what_is_missing_and_nothing_twice(run, echo: Path, tmp_path: Path) -> None:
    command = ("rollout", echo, "-m", "oracle", "--run", tmp_path / "run")
    assert run(*command, "-n", 5).code == 0
    before = rows(tmp_path / "run")
    refused = run(*command, "-n", 8)
    assert refused.code == 2
    assert "--resume" in refused.stderr
    assert rows(tmp_path / "run") == before
    assert run(*command, "-n", 8, "--resume").code == 0
    after = rows(tmp_path / "run")
    assert after[:5] == before
    assert sorted(row["_ng_task_index"] for row in after) == list(range(8))


def test_ctrl_c_exits_with_130_and_leaves_a_run_that_goes_on(run, echo: Path, tmp_path: Path) -> None:
    echo.write_text(echo.read_text().replace("\n    def verify(", BLOCKING_SEED, 1))
    folder = tmp_path / "run"
    arguments = ["rollout", str(echo), "-m", "oracle", "-n", "6", "-c", "1", "--run", str(folder)]
    command = [sys.executable, "-m", "gymrail", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            assert any(line == "blocked\n" for line in process.stderr)
            process.send_signal(signal.SIGINT)  # what is in flight never ends here, so a second one is needed
            assert any(line.startswith("Interrupted: finishing 1 rollout in flight") for line in process.stderr)
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 130
    assert stdout == ""
    assert "Traceback" not in stderr
    assert f"3 of 6 rollouts are in {folder}" in stderr
    assert f"gymrail {' '.join(arguments)} --resume" in stderr
    interrupted = rows(folder)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["overall"]["outcomes"]["scored"] == len(interrupted)
    assert [row["_ng_task_index"] for row in interrupted] == [0, 1, 2]
    (tmp_path / "go").touch()
    assert run(*arguments, "--resume").code == 0
    assert rows(folder)[:3] == interrupted
    assert sorted(row["_ng_task_index"] for row in rows(folder)) == list(range(6))


class _Endpoint(BaseHTTPRequestHandler):
    """Serves one model that says the last word of what it was asked; wants the key `secret`."""

    def do_GET(self) -> None:
        self._answer({"data": [{"id": "parrot", "object": "model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert body["model"] == "parrot"
        assert body["temperature"] == 0.25
        text = body["messages"][-1]["content"].split()[-1]
        message = {"role": "assistant", "content": text}
        self._answer(
            {"id": "1", "model": "parrot", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        )

    def _answer(self, value: dict) -> None:
        allowed = self.headers.get("Authorization") == "Bearer secret"
        body = json.dumps(value if allowed else {"error": {"message": "bad key"}}).encode()
        self.send_response(200 if allowed else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Endpoint) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join(120)


def test_an_endpoint_plays_with_its_key_and_the_temperature(run, echo, tmp_path, endpoint, monkeypatch) -> None:
    monkeypatch.setenv("PARROT_KEY", "secret")
    command = ("rollout", echo, "-m", endpoint, "-n", 5, "-t", 0.25, "--api-key-env", "PARROT_KEY", "--json")
    done = run(*command, "--model-name", "parrot", "--run", tmp_path / "run")
    assert done.code == 0
    assert json.loads(done.stdout)["overall"]["reward"]["mean"] == 1.0
    assert "secret" not in (tmp_path / "run/config.yaml").read_text()


def test_a_runs_configuration_has_every_setting_resolved_and_no_key(run, echo, tmp_path, endpoint, monkeypatch) -> None:
    monkeypatch.setenv("PARROT_KEY", "secret")
    synced: list[int] = []
    monkeypatch.setattr("gymrail.collect.journal.os.fsync", synced.append)
    options = ("-n", 2, "-t", 0.25, "--api-key-env", "PARROT_KEY", "--budget-cost", 2, "--price", "1,2", "--fsync")
    done = run("rollout", echo, "-m", endpoint, "--model-name", "parrot", *options, "--run", tmp_path / "run")
    assert done.code == 0
    assert len(set(synced)) >= 3  # tasks, rollouts and failures
    text = (tmp_path / "run/config.yaml").read_text(encoding="utf-8")
    assert "secret" not in text
    written = yaml.safe_load(text)
    entry = {"source": f"{echo.resolve()}:Echo", "split": "train", "settings": {}, "max_steps": 32}
    assert written["config"] == {
        "environments": {"echo": entry}, "agent": "tool_loop", "model": "parrot", "endpoint": endpoint, "tasks": 2,
        "repeats": 1, "seed": 0, "temperature": 0.25, "limits": asdict(Limits(prices=Prices(1.0, 2.0))),
    }  # fmt: skip
    assert written["execution"] == {
        "concurrency": 64, "retries": 1, "workers": 0, "executor": "local", "ray_address": None,
        "budget": {"tokens": None, "tool_calls": None, "cost": 2.0, "seconds": None}, "compress": None, "fsync": True,
    }  # fmt: skip


def test_a_wrong_key_or_model_name_is_one_message_and_leaves_no_run(run, echo, tmp_path, endpoint, monkeypatch) -> None:
    command = ("rollout", echo, "-m", endpoint, "--api-key-env", "PARROT_KEY", "--run", tmp_path / "run")
    monkeypatch.setenv("PARROT_KEY", "wrong-one")
    refused = run(*command, "--model-name", "parrot")
    assert (refused.code, refused.stdout) == (1, "")
    assert "PARROT_KEY" in refused.stderr
    assert "wrong-one" not in refused.stderr
    monkeypatch.setenv("PARROT_KEY", "secret")
    unknown = run(*command, "--model-name", "parot")
    assert unknown.code == 2
    assert "Did you mean 'parrot'?" in unknown.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["word_math", "-m", "orcle"], "Did you mean 'oracle'?"),
        (["word_math", "-m", "oracle:2"], "a number from 0 to 1"),
        (["word_math", "-m", "openai:gpt"], "OPENAI_API_KEY"),
        (["word_math", "-m", "http://127.0.0.1:1/v1"], "--model-name"),
        (["word_math", "-m", "no/such/folder"], "no such folder"),
        (["word_math", "-m", "oracle", "--split", "valid"], "Did you mean 'validation'?"),
        (["word_math", "-m", "oracle", "--resume"], "--run DIR"),
        (["word_math", "-m", "oracle", "-n", "0"], "--tasks N"),
        (["word_math", "-m", "oracle", "-k", "0"], "--repeats"),
        (["word_math"], "--model"),
    ],
)
def test_a_wrong_argument_exits_with_2_and_says_what_is_allowed(run, tmp_path, monkeypatch, arguments, message) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("rollout", *arguments)
    assert (done.code, done.stdout) == (2, "")
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_exported_rows_are_the_rollouts_that_earned_enough(run, echo: Path, tmp_path: Path) -> None:
    run("rollout", echo, "-m", "oracle:0.5", "-n", 10, "-k", 4, "--run", tmp_path / "run")
    rewards = [row["reward"] for row in rows(tmp_path / "run")]
    done = run("export", "sft", tmp_path / "run", "-o", tmp_path / "sft.jsonl", "--min-reward", 1, "--json")
    assert json.loads(done.stdout)["rows"] == sum(rewards) == len((tmp_path / "sft.jsonl").read_text().splitlines())
    assert run("export", "dpo", tmp_path / "run", "-o", tmp_path / "dpo.jsonl").code == 0
    for line in (tmp_path / "dpo.jsonl").read_text().splitlines():
        assert json.loads(line)["rejected"][0]["content"] == "no"


def test_an_export_without_a_row_fails_and_writes_no_file(run, echo: Path, tmp_path: Path) -> None:
    run("rollout", echo, "-m", "oracle", "-n", 3, "--run", tmp_path / "run")
    done = run("export", "dpo", tmp_path / "run", "-o", tmp_path / "dpo.jsonl")
    assert done.code == 2
    assert "makes a row of dpo. Removed by: tasks with one rollout: 3" in done.stderr
    assert not (tmp_path / "dpo.jsonl").exists()


def test_metrics_of_a_folder_that_is_no_run_says_how_to_make_one(run, tmp_path: Path) -> None:
    done = run("metrics", tmp_path)
    assert done.code == 2
    assert "gymrail rollout" in done.stderr


def test_what_the_environment_computes_over_a_run_is_in_its_metrics(run, echo: Path, tmp_path: Path) -> None:
    body = "return {'longest': max(len(rollout.final_text) for rollout in rollouts)}"
    hook = f"\n    @classmethod\n    def compute_metrics(cls, rollouts):\n        {body}\n"
    echo.write_text(echo.read_text() + hook)
    done = run("rollout", echo, "-m", "oracle", "-n", 9, "--run", tmp_path / "run", "--json")
    assert json.loads(done.stdout)["environments"]["echo"]["computed"]["longest"] in (5, 6)
    assert "longest" in run("metrics", tmp_path / "run").stdout
