import json
from pathlib import Path

from gymrail.registry import environment_folders, tool_server_folders


def test_list_shows_every_installed_environment(run) -> None:
    done = run("list")
    assert done.code == 0
    for name in environment_folders():
        assert f"\n{name} " in done.stdout


def test_list_as_json_is_one_document_with_tools_and_splits(run) -> None:
    rows = {row["name"]: row for row in json.loads(run("list", "--json").stdout)["environments"]}
    assert set(rows) == set(environment_folders())
    row = rows["word_math"]
    assert sorted(row["tools"]) == ["add", "multiply", "subtract"]
    assert row["splits"] == ["train", "validation", "test", "example"]
    assert (row["structure"], row["verification"], row["license"]) == ("single-step", "code", "Apache-2.0")
    assert row["error"] is None


def test_list_shows_an_environment_that_cannot_be_imported_with_its_error(run, tmp_path: Path, monkeypatch) -> None:
    package = tmp_path / "their_environments"
    (package / "broken").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "broken/__init__.py").touch()
    (package / "broken/environment.py").write_text("import no_such_module\n", encoding="utf-8")
    (package / "broken/environment.yaml").write_text("description: It was fine.\n", encoding="utf-8")
    entry_points = tmp_path / "theirs-1.0.dist-info"
    entry_points.mkdir()
    (entry_points / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n", encoding="utf-8")
    (entry_points / "entry_points.txt").write_text(
        "[gymrail.environments]\ntheirs = their_environments\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    done = run("list", "--json")
    rows = {row["name"]: row for row in json.loads(done.stdout)["environments"]}
    assert rows["broken"]["description"] == "It was fine."
    assert "no_such_module" in rows["broken"]["error"]
    assert rows["word_math"]["error"] is None
    assert "cannot be loaded" in run("list").stdout


def test_the_table_fits_into_80_columns(run, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for command in (["list"], ["show", "word_math"]):
        lines = run(*command).stdout.splitlines()
        assert max(len(line.rstrip()) for line in lines) <= 80


def test_show_describes_tools_splits_and_an_example_task(run) -> None:
    text = run("show", "treasure_hunt").stdout
    for part in (
        "find_key(",
        "open_chest(",
        "validation",
        "Example task",
        "responses_create_params",
        "reward",
        "0 to 1",
    ):
        assert part in text


def test_show_as_json_has_schemas_and_the_same_example_for_the_same_seed(run) -> None:
    first, second, other = (json.loads(run("show", "word_math", "--json", "--seed", seed).stdout) for seed in (1, 1, 2))
    assert first == second
    assert first["example"] != other["example"]
    assert {tool["name"] for tool in first["tools"]} == {"add", "multiply", "subtract"}
    assert first["tools"][0]["parameters"]["type"] == "object"
    assert first["reward_range"] == [0.0, 1.0]


def test_show_has_the_five_properties_and_the_baselines_of_the_readme(run) -> None:
    shown = json.loads(run("show", "mcqa", "--json").stdout)
    assert shown["properties"] == {
        "rollout_structure": "single-step",
        "capabilities": ["question answering", "format following"],
        "knowledge_domain": "general knowledge",
        "task_type": "natural",
        "verification": "code",
    }
    assert shown["baselines"]["tasks"] == 500
    assert list(shown["baselines"]["means"]) == ["oracle", "noise=0.4", "noise=0.5", "random", "empty"]
    text = run("show", "mcqa").stdout
    assert "Mean reward on 500 validation tasks" in text
    assert "question answering, format following" in text


def test_show_of_a_file_has_no_baselines(run, echo: Path) -> None:
    assert json.loads(run("show", echo, "--json").stdout)["baselines"] is None
    assert "validation tasks" not in run("show", echo).stdout


def test_an_unknown_environment_names_the_nearest_and_exits_with_2(run) -> None:
    done = run("show", "wordmath")
    assert (done.code, done.stdout) == (2, "")
    assert "Did you mean 'word_math'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_check_passes_a_sound_environment(run, echo: Path) -> None:
    done = run("check", echo, "--tasks", 4)
    assert done.code == 0
    assert "checks passed" in done.stdout
    assert "✗" not in done.stdout


def test_check_measures_baselines_prints_the_readmes_table_and_holds_the_readme_to_it(run, tmp_path: Path) -> None:
    run("new", "environment", "basket", "--directory", tmp_path)
    folder = tmp_path / "basket"
    done = run("check", folder, "-n", 4, "--baselines", 30)
    assert done.code == 0
    table = done.stdout.partition("Mean reward on 30 validation tasks.")
    assert "| `Oracle()`, the gold policy | 1.00 |" in table[2]
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8") + "\n## Baselines\n\n" + table[1] + table[2].rpartition("|")[0] + "|\n"
    readme.write_text(text, encoding="utf-8")
    report = json.loads(run("check", folder, "-n", 4, "--baselines", 30, "--json").stdout)
    assert report["passed"] is True
    assert [check["passed"] for check in report["checks"][-3:]] == [True, True, True]
    assert report["baselines"]["means"]["oracle"] == 1.0
    code = folder / "environment.py"
    code.write_text(
        code.read_text(encoding="utf-8").replace("self.basket == self.task.wanted", "not rollout.calls"),
        encoding="utf-8",
    )
    done = run("check", folder, "-n", 4, "--baselines", 30)
    assert done.code == 1
    assert "mean reward 1.000 on 30 tasks; the README states 0.00" in done.stdout
    assert "validation task 0 earned 0, not 1" in done.stdout


def test_check_warns_of_unknown_properties_and_fails_an_unknown_extra(run, tmp_path: Path) -> None:
    run("new", "environment", "basket", "--directory", tmp_path)
    manifest = tmp_path / "basket/environment.yaml"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace("[tool use]", "[tool-usage]"), encoding="utf-8")
    done = run("check", manifest.parent, "-n", 4)
    assert done.code == 0
    assert "'tool-usage' is not in the vocabulary; did you mean 'tool use'?" in " ".join(done.stdout.split())
    assert "1 could not be checked" in done.stdout
    manifest.write_text(text + "extra: serach\n", encoding="utf-8")
    done = run("check", manifest.parent, "-n", 4)
    assert done.code == 1
    assert "Gymrail has no extra 'serach'." in done.stdout


def test_mcp_without_a_name_lists_the_tool_servers(run) -> None:
    done = run("mcp")
    assert done.code == 0
    for name in tool_server_folders():
        assert f"\n{name} " in done.stdout
    assert "Whole numbers" in done.stdout
    done = run("mcp", "--task", "1")
    assert done.code == 2
    assert "name one: `gymrail mcp SERVER --task N" in done.stderr


def test_check_fails_a_verifier_that_rewards_everything_and_says_which_check(run, echo: Path) -> None:
    echo.write_text(echo.read_text().replace("float(rollout.final_text == str(self.task.number))", "1.0"))
    done = run("check", echo, "-n", 4, "--json")
    report = json.loads(done.stdout)
    failed = {check["name"] for check in report["checks"] if check["passed"] is False}
    assert done.code == 1
    assert report["passed"] is False
    assert "wrong answer" in failed
    assert "gold" not in failed
    shown = run("check", echo, "-n", 4)
    assert shown.code == 1
    assert f"{len(failed)} of {len(report['checks'])} checks failed" in shown.stdout


def test_a_new_environment_passes_its_check_and_is_played(run, tmp_path: Path) -> None:
    done = run("new", "environment", "fruit_basket", "--directory", tmp_path)
    folder = tmp_path / "fruit_basket"
    assert done.code == 0
    assert f"gymrail check {folder}" in done.stdout
    assert run("check", folder, "-n", 4).code == 0
    played = run("rollout", folder, "-m", "oracle", "-n", 4, "--run", tmp_path / "run", "--json")
    assert json.loads(played.stdout)["overall"]["reward"]["mean"] == 1.0


def test_a_new_environment_never_overwrites_one(run, tmp_path: Path) -> None:
    assert run("new", "environment", "basket", "-d", tmp_path).code == 0
    done = run("new", "environment", "basket", "-d", tmp_path)
    assert done.code == 2
    assert "exists already" in done.stderr


def test_version_names_what_is_installed(run) -> None:
    versions = json.loads(run("version", "--json").stdout)
    assert {"gymrail", "python", "pydantic"} <= versions.keys()
    lines = [line.split() for line in run("version").stdout.splitlines()]
    assert [tuple(line) for line in lines] == list(versions.items())
