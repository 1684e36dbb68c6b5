"""The endpoint's lines: what passes, and what each planted fault of a server is found by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gymrail.errors import ModelError
from gymrail.models.model import ModelRequest, ModelResponse, function_call, message
from gymrail.validation.endpoint import check_endpoint
from gymrail.validation.report import Line
from tests.core.validation.small import Echo, Press, plan_of


@dataclass
class Policy:
    """Calls a tool first and then answers, with ids that continue what it was sent; a fault changes one of these."""

    fault: str = ""

    async def respond(self, request: ModelRequest) -> ModelResponse:
        if self.fault == "breaks":
            raise ModelError("out of memory", 500)
        known = [item for item in request.input if "generation_token_ids" in item]
        before = [*known[-1]["prompt_token_ids"], *known[-1]["generation_token_ids"]] if known else []
        prompt = [*before, 7, 8, 9]
        if self.fault == "renders again" and known:
            prompt = [1, *prompt]
        spoken = any(item.get("type") == "function_call_output" for item in request.input)
        if request.tools and not spoken and self.fault != "calls nothing":
            item = function_call(str(request.tools[0]["name"]), '{"number": 1}', "call_1")
        else:
            item = message("Done.")
        log_probs = [-0.1] if self.fault == "a log-prob is missing" else [-0.1, -0.2]
        if self.fault != "no ids":
            item |= {"prompt_token_ids": prompt, "generation_token_ids": [3, 4], "generation_log_probs": log_probs}
        return ModelResponse([item])


def lines_of(tmp_path: Path, fault: str = "", *classes: Any) -> dict[str, Line]:
    lines: Iterator[Line] = check_endpoint(plan_of(tmp_path, *classes), Policy(fault))
    return {line.name: line for line in lines}


def test_a_policy_that_continues_its_tokens_passes_every_line(tmp_path: Path) -> None:
    lines = lines_of(tmp_path)
    assert {name: line.status for name, line in lines.items()} == dict.fromkeys(
        ("chat completions", "tool calls", "token ids", "next turn", "episodes"), "PASS"
    )
    assert lines["chat completions"].detail.startswith("16 of 16 requests answered")
    assert lines["tool calls"].detail.startswith("4 of 4 answers")
    assert "24 turns, 8 of several turns" in lines["episodes"].detail


@pytest.mark.parametrize(
    ("fault", "name", "words"),
    [
        ("breaks", "chat completions", "answered with status 500"),
        ("no ids", "token ids", "prompt_token_ids is missing"),
        ("a log-prob is missing", "token ids", "2 generation_token_ids stand against 1 generation_log_probs"),
        ("renders again", "next turn", "differs from what was sampled at token 0"),
        ("renders again", "episodes", "a prompt does not continue what was sampled"),
    ],
)
def test_a_fault_of_the_server_is_found(tmp_path: Path, fault: str, name: str, words: str) -> None:
    line = lines_of(tmp_path, fault)[name]
    assert line.status == "FAIL"
    assert words in line.detail
    assert line.fix


def test_what_the_policy_does_not_do_is_skipped_and_not_passed(tmp_path: Path) -> None:
    lines = lines_of(tmp_path, "calls nothing")
    assert lines["tool calls"].status == lines["episodes"].status == "SKIPPED"
    assert "--model PATH" in lines["tool calls"].fix
    assert lines_of(tmp_path, "", Echo)["tool calls"].detail == "no environment of the recipe has tools"
    assert lines_of(tmp_path, "", Press)["tool calls"].status == "PASS"
