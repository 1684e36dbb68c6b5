import json
from pathlib import Path

import pytest

from gymrail.recipe import load_recipe


@pytest.fixture
def runs(run, echo: Path, tmp_path: Path) -> list[Path]:
    """Two runs of the same 12 tasks: a perfect one, and one that errs."""
    folders = [tmp_path / name for name in ("good", "bad")]
    for folder, model in zip(folders, ("oracle", "oracle:1"), strict=True):
        assert run("rollout", echo, "-m", model, "-n", 12, "-k", 2, "--run", folder).code == 0
    return folders


def test_two_runs_are_compared_by_task(run, runs: list[Path]) -> None:
    found = json.loads(run("metrics", *runs, "--json").stdout)
    (comparison,) = found["comparisons"]
    assert (comparison["before"], comparison["after"]) == (str(runs[0]), str(runs[1]))
    overall = comparison["overall"]
    means = [entry["overall"]["reward"]["mean"] for entry in found["runs"]]
    assert (means, overall["difference"]) == ([1.0, 0.0], -1.0)
    assert overall["paired"]
    assert overall["tasks"]["shared"] == 12
    assert (len(comparison["gained"]), len(comparison["lost"])) == (0, 12)
    shown = run("metrics", *runs).stdout
    assert "-1.000" in shown
    assert "12 tasks solved before, not now" in shown
    assert shown.count("100% -> 0%") == 10
    assert "and 2 more" in shown


def test_a_run_is_split_by_a_task_field(run, runs: list[Path]) -> None:
    found = json.loads(run("metrics", runs[0], "--by", "number", "--json").stdout)["environments"]["echo"]["subsets"]
    assert len(found) == 12
    assert {row["rollouts"] for row in found.values()} == {2}
    shown = run("metrics", runs[0], "--by", "number").stdout
    assert all(number in shown for number in found)


def test_a_field_that_no_task_has_is_refused_with_the_nearest_one(run, runs: list[Path]) -> None:
    done = run("metrics", runs[0], "--by", "numbr")
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr == f"Error: No task of '{runs[0]}' has a field 'numbr'. Did you mean 'number'?\n"


