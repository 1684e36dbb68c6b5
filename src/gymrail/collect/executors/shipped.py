"""Environments that travel with Ray's runtime environment: their files, in one folder that Ray puts on every node."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gymrail.collect.executors.setup import Found, Source
from gymrail.errors import InputError
from gymrail.spec import EnvironmentSpec

_LEFT_OUT = ("__pycache__", ".git", ".gitignore", ".rayignore")
"""Ray leaves out what the ignore files name, and data often is among it; so those files stay here."""


@dataclass(frozen=True, slots=True)
class Shipped:
    """An environment whose files are in the folder `package`, wherever a node has that on its `sys.path`."""

    found: Found
    package: str
    place: str

    @property
    def name(self) -> str:
        return self.found.name

    @property
    def version(self) -> str:
        return self.found.version

    def load(self) -> EnvironmentSpec:
        for folder in sys.path:
            path = Path(folder, self.package, self.place)
            if path.exists():
                return self.found.moved(path).load()
        raise InputError(f"The files of {self.name} did not reach this node: no '{self.package}' on its sys.path.")


def ship(sources: Sequence[Source], folder: Path) -> list[Source]:
    """Copy the environments that are no part of an installed package into `folder`, and return how all are loaded.

    An environment's folder goes as a whole; of one that is a file, its manifest and the folder `data` beside it too.
    """
    return [_shipped(source, folder, str(number)) for number, source in enumerate(sources)]


def _shipped(source: Source, folder: Path, number: str) -> Source:
    if not isinstance(source, Found) or source.path is None:
        return source
    path = source.path
    target = folder / number / path.name
    ignore = shutil.ignore_patterns(*_LEFT_OUT)
    try:
        if path.is_dir():
            shutil.copytree(path, target, ignore=ignore)
        else:
            target.parent.mkdir(parents=True)
            shutil.copy2(path, target)
            manifest = path.with_suffix(".yaml")
            if manifest.is_file():
                shutil.copy2(manifest, target.parent)
            if (path.parent / "data").is_dir():
                shutil.copytree(path.parent / "data", target.parent / "data", ignore=ignore)
    except (OSError, shutil.Error) as error:
        raise InputError(f"The files of {source.name} cannot be copied from '{path}': {error}.") from None
    return Shipped(source, folder.name, f"{number}/{path.name}")
