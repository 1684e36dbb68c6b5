"""An MCP server and a YAML file as an environment: a real server process per episode."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gymrail.collect.executors.setup import source_of
from gymrail.contract import check_environment
from gymrail.environment import call
from gymrail.errors import InputError
from gymrail.models.scripted import Oracle, ScriptedModel
from gymrail.play import play
from gymrail.registry import find
from gymrail.rollout import Rollout

SERVER = Path(__file__).with_name("bank_server.py")
SQL = "CREATE TABLE accounts (name TEXT, balance INTEGER); INSERT INTO accounts VALUES ('ada', 90), ('bob', 5);"


def row(amount: int, **fields: Any) -> dict[str, Any]:
    return {
        "responses_create_params": {"input": f"Send {amount} from ada to bob, note it in note.txt, say bob's balance."},
        "setup_sql": SQL,
        "files": {"rules.txt": "Be honest."},
        "expected_answer": str(5 + amount),
        "expected_files": {"note.txt": f"sent {amount}"},
        "expected_rows": [{"query": "SELECT * FROM accounts", "rows": [["bob", 5 + amount], ["ada", 90 - amount]]}],
        "solution": [
            {"name": "transfer", "arguments": {"source": "ada", "target": "bob", "amount": amount}},
            {"name": "write", "arguments": {"name": "note.txt", "text": f"sent {amount}\n"}},
            f"Answer: {5 + amount}",
        ],
        **fields,
    }


def folder(path: Path, rows: list[dict[str, Any]], **changes: Any) -> str:
    path.mkdir(exist_ok=True)
    (path / "tasks.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    file = {
        "description": "Keep a bank's books.",
        "server": {"command": [sys.executable, str(SERVER)]},
        "tasks": "tasks.jsonl",
        "verify": {"answer": {"kind": "exact"}, "files": {"nothing_else": True}, "sqlite": {"database": "bank.db"}},
        **changes,
    }
    (path / "env.yaml").write_text(yaml.safe_dump(file), encoding="utf-8")
    return f"mcp:{path}"


def played(name: str, *script: Any) -> Rollout:
    spec = find(name)
    (task,) = spec.tasks("train", limit=1)
    model = ScriptedModel(list(script)) if script else Oracle()
    return asyncio.run(play(spec, task, model))


TRANSFER = call("transfer", source="ada", target="bob", amount=7)
NOTE = call("write", name="note.txt", text="sent 7")


def test_answer_files_and_rows_are_verified_together(tmp_path: Path) -> None:
    name = folder(tmp_path / "bank", [row(7)])
    gold = played(name)
    assert (gold.environment, gold.reward) == ("bank", 1.0)
    assert gold.metrics == {"answer": 1.0, "files": 1.0, "sqlite": 1.0}
    unnoted = played(name, TRANSFER, "12")
    assert (unnoted.reward, unnoted.metrics["files"]) == (0.0, 0.0)
    assert unnoted.verdict_reason == "'note.txt' is missing"
    twice = played(name, TRANSFER, TRANSFER, NOTE, "12")
    assert twice.metrics == {"answer": 1.0, "files": 1.0, "sqlite": 0.0}
    assert "[['ada', 76], ['bob', 19]], not [['ada', 83], ['bob', 12]]" in str(twice.verdict_reason)
    littered = played(name, TRANSFER, NOTE, call("write", name="rules.txt", text="Cheat."), "12")
    assert littered.reward == 0.0
    assert "'rules.txt' holds 'Cheat.', not 'Be honest.'" in str(littered.verdict_reason)


def test_the_mean_of_the_parts_is_the_reward_where_that_is_asked(tmp_path: Path) -> None:
    verify = {"answer": {}, "sqlite": {"database": "bank.db"}, "combine": "mean"}
    assert played(folder(tmp_path / "bank", [row(7)], verify=verify), TRANSFER, "no idea").reward == 0.5


def test_a_tool_that_refuses_goes_back_to_the_model(tmp_path: Path) -> None:
    too_much = call("transfer", source="ada", target="bob", amount=700)
    rollout = played(folder(tmp_path / "bank", [row(7)]), too_much, TRANSFER, NOTE, "12")
    assert rollout.calls[0].is_error
    assert rollout.reward == 1.0


def test_the_environment_passes_the_contract_with_the_solutions_of_its_rows(tmp_path: Path) -> None:
    name = folder(tmp_path / "bank", [row(amount) for amount in (7, 11, 23)])
    report = asyncio.run(check_environment(find(name), tasks=3))
    assert report.failures == ()
    assert next(check for check in report.checks if check.name == "gold").passed


def test_an_expected_answer_may_be_behind_a_pattern(tmp_path: Path) -> None:
    verify = {"answer": {"extract": "regex", "pattern": "#### (.*)"}}
    name = folder(tmp_path / "bank", [row(7, setup_sql=None)], verify=verify)
    assert [played(name, said).reward for said in ("so\n#### 12", "12, no:\n#### 13", "so 12")] == [1.0, 0.0, 0.0]


def test_a_judges_failure_is_no_score(tmp_path: Path) -> None:
    judge = {"model": "http://127.0.0.1:9/v1", "model_name": "x", "max_retries": 0}
    verify = {"answer": {"kind": "judge", "judge": judge}}
    rollout = played(folder(tmp_path / "bank", [row(7, setup_sql=None)], verify=verify), "12")
    assert rollout.reward is None
    assert rollout.failure is not None
    assert rollout.failure.kind == "verifier"


def test_a_wrong_query_of_the_author_is_a_failure_and_a_dropped_table_a_score(tmp_path: Path) -> None:
    verify = {"sqlite": {"database": "bank.db"}}
    wrong = row(7, expected_rows=[{"query": "SELEC *", "rows": []}])
    failed = played(folder(tmp_path / "wrong", [wrong], verify=verify), TRANSFER, "12")
    assert failed.failure is not None
    assert failed.failure.kind == "verifier"
    dropped = row(7, expected_rows=[{"query": "SELECT * FROM clients", "rows": []}])
    scored = played(folder(tmp_path / "dropped", [dropped], verify=verify), TRANSFER, "12")
    assert (scored.reward, scored.verdict_reason) == (0.0, "SELECT * FROM clients: no such table: clients")


def test_a_row_without_what_is_verified_is_a_failure_that_names_the_field(tmp_path: Path) -> None:
    bare = row(7)
    del bare["expected_files"]
    rollout = played(folder(tmp_path / "bank", [bare]), "x")
    assert rollout.failure is not None
    assert "has no 'expected_files', which verify.files compares with" in rollout.failure.message


def test_a_worker_finds_the_environment_by_its_file(tmp_path: Path) -> None:
    spec = find(folder(tmp_path / "bank", [row(7)]))
    assert source_of(spec).load().tools.keys() == spec.tools.keys() == {"transfer", "write"}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"verify": {}}, "'verify' names nothing"),
        ({"verify": {"answr": {}}}, "unknown key 'verify.answr'. Did you mean 'answer'?"),
        ({"server": {"url": "http://127.0.0.1:9/mcp"}}, "a server behind a URL has no folder here"),
        ({"server": {"comand": ["x"]}}, "has no setting 'comand'. Did you mean 'command'?"),
        ({"tasks": "missing.jsonl"}, "missing.jsonl"),
    ],
)
def test_a_broken_file_is_said_when_it_is_named(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError) as error:
        find(folder(tmp_path / "bank", [row(7)], **changes))
    assert text in str(error.value)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no file"):
        find(f"mcp:{tmp_path / 'nowhere.yaml'}")
