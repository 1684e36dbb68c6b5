"""The real `nemo-gym` package, in an environment of its own, started the way its users start it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import yaml

ROOT = Path(__file__).parents[2]
VERSION = "0.4.0"
HOME = ROOT / ".interop" / "nemo_gym"
_START_SECONDS = 240.0
_JUDGES = (
    "openapi-schema-validator==0.6.3",
    "xmltodict==1.0.2",
    "verifiable-instructions @ git+https://github.com/abukharin-nv/verifiable-instructions.git",
)
"""Of the requirements of structured_outputs and instruction_following."""


def install() -> Path:
    """Return the environment that nemo-gym is installed in; the first time it is made, which takes minutes.

    Raises:
        RuntimeError: there is no Python 3.12 or newer for it here; GYMRAIL_PYTHON312 names one.
    """
    marker = HOME / f"installed-{VERSION}"
    if not marker.exists():
        subprocess.run([_python(), "-m", "venv", str(HOME)], check=True)
        subprocess.run([HOME / "bin/pip", "install", "--quiet", f"nemo-gym=={VERSION}"], check=True)
        marker.touch()
    return HOME


def install_judges() -> None:
    """Install what the requirements of nemo-gym's own servers name, for those that are judged by in this process.

    Raises:
        RuntimeError: the index or GitHub cannot be reached.
    """
    home = install()
    imports = "import openapi_schema_validator, xmltodict, verifiable_instructions"
    if subprocess.run([home / "bin/python", "-c", imports], capture_output=True, check=False).returncode == 0:
        return
    done = subprocess.run(
        [home / "bin/pip", "install", "--quiet", *_JUDGES], capture_output=True, text=True, timeout=800, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"The requirements of nemo-gym's servers cannot be installed: {done.stderr[-2000:]}")


def judged(cases: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the rewards that nemo-gym's own servers give: `{"server", "task", "output"}`."""
    done = subprocess.run(
        [HOME / "bin/python", "-P", "-W", "ignore", Path(__file__).with_name("judge_by_nemo_gym.py")],
        input=b"".join(orjson.dumps(case) + b"\n" for case in cases),
        capture_output=True, timeout=600, check=False, env=variables(),
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(done.stderr.decode()[-4000:])
    return [orjson.loads(line)["reward"] for line in done.stdout.splitlines()]


def data(server: str, name: str = "example.jsonl") -> list[dict[str, Any]]:
    """Rows that nemo-gym ships with one of its resources servers."""
    (path,) = HOME.glob(f"lib/python*/site-packages/resources_servers/{server}/data/{name}")
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


@contextmanager
def running(folder: Path, config: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Run `ng_run` on a config, and yield the address of each of its servers by name.

    Servers of nemo-gym find their code in the package; others in `folder`, as `<kind>/<implementation>/app.py`.
    """
    home = install()
    addresses: dict[str, str] = {}
    for name, kinds in config.items():
        for kind, implementations in kinds.items():
            for implementation, settings in implementations.items():
                settings |= {"host": "127.0.0.1", "port": free_port()}
                addresses[name] = f"http://127.0.0.1:{settings['port']}"
                # All of its servers share this environment, where it would make one for each.
                place = folder / "venvs" / kind / implementation
                place.mkdir(parents=True, exist_ok=True)
                if not (place / ".venv").exists():
                    (place / ".venv").symlink_to(home)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    head = free_port()
    addresses["head_server"] = f"http://127.0.0.1:{head}"
    words = [
        f"+config_paths=[{path}]",
        f"+uv_venv_dir={folder / 'venvs'}",
        "+skip_venv_if_present=true",
        "+head_server.host=127.0.0.1",
        f"+head_server.port={head}",
    ]
    log = folder / "ng_run.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [home / "bin/ng_run", *words], cwd=folder, env=variables(), stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    try:
        for address in addresses.values():
            _wait_for(address, process, log)
        yield addresses
    finally:
        _stop(process)


def collect(folder: Path, addresses: dict[str, str], agent: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Run nemo-gym's rollout collection on rows, and return its results in their order."""
    tasks, results = folder / "tasks.jsonl", folder / "results.jsonl"
    tasks.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    words = [
        f"+agent_name={agent}",
        f"+input_jsonl_fpath={tasks}",
        f"+output_jsonl_fpath={results}",
        "+head_server.host=127.0.0.1",
        f"+head_server.port={addresses['head_server'].rpartition(':')[2]}",
    ]
    done = subprocess.run(
        [HOME / "bin/ng_collect_rollouts", *words], cwd=folder, env=variables(), capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    found = [orjson.loads(line) for line in results.read_bytes().splitlines()]
    return sorted(found, key=lambda row: row["_ng_task_index"])


def variables() -> dict[str, str]:
    """Its environment variables: its own programs come first."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
    path = f"{HOME / 'bin'}:{os.environ.get('PATH', '')}"
    return kept | {"PATH": path, "RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0", "PYTHONUNBUFFERED": "1"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _python() -> str:
    wanted = [os.environ.get("GYMRAIL_PYTHON312"), "python3.12", "python3.13", sys.executable]
    places = [*wanted, *sorted(Path.home().glob(".pyenv/versions/3.1[23]*/bin/python"))]
    for place in places:
        found = shutil.which(str(place)) if place else None
        if found is None:
            continue
        code = "import sys; sys.exit(not (3, 12) <= sys.version_info < (3, 14))"
        if subprocess.run([found, "-c", code], check=False, capture_output=True).returncode == 0:
            return found
    raise RuntimeError("nemo-gym needs Python 3.12 or 3.13; name one: GYMRAIL_PYTHON312=/path/to/python make interop")


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    host, _, port = address.removeprefix("http://").partition(":")
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with socket.socket() as probe:
            probe.settimeout(1.0)
            if probe.connect_ex((host, int(port))) == 0:
                return
        time.sleep(0.2)
    raise AssertionError(f"{address} did not come up:\n{log.read_text(errors='replace')[-4000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End it as Ctrl-C does, then whatever is left of its session."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
