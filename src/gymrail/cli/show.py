"""`gymrail show`: everything about one environment, with an example task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gymrail.cli.options import AsJson, EnvironmentName

if TYPE_CHECKING:
    from rich.console import Console

    from gymrail.spec import EnvironmentSpec


def show(
    environment: EnvironmentName,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Seed of a generated example task.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Show an environment: properties, splits, settings, tools with their schemas, and one example task."""
    from gymrail.registry import find

    described = describe(find(environment), seed)
    if as_json:
        from gymrail.cli.output import print_json

        print_json(described)
    else:
        from gymrail.cli.output import console

        _print(described, console())


def describe(spec: EnvironmentSpec, seed: int = 0) -> dict[str, Any]:
    """Return what there is to know about an environment, as JSON."""
    from gymrail.catalogue import install_of, splits_of

    splits = splits_of(spec)
    datasets = {entry.split: entry.model_dump(exclude_none=True) for entry in spec.manifest.datasets}
    return {
        "name": spec.name,
        "description": spec.description,
        "path": str(spec.path) if spec.path else None,
        "version": spec.version,
        "license": spec.manifest.license,
        "properties": spec.manifest.properties.model_dump(),
        "reward_range": list(spec.reward_range),
        "max_steps": spec.manifest.agent.max_steps,
        "reproducible": spec.manifest.reproducible,
        "extra": spec.manifest.extra,
        "install": install_of(spec.manifest),
        "baselines": _baselines(spec),
        "config": spec.config.model_dump(mode="json"),
        "splits": {split: datasets.get(split, {"source": "generator"}) for split in splits},
        "tools": [tool.schema | {"server": tool.server} for tool in spec.tools.values()],
        "example": _example(spec, splits, seed),
    }


def _baselines(spec: EnvironmentSpec) -> dict[str, Any] | None:
    """Mean rewards by policy, as the README states them."""
    from gymrail.baselines import stated_in

    stated = stated_in(spec)
    return {"tasks": stated.tasks, "means": dict(stated.means)} if stated.means else None


def _example(spec: EnvironmentSpec, splits: list[str], seed: int) -> dict[str, Any] | None:
    """The first task of the split that is there to be read by people, else of the first split."""
    if not splits:
        return None
    listed = {entry.split for entry in spec.manifest.datasets}
    split = "example" if "example" in listed else splits[0]
    return next((task.row for task in spec.tasks(split, limit=1, seed=seed)), None)


def _print(about: dict[str, Any], out: Console) -> None:
    from rich.text import Text

    out.print(Text(about["name"], "bold"), Text(about["description"]), sep="\n")
    low, high = about["reward_range"]
    properties = {
        name.replace("_", " "): ", ".join(value) if isinstance(value, list) else value
        for name, value in about["properties"].items()
    }
    facts = properties | {
        "reward": f"{low:g} to {high:g}",
        "max steps": str(about["max_steps"]),
        "reproducible": "yes" if about["reproducible"] else "no",
        "licence": about["license"] or "-",
        "path": about["path"] or "-",
    }
    if about["extra"]:
        facts["extra"] = f"{about['extra']} (not installed: {about['install']})" if about["install"] else about["extra"]
    _section(out, "Properties")
    _pairs(out, {name: value or "-" for name, value in facts.items()})
    if about["baselines"]:
        tasks = about["baselines"]["tasks"]
        _section(out, f"Mean reward on {tasks} validation tasks" if tasks else "Mean reward")
        _pairs(out, {policy: f"{mean:.2f}" for policy, mean in about["baselines"]["means"].items()})
    if about["splits"]:
        _section(out, "Splits")
        _pairs(out, {split: _source(entry) for split, entry in about["splits"].items()})
    if about["config"]:
        _section(out, "Settings")
        _pairs(out, {name: repr(value) for name, value in about["config"].items()})
    _section(out, f"Tools ({len(about['tools'])})")
    for tool in about["tools"]:
        _print_tool(out, tool)
    if about["example"] is not None:
        _section(out, "Example task")
        _print_json(out, about["example"])


def _section(out: Console, title: str) -> None:
    from rich.text import Text

    out.print(Text(f"\n{title}", "bold cyan"))


def _pairs(out: Console, pairs: dict[str, str]) -> None:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs.items():
        grid.add_row(Text(f"  {name}", "dim"), Text(value))
    out.print(grid)


def _source(entry: dict[str, Any]) -> str:
    if entry["source"] == "generator":
        size = f", {entry['size']} tasks" if entry.get("size") else ", as many tasks as asked for"
        return f"generated{size}"
    return ", ".join(f"{value}" for key, value in entry.items() if key in ("source", "path", "file", "license"))


def _print_tool(out: Console, tool: dict[str, Any]) -> None:
    from rich.text import Text

    parameters = tool["parameters"]
    out.print(Text.assemble("  ", (tool["name"], "bold"), f"({', '.join(parameters['properties'])})"))
    out.print(Text(_indent(tool["description"] or "(no description)", 4)))
    for name, schema in parameters["properties"].items():
        optional = "" if name in parameters["required"] else ", optional"
        text = f": {schema['description']}" if schema.get("description") else ""
        out.print(Text.assemble("    ", (name, "cyan"), f" ({_type(schema)}{optional}){text}"))


def _type(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(repr(value) for value in schema["enum"])
    if "anyOf" in schema:
        return " | ".join(_type(option) for option in schema["anyOf"])
    if "items" in schema:
        return f"{schema.get('type', 'array')} of {_type(schema['items'])}"
    return str(schema.get("type") or schema.get("$ref", "any").rsplit("/", 1)[-1])


def _print_json(out: Console, value: Any) -> None:
    import orjson
    from rich.syntax import Syntax

    text = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    if out.is_terminal:
        out.print(Syntax(text, "json", background_color="default", word_wrap=True))
    else:
        out.print(text, markup=False, soft_wrap=True)


def _indent(text: str, columns: int) -> str:
    return "\n".join(" " * columns + line for line in text.splitlines())
