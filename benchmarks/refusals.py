"""How long `gymrail train` takes to refuse a run that cannot work, cause by cause, with each trainer.

    python benchmarks/refusals.py                    (a minute; no GPU, no network, no installed Unsloth or NeMo RL)
    python benchmarks/refusals.py --check --write benchmarks/results/refusals.md

Every case is the real command in a process of its own, on a recipe with a planted fault. Packages are hidden or given
another version by a folder in front of the others on the path; what only another trainer's packages would say is made
of their metadata. Target: 3 seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

SECONDS = 3.0
RECIPES = Path(__file__).parents[1] / "recipes"
QUICKSTART = "grpo/quickstart.yaml"
NEMO_RL = "grpo/nemo_rl_quickstart.yaml"
_HEAVY = ("torch", "transformers", "trl", "datasets", "accelerate", "unsloth", "ray")
_UNSLOTH = {"unsloth": "2026.10.9", "unsloth_zoo": "2026.10.9", "trl": "1.15.0", "torch": "2.13.0+cpu"}
_START = f"""
import atexit, json, sys
atexit.register(lambda: print(json.dumps([name for name in {_HEAVY!r} if sys.modules.get(name)])))
from gymrail.cli import main
main()
"""
_ENVIRONMENT = '''
from random import Random

from gymrail import Environment, Rollout, Task


class Say(Environment):
    """Say the number."""

    @classmethod
    def generate(cls, rng: Random) -> Task:
        number = rng.randint(0, 10**6)
        return Task.ask(f"Say {number}", number=number)

    def verify(self, rollout: Rollout) -> float:
        return 1.0 if rollout.final_text == str(self.task.row["number"]) else 0.0

    def solve(self):
        yield str(self.task.row["number"])
'''


@dataclass(frozen=True, slots=True)
class Case:
    """A fault, and words of the message that it is to be met with."""

    trainer: str
    cause: str
    fault: str
    recipe: str
    arguments: tuple[str, ...]
    words: tuple[str, ...]
    hidden: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    environment: tuple[str, str] | None = None
    """What is replaced in a sound environment's code, and by what; the recipe then trains on that alone."""


