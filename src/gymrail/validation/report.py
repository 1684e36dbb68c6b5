"""What the checklist found, line by line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

Status = Literal["PASS", "FAIL", "SKIPPED"]

GROUPS: dict[str, str] = {
    "environments": "Environments from YAML",
    "several": "Several environments at once",
    "orchestration": "Orchestration of rollouts",
    "endpoint": "OpenAI-compatible endpoint",
    "tokens": "Token ids on-policy",
    "loop": "Training loop",
}
"""The parts of the checklist, in the order in which they are run: what needs no model comes first."""


class Line(NamedTuple):
    """One point of the checklist."""

    group: str
    name: str
    status: Status
    detail: str
    """What was measured; of what was not run, why not."""
    fix: str = ""
    """What to do about it."""


class Points:
    """Makes the lines of one group."""

    def __init__(self, group: str) -> None:
        assert group in GROUPS
        self.group = group

    def passed(self, name: str, detail: str) -> Line:
        return Line(self.group, name, "PASS", detail)

    def failed(self, name: str, detail: str, fix: str) -> Line:
        return Line(self.group, name, "FAIL", detail, fix)

    def skipped(self, name: str, why: str, fix: str = "") -> Line:
        return Line(self.group, name, "SKIPPED", why, fix)

    def judged(self, name: str, problems: Sequence[str], detail: str, fix: str) -> Line:
        """PASS without problems; otherwise FAIL with the first, and how many more there are."""
        if not problems:
            return self.passed(name, detail)
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return self.failed(name, f"{problems[0]}{more}", fix)


def counts_of(lines: Sequence[Line]) -> dict[str, int]:
    """Return how many lines have each status."""
    counts = Counter(line.status for line in lines)
    return {status: counts[status] for status in ("PASS", "FAIL", "SKIPPED")}


def to_json(lines: Sequence[Line], **head: Any) -> dict[str, Any]:
    """Return a report as one JSON document."""
    counts = counts_of(lines)
    return {**head, "passed": counts["FAIL"] == 0, "counts": counts, "lines": [line._asdict() for line in lines]}
