"""The README's first screen does what it says: its environment is a tested file, its commands run, as shown."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

from gymrail.contract import check_environment
from gymrail.recipe import load_recipe
from gymrail.registry import find

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COUNTER = ROOT / "docs" / "examples" / "counter.py"


def test_the_environment_shown_is_the_tested_file_and_has_at_most_20_lines() -> None:
    source = COUNTER.read_text(encoding="utf-8")

    assert f"```python\n{source}```" in README
    assert len(source.splitlines()) <= 20


def test_the_environment_shown_passes_the_contract() -> None:
    assert asyncio.run(check_environment(find(str(COUNTER)))).passed


def test_the_commands_shown_print_what_is_shown(tmp_path: Path) -> None:
    (tmp_path / "counter.py").write_bytes(COUNTER.read_bytes())
    for command, shown in (
        ("check counter.py", "counter: all 17 checks passed."),
        ("rollout counter.py --model oracle:0.5 --tasks 50 --repeats 4", "0.465   0.402 to 0.528"),
    ):
        assert f"$ gymrail {command}" in README
        assert shown in README
        done = subprocess.run(
            [sys.executable, "-m", "gymrail", *command.split()],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
        assert shown in done.stdout


def test_the_environment_shown_trains_with_the_recipe_shown(tmp_path: Path) -> None:
    from gymrail_trl.train import train

    override = "mixture=[{environment: counter.py}]"
    assert f"gymrail train recipes/grpo/quickstart.yaml '{override}' name=counter" in README
    short = [
        "warm_start.rollouts=64",
        "warm_start.settings.max_steps=2",
        "settings.max_steps=4",
        "settings.save_steps=4",
    ]
    smaller = ["evaluation.tasks=4", "settings.per_device_train_batch_size=4", "settings.num_generations=4"]
    recipe = load_recipe(
        ROOT / "recipes" / "grpo" / "quickstart.yaml",
        [override.replace("counter.py", str(COUNTER)), f"output={tmp_path / 'run'}", *short, *smaller],
    )

    assert set(train(recipe)["after"]) == {"counter"}


def test_every_link_and_file_named_exists() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target
