"""`--otel` and `--metrics-port` on real runs: a collector that decodes what arrives, a scrape while rollouts are
played."""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from prometheus_client.parser import text_string_to_metric_families

from gymrail.agents.tool_loop import ToolLoop
from gymrail.cli.execution import Crew
from gymrail.cli.playing import Playing
from gymrail.collect.executors.pool import collect_with_workers
from gymrail.collect.executors.processes import Processes
from gymrail.collect.executors.setup import Setup, source_of
from gymrail.collect.runner import Job
from gymrail.models.build import build_model
from gymrail.models.limit import UNLIMITED
from gymrail.models.pace import Load
from gymrail.registry import find
from tests.collector import Stand, said

BLOCKING_VERIFY = """
    async def verify(self, rollout: Rollout) -> float:
        import asyncio
        import sys
        from pathlib import Path

        type(self).judged = getattr(type(self), "judged", 0) + 1
        go = Path(__file__).with_name("go")
        if self.judged > 3 and not go.exists():
            print("blocked", file=sys.stderr, flush=True)
            while not go.exists():
                await asyncio.sleep(0.05)
        if self.judged == 2:
            raise ValueError("the second one")
"""


@pytest.fixture
def stand() -> Iterator[Stand]:
    made = Stand()
    with made.serving():
        yield made


def rollout(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, since tracing belongs to a process."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    command = [sys.executable, "-m", "gymrail", "rollout", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**plain, "COLUMNS": "160", **variables}
    )