def cases() -> list[Case]:
    """The five causes with each of the three trainers."""
    return [*_trl(), *_unsloth(), *_nemo_rl()]


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a case ended."""

    case: Case
    code: int
    message: str
    loaded: list[str]
    """Of the packages that take long to import, those that were imported."""
    wall: float
    cpu: float

    @property
    def is_right(self) -> bool:
        return self.code == 2 and not self.loaded and all(word in self.message for word in self.case.words)


def run(case: Case, folder: Path) -> Refusal:
    """Run a case in an empty folder."""
    site = folder / "site"
    site.mkdir()
    for name, version in case.versions.items():
        info = site / f"{name}-{version}.dist-info"
        info.mkdir()
        pins = "Requires-Dist: trl<=1.15.0,>=0.18.2\n" if name == "unsloth" else ""
        text = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{pins}"
        (info / "METADATA").write_text(text, encoding="utf-8")
    hiding = "import sys\n" + "".join(f"sys.modules[{name!r}] = None\n" for name in case.hidden)
    (site / "sitecustomize.py").write_text(hiding, encoding="utf-8")
    arguments = [str(RECIPES / case.recipe), f"output={folder / 'run'}", *case.arguments]
    if case.environment is not None:
        (folder / "say.py").write_text(_ENVIRONMENT.replace(*case.environment), encoding="utf-8")
        arguments.append(f"mixture=[{{environment: {folder / 'say.py'}}}]")
    if "RL" in case.variables.get("NEMO_RL_SOURCE", ""):
        _checkout(folder / "RL", case.versions.get("nemo_rl", "0.6"))
    variables = {key: value.replace("{folder}", str(folder)) for key, value in case.variables.items()}
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("NEMO_RL", "UNSLOTH", "RAY"))}
    environment |= {"PYTHONPATH": os.pathsep.join([str(site), *filter(None, sys.path[1:])]), **variables}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", _START, "train", *arguments],
        capture_output=True, text=True, timeout=300, env=environment, cwd=folder, check=False,
    )  # fmt: skip
    wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    loaded = json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else ["?"]
    return Refusal(case, done.returncode, done.stderr.strip(), loaded, wall, cpu)


def main() -> int:
    parser = argparse.ArgumentParser(description="Time the refusals of `gymrail train`.")
    parser.add_argument("--check", action="store_true", help="exit with 1 when one is wrong or takes too long")
    parser.add_argument("--write", type=Path, help="write the table as Markdown to this file")
    options = parser.parse_args()
    refusals = []
    for case in cases():
        with tempfile.TemporaryDirectory() as folder:
            refusals.append(run(case, Path(folder)))
    table = as_markdown(refusals)
    print(table)
    if options.write is not None:
        options.write.write_text(table + "\n", encoding="utf-8")
    return int(options.check and not all(one.is_right and one.wall < SECONDS for one in refusals))


def as_markdown(refusals: list[Refusal]) -> str:
    """Return the report: what was run where, and a row for each case."""
    load = f"; load average {os.getloadavg()[0]:.1f} at the end" if hasattr(os, "getloadavg") else ""
    lines = [
        "# How soon `gymrail train` refuses", "",
        "    python benchmarks/refusals.py --check --write benchmarks/results/refusals.md", "",
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, no GPU{load}.",
        "Each row is the real command in a process of its own, from its start to its end. Target: 3 seconds.",
        "Refused with the fix: the message has it, the exit code is 2, and none of torch, transformers, trl, datasets,",
        "accelerate, unsloth and ray was imported.", "",
        "| Trainer | Cause | Fault | Wall s | CPU s | Refused with the fix | Within 3 s |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for one in refusals:
        right, soon = ("yes" if met else "NO" for met in (one.is_right, one.wall < SECONDS))
        case, figures = one.case, f"{one.wall:.1f} | {one.cpu:.1f}"
        lines.append(f"| {case.trainer} | {case.cause} | {case.fault} | {figures} | {right} | {soon} |")
    lines += ["", f"To a good run of the quickstart the check of its environments adds {check_seconds():.2f} s."]
    return "\n".join(lines)


def check_seconds() -> float:
    """What the environments' check takes where nothing is wrong."""
    from gymrail.contract_quick import check_before_training
    from gymrail.recipe import load_recipe

    recipe = load_recipe(RECIPES / QUICKSTART)
    specs = recipe.specs()
    started = time.monotonic()
    check_before_training(recipe, specs)
    return time.monotonic() - started


def _checkout(folder: Path, version: str) -> None:
    """A folder that looks like a NeMo RL checkout of a version."""
    (folder / "nemo_rl").mkdir(parents=True)
    (folder / "nemo_rl" / "__init__.py").touch()
    major, minor = version.split(".")[:2]
    (folder / "nemo_rl" / "package_info.py").write_text(f"MAJOR = {major}\nMINOR = {minor}\n", encoding="utf-8")


_BAD_ORACLE = ("yield str(", "yield 'about ' + str(")
_BAD_VERIFIER = ("return 1.0 if", "return rollout.no_such_thing if")


