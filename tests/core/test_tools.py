"""Tools: the schema that a signature gives, and what becomes of arguments and results."""

import asyncio
import base64
from enum import Enum
from typing import Annotated, Any, Literal, Optional

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field, RootModel

from gymrail import Environment, Image, Task, ToolError, ToolServer, tool
from gymrail.episode import Episode
from gymrail.errors import InputError
from gymrail.spec import EnvironmentSpec
from gymrail.tools import File, ToolSpec, render


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Point(BaseModel):
    x: int
    title: str | None = None


class Node(BaseModel):
    value: int
    children: list["Node"] = []


class Titled(BaseModel):
    title: str = "none"


def spec_of(function: Any) -> ToolSpec:
    return type("Server", (ToolServer,), {function.__name__: tool(function)}).tools[function.__name__]


def test_a_signature_and_its_docstring_become_a_schema() -> None:
    def find(self: Any, query: str, color: Color, limit: int = 5, exact: Literal["yes", "no"] = "no") -> str:
        """Find things.

        In the whole store.

        Args:
            query: What to look for,
                in words.
            color: Of what color.
        """
        return query

    assert spec_of(find).schema == {
        "type": "function",
        "name": "find",
        "description": "Find things.\n\nIn the whole store.",
        "parameters": {
            "$defs": {"Color": {"enum": ["red", "blue"], "type": "string"}},
            "type": "object",
            "properties": {
                "query": {"type": "string", "description": "What to look for,\nin words."},
                "color": {"$ref": "#/$defs/Color", "description": "Of what color."},
                "limit": {"type": "integer", "default": 5},
                "exact": {"type": "string", "enum": ["yes", "no"], "default": "no"},
            },
            "required": ["query", "color"],
            "additionalProperties": False,
        },
        "strict": False,
    }


def test_a_described_enum_is_written_out_in_strict_mode_which_takes_nothing_beside_a_ref() -> None:
    def paint(self: Any, color: Color) -> str:
        """Paint.

        Args:
            color: Which one.
        """
        return color.value

    assert spec_of(paint).strict
    assert spec_of(paint).parameters == {
        "type": "object",
        "properties": {"color": {"enum": ["red", "blue"], "type": "string", "description": "Which one."}},
        "required": ["color"],
        "additionalProperties": False,
    }


def test_a_default_of_none_is_a_required_nullable_property_in_strict_mode() -> None:
    def move(self: Any, by: Optional[int] = None, to: int = None) -> str:  # type: ignore[assignment]  # noqa: UP045, RUF013
        return ""

    spec = spec_of(move)
    nullable = {"anyOf": [{"type": "integer"}, {"type": "null"}]}
    assert spec.strict
    assert spec.parameters["properties"] == {"by": nullable, "to": nullable}
    assert spec.parameters["required"] == ["by", "to"]
    assert spec.parse({"by": None, "to": None}) == spec.parse({}) == {"by": None, "to": None}


def test_an_annotated_description_and_a_bound_are_kept() -> None:
    def step(self: Any, n: Annotated[int, Field(ge=1, description="How far.")]) -> str:
        return ""

    assert spec_of(step).parameters["properties"]["n"] == {"type": "integer", "minimum": 1, "description": "How far."}
    with pytest.raises(ToolError, match="n: Input should be greater than or equal to 1"):
        spec_of(step).parse({"n": 0})


def test_a_default_whose_own_key_is_title_is_not_tidied_away() -> None:
    def show(self: Any, book: Titled = Titled(title="Emma")) -> str:  # noqa: B008
        return book.title

    assert spec_of(show).parameters["properties"]["book"]["default"] == {"title": "Emma"}


ANNOTATIONS: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(st.characters(exclude_categories=["Cs"])),
    int: st.integers(-(2**40), 2**40),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    Literal["a", "b"]: st.sampled_from(["a", "b"]),
    Color: st.sampled_from(["red", "blue"]),
    str | None: st.none() | st.just("x"),
    list[int]: st.lists(st.integers(0, 9)),
    list[Point]: st.lists(st.builds(lambda x: {"x": x, "title": None}, st.integers(0, 9))),
    dict[str, int]: st.dictionaries(st.sampled_from("ab"), st.integers(0, 9)),
    dict: st.just({"k": [1]}),
    list: st.just([1, "x"]),
    Point: st.builds(lambda x: {"x": x, "title": "t"}, st.integers(0, 9)),
    Node: st.just({"value": 1, "children": [{"value": 2, "children": []}]}),
    int | str: st.integers(0, 9) | st.just("x"),
    tuple[int, str]: st.just([1, "x"]),
}
NAMES = st.sampled_from(
    ["json", "copy", "title", "_x", "model_config", "properties", "type", "items", "default", "n", "model_dump"]
)
DEFAULTS = {str: "d", int: 3, bool: False, str | None: None, list[int]: [1], Color: Color.RED}


