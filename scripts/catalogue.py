"""Writes docs/catalogue.md from what the environments and tool servers of this repository say of themselves: the data
of `gymrail list`.

    python scripts/catalogue.py        # or: make catalogue
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gymrail.catalogue import environment_rows, task_count, tool_count, tool_server_rows
from gymrail.properties import CAPABILITIES, STRUCTURES

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/catalogue.md"

HEAD = """\
# Catalogue

Written by `make catalogue` from the environments' manifests and classes. `gymrail list` prints the same data for
whatever is installed, and takes `--capability` and `--structure`. Writing one: [environments.md](environments.md).
"""


def page() -> str:
    """Return the page's text.

    Raises:
        SystemExit: something cannot be loaded, so it cannot be described.
    """
    environments, servers = _own(environment_rows()), _own(tool_server_rows())
    broken = [row for row in (*environments, *servers) if row["error"]]
    if broken:
        sys.exit("\n".join(f"{row['name']} cannot be loaded: {row['error']}" for row in broken))
    parts = [
        HEAD,
        "## Environments\n",
        _table(
            "Environment|Pattern|Capabilities|Tools|Tasks|Verification|Licence|Extra",
            map(_environment, environments),
        ),
        *[f"- **{row['name']}**: {row['description']}" for row in environments],
        "\n## By capability\n",
        _index("Capability", CAPABILITIES, "capabilities", environments),
        "## By rollout structure\n",
        _index("Structure", STRUCTURES, "structure", environments),
        "## Tool servers\n",
        "Each runs alone, for any MCP client: `gymrail mcp NAME`.\n",
        _table("Tool server|What it is|Tools|Used by", (_server(row, environments) for row in servers)),
    ]
    return "\n".join(parts)


def _own(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if Path(row["path"]).is_relative_to(ROOT)]


def _environment(row: dict[str, Any]) -> list[str]:
    return [
        _link(row),
        row["structure"],
        ", ".join(row["capabilities"]),
        tool_count(row),
        task_count(row),
        row["verification"],
        row["license"] or "-",
        f"`{row['extra']}`" if row["extra"] else "-",
    ]


def _server(row: dict[str, Any], environments: Sequence[dict[str, Any]]) -> list[str]:
    names = ", ".join(f"`{name}`" for name in row["tools"][:6])
    more = f" and {len(row['tools']) - 6} more" if len(row["tools"]) > 6 else ""
    users = ", ".join(_link(environment) for environment in environments if row["name"] in environment["servers"])
    return [_link(row), row["description"], names + more, users or "-"]


def _index(title: str, known: dict[str, str], key: str, environments: Sequence[dict[str, Any]]) -> str:
    rows = []
    for name, about in known.items():
        found = [row for row in environments if name in ([row[key]] if isinstance(row[key], str) else row[key])]
        if found:
            rows.append([name, about, ", ".join(map(_link, found))])
    return _table(f"{title}|What it asks for|Environments", rows)


def _link(row: dict[str, Any]) -> str:
    return f"[{row['name']}](../{Path(row['path']).relative_to(ROOT).as_posix()}/README.md)"


def _table(head: str, rows: Iterable[Sequence[str]]) -> str:
    names = head.split("|")
    lines = [names, ["---"] * len(names), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"Wrote {PAGE.relative_to(ROOT)}.")
