"""A new environment's folder: code, manifest, README and a test that passes, to change from there."""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from string import Template

from gymrail.errors import InputError

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


def new_environment(name: str, parent: Path) -> Path:
    """Write the folder `parent/name` and return it.

    Raises:
        InputError: the name is no lower-case Python name, the folder exists, or the parent cannot be written to.
    """
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        suggestion = _suggest(name)
        hint = f" Did you mean {suggestion!r}?" if suggestion else ""
        raise InputError(
            f"{name!r} cannot name an environment; "
            f"allowed are lower-case words joined by '_', such as 'word_count'.{hint}"
        )
    folder = parent / name
    if folder.exists() or folder.is_symlink():
        raise InputError(
            f"'{folder}' exists already; choose another name, or check what is there: gymrail check {folder}"
        )
    words = {"name": name, "title": name.replace("_", " ").capitalize(), "class": _class_name(name)}
    try:
        folder.mkdir(parents=True)
        for file, text in _FILES.items():
            (folder / file).write_text(Template(text).substitute(words), encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"'{folder}' cannot be written: {error.strerror or error}; choose another parent folder."
        ) from None
    return folder


def _suggest(name: str) -> str | None:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    plain = re.sub(r"[^a-z0-9]+", "_", spaced.lower()).strip("_")
    if plain and plain[0].isdigit():
        plain = f"env_{plain}"
    if keyword.iskeyword(plain):
        plain = f"{plain}_task"
    return plain if _NAME.fullmatch(plain) else None


def _class_name(name: str) -> str:
    """A name that does not cover one that the file imports: `task` gives TaskEnvironment."""
    camel = "".join(word.capitalize() for word in name.split("_"))
    return (
        f"{camel}Environment"
        if camel in ("Any", "Environment", "Generator", "Random", "Rollout", "Task", "Verdict")
        else camel
    )


_ENVIRONMENT = '''\
"""$title: what the agent is asked, what it can do, and how it is judged.

One row:

    {"responses_create_params": {"input": "Put 3 apples and 2 pears into the basket."},
     "wanted": {"apples": 3, "pears": 2}}
"""

from collections.abc import Generator
from random import Random
from typing import Any

from gymrail import Environment, Rollout, Task, ToolError, Verdict, call, tool


class ${class}Task(Task):
    wanted: dict[str, int]


class ${class}(Environment[${class}Task]):
    """Fill a basket. One instance is one episode, so state is plain attributes."""

    @classmethod
    def generate(cls, rng: Random) -> ${class}Task:
        wanted = {fruit: rng.randint(1, 9) for fruit in rng.sample(("apples", "figs", "limes", "pears", "plums"), 2)}
        fruits = " and ".join(f"{count} {fruit}" for fruit, count in wanted.items())
        return ${class}Task.ask(f"Put {fruits} into the basket.", wanted=wanted)

    def seed(self) -> None:
        self.basket: dict[str, int] = {}

    @tool
    def put(self, fruit: str, count: int) -> int:
        """Put fruit into the basket and return how many of that fruit are in it.

        Args:
            fruit: The fruit in plural, such as apples.
            count: How many, at least 1.
        """
        if count < 1:
            raise ToolError(f"count is {count}; it must be at least 1.")
        self.basket[fruit] = self.basket.get(fruit, 0) + count
        return self.basket[fruit]

    def verify(self, rollout: Rollout) -> Verdict:
        return Verdict(float(self.basket == self.task.wanted), reason=f"the basket holds {self.basket}")

    def solve(self) -> Generator[Any, str, None]:
        """The gold policy: the turns of a perfect agent. `gymrail check` plays it."""
        for fruit, count in self.task.wanted.items():
            yield call("put", fruit=fruit, count=count)
        yield "Done."
'''

_MANIFEST = """\
description: Fill a basket with what is asked.
properties:
  rollout_structure: multi-step
  capabilities: [tool use]
  knowledge_domain: general
  task_type: synthetic
  verification: state
reward_range: [0, 1]
datasets:
  - {name: train, split: train, source: generator}
  - {name: validation, split: validation, source: generator, size: 100}
agent:
  max_steps: 8
"""

_README = """\
# $name

Fill a basket with what is asked.

    {"responses_create_params": {"input": "Put 3 apples and 2 pears into the basket."},
     "wanted": {"apples": 3, "pears": 2}}

**Reward.** 1 when the basket holds exactly what was asked, otherwise 0.

**Check it** (no model needed): `gymrail check $name` in the parent folder, or `pytest` in this one.
With `--baselines 200` it prints what policies that know everything, half of it or nothing earn: a table for this
file, under the heading "Baselines", that later checks hold the environment to.
"""

_TEST = """\
import asyncio
from pathlib import Path

from gymrail.contract import check_environment
from gymrail.registry import find


def test_the_environment_keeps_the_contract() -> None:
    report = asyncio.run(check_environment(find(str(Path(__file__).parent))))
    assert report.failures == ()
    assert report.warnings == ()
"""

_FILES = {
    "environment.py": _ENVIRONMENT,
    "environment.yaml": _MANIFEST,
    "README.md": _README,
    "test_environment.py": _TEST,
}