@st.composite
def signatures(draw: st.DrawFn) -> tuple[ToolSpec, dict[str, Any]]:
    names = draw(st.lists(NAMES, unique=True, max_size=5))
    kinds = [draw(st.sampled_from(list(ANNOTATIONS))) for _ in names]
    has_default = [draw(st.booleans()) and kind in DEFAULTS for kind in kinds]
    described = [draw(st.booleans()) for _ in names]
    parameters = ", ".join(f"{name}=D[{i}]" if has_default[i] else name for i, name in enumerate(names))
    scope: dict[str, Any] = {"D": [DEFAULTS.get(kind) for kind in kinds]}
    exec(f"def play(self, *, {parameters}): return ''" if names else "def play(self): return ''", scope)
    function = scope["play"]
    function.__annotations__ = dict(zip(names, kinds, strict=True))
    lines = [f"    {name}: About {name}." for name, has in zip(names, described, strict=True) if has]
    function.__doc__ = "Play.\n\nArgs:\n" + "\n".join(lines) if lines else "Play."
    return spec_of(function), {name: draw(ANNOTATIONS[kind]) for name, kind in zip(names, kinds, strict=True)}


def strict_violations(schema: Any, where: str = "$") -> list[str]:
    """OpenAI's rules for strict function schemas, read from its documentation."""
    found = []
    if "default" in schema or "oneOf" in schema or "prefixItems" in schema:
        found.append(f"{where}: a keyword that strict mode refuses in {sorted(schema)}")
    if "$ref" in schema and len(schema) > 1:
        found.append(f"{where}: a $ref with {sorted(schema)} beside it")
    if not {"type", "$ref", "anyOf"} & schema.keys():
        found.append(f"{where}: no type")
    if schema.get("type") == "object":
        if schema.get("additionalProperties") is not False:
            found.append(f"{where}: not closed")
        if schema.get("required") != list(schema.get("properties", {})):
            found.append(f"{where}: not all required")
    if schema.get("type") == "array" and not schema.get("items"):
        found.append(f"{where}: no items")
    children = {**schema.get("properties", {}), **{f"def {k}": v for k, v in schema.get("$defs", {}).items()}}
    children |= {f"anyOf{i}": part for i, part in enumerate(schema.get("anyOf", ()))}
    if "items" in schema:
        children["items"] = schema["items"]
    for name, child in children.items():
        found += strict_violations(child, f"{where}.{name}")
    return found


@settings(max_examples=150, deadline=None)
@given(signatures())
def test_every_schema_is_valid_accepts_what_the_parser_accepts_and_keeps_the_strict_rules(
    drawn: tuple[ToolSpec, dict[str, Any]],
) -> None:
    spec, arguments = drawn
    Draft202012Validator.check_schema(spec.parameters)
    validator = Draft202012Validator(spec.parameters)
    validator.validate(arguments)
    assert set(spec.parse(orjson.dumps(arguments))) == set(arguments)
    assert spec.strict is False or strict_violations(spec.parameters) == []
    assert not validator.is_valid({**arguments, "stranger": 1})
    with pytest.raises(ToolError, match="stranger"):
        spec.parse({**arguments, "stranger": 1})


def test_a_recursive_model_with_a_description_is_strict_and_finite() -> None:
    class Tree(BaseModel):
        value: int
        left: Optional["Tree"] = Field(None, description="The left one.")

    def grow(self: Any, tree: Tree) -> str:
        return ""

    grow.__annotations__["tree"] = Tree
    spec = spec_of(grow)
    assert spec.strict
    assert strict_violations(spec.parameters) == []
    Draft202012Validator(spec.parameters).validate({"tree": {"value": 1, "left": {"value": 2, "left": None}}})


def test_models_and_enums_arrive_as_python_objects() -> None:
    def take(self: Any, point: Point, color: Color, many: list[Point]) -> str:
        return ""

    parsed = spec_of(take).parse('{"point": {"x": 1}, "color": "blue", "many": [{"x": 2}]}')
    assert parsed == {"point": Point(x=1), "color": Color.BLUE, "many": [Point(x=2)]}


@pytest.mark.parametrize("arguments", ["not json", "[1]", "null", '"x"', "{", '{"n": "\ud800"}', b"\xff"])
def test_arguments_that_are_no_json_object_are_refused_with_what_is_expected(arguments: str | bytes) -> None:
    def step(self: Any, n: int) -> str:
        return ""

    with pytest.raises(ToolError, match="Invalid arguments for tool 'step'"):
        spec_of(step).parse(arguments)


def test_a_refusal_says_what_is_allowed() -> None:
    def paint(self: Any, color: Color, kind: Literal["oil"], size: int | None = None, at: list[int] = [1]) -> str:  # noqa: B006
        return ""

    with pytest.raises(ToolError) as refusal:
        spec_of(paint).parse({"colour": "red", "kind": "oil"})
    assert str(refusal.value) == (
        "Invalid arguments for tool 'paint': color: Field required; colour: Extra inputs are not permitted. Expected: "
        "color (one of 'red', 'blue'), kind ('oil'), size (integer or null, optional), at (array of integer, optional)."
    )


