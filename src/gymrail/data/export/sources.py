"""What an export reads: run directories and files of rollouts, and the environments that they were played in."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import orjson

from gymrail import registry
from gymrail.collect.compressed import is_compressed, open_lines
from gymrail.collect.run_config import CONFIG, read_config
from gymrail.collect.run_directory import FAILURES, ROLLOUTS, RunDirectory
from gymrail.data.export.record import Record
from gymrail.data.jsonl import open_binary, reason_of
from gymrail.errors import InputError
from gymrail.messages import chat_tools
from gymrail.spec import EnvironmentSpec

BLOCK_BYTES = 1 << 20
"""How much is read at once; a line may be longer."""
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Source:
    """One run directory, or one file of rollouts, NeMo Gym's included."""

    number: int
    path: Path
    """As it was named."""
    file: Path
    failures: Path | None = None
    """Where a run has its failed rollouts."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """By environment, as the run was last resumed."""
    environments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By environment: where it was loaded from and its settings."""

    @property
    def name(self) -> str:
        return self.path.resolve().name if self.failures else self.path.name

    @property
    def is_compressed(self) -> bool:
        return self.file.suffix == ".gz" or is_compressed(self.file)


class Block(NamedTuple):
    """Whole lines of a file."""

    source: int
    first_line: int
    offset: int
    """Where it begins in the source's uncompressed bytes."""
    content: bytes


def open_sources(paths: Iterable[Path]) -> list[Source]:
    """Return the runs and files.

    Raises:
        InputError: one of them is not there, is named twice, or nothing is named.
    """
    sources: list[Source] = []
    for number, path in enumerate(paths):
        if path.is_file():
            source = Source(number, path, path)
        else:
            RunDirectory.open(path)
            described = read_config(path / CONFIG)
            files = (_file(path / ROLLOUTS), _file(path / FAILURES))
            source = Source(number, path, *files, _versions(described), _environments(described))
        if any(source.file.resolve() == other.file.resolve() for other in sources):
            raise InputError(f"'{path}' is named twice; its rollouts would count double.")
        sources.append(source)
    if not sources:
        raise InputError("No run is named; name run directories or JSONL files of rollouts.")
    return sources


def blocks_of(source: Source) -> Iterator[Block]:
    """Yield a source's lines in blocks. A last line that lacks its end is being written, or torn, and is left out.

    Raises:
        InputError: the file cannot be read.
    """
    number, offset, rest = 1, 0, b""
    with _opened(source.file) as lines:
        while part := lines.read(BLOCK_BYTES):
            if offset == 0 and number == 1 and not rest and part.startswith(_BOM):
                part, offset = part[len(_BOM) :], len(_BOM)
            end = part.rfind(b"\n") + 1
            if not end:
                rest += part
                continue
            content = rest + part[:end]
            yield Block(source.number, number, offset, content)
            number, offset, rest = number + content.count(b"\n"), offset + len(content), part[end:]
    if rest.strip() and _is_whole(rest):
        yield Block(source.number, number, offset, rest + b"\n")


def count_lines(path: Path | None) -> int:
    """How many rollouts are in a file that may not exist."""
    if path is None or not path.exists():
        return 0
    with _opened(path) as lines:
        return sum(part.count(b"\n") for part in iter(lambda: lines.read(BLOCK_BYTES), b""))


class Environments:
    """The environments by name, loaded when their tools are asked for."""

    def __init__(self, sources: Iterable[Source], specs: Mapping[str, EnvironmentSpec] | None = None) -> None:
        self._entries = {name: entry for source in sources for name, entry in source.environments.items()}
        self._specs = dict(specs or {})
        self._tools: dict[str, list[dict[str, Any]]] = {}

    def tools_of(self, record: Record) -> list[dict[str, Any]]:
        """The chat tools that a rollout's model was offered.

        Raises:
            InputError: the row has none of its own and its environment cannot be loaded.
        """
        own = record.parameters.get("tools")
        if own is not None:
            return chat_tools(own)
        try:
            return self.tools_named(record.environment)
        except InputError as error:
            raise InputError(
                f"{record.file}, line {record.number}: the row lists no tools, and its environment "
                f"{record.environment!r} cannot be loaded to ask for them: {error}"
            ) from None

    def tools_named(self, name: str) -> list[dict[str, Any]]:
        """The chat tools of an environment.

        Raises:
            InputError: it is not there.
        """
        if name not in self._tools:
            self._tools[name] = chat_tools(tool.schema for tool in self.find(name).tools.values())
        return self._tools[name]

    def find(self, name: str) -> EnvironmentSpec:
        """Load an environment with the settings that it was played with.

        Raises:
            InputError: it is not there.
        """
        if name not in self._specs:
            entry = self._entries.get(name, {})
            spec = registry.find(str(entry.get("source") or name))
            settings = entry.get("settings")
            self._specs[name] = spec.with_config(settings) if settings else spec
        return self._specs[name]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        with open_binary(path) if path.suffix == ".gz" else open_lines(path) as lines:
            yield lines
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"Cannot read '{path}': {reason_of(error)}.") from None


def _file(path: Path) -> Path:
    """The journal of this name, compressed or not."""
    compressed = path.with_name(f"{path.name}.zst")
    return compressed if compressed.exists() and not path.exists() else path


def _versions(described: Mapping[str, Any]) -> dict[str, str]:
    versions = dict(described.get("environments") or {})
    for resume in described.get("resumed") or ():
        versions |= {name: version for name, version in (resume.get("environments") or {}).items() if version}
    return {name: str(version) for name, version in versions.items()}


def _environments(described: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    config = described.get("config") or {}
    entries = config.get("environments")
    if isinstance(entries, dict):
        return {name: entry for name, entry in entries.items() if isinstance(entry, dict)}
    found = {}
    for entry in config.get("mixture") or ():
        source = str(entry.get("environment", ""))
        found[registry.name_of(source)] = {"source": source, "settings": entry.get("config") or {}}
    return found


def _is_whole(line: bytes) -> bool:
    try:
        return isinstance(orjson.loads(line), dict)
    except orjson.JSONDecodeError:
        return False
