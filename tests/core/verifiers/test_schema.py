"""Structured answers: read by safe parsers, held against a schema and expected values."""

import asyncio
import json

import pytest

from gymrail.errors import InputError
from gymrail.verifiers.schema import SchemaAdherence, differences, faults, strict
from gymrail.verifiers.structured_text import MAX_CHARACTERS, SchemaType, Unreadable, read, without_fence
from gymrail.verifiers.verifier import Verifier

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "born": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
}
SCHEMA = json.dumps(PERSON)
JUDGE = SchemaAdherence()


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("json", '{"name": "Ada", "born": 1815, "tags": ["a", "b"]}'),
        ("yaml", "name: Ada\nborn: 1815\ntags: [a, b]"),
        ("xml", "<p><name>Ada</name><born>1815</born><tags><t>a</t><t>b</t></tags></p>"),
        ("xml", "<p><name>Ada</name><born>1815</born><tags><t>a</t></tags></p>"),
        ("toml", 'name = "Ada"\nborn = 1815\ntags = ["a", "b"]'),
    ],
)
def test_each_format_is_read_and_fits(kind: SchemaType, text: str) -> None:
    assert JUDGE.judge(text, SCHEMA, kind).reward == 1.0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the answer is empty"),
        (" \n", "the answer is empty"),
        ('{"name": "Ada", "born": 1815}', '$: "tags" is a required property'),
        ('{"name": "Ada", "born": "1815", "tags": []}', '$.born: "1815" is not of type "integer"'),
        ('{"name": "Ada", "born": 1815, "tags": [1]}', '$.tags[0]: 1 is not of type "string"'),
        ('{"name": "Ada", "born": 1815, "tags": [], "x": 1}', "$: Additional properties are not allowed"),
        ('```json\n{"name": "Ada", "born": 1815, "tags": []}\n```', "no JSON: "),
        ('{"name": "Ada", "born": NaN, "tags": []}', "NaN is no JSON value"),
    ],
)
def test_the_reason_names_the_place_of_the_fault(text: str, reason: str) -> None:
    verdict = JUDGE.judge(text, SCHEMA)
    assert verdict.reward == 0.0
    assert reason in (verdict.reason or "")


def test_a_code_fence_is_allowed_when_asked_for() -> None:
    text = '{"name": "Ada", "born": 1815, "tags": []}'
    lenient = SchemaAdherence(allow_fence=True)
    assert lenient.judge(f"```json\n{text}\n```", SCHEMA).reward == 1.0
    assert lenient.judge(f"```\n{text}\n```\n", SCHEMA).reward == 1.0
    assert lenient.judge(f"Here: ```{text}```", SCHEMA).reward == 0.0
    assert without_fence(text) == text


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("json", "[" * 200_000),
        ("json", '{"a": ' + "9" * 10_000 + "}"),
        ("json", '{"a": 1e999}'),
        ("json", "\ud83d"),
        ("json", "x" * (MAX_CHARACTERS + 1)),
        ("yaml", "[" * 100_000),
        ("yaml", "!!python/object/apply:os.getcwd []"),
        ("yaml", "a: &a [x]\n" + "\n".join(f"b{i}: &b{i} [*a, *a]" for i in range(20))),
        ("yaml", "&a [*a]"),
        ("yaml", "&a {k: *a}"),
        ("yaml", "a: 2024-01-01"),
        ("yaml", "1: one"),
        ("yaml", "? [a]\n: b"),
        ("yaml", "a: !!binary aGk="),
        ("xml", "<a>" * 5_000 + "</a>" * 5_000),
        ("xml", "<!DOCTYPE a [<!ENTITY e 'x'>]><a>&e;</a>"),
        ("xml", "<!DOCTYPE a [<!ENTITY e SYSTEM 'file:///etc/hosts'>]><a>&e;</a>"),
        ("xml", "<a><b></a>"),
        ("toml", "a = " + "[" * 5_000),
        ("toml", "a = 2024-01-01"),
        ("csv", '"' + "x" * 200_000 + '"'),
        ("csv", "a\n1,2"),
    ],
)
def test_a_hostile_text_is_unreadable_and_breaks_nothing(kind: SchemaType, text: str) -> None:
    with pytest.raises(Unreadable):
        read(kind, text, {"type": "array", "items": {}} if kind == "csv" else {})


def test_a_few_yaml_aliases_are_allowed() -> None:
    assert read("yaml", "a: &x [1]\nb: *x", {}) == {"a": [1], "b": [1]}


