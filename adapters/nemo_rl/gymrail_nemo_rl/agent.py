"""Our agent server in NeMo Gym's place, for a recipe with `settings.gymrail.path: nemo_gym`.

NeMo RL starts NeMo Gym's model server on a port that we choose, posts rows to our `/run`, and trains on the answers.
The server runs beside `gymrail train`, in Gymrail's own environment: `python -m gymrail_nemo_rl.agent RECIPE.json`.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gymrail.agents.tool_loop import ToolLoop
from gymrail.errors import GymrailError, InputError
from gymrail.limits import Limits
from gymrail.models.trained import trained_model
from gymrail.recipe import Recipe
from gymrail_nemo_rl.configuration import limits_of
from gymrail_nemo_rl.record import Record
from gymrail_nemo_rl.settings import adapter_settings

_START_SECONDS = 60
_STOP_SECONDS = 20
_MAX_BODY_BYTES = 256 * 1024 * 1024
"""Rows come back for their metrics with every token id."""
MODEL = "policy_model"
"""What NeMo Gym's configuration calls its model server."""


@contextmanager
def serving(recipe: Recipe) -> Iterator[None]:
    """Run the agent server while NeMo RL trains.

    Raises:
        InputError: the extra `serve` is not installed.
        GymrailError: the server does not start; the text names its log.
    """
    require_serve_extra()
    ours, directory = adapter_settings(recipe), recipe.directory.resolve()
    path, log = directory / "agent.json", directory / "agent.log"
    path.write_text(recipe.model_dump_json(), encoding="utf-8")
    with log.open("a", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "gymrail_nemo_rl.agent", str(path)], stdout=file, stderr=subprocess.STDOUT
        )
        try:
            _wait(process, f"http://{ours.agent_host}:{ours.agent_port}/health", log)
            yield
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def serve(recipe: Recipe) -> None:
    """Serve a recipe's environments until told to stop.

    Raises:
        InputError: the address cannot be had, or the environments are not there.
    """
    from gymrail.serving.agent import create_agent_app
    from gymrail.serving.run import run_server
    from gymrail.serving.settings import Settings, is_loopback

    ours, specs = adapter_settings(recipe), recipe.specs()
    limits = Limits(**limits_of(recipe))
    host = ours.agent_host if is_loopback(ours.agent_host) else "0.0.0.0"
    # NeMo RL sends no key. Off this machine the cluster's own network is what keeps others away.
    settings = Settings(limits=limits, max_body_bytes=_MAX_BODY_BYTES)
    url = f"http://{ours.policy_host or own_address()}:{ours.policy_port}/v1"
    record, agent = Record(recipe.directory, specs), ToolLoop(recipe.agent.max_steps)
    try:
        app = create_agent_app(
            specs, trained_model(url, MODEL), agent, settings, for_training=True,
            train_truncated=recipe.train_truncated, record=record,
        )  # fmt: skip
        run_server(app, host, ours.agent_port)
    finally:
        record.close()


def own_address() -> str:
    """Return this machine's address towards the network, which NeMo Gym's servers listen on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address for documents (RFC 5737); nothing is sent
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def require_serve_extra() -> None:
    """
    Raises:
        InputError: the extra `serve` is not installed.
    """
    import importlib.util

    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"The served agent needs packages that are not installed ({', '.join(missing)}): "
                         "pip install 'gymrail[serve]'")  # fmt: skip


def _wait(process: subprocess.Popen[Any], url: str, log: Path) -> None:
    limit = time.monotonic() + _START_SECONDS
    while time.monotonic() < limit and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise GymrailError(f"The agent server did not start. See '{log}'.")


if __name__ == "__main__":
    serve(Recipe.model_validate_json(Path(sys.argv[1]).read_text(encoding="utf-8")))
