"""docs/observability.md says what is there: its line, its metrics, its attributes, its commands."""

import asyncio
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from gymrail.agents.tool_loop import ToolLoop
from gymrail.cli.progress import Progress
from gymrail.collect.counts import RunCounts
from gymrail.collect.finished import Finished, ToolUse
from gymrail.collect.journal import Key
from gymrail.collect.prometheus import RunCollector
from gymrail.collect.runner import Summary
from gymrail.environment import call
from gymrail.models.pace import Load
from gymrail.models.scripted import ScriptedModel
from gymrail.play import play, watch
from gymrail.registry import find
from gymrail.rollout import Usage
from gymrail.traced import Watch

TEXT = (Path(__file__).parents[2] / "docs/observability.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def section(title: str) -> str:
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def run_of_the_document() -> RunCounts:
    """The run whose line and metrics the document shows: five rollouts in three seconds, one of them failed."""
    now = 100.0
    counts = RunCounts(
        {"counter": 16}, summary=Summary(asked=9, scored=4, failed=1, retried=1), concurrency=4,
        loads=lambda: {"http://localhost:8000/v1": Load(2, 2, 2)}, clock=lambda: now,
    )  # fmt: skip
    counts.start()
    for reward in (1.0, 0.5, 1.0, 0.5, None):
        status, failure = ("failed", "model") if reward is None else ("scored", None)
        use = (ToolUse("search", 2, 2.48),)
        counts.add(Finished(Key("counter", 0, "t", 0), status, reward, failure, Usage(640, 165), 1.0, use, cost=0.004))
    now += 2.65
    return counts


def test_the_line_is_the_one_that_such_a_run_prints() -> None:
    progress = Progress({"counter": 16}, Console(file=io.StringIO()))
    progress.counts = run_of_the_document()
    assert blocks("text") == [f"{progress.line()}\n"]


def test_the_metrics_are_those_on_the_page() -> None:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(RunCollector(run_of_the_document(), "runs/mine"))  # type: ignore[arg-type]
    families = text_string_to_metric_families(generate_latest(registry).decode())
    served = {sample.name for family in families for sample in family.samples}
    table = "".join(line for line in section("Prometheus").splitlines() if line.startswith("|"))
    assert set(re.findall(r"gymrail_\w+", table)) == served


def test_the_spans_and_their_attributes_are_those_of_an_episode() -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    spec = find("session_counter")
    task = next(iter(spec.tasks(spec.manifest.datasets[0].split, limit=1)))
    model = ScriptedModel([call("absent"), "I give up."])
    watch(Watch(provider.get_tracer("test"), "runs/mine").play)
    try:
        asyncio.run(play(spec, task, model, agent=ToolLoop(max_steps=3)))
    finally:
        watch(None)
    seen: dict[str, set[str]] = {}
    for span in exporter.get_finished_spans():
        seen.setdefault(span.name.split()[0], set()).update(span.attributes or {})
    rows = [line.split("|")[1:3] for line in section("OpenTelemetry").splitlines() if re.match(r"\| `\w+ [A-Z]", line)]
    named = {
        name: set(re.findall(r"`((?:gymrail|gen_ai)\.[\w.]+)`", said))
        for names, said in rows
        for name in re.findall(r"`(\w+) ", names)
    }
    assert set(named) == set(seen)
    rare = {"gymrail.outcome.reason", "gen_ai.request.temperature"}
    for name, attributes in named.items():
        assert attributes - rare <= seen[name], name
        assert {each for each in seen[name] - attributes if each.startswith("gymrail.")} == set(), name


def test_the_commands_play(tmp_path: Path) -> None:
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    assert len(commands) == 2
    for line in commands:
        words = shlex.split(
            line.replace("9464", "0").replace("gymrail", f"{shlex.quote(sys.executable)} -m gymrail", 1)
        )
        variables = dict(word.split("=", 1) for word in words if re.match(r"OTEL_\w+=", word))
        environment = {**os.environ, **variables, "OTEL_TRACES_EXPORTER": "none"}
        done = subprocess.run(
            words[len(variables) :], capture_output=True, text=True, timeout=300, cwd=tmp_path, env=environment
        )
        assert done.returncode == 0, done.stderr
        assert "word_math" in done.stdout


def test_the_program_prints_how_many_were_scored(tmp_path: Path) -> None:
    (code,) = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=tmp_path,
        env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("4\n", "")
