"""Tool servers alone: settings on the command line reach the server, and wrong ones are refused with the nearest."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gymrail.cli.mcp import _choose
from gymrail.cli.serve import find_served
from gymrail.episode import Episode
from gymrail.errors import InputError


def called(server: str, config: list[str], tool: str, arguments: dict[str, Any]) -> Any:
    async def run() -> Any:
        episode = await Episode.open(*_choose(find_served(server), None, None, 0, config))
        try:
            return (await episode.call(tool, arguments)).output
        finally:
            await episode.close()

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("server", "config", "tool", "arguments", "part"),
    [
        ("sqlite", ["script=CREATE TABLE pets (name)"], "sql_schema", {}, "CREATE TABLE pets"),
        ("sqlite", ["read_only=true"], "sql_execute", {"sql": "CREATE TABLE t (x)"}, "read-only"),
        ("files", ["files={a.txt: hello}"], "read_file", {"path": "a.txt"}, "hello"),
        (
            "search",
            [f"corpus={Path(__file__).parents[2] / 'README.md'}"],
            "search",
            {"query": "environment"},
            "document_id",
        ),
        ("search", [], "search", {"query": "tool server"}, "corpus=PATH"),
        ("calculator", [], "calculate", {"expression": "2 ^ 10"}, "1024"),
    ],
)
def test_a_server_alone_takes_its_settings(
    server: str, config: list[str], tool: str, arguments: dict[str, Any], part: str
) -> None:
    assert part in called(server, config, tool, arguments)


@pytest.mark.parametrize(
    ("server", "config", "message"),
    [
        ("search", ["corpse=docs"], "no setting 'corpse'. Did you mean 'corpus'?"),
        ("files", ["self=1"], "no setting 'self'"),
        ("files", ["template"], "is no setting"),
        ("reasoning_gym", ["datasets=[gdc]"], "Did you mean 'gcd'?"),
        ("games", ["game=[maze]"], "Did you mean 'games'?"),
    ],
)
def test_a_wrong_setting_is_refused_with_the_nearest(server: str, config: list[str], message: str) -> None:
    with pytest.raises(InputError) as error:
        _choose(find_served(server), None, None, 0, config)
    assert message in str(error.value)
