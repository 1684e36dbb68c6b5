"""Workers that are actors of a Ray cluster, one CPU each, spread over its nodes.

    cluster = RayCluster.connect(None, [source_of(spec)])
    setup = Setup(cluster.sources, partial(build_model, "oracle"))
    await collect_with_workers(jobs, setup, cluster, workers=cluster.cpus)
    cluster.close()

Gymrail is installed on the nodes, in the same version. Environments that are no part of an installed package go there
with their data, through Ray's runtime environment.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import logging
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gymrail.collect.executors.launcher import WorkerLost
from gymrail.collect.executors.setup import Source
from gymrail.collect.executors.shipped import ship
from gymrail.errors import InputError

logger = logging.getLogger(__name__)

_PATIENCE_SECONDS = 30.0
"""A worker that has no CPU by then is told of."""
_START_SECONDS = 1800.0
_FILES = "gymrail_files"
"""Always the same name: Ray knows a package by its content, and a node may have it from an earlier run."""
_KNOCK_SECONDS = 5.0
_OBJECT_STORE_BYTES = 256 << 20
"""Of a cluster that is started for one run: messages are small."""


class RayCluster:
    """A Ray cluster that this process is connected to; starts its workers. Make one with `connect`."""

    def __init__(self, sources: Sequence[Source]) -> None:
        import ray

        self.sources = sources
        """What its workers load: those given to `connect`, where their files are on the nodes."""
        self.cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._actor = _actor_class()

    @classmethod
    def connect(cls, address: str | None, sources: Sequence[Source]) -> RayCluster:
        """Join the cluster at `address`; by default the one that runs on this machine, or one that is started here.

        Raises:
            InputError: Ray is not installed, there is no such cluster, or the environments cannot be sent.
        """
        if importlib.util.find_spec("ray") is None:
            raise InputError("--executor ray needs Ray, which is not installed: pip install 'gymrail[ray]'")
        if address is not None and address.startswith("ray://"):
            raise InputError(
                f"The Ray address {address!r} is one of Ray Client, which cannot carry a run. "
                "Start the run on a node of the cluster, with --ray-address HOST:6379 or auto."
            )
        with tempfile.TemporaryDirectory(prefix="gymrail-") as scratch:
            folder = Path(scratch, _FILES)
            travelling = ship(sources, folder)
            _join(address, {"py_modules": [str(folder)]} if folder.exists() else None)
        return cls(travelling)

    async def start(self, setup: bytes, slots: int) -> RayWorker:
        """Start an actor; see `Launcher`."""
        import ray

        worker = RayWorker(self._actor.remote())
        opening = asyncio.create_task(worker.open(setup, slots))
        problem, is_open = None, False
        try:
            done, _ = await asyncio.wait([opening], timeout=_PATIENCE_SECONDS)
            if not done:
                free = ray.available_resources().get("CPU", 0)
                logger.warning("A worker waits for a CPU of the Ray cluster; %g of %d are free.", free, self.cpus)
                done, _ = await asyncio.wait([opening], timeout=_START_SECONDS)
            if not done:
                raise WorkerLost(f"the Ray cluster had no CPU for it within {_START_SECONDS:.0f} s")
            problem = opening.result()
            is_open = problem is None
        finally:
            if not is_open:
                opening.cancel()
                await worker.kill()
                await asyncio.gather(opening, return_exceptions=True)
        if problem is not None:
            raise InputError(problem)
        return worker

    def close(self) -> None:
        """Leave the cluster; one that was started for this run ends."""
        import ray

        ray.shutdown()


class RayWorker:
    """An actor; see `Worker`."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    async def open(self, setup: bytes, slots: int) -> str | None:
        """Wait until it has a CPU and has begun; return why it cannot play, where that is so."""
        return await _result(self._actor.open.remote(importlib.metadata.version("gymrail"), setup, slots))

    def give(self, orders: bytes) -> None:
        self._actor.give.remote(orders)

    async def take(self) -> bytes:
        return await _result(self._actor.take.remote())

    async def kill(self) -> None:
        import ray

        ray.kill(self._actor)


async def _result(reference: Any) -> Any:
    from ray.exceptions import RayError

    try:
        return await reference
    except RayError as error:
        raise WorkerLost(f"Ray says: {_first_line(error)}") from None


def _actor_class() -> Any:
    """Make the actor's class; it is sent by value, because a node may have another Gymrail, or none."""
    import ray

    class Player:
        def __init__(self) -> None:
            self.station: Any = None

        async def open(self, version: str, setup: bytes, slots: int) -> str | None:
            import importlib.metadata
            import socket

            host = socket.gethostname()
            try:
                found = importlib.metadata.version("gymrail")
            except importlib.metadata.PackageNotFoundError:
                return f"The Ray node {host!r} has no Gymrail; install it there: pip install gymrail=={version}"
            if found != version:
                return (
                    f"The Ray node {host!r} has Gymrail {found}, and this run is of {version}; "
                    f"install it there: pip install gymrail=={version}"
                )
            from gymrail.collect.executors.station import Station

            self.station = Station(slots)
            await self.station.open(setup)
            return None

        async def give(self, orders: bytes) -> None:
            self.station.accept(orders)

        async def take(self) -> bytes:
            return await self.station.report()

    return ray.remote(num_cpus=1, max_restarts=0, scheduling_strategy="SPREAD")(Player)


def _join(address: str | None, environment: dict[str, Any] | None) -> None:
    import ray

    if ray.is_initialized():
        raise InputError("This process is connected to a Ray cluster already; ray.shutdown() leaves it.")
    if address is not None and ":" in address:
        _knock(address)
    options: dict[str, Any] = {"runtime_env": environment, "log_to_driver": False, "logging_level": logging.ERROR}
    try:
        try:
            ray.init(address=address or "auto", **options)
        except ConnectionError:
            if address is not None:
                raise
            ray.init(object_store_memory=_OBJECT_STORE_BYTES, include_dashboard=False, **options)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        where = f"join the Ray cluster at {address!r}" if address else "start Ray"
        raise InputError(
            f"Cannot {where}: {_first_line(error)} `ray status` shows a cluster, `ray start --head` starts one."
        ) from None


def _knock(address: str) -> None:
    """Find out at once that nothing is there; Ray itself would try for a minute."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _KNOCK_SECONDS).close()
    except (OSError, ValueError) as error:
        raise InputError(
            f"No Ray cluster answers at {address!r}: {error}. `ray start --head` starts one and prints its address."
        ) from None


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
