"""What a row is about: its question, its answer, and hashes of them that ignore what does not matter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any

from gymrail.data.hash_table import hash64
from gymrail.data.rows import dump_row, dump_sorted
from gymrail.errors import GymrailError

QUESTION_FIELDS = ("question", "problem", "prompt", "instruction", "query", "task", "input", "text")
"""Where rows without a prompt have their question."""
TALK_FIELDS = ("messages", "prompt", "context", "conversations")
"""Where rows of exports and of other programs' chat data have their conversation."""
ANSWER_FIELDS = ("expected_answer", "answer", "expected_result", "ground_truth", "solution", "label")


class NoSuchField(GymrailError):
    """A row lacks the field that it is asked for."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


def row_hash(values: Mapping[str, Any]) -> int:
    """Return the hash of a whole row but for fields that begin with `_`: as a number what `Task.id` is in letters."""
    return hash64(dump_sorted({key: value for key, value in values.items() if not key.startswith("_")}))


def content_hash(values: Mapping[str, Any]) -> int:
    """Return a hash of what is asked and what the answer is, whatever the capitals, the blanks and the other fields.

    A row without an answer is its whole self: environments that ask one question of many states tell them apart by it.
    Of a row that holds a conversation, as an export's do, it is how that begins, so all answers to it go together.
    """
    opening = _opening_of(values)
    if opening is not None:
        return hash64(_plain(opening))
    question, answer = question_of(values), answer_of(values)
    if question is None or answer is None:
        return row_hash({key: value for key, value in values.items() if key != "agent_ref"})
    return hash64(b"\0".join((_plain(question), dump_row({"": answer}))))


def question_of(values: Mapping[str, Any]) -> str | None:
    """Return all that the prompt says, pictures included; without a prompt, how the conversation begins, or the
    question's field."""
    parameters = values.get("responses_create_params")
    prompt = parameters.get("input") if isinstance(parameters, Mapping) else None
    if prompt:
        return prompt if isinstance(prompt, str) else "\n".join(_strings(prompt))
    begins = "\n".join(text for speaker, text in _until_answered(_talk_of(values)))
    return begins or next((values[name] for name in QUESTION_FIELDS if isinstance(values.get(name), str)), None)


def answer_of(values: Mapping[str, Any]) -> Any:
    """Return what the row says is right, at top level or in `verifier_metadata`; None where it says nothing."""
    metadata = values.get("verifier_metadata")
    for source in (values, metadata if isinstance(metadata, Mapping) else {}):
        for name in ANSWER_FIELDS:
            if source.get(name) not in (None, ""):
                return source[name]
    return None


def texts_of(values: Mapping[str, Any], fields: Sequence[str] = ()) -> list[str]:
    """Return the texts that tell one task from another: the user's turns and the question; or the named fields.

    Raises:
        NoSuchField: the row has none of the named fields.
    """
    if fields:
        found = [text for name in fields for text in _strings(lookup(values, name))]
        if not found:
            raise NoSuchField(f"has no text in {' or '.join(repr(name) for name in fields)}")
        return found
    texts = list(_user_texts(values))
    texts += [text for speaker, text in _talk_of(values) if speaker in ("user", "human")]
    texts += [text for name in QUESTION_FIELDS if isinstance(text := values.get(name), str)]
    return texts


def lookup(values: Mapping[str, Any], name: str) -> Any:
    """Return a field by name, dots reaching into objects, at top level or in `verifier_metadata`; None if absent."""
    if name in values:
        return values[name]
    for source in (values, values.get("verifier_metadata")):
        value: Any = source
        for key in name.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None:
            return value
    return None


def _user_texts(values: Mapping[str, Any]) -> Iterator[str]:
    parameters = values.get("responses_create_params")
    prompt = parameters.get("input") if isinstance(parameters, Mapping) else None
    if isinstance(prompt, str):
        yield prompt
    for item in prompt if isinstance(prompt, list) else ():
        if isinstance(item, Mapping) and item.get("role") == "user":
            content = item.get("content")
            if isinstance(content, str):
                yield content
            for part in content if isinstance(content, list) else ():
                if isinstance(part, Mapping) and isinstance(text := part.get("text"), str):
                    yield text


def _opening_of(values: Mapping[str, Any]) -> str | None:
    """How a row's conversation begins, up to the first answer; of an exported row that is text alone, its task's id."""
    if "responses_create_params" in values:
        return None
    turns = list(_until_answered(_talk_of(values)))
    if turns:
        return "\n".join(f"{speaker}: {text}" for speaker, text in turns)
    lineage = values.get("lineage")
    origin = lineage.get("chosen", lineage) if isinstance(lineage, Mapping) else None
    task = origin.get("task") if isinstance(origin, Mapping) else None
    return task if isinstance(task, str) and task else None


def _talk_of(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Speaker and text of each turn of a conversation in chat or ShareGPT form."""
    talk = next((values[name] for name in TALK_FIELDS if isinstance(values.get(name), list)), ())
    for turn in talk:
        if isinstance(turn, Mapping):
            said = turn.get("content") if "content" in turn else turn.get("value")
            yield str(turn.get("role") or turn.get("from") or ""), "\n".join(_strings(said))


def _until_answered(turns: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    return takewhile(lambda turn: turn[0] not in ("assistant", "gpt"), turns)


def _plain(text: str) -> bytes:
    return " ".join(text.casefold().split()).encode("utf-8", "surrogatepass")


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)
