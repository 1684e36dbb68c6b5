"""A rollout's line, read for exporting: the parsed JSON itself, of which no Rollout is built."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from gymrail.data.export.conversation import conversation
from gymrail.data.jsonl import parse_line
from gymrail.errors import InputError
from gymrail.messages import Message, to_messages
from gymrail.rollout import task_row_of
from gymrail.task import Item, Task
from gymrail.tokens import TokenSequence, chains_of

JUDGED = ("scored", "truncated")
"""Outcomes of rollouts that were judged; whether any other was good nobody knows, so it is never exported."""


class Record:
    """One rollout: `row` is its line; the rest is found in it."""

    __slots__ = (
        "_messages", "environment", "file", "number", "output", "own", "parameters", "prompt", "reward", "row",
        "source", "status",
    )  # fmt: skip

    def __init__(self, row: dict[str, Any], file: Path, number: int, source: int = 0) -> None:
        """Find the parts of a line.

        Raises:
            InputError: the line is no rollout; the text names it.
        """
        self.row, self.file, self.number, self.source = row, file, number, source
        own = row.get("gymrail") or {}
        parameters = row.get("responses_create_params")
        response = row.get("response")
        if response is None and row.get("reward") is None:  # it failed before it had one, and is not exported
            response = {}
        for name, value in (("gymrail", own), ("responses_create_params", parameters), ("response", response)):
            if not isinstance(value, dict):
                raise self.bad(f"field '{name}' must be an object, this is {_short(value)}")
        assert isinstance(parameters, dict)
        assert isinstance(response, dict)
        prompt = parameters.get("input", "")
        self.own: dict[str, Any] = own
        self.parameters = parameters
        self.prompt: list[Item] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        self.output: list[Item] = response.get("output") or []
        for name, value in (("responses_create_params.input", self.prompt), ("response.output", self.output)):
            if not isinstance(value, list) or not all(type(item) is dict for item in value):
                raise self.bad(f"field '{name}' must be a list of items, this is {_short(value)}")
        reward = row.get("reward")
        if reward is not None and (isinstance(reward, bool) or not isinstance(reward, int | float)):
            raise self.bad(f"field 'reward' must be a number, this is {_short(reward)}")
        self.reward: float | None = reward
        self.status: str = own.get("status") or ("failed" if reward is None else "scored")
        agent = row.get("agent_ref")
        self.environment: str = own.get("environment") or (agent.get("name", "") if isinstance(agent, Mapping) else "")
        self._messages: dict[bool, list[Message]] = {}

    @classmethod
    def parse(cls, line: bytes, file: Path, number: int, source: int = 0) -> Record:
        """Read one line.

        Raises:
            InputError: it is no rollout.
        """
        return cls(parse_line(line, file, number), file, number, source)

    def bad(self, what: str) -> InputError:
        """What is wrong with this line, as an error."""
        return InputError(f"{self.file}, line {self.number}: {what}.")

    @property
    def id(self) -> str:
        return self.own.get("id") or str((self.row.get("response") or {}).get("id", ""))

    @property
    def is_judged(self) -> bool:
        return self.status in JUDGED and self.reward is not None

    @property
    def earned(self) -> float:
        assert self.reward is not None, "only judged rollouts are exported"
        return self.reward

    @property
    def task_id(self) -> str:
        """What the rollouts of one task share beside the environment; for another program's row its place and what was
        asked, because the row does not tell the task's fields from the verdict's."""
        own = self.own.get("group") or self.own.get("task_id")
        if own:
            return own
        asked = orjson.dumps(self.parameters, option=orjson.OPT_SORT_KEYS)
        return f"{self.row.get('_ng_task_index', '')}:{hashlib.blake2b(asked, digest_size=8).hexdigest()}"

    @property
    def task_row(self) -> dict[str, Any]:
        """The task as it was read: the line without what the record added."""
        return task_row_of(self.row)

    @property
    def asked(self) -> Mapping[str, Any]:
        """What is the same in all rollouts of the task; another program's row does not tell the task's fields from the
        verdict's, so of it the request alone."""
        return self.task_row if self.own else {"responses_create_params": self.parameters}

    @property
    def instructions(self) -> str | None:
        return self.parameters.get("instructions")

    def messages(self, keep_reasoning: bool = True) -> list[Message]:
        """The conversation; made once, so it must not be changed.

        Raises:
            InputError: an item has no chat form.
        """
        made = self._messages.get(keep_reasoning)
        if made is None:
            try:
                made = conversation([*self.prompt, *self.output], self.instructions, keep_reasoning=keep_reasoning)
            except (KeyError, AttributeError, TypeError) as error:
                raise self.bad(
                    f"an item of the conversation lacks a field or has one of another type: {error!r}"
                ) from None
            except InputError as error:
                raise self.bad(str(error).rstrip(".")) from None
            self._messages[keep_reasoning] = made
        return made

    @property
    def prompt_length(self) -> int:
        """How many of the messages are the prompt."""
        if len(self.prompt) == 1 and not self.instructions:
            return 1
        return len(to_messages(self.prompt, instructions=self.instructions))

    def answers(self, keep_reasoning: bool = True) -> Iterator[int]:
        """Yield the places of the model's answers."""
        messages = self.messages(keep_reasoning)
        return (place for place in range(self.prompt_length, len(messages)) if messages[place]["role"] == "assistant")

    @property
    def spoke(self) -> bool:
        return any(
            item.get("role") == "assistant" or item.get("type") in ("function_call", "reasoning")
            for item in self.output
        )

    @property
    def size(self) -> int:
        """How many characters the model wrote: text, arguments, reasoning."""
        size = 0
        for item in self.output:
            if item.get("role") == "assistant" or item.get("type") == "reasoning":
                size += _characters(item.get("content")) + _characters(item.get("summary"))
            elif item.get("type") == "function_call":
                size += len(item.get("arguments") or "") + len(item.get("name") or "")
        return size

    @property
    def steps(self) -> int:
        """Model calls; where another program did not count them, answers."""
        return self.own.get("steps") or sum(1 for _ in self.answers())

    @property
    def length_in_tokens(self) -> int | None:
        """Tokens of the longest model call with its prompt; None where the rollout carries no token ids."""
        lengths = [
            len(item.get("prompt_token_ids") or ()) + len(item["generation_token_ids"])
            for item in self.output
            if item.get("generation_token_ids")
        ]
        return max(lengths, default=None)

    def chains(self) -> list[TokenSequence]:
        """The token sequences, exactly as sampled.

        Raises:
            TokenError: there are none, or they contradict each other.
        """
        return self._chains(item for item in self.output if item.get("generation_token_ids"))

    def calls(self) -> Iterator[TokenSequence]:
        """Yield each model call by itself: what it was prompted with, and what it sampled.

        Raises:
            TokenError: as `chains`.
        """
        self.chains()
        for item in self.output:
            if item.get("generation_token_ids"):
                yield from self._chains([item])

    def _chains(self, calls: Iterable[Item]) -> list[TokenSequence]:
        model = str((self.row.get("response") or {}).get("model", ""))
        return chains_of(calls, f"{self.file}, line {self.number}: rollout {self.id}", model)

    @property
    def has_tool_errors(self) -> bool:
        return any(call.get("is_error") for call in self.own.get("calls") or ())

    @property
    def has_malformed_calls(self) -> bool:
        """Whether the model wrote arguments that are no JSON object: no chat template can write them as it did."""
        return not all(
            _is_json_object(item.get("arguments") or "{}")
            for item in self.output
            if item.get("type") == "function_call"
        )

    @property
    def said(self) -> bytes:
        """All that was said, without ids, tokens and timing: equal for rollouts that are duplicates of each other."""
        kept = [
            [item.get(name) for name in ("type", "role", "content", "summary", "name", "arguments", "output")]
            for item in (*self.prompt, *self.output)
        ]
        return orjson.dumps([self.environment, self.instructions, kept])

    @property
    def text(self) -> str:
        """All that was said as one text, for likeness."""
        parts = []
        for item in (*self.prompt, *self.output):
            for name in ("content", "summary", "name", "arguments", "output"):
                value = item.get(name)
                if isinstance(value, str):
                    parts.append(value)
                elif value:
                    parts += [part.get("text") or "" for part in value if isinstance(part, dict)]
        return " ".join(parts)

    def as_task(self) -> Task:
        """The task, validated.

        Raises:
            InputError: the line holds no task.
        """
        return Task.from_row(self.task_row, f"{self.file}, line {self.number}")


def _characters(content: Any) -> int:
    if isinstance(content, str):
        return len(content)
    return sum(len(part.get("text") or "") for part in content or () if isinstance(part, dict))


def _short(value: Any, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _is_json_object(text: object) -> bool:
    try:
        return isinstance(text, str) and isinstance(orjson.loads(text), dict)
    except orjson.JSONDecodeError:
        return False
