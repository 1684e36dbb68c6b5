"""What a row is about: its question, its answer, and hashes of them that ignore what does not matter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gymrail.data.hash_table import hash64
from gymrail.data.rows import dump_row, dump_sorted
from gymrail.errors import GymrailError

QUESTION_FIELDS = ("question", "problem", "prompt", "instruction", "query", "task", "input", "text")
"""Where rows without a prompt have their question."""
ANSWER_FIELDS = ("expected_answer", "answer", "expected_result", "ground_truth", "solution", "label")


class NoSuchField(GymrailError):
    """A row lacks the field that it is asked for."""


def row_hash(values: Mapping[str, Any]) -> int:
    """Return the hash of a whole row but for fields that begin with `_`: as a number what `Task.id` is in letters."""
    return hash64(dump_sorted({key: value for key, value in values.items() if not key.startswith("_")}))


def content_hash(values: Mapping[str, Any]) -> int:
    """Return a hash of what is asked and what the answer is, whatever the capitals, the blanks and the other fields.

    A row without an answer is its whole self: environments that ask one question of many states tell them apart by it.
    """
    question, answer = question_of(values), answer_of(values)
    if question is None or answer is None:
        return row_hash({key: value for key, value in values.items() if key != "agent_ref"})
    plain = " ".join(question.casefold().split())
    return hash64(b"\0".join((plain.encode("utf-8", "surrogatepass"), dump_row({"": answer}))))


def question_of(values: Mapping[str, Any]) -> str | None:
    """Return all that the prompt says, pictures included; without a prompt, the question's field."""
    parameters = values.get("responses_create_params")
    prompt = parameters.get("input") if isinstance(parameters, Mapping) else None
    if prompt:
        return prompt if isinstance(prompt, str) else "\n".join(_strings(prompt))
    found = next((values[name] for name in QUESTION_FIELDS if isinstance(values.get(name), str)), None)
    return found


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


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)