def test_the_text_has_latencies_and_with_several_environments_a_part_per_property(
    run, echo: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "two"
    assert run("rollout", echo, "word_math", "-m", "oracle", "-n", 3, "--run", folder).code == 0
    shown = run("metrics", folder).stdout
    assert shown.count("  seconds ") == shown.count("  of the model ") == 2
    found = json.loads(run("metrics", folder, "--json").stdout)["properties"]
    assert set(found["knowledge_domain"]) == {"general", "math"}
    lines = [line.split() for line in shown.partition("knowledge domain")[2].splitlines()]
    assert ["general", "1.000", "(0.439", "to", "1.000),", "3", "tasks"] in lines
    assert ["math", "1.000", "(0.439", "to", "1.000),", "3", "tasks"] in lines


def test_the_same_numbers_are_there_under_nemo_gyms_names(run, runs: list[Path]) -> None:
    found = json.loads(run("metrics", runs[1], "--nemo-gym").stdout)
    assert (found["mean/reward"], found["pass@2/accuracy"], found["pass@1[avg-of-2]/accuracy"]) == (0.0, 0.0, 0.0)
    done = run("metrics", *runs, "--nemo-gym")
    assert done.code == 2
    assert "one run" in done.stderr


def test_an_environment_names_the_metrics_that_sum_it_up(run, echo: Path, tmp_path: Path) -> None:
    body = "return {'longest': max(len(rollout.final_text) for rollout in rollouts), 'other': 1.0}"
    hook = f"\n    @classmethod\n    def compute_metrics(cls, rollouts):\n        {body}\n"
    hook += "\n    key_metrics = ('longest', 'mean/reward')\n"
    echo.write_text(echo.read_text() + hook)
    assert run("rollout", echo, "-m", "oracle", "-n", 9, "--run", tmp_path / "run").code == 0
    found = json.loads(run("metrics", tmp_path / "run", "--json").stdout)["environments"]["echo"]
    assert found["key_metrics"] == {"longest": found["computed"]["longest"], "mean/reward": 1.0}
    assert "key metrics" in run("metrics", tmp_path / "run").stdout


def test_metrics_that_break_cost_no_other_number_and_are_said(run, echo: Path, tmp_path: Path) -> None:
    body = "return {'mean': 1 / (len(rollouts) - 9)}"
    echo.write_text(f"{echo.read_text()}\n    @classmethod\n    def compute_metrics(cls, rollouts):\n        {body}\n")
    done = run("rollout", echo, "-m", "oracle", "-n", 9, "--run", tmp_path / "run")
    assert done.code == 0
    place = f"{echo}:{len(echo.read_text().splitlines())}"
    assert f"compute_metrics of echo broke: ZeroDivisionError: division by zero [{place}]" in done.stderr
    written = json.loads((tmp_path / "run/metrics.json").read_text(encoding="utf-8"))
    assert written["overall"]["reward"]["mean"] == 1.0
    shown = run("metrics", tmp_path / "run").stdout
    assert "compute_metrics broke: ZeroDivisionError" in shown


def test_what_an_environment_computes_it_computes_of_its_own_tasks(run, echo: Path, tmp_path: Path) -> None:
    body = "return {'own': sum(type(rollout.task) is EchoTask for rollout in rollouts)}"
    echo.write_text(f"{echo.read_text()}\n    @classmethod\n    def compute_metrics(cls, rollouts):\n        {body}\n")
    run("rollout", echo, "-m", "oracle", "-n", 4, "--run", tmp_path / "run")
    found = json.loads((tmp_path / "run/metrics.json").read_text(encoding="utf-8"))
    assert found["environments"]["echo"]["computed"] == {"own": 4}


def test_a_file_of_rollouts_is_measured_as_its_run_is(run, runs: list[Path]) -> None:
    whole = json.loads(run("metrics", runs[0], "--json").stdout)
    file = json.loads(run("metrics", runs[0] / "rollouts.jsonl", "--json").stdout)
    assert file["overall"] == whole["overall"]
    assert whole["properties"]["knowledge_domain"]["general"] == whole["overall"]


def test_a_profile_is_written_and_a_recipe_takes_it(run, runs: list[Path], tmp_path: Path, echo: Path) -> None:
    path = tmp_path / "profile.jsonl"
    assert json.loads(run("profile", runs[0], "-o", path, "--json").stdout)["tasks"] == 12
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert {(row["_profile"]["pass_rate"], row["_profile"]["count"]) for row in rows} == {(1.0, 2)}
    recipe = tmp_path / "recipe.yaml"
    entry = f"{{environment: {echo}, profile: {path}, pass_rate: [0.5, 1]}}"
    recipe.write_text(f"algorithm: grpo\nmodel: tiny\nmixture: [{entry}]\n")
    assert load_recipe(recipe).mixture[0].pass_rate == (0.5, 1.0)


@pytest.mark.parametrize(
    ("entry", "said"),
    [("pass_rate: [0.9, 0.1], profile: p.jsonl", "lower one first"), ("pass_rate: [0.1, 0.9]", "needs `profile`")],
)
def test_a_pass_rate_that_means_nothing_is_refused(tmp_path: Path, entry: str, said: str) -> None:
    from gymrail.errors import InputError

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"algorithm: grpo\nmodel: tiny\nmixture: [{{environment: word_math, {entry}}}]\n")
    with pytest.raises(InputError, match=said):
        load_recipe(recipe)


def test_a_run_of_failures_has_no_profile_and_says_so(run, tmp_path: Path) -> None:
    (tmp_path / "rollouts.jsonl").write_text("")
    done = run("profile", tmp_path, "-o", tmp_path / "out.jsonl")
    assert done.code == 1
    assert "No rollout" in done.stderr
    assert not (tmp_path / "out.jsonl").exists()
