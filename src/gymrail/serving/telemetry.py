"""What a server counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.responses import Response

from gymrail.serving.sessions import EpisodeTable

_CALL_SECONDS = (0.0005, 0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0)


class Telemetry:
    """Counters of one server, in a registry of their own."""

    def __init__(self, table: EpisodeTable) -> None:
        registry = self.registry = CollectorRegistry()
        self.opened = Counter("gymrail_episodes_opened", "Episodes seeded.", ["environment"], registry=registry)
        self.calls = Counter(
            "gymrail_tool_calls", "Tool calls.", ["environment", "protocol", "result"], registry=registry
        )
        self.call_seconds = Histogram(
            "gymrail_tool_call_seconds",
            "Time of tool calls.",
            ["environment"],
            buckets=_CALL_SECONDS,
            registry=registry,
        )
        self.verified = Counter("gymrail_episodes_verified", "Episodes judged.", ["environment"], registry=registry)
        self.failures = Counter(
            "gymrail_failures", "Episodes that broke.", ["environment", "kind", "stage"], registry=registry
        )
        # Finding a labelled counter costs more than counting.
        self._calls: dict[tuple[str, str, str], Counter] = {}
        self._seconds: dict[str, Histogram] = {}
        gauge = Gauge("gymrail_episodes_open", "Episodes open now.", registry=registry)
        gauge.set_function(lambda: len(table))
        ended = Gauge("gymrail_episodes_ended", "Episodes ended, by reason.", ["reason"], registry=registry)
        for reason in table.ended:
            ended.labels(reason).set_function(lambda reason=reason: table.ended[reason])

    def count_call(self, environment: str, protocol: str, result: str, seconds: float | None = None) -> None:
        """Count a tool call; `result` is ok, refused or failed."""
        key = (environment, protocol, result)
        counter = self._calls.get(key)
        if counter is None:
            counter = self._calls[key] = self.calls.labels(*key)
        counter.inc()
        if seconds is not None:
            histogram = self._seconds.get(environment)
            if histogram is None:
                histogram = self._seconds[environment] = self.call_seconds.labels(environment)
            histogram.observe(seconds)

    def page(self) -> Response:
        """The numbers in Prometheus' text format."""
        return Response(generate_latest(self.registry), media_type="text/plain; version=0.0.4; charset=utf-8")
