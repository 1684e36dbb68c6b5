"""Every example in the documentation is a file that is tested here."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
import yaml

from gymrail.contract import check_environment
from gymrail.registry import find
from gymrail.spec import Manifest

DOCS = Path(__file__).parents[1] / "docs"
ENVIRONMENTS = ("counter", "guess", "shop")


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_example_environment_passes_the_contract(name: str) -> None:
    report = asyncio.run(check_environment(find(str(DOCS / "examples" / f"{name}.py"))))
    assert report.passed, report.failures


def test_every_python_block_is_one_of_the_example_files() -> None:
    examples = {path.read_text(encoding="utf-8") for path in (DOCS / "examples").glob("*.py")}
    for page in ("environments.md", "export.md", "scale.md", "trl.md"):
        for block in re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL):
            assert block in examples, f"{page}: {block[:80]}"


def test_the_manifest_shown_is_valid(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", (DOCS / "environments.md").read_text(encoding="utf-8"), re.DOTALL)
    file = tmp_path / "environment.yaml"
    file.write_text(block, encoding="utf-8")
    manifest = Manifest.read(file)
    assert manifest.agent.max_steps == 6
    assert set(yaml.safe_load(block)) == set(Manifest.model_fields) - {"extra", "reproducible"}
