"""The Ray executor on a cluster of two real nodes; Ray runs in processes of its own."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gymrail.collect.executors.setup import Found, source_of
from gymrail.collect.executors.shipped import Shipped, ship
from gymrail.collect.journal import Key
from gymrail.errors import InputError
from gymrail.models.build import build_model
from gymrail.registry import find
from tests.collector import Stand, said

from .conftest import PLAYGROUND, in_process, jobs_of, wait_until

QUIET = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


class Nodes:
    """A cluster of two nodes."""

    def __init__(self) -> None:
        for _ in range(4):  # Ray's own processes wait for one another no longer than they do
            self.start()
            try:
                self.address: str = self.answer()["address"]
            except AssertionError:
                self.abandon()
            else:
                return
        raise AssertionError("no cluster came up")

    def start(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="gr-", dir="/tmp")  # socket paths have to be short
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "ray_cluster.py"), self.folder],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=QUIET,
        )  # fmt: skip

    def answer(self) -> dict:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise AssertionError("the cluster ended")

    def kill_one(self) -> int:
        """Kill the second node; return how many of our workers were on it."""
        assert self.process.stdin is not None
        self.process.stdin.write("kill\n")
        self.process.stdin.flush()
        return self.answer()["players"]

    def processes(self) -> list[int]:
        """What runs of this cluster; every process of Ray's names its folder."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                command = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            except OSError:
                continue
            if self.folder.encode() in command:
                found.append(int(entry.name))
        return found

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(120)
        finally:
            self.process.stdout.close()
            is_gone = wait_until(lambda: not self.processes())
            for pid in self.processes():
                os.kill(pid, signal.SIGKILL)
            shutil.rmtree(self.folder, ignore_errors=True)
        assert is_gone

    def abandon(self) -> None:
        """Do away with what came up of a cluster that did not."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(120)
        self.process.stdin.close()
        self.process.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    cluster = Nodes()
    try:
        yield cluster
    finally:
        cluster.close()


def rollout(*words: object, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "gymrail", "rollout", *map(str, words)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**QUIET, **variables},
    )  # fmt: skip


def make_adder(tmp_path: Path, **config: object) -> Path:
    """An environment of its own folder; what its processes tell each other lies beside it."""
    folder = tmp_path / "adder"
    folder.mkdir()
    code = PLAYGROUND.read_bytes().partition(b"\n\nclass Gated")[0] + b"\n"
    (folder / "environment.py").write_bytes(code.replace(b"    @tool\n", b"    @tool(timeout_seconds=600)\n"))
    settings = json.dumps({"config": {"folder": str(tmp_path), **config}})
    (folder / "environment.yaml").write_text(settings, encoding="utf-8")
    return folder


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.slow
def test_workers_on_both_nodes_send_their_own_traces(nodes: Nodes, tmp_path: Path) -> None:
    folder = make_adder(tmp_path, processes=4)
    stand = Stand()
    with stand.serving():
        process = rollout(
            folder, "--model", "oracle", "--tasks", 60, "--run", tmp_path / "run", "--otel", "--concurrency", 8,
            "--executor", "ray", "--ray-address", nodes.address, "--workers", 4,
            OTEL_EXPORTER_OTLP_ENDPOINT=stand.url, OTEL_SERVICE_NAME="mine",
        )  # fmt: skip
        _, heard = process.communicate(timeout=300)
    assert process.returncode == 0, heard
    roots = [said(span) for span in stand.spans if span.name == "invoke_agent adder"]
    assert sorted(root["gymrail.task.index"] for root in roots) == list(range(60))
    assert {root["gymrail.run"] for root in roots} == {str(tmp_path / "run")}
    assert {resource["service.name"] for resource in stand.resources} == {"mine"}
    assert len({resource["service.instance.id"] for resource in stand.resources}) == 4


@pytest.mark.slow
def test_a_node_killed_half_way_changes_nothing_of_five_thousand_rollouts(nodes: Nodes, tmp_path: Path) -> None:
    folder = make_adder(tmp_path, seconds=0.005, processes=4, halt_after=400)
    run = tmp_path / "run"
    process = rollout(
        folder, "--model", "oracle:0.4", "--tasks", 2500, "--repeats", 2, "--run", run,
        "--executor", "ray", "--ray-address", nodes.address, "--workers", 4, "--concurrency", 32,
    )  # fmt: skip
    journal = run / "rollouts.jsonl"
    assert wait_until(lambda: lines_of(journal) >= 4 * 400 or process.poll() is not None, 300)
    assert nodes.kill_one() == 2
    (tmp_path / "go").touch()
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "A worker was lost (Ray says:" in said
    recorded = {}
    for line in journal.read_bytes().splitlines():
        row = json.loads(line)
        own = row["gymrail"]
        key = Key(own["environment"], row["_ng_task_index"], own["task_id"], row["_ng_rollout_index"])
        assert key not in recorded
        recorded[key] = (own["status"], row["reward"])
        assert "py_modules_files" in own["metrics"]["file"], "it was loaded from this machine's path"
    spec = find(str(folder)).with_config({"seconds": 0, "processes": 0})
    assert recorded == asyncio.run(in_process(jobs_of(spec, 2500, repeats=2, seed=0), build_model("oracle:0.4")))
    assert lines_of(run / "failures.jsonl") == 0


@pytest.mark.slow
def test_an_interrupt_with_ray_leaves_a_run_that_goes_on(nodes: Nodes, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = [
        make_adder(tmp_path, halt_after=100), "--model", "oracle", "--tasks", 4000, "--run", run, "--concurrency", 8,
        "--executor", "ray", "--ray-address", nodes.address, "--workers", 2,
    ]  # fmt: skip
    process = rollout(*words)
    assert wait_until(lambda: lines_of(run / "rollouts.jsonl") > 50 or process.poll() is not None, 300)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert any("Interrupted: finishing" in line for line in process.stderr)
    (tmp_path / "go").touch()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert 50 < lines_of(run / "rollouts.jsonl") < 4000
    process = rollout(*words, "--resume")
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    indices = [json.loads(line)["_ng_task_index"] for line in (run / "rollouts.jsonl").read_bytes().splitlines()]
    assert sorted(indices) == list(range(4000))


@pytest.mark.slow
def test_a_wrong_address_is_one_sentence(tmp_path: Path) -> None:
    for address, answer in [
        ("ray://127.0.0.1:10001", "is one of Ray Client"),
        ("127.0.0.1:9", "No Ray cluster answers at '127.0.0.1:9'"),
    ]:
        process = rollout(
            "session_counter", "--model", "oracle", "--run", tmp_path / "run",
            "--executor", "ray", "--ray-address", address,
        )  # fmt: skip
        _, said = process.communicate(timeout=300)
        assert process.returncode == 2, said
        assert answer in said
        assert "Traceback" not in said
        assert not (tmp_path / "run").exists()


def test_the_module_for_ray_loads_without_it() -> None:
    code = "import sys, gymrail.collect.executors.ray, gymrail.cli; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=300, check=False).returncode == 0


def test_without_ray_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from gymrail.collect.executors import ray

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'gymrail\[ray\]'"):
        ray.RayCluster.connect(None, [])


def test_what_is_no_part_of_a_package_is_shipped_with_its_data(tmp_path: Path, monkeypatch) -> None:
    environment = tmp_path / "here" / "adder"
    (environment / "data").mkdir(parents=True)
    (environment / "environment.py").write_bytes(PLAYGROUND.read_bytes().partition(b"\n\nclass Gated")[0] + b"\n")
    (environment / "data" / "corpus.txt").write_text("words", encoding="utf-8")
    (environment / ".gitignore").write_text("data/\n", encoding="utf-8")
    sources = [source_of(find(str(environment)).with_config({"seconds": 0.25})), source_of(find("session_counter"))]
    folder = tmp_path / "there" / "files"
    shipped, installed = ship(sources, folder)
    assert installed is sources[1]
    assert isinstance(shipped, Shipped)
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        "0/adder/data/corpus.txt", "0/adder/environment.py",
    ]  # fmt: skip
    with pytest.raises(InputError, match="did not reach this node"):
        shipped.load()
    monkeypatch.syspath_prepend(str(folder.parent))
    spec = shipped.load()
    assert spec.path == folder / "0" / "adder"
    assert spec.config.seconds == 0.25
    assert (spec.name, spec.version) == (shipped.name, shipped.version)


def test_a_single_file_is_shipped_with_its_manifest(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "here" / "sums.py"
    file.parent.mkdir()
    file.write_bytes(PLAYGROUND.read_bytes())
    file.with_suffix(".yaml").write_text("description: Sums.\n", encoding="utf-8")
    (file.parent / "huge.bin").write_bytes(b"x")
    source = source_of(find(f"{file}:Adder"))
    assert isinstance(source, Found)
    (shipped,) = ship([source], tmp_path / "there" / "files")
    monkeypatch.syspath_prepend(str(tmp_path / "there"))
    spec = shipped.load()
    assert (spec.description, spec.cls.__name__) == ("Sums.", "Adder")
    assert spec.path is not None
    assert sorted(path.name for path in spec.path.parent.iterdir() if path.is_file()) == ["sums.py", "sums.yaml"]
