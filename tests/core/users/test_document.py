"""docs/users.md: its example passes the contract, and what it says of the script is what the script says."""

import asyncio
import re
from pathlib import Path

import yaml

from gymrail.contract import check_environment
from gymrail.registry import find
from gymrail.users.casting import UserConfig
from gymrail.users.scripted import AGREE, DECLINE, UNKNOWN, WAIT, ScriptedUser, UserScript

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "users.md").read_text(encoding="utf-8")


def test_the_example_is_the_file_and_passes_the_contract() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert block == (DOCS / "examples" / "desk.py").read_text(encoding="utf-8")
    report = asyncio.run(check_environment(find(str(DOCS / "examples" / "desk.py"))))
    assert report.passed, report.failures


def test_the_settings_shown_are_settings() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    config = UserConfig.model_validate(yaml.safe_load(block)["config"])
    assert config.user is not None
    assert config.simulator.parameters == {"max_output_tokens": 512, "temperature": 0.7}


def test_the_words_shown_are_the_scripts() -> None:
    for said, answer in (
        ("Shall I book?", AGREE),
        ("Another room instead?", DECLINE),
        ("Which colour?", UNKNOWN),
        ("Let me check.", WAIT),
    ):
        assert ScriptedUser(UserScript()).answer(said).text == answer
        assert f'"{answer}"' in PAGE