def test_what_no_model_could_call_is_refused_when_the_class_is_made() -> None:
    def untyped(self: Any, n) -> str:  # type: ignore[no-untyped-def]
        return ""

    def starred(self: Any, *n: int) -> str:
        return ""

    def keywords(self: Any, **n: int) -> str:
        return ""

    def positional(self: Any, n: int, /) -> str:
        return ""

    def opaque(self: Any, n: object.__class__) -> str:
        return ""

    for function, text in [
        (untyped, "has no type"),
        (starred, "variadic"),
        (keywords, "variadic"),
        (positional, "positional-only"),
    ]:
        with pytest.raises(InputError, match=text):
            spec_of(function)
    opaque.__annotations__["n"] = Episode
    with pytest.raises(InputError, match="no JSON Schema"):
        spec_of(opaque)
    with pytest.raises(InputError, match="characters"):
        type("Server", (ToolServer,), {"f": tool(name="two words")(lambda self: "")})
    with pytest.raises(InputError, match="twice"):
        type("Server", (ToolServer,), {"f": tool(name="g")(lambda self: ""), "g": tool(lambda self: "")})
    with pytest.raises(InputError, match="staticmethod"):
        type("Server", (ToolServer,), {"f": staticmethod(tool(lambda x: ""))})
    with pytest.raises(InputError, match="hides the hook"):
        type("Server", (ToolServer,), {"close": tool(lambda self: "")})

    async def waits(self: Any) -> str:
        return ""

    with pytest.raises(InputError, match="blocking=True"):
        type("Server", (ToolServer,), {"waits": tool(blocking=True)(waits)})


def test_tools_are_inherited_in_the_order_of_definition_and_an_override_keeps_its_place() -> None:
    class First(ToolServer):
        @tool
        def a(self) -> str:
            """Old."""
            return "a"

        @tool
        def b(self) -> str:
            return "b"

    class Second(First):
        @tool
        def c(self) -> str:
            return "c"

        @tool
        def a(self) -> str:
            """New."""
            return "A"

    assert [(name, spec.description) for name, spec in Second.tools.items()] == [("a", "New."), ("b", ""), ("c", "")]


def test_results_become_text_or_pictures() -> None:
    picture = Image(b"\x89PNG")
    url = "data:image/png;base64," + base64.b64encode(picture.data).decode()
    part = {"type": "input_image", "detail": "auto", "image_url": url}
    assert render("text") == "text"
    assert render(picture) == [part]
    assert render(["see", picture]) == render(("see", picture)) == [{"type": "input_text", "text": "see"}, part]
    assert render({"b": 1, 2: Color.RED}) == '{"b":1,"2":"red"}'
    assert render([Point(x=1)]) == '[{"x":1,"title":null}]'
    assert render(None) == "null"
    assert render(2**70) == str(2**70)
    assert render({"b", "a"}) == '["a","b"]'
    assert orjson.dumps(render("broken \ud800 name")) == b'"broken ? name"'
    with pytest.raises(TypeError, match="type, which JSON cannot carry"):
        render(Episode)


def test_documents_and_sounds_become_file_parts() -> None:
    file = File(b"a,b", "table.csv", "text/csv")
    part = {"type": "input_file", "filename": "table.csv", "file_data": "data:text/csv;base64,YSxi"}
    assert render(file) == [part]
    assert render(["see", file]) == [{"type": "input_text", "text": "see"}, part]


def test_an_object_result_has_an_output_schema_and_nothing_else_has() -> None:
    def point(self: Any) -> Point:
        return Point(x=1)

    def numbers(self: Any) -> RootModel[list[int]]:
        return RootModel([1])

    def text(self: Any) -> str:
        return ""

    schema = spec_of(point).output_schema
    assert schema is not None
    Draft202012Validator(schema).validate(orjson.loads(render(Point(x=1))))  # type: ignore[arg-type]
    assert schema["properties"].keys() == {"x", "title"}
    assert spec_of(numbers).output_schema is None
    assert spec_of(text).output_schema is None


class Names(Environment[Task]):
    @tool
    def keep(self, json: str, copy: int, title: bool, _x: float, model_config: list[str]) -> str:
        return f"{json} {copy} {title} {_x} {model_config}"

    def verify(self, rollout: Any) -> float:
        return 1.0


def test_parameters_may_have_the_names_of_pydantic_methods() -> None:
    async def run() -> str:
        episode = await Episode.open(EnvironmentSpec("names", Names), Task.ask("x"))
        call = await episode.call("keep", {"json": "j", "copy": 1, "title": True, "_x": 0.5, "model_config": ["m"]})
        return str(call.output)

    assert asyncio.run(run()) == "j 1 True 0.5 ['m']"
    assert list(Names.tools["keep"].parameters["properties"]) == ["json", "copy", "title", "_x", "model_config"]