def test_a_run_against_an_endpoint_is_a_trace_per_episode_at_the_collector(
    stand: Stand, echo: Path, tmp_path: Path
) -> None:
    done = rollout(
        echo, "word_math", "-m", f"{stand.url}/v1", "--model-name", "parrot", "-n", 6, "--run", tmp_path / "run",
        "--otel", OTEL_EXPORTER_OTLP_ENDPOINT=stand.url,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    roots = {span.trace_id: span for span in stand.spans if not span.parent_span_id}
    assert Counter(span.name for span in roots.values()) == {"invoke_agent echo": 6, "invoke_agent word_math": 6}
    for span in stand.spans:
        if span.parent_span_id:
            assert span.parent_span_id == roots[span.trace_id].span_id
    echoes = [root for root in roots.values() if root.name == "invoke_agent echo"]
    assert sorted(said(root)["gymrail.task.index"] for root in echoes) == list(range(6))
    for root in echoes:
        about = said(root)
        assert (about["gymrail.outcome"], about["gymrail.reward"]) == ("scored", 1.0)
        assert (about["gen_ai.usage.input_tokens"], about["gen_ai.usage.output_tokens"]) == (11, 3)
        assert about["gymrail.run"] == str(tmp_path / "run")
        below = sorted(span.name for span in stand.spans if span.trace_id == root.trace_id)
        assert below == ["chat parrot", "invoke_agent echo", "reply echo", "seed echo", "verify echo"]
    chats = [span for span in stand.spans if span.name == "chat parrot"]
    assert all(chat.kind == Span.SPAN_KIND_CLIENT and said(chat)["gen_ai.provider.name"] == "openai" for chat in chats)
    sent = {(chat.trace_id.hex(), chat.span_id.hex()) for chat in chats}
    assert {tuple(parent.split("-")[1:3]) for parent in stand.trace_parents} == sent
    assert len(stand.trace_parents) == len(chats) == len(sent)
    assert {resource["service.name"] for resource in stand.resources} == {"gymrail"}


WAITING_SEED = """
    async def seed(self):
        import asyncio
        import os
        from pathlib import Path

        Path(__file__).with_name(f"process-{os.getpid()}").touch()
        while len(list(Path(__file__).parent.glob("process-*"))) < 2:
            await asyncio.sleep(0.02)
"""


def wait_for_two(echo: Path) -> None:
    """Make episodes wait until two processes play, so that the one that starts first does not play them all."""
    echo.write_text(f"{echo.read_text()}{WAITING_SEED}")


def test_every_worker_process_sends_its_own_spans(stand: Stand, echo: Path, tmp_path: Path) -> None:
    wait_for_two(echo)
    done = rollout(
        echo, "-m", "oracle", "-n", 40, "-c", 4, "--workers", 2, "--run", tmp_path / "run", "--otel",
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{stand.url}/v1/traces", OTEL_SERVICE_NAME="mine",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    roots = [said(span) for span in stand.spans if span.name == "invoke_agent echo"]
    assert sorted(root["gymrail.task.index"] for root in roots) == list(range(40))
    assert {root["gymrail.run"] for root in roots} == {str(tmp_path / "run")}
    assert {resource["service.name"] for resource in stand.resources} == {"mine"}
    assert len({resource["service.instance.id"] for resource in stand.resources}) == 2


def test_a_failed_episode_is_an_error_at_the_collector_and_its_message_stays_here(
    stand: Stand, echo: Path, tmp_path: Path
) -> None:
    echo.write_text(echo.read_text().replace("return float(", "raise ValueError(f'not {self.task.number}') or float("))
    done = rollout(
        echo, "-m", "oracle", "-n", 1, "--run", tmp_path / "run", "--otel", OTEL_EXPORTER_OTLP_ENDPOINT=stand.url
    )
    assert done.returncode == 1
    assert "not " in (tmp_path / "run/failures.jsonl").read_text()
    broken = {span.name: span for span in stand.spans if span.status.code == Status.STATUS_CODE_ERROR}
    assert set(broken) == {"invoke_agent echo", "verify echo"}
    assert broken["verify echo"].status.message == "verifier failure at stage verify"
    assert b"ValueError" not in b"".join(span.SerializeToString() for span in stand.spans)


def test_a_collector_that_is_down_costs_no_rollout_and_is_said(echo: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
    done = rollout(
        echo, "-m", "oracle", "-n", 4, "--run", tmp_path / "run", "--otel",
        OTEL_EXPORTER_OTLP_ENDPOINT=address, OTEL_EXPORTER_OTLP_TIMEOUT="1",
    )  # fmt: skip
    assert done.returncode == 0
    assert len((tmp_path / "run/rollouts.jsonl").read_text().splitlines()) == 4
    assert "Warning: Failed to export spans batch" in done.stderr
    assert done.stderr.count("Warning: ") <= 5
    assert "Traceback" not in done.stderr


def samples(url: str) -> dict[tuple, float]:
    with urllib.request.urlopen(url, timeout=120) as answer:
        text = answer.read().decode()
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_prometheus_reads_a_run_while_it_is_played(echo: Path, tmp_path: Path) -> None:
    verify = "\n    def verify(self, rollout: Rollout) -> float:\n"
    echo.write_text(echo.read_text().replace(verify, BLOCKING_VERIFY, 1))
    command = [sys.executable, "-m", "gymrail", "rollout", str(echo), "-m", "oracle", "-n", "9", "-c", "1"]
    command += ["--retries", "0", "--metrics-port", "0", "--run", str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            head = []
            for line in process.stderr:
                head.append(line)
                if line == "blocked\n":
                    break
            url = re.findall(r"^Metrics: (http://127\.0\.0\.1:\d+/metrics)$", "".join(head), re.MULTILINE)[0]
            found = samples(url)
            (tmp_path / "go").touch()
            stdout, stderr = process.communicate(timeout=300)
        finally:
            process.kill()
    assert process.returncode == 0, stderr
    assert "echo" in stdout
    ended = {key[1:]: value for key, value in found.items() if key[0] == "gymrail_rollouts_total"}
    assert sum(ended.values()) == 3
    assert ended["echo", "", "scored"] == 2
    assert ended["echo", "verifier", "failed"] == 1
    assert found["gymrail_reward_sum", "echo"] == found["gymrail_reward_count", "echo"] == 2
    assert found["gymrail_rollouts_asked", "echo"] == 9
    assert found["gymrail_episodes_in_flight",] == 1
    assert found["gymrail_rollout_retries_total",] == 0
    assert found["gymrail_run_info", str(tmp_path / "run")] == 1
    assert found["gymrail_rollout_tokens_total", "output", "echo"] == 0


def test_workers_tell_how_busy_they_keep_the_endpoint(stand: Stand, echo: Path) -> None:
    wait_for_two(echo)
    spec = find(str(echo))
    model = partial(build_model, f"{stand.url}/v1", model_name="parrot")
    playing = Playing([spec], model(), ToolLoop(), concurrency=4, retries=0)
    setup = Setup([source_of(spec)], model, retries=0)
    jobs = [Job(spec, task, index) for index, task in enumerate(spec.tasks("train", limit=40))]
    playing.crew = Crew(2, Processes(), setup)
    summary = asyncio.run(
        collect_with_workers(
            jobs, setup, playing.crew.launcher, workers=2, concurrency=4, loads=playing.worker_loads
        )
    )  # fmt: skip
    assert summary.scored == 40
    assert set(playing.worker_loads) == {0, 1}
    assert playing.loads() == {f"{stand.url}/v1": Load(UNLIMITED, 0, 0)}
    first = dict(playing.worker_loads[0])
    playing.worker_loads = {0: {"a": Load(3, 5, 2), **first}, 1: {"a": Load(4, 1, 4)}}
    assert playing.loads()["a"] == Load(7, 6, 6)


def test_a_port_that_is_taken_stops_the_command_before_there_is_a_run(run, echo: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("rollout", echo, "-m", "oracle", "--run", tmp_path / "run", "--metrics-port", port)
    assert (done.code, done.stdout) == (2, "")
    assert f"--metrics-port {port}: something else listens there" in done.stderr
    assert not (tmp_path / "run").exists()


def test_the_page_is_gone_when_the_run_is_over(run, echo: Path, tmp_path: Path) -> None:
    done = run("rollout", echo, "-m", "oracle", "--run", tmp_path / "run", "--metrics-port", 0, "--json")
    assert done.code == 0
    assert json.loads(done.stdout)["overall"]["rollouts"] == 16
    url = re.findall(r"^Metrics: (\S+)$", done.stderr, re.MULTILINE)[0]
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url, timeout=120)


@pytest.mark.parametrize(
    ("option", "package", "extra"),
    [("--otel", "opentelemetry", "otel"), ("--metrics-port=0", "prometheus_client", "serve")],
)
def test_a_missing_extra_is_named_before_there_is_a_run(echo: Path, tmp_path: Path, option, package, extra) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; from gymrail.cli import main; main()"
    arguments = ["rollout", str(echo), "-m", "oracle", "--run", str(tmp_path / "run"), option]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"pip install 'gymrail[{extra}]'" in done.stderr
    assert not (tmp_path / "run").exists()
