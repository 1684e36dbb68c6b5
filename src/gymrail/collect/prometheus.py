"""A run's numbers for Prometheus, at http://127.0.0.1:PORT/metrics while it plays. Needs the extra `serve`.

    with serve_metrics(counts, port=9464, run="runs/mine") as url:
        ...

The numbers are read when they are asked for; nothing is counted twice for them.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gymrail.collect.counts import RunCounts, Tally
from gymrail.errors import FAILURE_KINDS, InputError
from gymrail.tools import printable

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

ADDRESS = "127.0.0.1"
_STATUSES = ("scored", "truncated", "cancelled")


@contextmanager
def serve_metrics(counts: RunCounts, *, port: int, run: str) -> Iterator[str]:
    """Serve the numbers from a thread, and give the page's address.

    Args:
        port: 0 takes a free one.
        run: the run's name.

    Raises:
        InputError: the extra is missing, or the port cannot be listened on.
    """
    try:
        from prometheus_client import CollectorRegistry, start_http_server
    except ImportError as error:
        raise InputError(f"--metrics-port needs prometheus-client ({error}): pip install 'gymrail[serve]'") from error
    registry = CollectorRegistry(auto_describe=False)
    registry.register(RunCollector(counts, run))  # pyright: ignore[reportArgumentType]
    try:
        server, thread = start_http_server(port, ADDRESS, registry)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        reason = "something else listens there" if taken else (error.strerror or str(error))
        raise InputError(f"--metrics-port {port}: {reason}; choose another port, or 0 for any free one.") from None
    try:
        yield f"http://{ADDRESS}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class RunCollector:
    """Turns the counts into metrics whenever Prometheus asks."""

    def __init__(self, counts: RunCounts, run: str) -> None:
        self.counts = counts
        self.run = run

    def collect(self) -> Iterator[Metric]:
        """Yield every metric; what is not known is left out."""
        yield from self._of_environments()
        yield from self._of_tools()
        yield from self._of_the_run()

    def _of_environments(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily

        names = ["environment"]
        rollouts = CounterMetricFamily(
            "gymrail_rollouts", "Rollouts that are on disk.", labels=[*names, "outcome", "failure_kind"]
        )
        asked = GaugeMetricFamily("gymrail_rollouts_asked", "Rollouts that are asked for.", labels=names)
        reward = SummaryMetricFamily("gymrail_reward", "Rewards of the rollouts that have one.", labels=names)
        seconds = SummaryMetricFamily("gymrail_rollout_seconds", "Wall time of the rollouts.", labels=names)
        tokens = CounterMetricFamily(
            "gymrail_rollout_tokens", "Tokens of the rollouts' model calls.", labels=[*names, "direction"]
        )
        cost = CounterMetricFamily("gymrail_rollout_cost_dollars", "Price of the rollouts' tokens.", labels=names)
        for name, tally in self.counts.tallies.items():
            for outcome, kind, number in _outcomes(tally):
                rollouts.add_metric([name, outcome, kind], number)
            if tally.asked is not None:
                asked.add_metric([name], tally.asked)
            reward.add_metric([name], tally.rewards, tally.reward_sum)
            seconds.add_metric([name], tally.ended, tally.seconds)
            tokens.add_metric([name, "input"], tally.input_tokens)
            tokens.add_metric([name, "output"], tally.output_tokens)
            if tally.cost is not None:
                cost.add_metric([name], tally.cost)
        yield from (rollouts, asked, reward, seconds, tokens, cost)

    def _of_tools(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily

        labels = ["environment", "tool"]
        calls = CounterMetricFamily("gymrail_rollout_tool_calls", "Tool calls of the rollouts.", labels=labels)
        seconds = CounterMetricFamily(
            "gymrail_rollout_tool_seconds", "Wall time of the rollouts' tool calls.", labels=labels
        )
        for name, tally in self.counts.tallies.items():
            for tool, uses in tuple(tally.tools.items()):
                calls.add_metric([name, tool], uses.calls)
                seconds.add_metric([name, tool], uses.seconds)
        yield from (calls, seconds)

    def _of_the_run(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

        counts = self.counts
        yield InfoMetricFamily("gymrail_run", "The run that is played.", value={"run": printable(self.run)})
        yield GaugeMetricFamily("gymrail_episodes_in_flight", "Episodes that are being played.", counts.in_flight)
        yield CounterMetricFamily(
            "gymrail_rollout_retries", "Attempts that failed and were played again.", counts.summary.retried
        )
        yield from self._of_endpoints()

    def _of_endpoints(self) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily

        counts, labels = self.counts, ["endpoint"]
        limit = GaugeMetricFamily(
            "gymrail_model_concurrency_limit", "Requests that an endpoint is sent at once, at most.", labels=labels
        )
        asked = GaugeMetricFamily(
            "gymrail_model_requests_in_flight", "Requests that an endpoint answers.", labels=labels
        )
        waiting = GaugeMetricFamily(
            "gymrail_model_requests_waiting", "Requests that wait for their turn at an endpoint.", labels=labels
        )
        for address, load in counts.loads().items():
            most = load.limit if counts.concurrency is None else min(load.limit, counts.concurrency)
            limit.add_metric([address], most)
            asked.add_metric([address], load.in_flight)
            waiting.add_metric([address], load.waiting)
        yield from (limit, asked, waiting)


def _outcomes(tally: Tally) -> Iterator[tuple[str, str, int]]:
    """Each outcome and failure kind with its number; outcomes start at 0, so that a rate sees the first one."""
    for outcome in _STATUSES:
        yield outcome, "", tally.outcomes[outcome]
    for kind in FAILURE_KINDS:
        yield "failed", kind, tally.failures[kind]
