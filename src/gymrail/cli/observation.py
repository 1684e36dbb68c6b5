"""What a command that plays episodes can be watched with: `--otel` and `--metrics-port`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from gymrail.collect.counts import RunCounts

Otel = Annotated[bool, typer.Option("--otel", help="Send OpenTelemetry traces to where the OTEL_* variables say.")]
MetricsPort = Annotated[
    int | None,
    typer.Option(
        "--metrics-port", metavar="N", min=0, max=65535, show_default=False,
        help="Serve the run's numbers to Prometheus at 127.0.0.1:N/metrics; 0 takes a free port.",
    ),
]  # fmt: skip


@contextmanager
def observing(counts: RunCounts, run: Path, *, otel: bool, metrics_port: int | None) -> Iterator[None]:
    """Trace and serve, as far as asked, while the block runs; at its end what was not sent yet is sent.

    Raises:
        InputError: an extra is missing, or the port cannot be listened on.
    """
    with ExitStack() as stack:
        if otel:
            from gymrail.cli.output import show_warnings
            from gymrail.tracing import start_tracing, stop_tracing

            show_warnings("opentelemetry")
            logging.getLogger("opentelemetry").propagate = False  # or its warnings come twice
            start_tracing(run=str(run))
            stack.callback(stop_tracing)
        if metrics_port is not None:
            from gymrail.collect.prometheus import serve_metrics

            url = stack.enter_context(serve_metrics(counts, port=metrics_port, run=str(run)))
            typer.echo(f"Metrics: {url}", err=True)
        yield
