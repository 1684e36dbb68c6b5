"""GRPO with Unsloth beside GRPO with TRL: one recipe, one GPU; seconds a step, memory, held-out reward.

    python benchmarks/unsloth.py            on a machine with a GPU, in an environment with gymrail[unsloth]
    python benchmarks/unsloth.py --quick    anywhere, with UNSLOTH_ALLOW_CPU=1: a tiny policy, on the CPU without a GPU;
                                            does it run? Its figures mean nothing
    python benchmarks/unsloth.py --write FILE    the table as Markdown too, such as benchmarks/results/unsloth.md

Each run is a process of its own and trains recipes/grpo/unsloth_quickstart.yaml; the first one downloads its model from
the Hugging Face Hub. Seconds a step are the median over the run, without its first quarter, in which kernels are
compiled. Memory is torch's own peak. A step plays 64 episodes, so the share of sampling is large; `--override
KEY=VALUE` reaches every run (such as unsloth.fast_inference=true). A run that fails (4 bit without bitsandbytes, say)
is a row that says so; its message goes to the error stream.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from figures import machine

ROOT = Path(__file__).parents[1]
NOT_RUN = "Not run on a GPU."
_PACKAGES = ("torch", "transformers", "trl", "unsloth")
_RUNS = {
    "Unsloth, bf16, LoRA": ("trainer=unsloth",),
    "Unsloth, 4 bit, LoRA": ("trainer=unsloth", "unsloth.load_in_4bit=true"),
    "TRL, bf16, LoRA": ("trainer=trl",),
}
_QUICK = {"Unsloth, tiny, LoRA": ("trainer=unsloth",)}
"""Without TRL: the newest that Unsloth takes, 1.15, needs Triton on every device."""
_TINY = (
    "model=tiny", "dtype=float32", "sampling.max_output_tokens=48", "sampling.context_length=256", "evaluation.tasks=8",
    "settings.max_steps=8", "settings.save_steps=8", "settings.per_device_train_batch_size=16",
    "settings.gradient_accumulation_steps=1",
)  # fmt: skip
_PROGRAM = """
import json, sys
from pathlib import Path
from gymrail.cli.train import find_trainer
from gymrail.errors import GymrailError
from gymrail.recipe import load_recipe
try:
    recipe = load_recipe(sys.argv[2], sys.argv[3:])
    find_trainer(recipe.trainer)(recipe)
except GymrailError as error:
    sys.exit(f"Error: {error}")
import torch
gpu = torch.cuda.is_available()
Path(sys.argv[1]).write_text(json.dumps({
    "gpu": torch.cuda.get_device_name() if gpu else None,
    "peak_gb": torch.cuda.max_memory_allocated() / 1e9 if gpu else None,
}))
"""
_HEAD = "| Run | s a step | tokens a second | peak GB | reward before | reward after |\n|---|---|---|---|---|---|"


def measure(overrides: Sequence[str], recipe: Path, folder: Path) -> dict[str, Any] | None:
    """Train in a new process and return its figures; None where it failed, and said why."""
    made = folder.with_suffix(".json")
    command = [sys.executable, "-c", _PROGRAM, str(made), str(recipe), f"output={folder}", *overrides]
    # What it prints (Unsloth's banner, vLLM's notices) is no part of the table.
    if subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=False).returncode != 0:
        return None
    log = [entry for entry in json.loads((folder / "log.json").read_text(encoding="utf-8")) if "step_time" in entry]
    late = log[len(log) // 4 :]
    if len(late) < 2:
        raise SystemExit(f"The run trained {len(log)} steps, too few to measure; set settings.max_steps to 8 or more.")
    summary = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    tokens = (late[-1]["num_tokens"] - late[0]["num_tokens"]) / sum(entry["step_time"] for entry in late[1:])
    means = {when: statistics.fmean(score["mean"] for score in summary[when].values()) for when in ("before", "after")}
    seconds = statistics.median(entry["step_time"] for entry in late)
    return {**json.loads(made.read_text(encoding="utf-8")), **means, "seconds": seconds, "tokens": tokens}


def line(name: str, figures: dict[str, Any] | None) -> str:
    if figures is None:
        return f"| {name} | failed | - | - | - | - |"
    peak = "-" if figures["peak_gb"] is None else f"{figures['peak_gb']:.1f}"
    return (
        f"| {name} | {figures['seconds']:.2f} | {figures['tokens']:.0f} | {peak} | {figures['before']:.2f} | "
        f"{figures['after']:.2f} |"
    )


def document(lines: Sequence[str], gpu: str | None, overrides: Sequence[str]) -> str:
    """The page of results."""
    head = ", ".join(f"{name} {value}" for name, value in machine(_PACKAGES).items())
    words = [f"--override {override}" for override in overrides]
    command = " ".join(["python benchmarks/unsloth.py --write benchmarks/results/unsloth.md", *words])
    where = (
        f"{gpu}; {head}." if gpu else f"**{NOT_RUN}** A tiny policy on the CPU ({head}): the script runs, the figures "
        "say nothing about Unsloth, whose kernels need a GPU. A machine with a GPU fills this page with the command "
        "above."
    )  # fmt: skip
    table = "\n".join([_HEAD, *lines])
    return f"# GRPO with Unsloth and with TRL\n\n    {command}\n\n{where}\n\n{table}\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny policy; the figures mean nothing")
    parser.add_argument("--override", action="append", default=[], metavar="KEY=VALUE", help="a recipe's key to set")
    parser.add_argument("--write", type=Path, default=None, metavar="FILE", help="write the table as Markdown too")
    arguments = parser.parse_args()
    from gymrail.errors import InputError
    from gymrail_unsloth.requirements import check_packages, has_gpu

    try:
        check_packages()
    except InputError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    if not arguments.quick and not has_gpu():
        print(f"{NOT_RUN} There is none here; --quick sees whether the script runs.", file=sys.stderr)
        return 1
    if arguments.quick and not has_gpu():
        os.environ["UNSLOTH_ALLOW_CPU"] = "1"
    extra = [*(_TINY if arguments.quick else ()), *arguments.override]
    lines, gpu, failed = [], None, 0
    print(_HEAD, flush=True)
    with tempfile.TemporaryDirectory(prefix="gymrail-unsloth-") as folder:
        for number, (name, overrides) in enumerate((_QUICK if arguments.quick else _RUNS).items()):
            recipe = ROOT / "recipes" / "grpo" / "unsloth_quickstart.yaml"
            figures = measure([*overrides, *extra], recipe, Path(folder) / str(number))
            failed += figures is None
            gpu = figures["gpu"] if figures is not None else gpu
            lines.append(line(name, figures))
            print(lines[-1], flush=True)
    if arguments.write is not None and failed < len(lines):
        arguments.write.write_text(document(lines, gpu, arguments.override), encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
