"""`gymrail tokens check` on checkpoints' folders that hold a tokenizer and a generation config, and no weights."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.core.models.chat_families import CLEAN, FAMILIES, save


@pytest.mark.parametrize("family", FAMILIES)
def test_a_planted_drift_fails_and_the_fixed_template_passes(run, tmp_path: Path, family: str) -> None:
    planted = save(family, tmp_path / "planted", {**CLEAN[family], "tools_last": True})
    done = run("tokens", "check", planted, "--train", "messages")
    assert done.code == 1
    assert "The template moves the tool schemas to a later turn" in done.stdout
    assert "was sampled," in done.stdout
    assert done.stdout.splitlines()[-1].startswith("Failed: trained on messages")

    spliced = run("tokens", "check", planted)
    assert spliced.code == 0
    assert "The template moves the tool schemas to a later turn" in spliced.stdout

    fixed = save(family, tmp_path / "fixed", CLEAN[family])
    passed = run("tokens", "check", fixed, "--train", "messages")
    assert passed.code == 0
    assert passed.stdout.splitlines()[-1] == "Passed: trained on messages, what is trained is what was sampled."


@pytest.mark.parametrize("family", FAMILIES)
def test_a_template_that_breaks_rollouts_fails_without_an_option(run, tmp_path: Path, family: str) -> None:
    done = run("tokens", "check", save(family, tmp_path, {**CLEAN[family], "end_of_earlier": "<end>"}))
    assert done.code == 1
    assert "rewrites the end of an earlier turn" in done.stdout
    assert "Each is trained once" not in done.stdout


def test_the_newline_after_the_end_of_a_turn_is_told_where_messages_are_trained(run, tmp_path: Path) -> None:
    folder = save("qwen2_5", tmp_path)
    done = run("tokens", "check", folder, "--train", "messages", "--json")
    assert done.code == 1
    report = json.loads(done.stdout)
    assert (report["passed"], report["train"], report["turn_end"]) == (False, "messages", "<|im_end|>")
    (finding,) = [finding for finding in report["findings"] if finding["by"] == "template"]
    assert finding["cause"] == "adds '\\n' after the last end-of-turn token: a token that is never sampled"
    assert (finding["sampled"], finding["rendered"]) == ("the end", "\n")
    assert json.loads(run("tokens", "check", folder, "--json").stdout)["passed"] is True


def test_ends_of_a_turn_are_read_from_the_generation_config(run, tmp_path: Path) -> None:
    folder = save("gemma", tmp_path)
    assert run("tokens", "check", folder).code == 0
    (folder / "generation_config.json").unlink()
    done = run("tokens", "check", folder)
    assert done.code == 1
    assert "add the id to eos_token_id in generation_config.json" in done.stdout
    assert "End of a turn: none that stops sampling." in done.stdout


def test_a_folder_that_is_not_there_is_one_sentence(run, tmp_path: Path) -> None:
    done = run("tokens", "check", tmp_path / "nothing")
    assert done.code == 2
    assert (
        done.stderr == f"Error: No tokenizer could be loaded from '{tmp_path / 'nothing'}': there is no such folder\n"
    )


def test_a_folder_without_a_tokenizer_is_one_sentence(run, tmp_path: Path) -> None:
    done = run("tokens", "check", tmp_path)
    assert done.code == 2
    assert done.stderr.startswith(f"Error: No tokenizer could be loaded from '{tmp_path}': ")
    assert len(done.stderr.splitlines()) == 1


def test_an_unknown_way_to_train_is_refused(run, tmp_path: Path) -> None:
    done = run("tokens", "check", tmp_path, "--train", "message")
    assert done.code == 2
    assert "--train is 'message'. Did you mean 'messages'?" in done.stderr


def test_the_document_shows_what_the_command_prints(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs/tokens.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```console\n\$ gymrail tokens check qwen3\n(.*?)```", page, re.DOTALL)
    save("qwen3", tmp_path / "qwen3", {"keeps_thinking": False})
    monkeypatch.chdir(tmp_path)
    printed = run("tokens", "check", "qwen3").stdout.splitlines()
    assert shown.splitlines() == printed
