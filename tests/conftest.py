"""What the whole suite shares: under GYMRAIL_FORBID_SKIPS=1 a test may skip only for a reason that is agreed on, and no
event loop ends with a connection open."""

import os
import weakref
from asyncio import selector_events
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

ALLOWED_SKIP_PREFIXES = ("needs gpu",)

# How long an example takes says how busy the machine is, and a change is judged by the same examples as the one before;
# `make fuzz` tries others.
settings.register_profile(
    "any machine",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=os.environ.get("GYMRAIL_OTHER_EXAMPLES") != "1",
)
settings.load_profile("any machine")


_transports: list[weakref.ref[Any]] = []
_make_transport = selector_events._SelectorTransport.__init__


def _make_and_note(transport: Any, *arguments: Any, **options: Any) -> None:
    _transports.append(weakref.ref(transport))  # before it is made: one that fails half way has its socket all the same
    _make_transport(transport, *arguments, **options)


selector_events._SelectorTransport.__init__ = _make_and_note  # asyncio's own loop; uvloop's has no such class


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """Whoever left a connection open fails, instead of the test in which garbage collection comes upon it."""
    found = [transport for reference in _transports if (transport := reference()) and _socket_of(transport)]
    forgotten = [transport for transport in found if transport._loop.is_closed()]
    _transports[:] = [weakref.ref(transport) for transport in found if not transport._loop.is_closed()]
    if forgotten:
        shown = "; ".join(f"{transport!r} of {transport._protocol!r} at {transport._sock}" for transport in forgotten)
        for transport in forgotten:
            transport._sock.close()
            transport._sock = None  # which would warn later on, elsewhere
        pytest.fail(f"An event loop ended with a connection open: {shown}", pytrace=False)


def _socket_of(transport: Any) -> Any:
    return getattr(transport, "_sock", None) and getattr(transport, "_loop", None) and transport._sock


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