def _trl() -> list[Case]:
    def case(cause: str, fault: str, arguments: tuple[str, ...], words: tuple[str, ...], **more: object) -> Case:
        return Case("trl", cause, fault, QUICKSTART, arguments, words, **more)  # pyright: ignore[reportArgumentType]

    package, environment, key = "missing package", "environment fails its check", "wrong key"
    see = ("gymrail check", "--no-check")
    return [
        case(key, "recipe: `sampling.temprature`", ("sampling.temprature=1",), ("Did you mean 'temperature'?",)),
        case(key, "`settings.max_step`", ("settings.max_step=3",), ("GRPOConfig has no", "Did you mean 'max_steps'?")),
        case(
            key, "`warm_start.settings.learning_rat`", ("warm_start.settings.learning_rat=1",),
            ("SFTConfig has no such key. Did you mean 'learning_rate'?",),
        ),
        case(key, "the environment's `config`", ("mixture.0.config.digit=3",), ("Settings of word_math", "'digits'")),
        case(package, "TRL hidden", (), ("trl", "pip install 'gymrail[trl]'"), hidden=("trl",)),
        case(package, "torch and peft hidden", (), ("peft, torch", "pip install"), hidden=("torch", "peft")),
        case(package, "Weights & Biases for `report_to`", ("settings.report_to=wandb",), ("pip install wandb",)),
        case("version", "TRL 1.6", (), (">=1.7; installed is 1.6.0", "pip install -U"), versions={"trl": "1.6.0"}),
        case("version", "accelerate 1.0", (), ("accelerate", "installed is 1.0.1"), versions={"accelerate": "1.0.1"}),
        case(environment, "its gold policy errs", (), ("(gold)", "not 1", *see), environment=_BAD_ORACLE),
        case(environment, "its verifier raises", (), ("no_such_thing", *see), environment=_BAD_VERIFIER),
        case(
            environment, "no tasks in the held-out split", ("evaluation.split=benchmark",),
            ("no split 'benchmark'", *see), environment=("Say the", "Say the"),
        ),
        case("no GPU", "`settings.fp16`", ("settings.fp16=true",), ("needs a GPU", "take settings.fp16 out")),
        case("no GPU", "vLLM beside the trainer", ("settings.use_vllm=true",), ("settings.use_vllm", "needs a GPU")),
    ]  # fmt: skip


def _unsloth() -> list[Case]:
    allowed = {"UNSLOTH_ALLOW_CPU": "1"}

    def case(cause: str, fault: str, arguments: tuple[str, ...], words: tuple[str, ...], **more: object) -> Case:
        options = {"versions": _UNSLOTH, "variables": allowed, **more}
        recipe = "grpo/unsloth_quickstart.yaml"
        return Case("unsloth", cause, fault, recipe, arguments, words, **options)  # pyright: ignore[reportArgumentType]

    environment = ("(gold)", "gymrail check", "--no-check")
    return [
        case("wrong key", "`settings.max_step`", ("settings.max_step=3",), ("Did you mean 'max_steps'?",)),
        case("missing package", "Unsloth", (), ("pip install 'gymrail[unsloth]'",), versions={}),
        case(
            "version", "TRL 1.16 beside Unsloth 2026.10.9", (), ("<=1.15.0", "installed is 1.16.0"),
            versions={**_UNSLOTH, "trl": "1.16.0"},
        ),
        case("environment fails its check", "its gold policy errs", (), environment, environment=_BAD_ORACLE),
        case("no GPU", "no GPU", (), ("this process sees none", "trainer=trl"), variables={}),
    ]  # fmt: skip


def _nemo_rl() -> list[Case]:
    place = {"NEMO_RL_SOURCE": "{folder}/RL", "NEMO_RL_PYTHON": sys.executable}

    def case(cause: str, fault: str, arguments: tuple[str, ...], words: tuple[str, ...], **more: object) -> Case:
        options = {"variables": place, **more}
        return Case("nemo_rl", cause, fault, NEMO_RL, arguments, words, **options)  # pyright: ignore[reportArgumentType]

    alone = ("settings.gymrail.check_only=true",)
    environment = ("(gold)", "gymrail check", "--no-check")
    return [
        case("wrong key", "`settings.grpo.max_num_step`", ("settings.grpo.max_num_step=3",), ("'max_num_steps'?",)),
        case("missing package", "no checkout", (), ("git clone", "NEMO_RL_SOURCE"), variables={}),
        case("version", "NeMo RL 0.5", (), ("is version 0.5", "0.6 or newer"), versions={"nemo_rl": "0.5.0"}),
        case("environment fails its check", "its gold policy errs", alone, environment, environment=_BAD_ORACLE),
        case("no GPU", "no GPU, no cluster", (), ("RAY_ADDRESS", "check_only=true")),
    ]


if __name__ == "__main__":
    sys.exit(main())
