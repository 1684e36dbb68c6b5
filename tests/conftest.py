"""What the whole suite shares: under GYMRAIL_FORBID_SKIPS=1 a test may skip only for a reason that is agreed on."""

import os

import pytest
from hypothesis import HealthCheck, settings

ALLOWED_SKIP_PREFIXES = ("needs gpu",)

# How long an example takes says how busy the machine is.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if exitstatus == pytest.ExitCode.OK and _forbidden_skips(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    skips = _forbidden_skips(config)
    if not skips:
        return
    terminalreporter.section("forbidden skips", red=True, bold=True)
    for name, reason in skips:
        terminalreporter.line(f"{name}: {reason}")
    terminalreporter.line(f"With GYMRAIL_FORBID_SKIPS=1 a reason must start with one of {ALLOWED_SKIP_PREFIXES}.")


def _forbidden_skips(config: pytest.Config) -> list[tuple[str, str]]:
    """Every skip of the run whose reason is not agreed on, as (test, reason); all xdist workers' skips are counted."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("GYMRAIL_FORBID_SKIPS") != "1" or reporter is None:
        return []
    skips = [(report.nodeid, _reason(report)) for report in reporter.stats.get("skipped", [])]
    return [(name, reason) for name, reason in skips if not reason.startswith(ALLOWED_SKIP_PREFIXES)]


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")
