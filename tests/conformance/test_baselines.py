"""What the conformance suite is told to expect: every exception has a reason, and the documentation names it."""

from __future__ import annotations

import re
from pathlib import Path

import orjson
import pytest
import yaml

from gymrail.registry import find
from tests.conformance.run import HERE, REVISIONS, count

DOCUMENT = HERE.parents[1] / "docs" / "conformance.md"


@pytest.mark.parametrize("revision", REVISIONS)
def test_every_exception_has_a_reason_and_is_in_the_documentation(revision: str) -> None:
    path = HERE / f"baseline.{revision}.yaml"
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))["server"]
    reasons = re.findall(r"^  - (\S+) # \w.+$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert reasons == entries
    document = DOCUMENT.read_text(encoding="utf-8")
    assert [entry for entry in entries if f"`{entry.removeprefix('input-required-result-')}`" not in document] == []


def test_the_documentation_names_the_version_that_is_installed() -> None:
    package, version = orjson.loads((HERE / "package.json").read_bytes())["dependencies"].popitem()
    assert f"`{package}` {version}" in DOCUMENT.read_text(encoding="utf-8")


def test_a_failure_and_a_warning_outside_the_baseline_count_as_failed_and_a_listed_check_does_not(
    tmp_path: Path,
) -> None:
    baseline = tmp_path / "baseline.yaml"
    baseline.write_text("server:\n  - whole\n  - partly:left-out\n", encoding="utf-8")
    states = {
        "good": {"a": "SUCCESS", "b": "INFO"},
        "whole": {"a": "FAILURE"},
        "partly": {"a": "SUCCESS", "left-out": "FAILURE"},
        "warned": {"a": "SUCCESS", "b": "WARNING"},
        "broken": {"a": "FAILURE"},
        "silent": {"a": "INFO", "b": "SKIPPED"},
    }
    for scenario, checks in states.items():
        folder = tmp_path / f"server-{scenario}-2026-11-21T09-36-01-289Z"
        folder.mkdir()
        written = [{"id": name, "status": status} for name, status in checks.items()]
        (folder / "checks.json").write_bytes(orjson.dumps(written))
    counts = count(tmp_path, baseline)
    assert counts.passed == ["good", "partly"]
    assert counts.not_applicable == ["silent", "whole"]
    assert counts.failed == ["broken", "warned"]


def test_the_fixture_offers_the_suites_tools_and_the_rows_own_schema() -> None:
    spec = find(str(HERE))
    schemas = {schema["name"]: schema["parameters"] for schema in spec.tool_schemas(spec.generate("train", 0))}
    assert schemas.keys() == spec.tools.keys()
    assert schemas["json_schema_2020_12_tool"]["$defs"]["address"]["$anchor"] == "addressDef"
    assert schemas["test_custom_headers"]["properties"]["region"]["x-mcp-header"] == "Region"