def test_xml_and_csv_take_their_types_from_the_schema() -> None:
    kinds = {"i": "integer", "n": "number", "b": "boolean", "s": "string", "o": ["integer", "null"]}
    schema = {"type": "object", "properties": {name: {"type": kind} for name, kind in kinds.items()}}
    typed = {"i": 7, "n": 2.5, "b": True, "s": "x", "o": None}
    assert read("xml", "<r><i>7</i><n>2.5</n><b>true</b><s>x</s><o/></r>", schema) == typed
    assert read("csv", "i,n,b,s,o\n7,2.5,true,x,\n", {"type": "array", "items": schema}) == [typed]
    assert read("xml", "<r><i>7_0</i></r>", schema) == {"i": "7_0"}
    assert read("xml", "<r><s/></r>", schema) == {"s": ""}


def test_a_csv_schema_of_one_object_describes_the_one_row() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert read("csv", "a\n1\n", schema) == {"a": 1}
    with pytest.raises(Unreadable, match="one row, and there are 2"):
        read("csv", "a\n1\n2\n", schema)


def test_a_pattern_that_backtracks_without_end_is_cut_off() -> None:
    schema = json.dumps({"type": "string", "pattern": "^(?=a)(a|aa)+\\1$"})
    (fault,) = faults("a" * 5_000 + "b", schema)
    assert fault.path == "$"
    assert faults("aaa", json.dumps({"type": "string", "pattern": "^a+$"})) == []


def test_strict_reaches_every_object_and_leaves_values_alone() -> None:
    schema = {"type": "object", "properties": {"properties": PERSON}, "enum": [{"properties": {"a": 1}}]}
    made = strict(schema)
    assert (made["required"], made["additionalProperties"]) == (["properties"], False)
    assert made["properties"]["properties"]["required"] == ["name", "born", "tags"]
    assert made["enum"] == schema["enum"]
    assert SchemaAdherence(is_strict=False).judge('{"name": "Ada"}', SCHEMA).reward == 1.0


@pytest.mark.parametrize(
    ("value", "expected", "places"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, []),
        ({"a": 1.0, "b": " x "}, {"a": 1, "b": "x"}, []),
        ({"a": True}, {"a": 1}, ["$.a"]),
        ({"a": "1"}, {"a": 1}, ["$.a"]),
        ({}, {"a": None}, ["$"]),
        ({"a": [1, 2]}, {"a": [2, 1]}, ["$.a[0]", "$.a[1]"]),
        ({"a": [1]}, {"a": [1, 2]}, ["$.a"]),
        ([{"a": {"b": 1}}], [{"a": {"b": 2}}], ["$[0].a.b"]),
    ],
)
def test_expected_values_are_compared_as_json(value: object, expected: object, places: list[str]) -> None:
    assert [fault.path for fault in differences(value, expected)] == places


def test_an_answer_that_fits_and_says_something_else_earns_nothing() -> None:
    verdict = asyncio.run(
        JUDGE('{"name": "Ada", "born": 1816, "tags": []}', schema_str=SCHEMA, expected_values={"born": 1815})
    )
    assert (verdict.reward, verdict.metrics) == (0.0, {"error_type": "unexpected"})
    assert (verdict.reason or "").startswith("$.born: 1816")


@pytest.mark.parametrize(
    ("schema_str", "message"),
    [
        ("{", "must be the JSON of a schema"),
        ("[]", "must be the JSON of a schema, an object"),
        ('{"type": "texts"}', "is no valid JSON Schema"),
        ('{"pattern": "("}', "is no valid JSON Schema"),
        ('{"$ref": "https://example.com/s.json"}', "only references within itself"),
        ('{"$ref": "file:///etc/hosts"}', "only references within itself"),
    ],
)
def test_a_schema_that_is_none_is_an_error_and_no_reward(schema_str: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        JUDGE.judge("{}", schema_str)


def test_an_unknown_format_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"schema_type is 'yml'. Did you mean 'yaml'\?"):
        JUDGE.judge("{}", SCHEMA, "yml")  # pyright: ignore[reportArgumentType]


def test_a_long_answer_is_read_off_the_event_loop() -> None:
    text = json.dumps({"name": "a" * 50_000, "born": 1, "tags": []})
    assert isinstance(JUDGE, Verifier)
    assert asyncio.run(JUDGE(text, schema_str=SCHEMA, other_field=1)).reward == 1.0
