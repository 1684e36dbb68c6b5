"""What the benchmarks print: one figure a line, beside its target where it has one."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    name: str
    value: float
    unit: str
    target: float | None = None
    at_most: bool = False
    """Whether the target is an upper limit."""
    note: str = ""

    @property
    def is_met(self) -> bool | None:
        if self.target is None:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target

    @property
    def line(self) -> str:
        value = f"{self.value:.0f}" if self.value >= 100 else f"{self.value:.3g}"
        target = "" if self.target is None else f"{'<=' if self.at_most else '>='} {self.target:g}"
        verdict = {True: "met", False: "MISSED", None: ""}[self.is_met]
        return f"{self.name:<34} {value:>8} {self.unit:<17} {target:<8} {verdict:<7} {self.note}".rstrip()


def machine(packages: Iterable[str]) -> dict[str, str | int | None]:
    """What the figures were measured on and with."""
    versions = {name: metadata.version(name) for name in packages}
    return {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.system(), **versions}
