"""OpenTelemetry traces of the episodes that this process plays, when asked: one trace per episode.

    start_tracing(run="runs/mine")
    try:
        await collect(jobs, model)
    finally:
        stop_tracing()

The standard OTEL_* variables say where the spans go. Without `start_tracing` nothing of OpenTelemetry is loaded. Needs
the extra `otel`.

Covers: seeding, model calls, tool calls, user turns, the verdict; W3C trace context in the requests to an endpoint.
Does not cover: the program of a command agent, which is another process; its model and tool calls are there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gymrail import play
from gymrail.errors import InputError, did_you_mean
from gymrail.models import http

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

CAPTURE_VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_CAPTURING = ("true", "1", "span_only", "span_and_event")
_QUEUED_SPANS = 65536
"""The SDK's 2,048 are a fraction of a second's worth of quick episodes, and what does not fit is dropped."""
_BATCHED_SPANS = 4096

_provider: TracerProvider | None = None
"""Ours, of this process; None where there is none, or where the program had one of its own."""


def start_tracing(*, run: str | None = None) -> None:
    """Trace every episode that this process plays from now on; a second call changes nothing.

    A tracer provider that the program has set up is used as it is. Otherwise one is made from the OTEL_* variables and,
    where the program has none, made the program's own, so that spans of an environment's code join.

    Args:
        run: the run's name, an attribute of each episode's span.

    Raises:
        InputError: the extra is missing, or a variable names an exporter that is not installed.
    """
    global _provider
    if play.is_watched() or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return
    try:
        from opentelemetry import propagate, trace
        from opentelemetry.sdk.trace import TracerProvider

        from gymrail.traced import Watch
    except ImportError as error:
        raise InputError(f"Traces need OpenTelemetry ({error}): pip install 'gymrail[otel]'") from error
    current = trace.get_tracer_provider()
    if isinstance(current, TracerProvider) and not getattr(current, "made_by_gymrail", False):
        tracer = current.get_tracer("gymrail")
    else:
        _provider = _make_provider(run)
        if not isinstance(current, TracerProvider):
            trace.set_tracer_provider(_provider)
        tracer = _provider.get_tracer("gymrail")
    captures = os.environ.get(CAPTURE_VARIABLE, "").lower() in _CAPTURING
    play.watch(Watch(tracer, run, captures_content=captures).play)

    def trace_context() -> Mapping[str, str]:
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return carrier

    http.set_context_headers(trace_context)


def stop_tracing() -> None:
    """Trace no more, and send what has not been sent yet; blocks until then, for a bounded time."""
    global _provider
    play.watch(None)
    http.set_context_headers(None)
    provider, _provider = _provider, None
    if provider is not None:
        provider.shutdown()


def _make_provider(run: str | None) -> TracerProvider:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from gymrail import __version__

    exporters: list[SpanExporter] = [_exporter(name) for name in _exporter_names()]
    about: dict[str, Any] = {"service.version": __version__}
    if not os.environ.get("OTEL_SERVICE_NAME") and "service.name=" not in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    ):
        about["service.name"] = "gymrail"
    provider = TracerProvider(resource=Resource.create(about))
    vars(provider)["made_by_gymrail"] = True
    for exporter in exporters:
        queue = None if os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE") else _QUEUED_SPANS
        batch = None if os.environ.get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE") else _BATCHED_SPANS
        provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=queue, max_export_batch_size=batch))
    return provider


def _exporter_names() -> list[str]:
    names = [name.strip() for name in os.environ.get("OTEL_TRACES_EXPORTER", "otlp").split(",")]
    return [name for name in names if name and name != "none"]


def _exporter(name: str) -> SpanExporter:
    """Load an exporter by the name that the variables have for it."""
    import sys
    from importlib.metadata import entry_points

    from opentelemetry.sdk.trace.export import ConsoleSpanExporter

    if name == "console":
        return ConsoleSpanExporter(out=sys.stderr)  # stdout is for results
    entry, said = name, f"OTEL_TRACES_EXPORTER={name}"
    if name == "otlp":
        protocol = (
            os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
            or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
            or "http/protobuf"
        )
        said = f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol}"
        entry = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}.get(protocol, protocol)
    installed = {point.name: point for point in entry_points(group="opentelemetry_traces_exporter")}
    if entry not in installed:
        raise InputError(
            f"{said}: no exporter {entry!r} is installed. {did_you_mean(entry, installed)} "
            "Without the variable, traces go to a collector over OTLP/HTTP."
        )
    return installed[entry].load()()
