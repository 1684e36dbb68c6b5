"""Two Ray nodes on this machine, each with a raylet of its own; `kill` on stdin kills the second with all its workers.

python ray_cluster.py TEMPORARY_FOLDER
"""

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

NODE: dict[str, Any] = {"num_cpus": 2, "object_store_memory": 80 * 1024 * 1024}


def main(folder: str) -> None:
    quick = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000, "health_check_failure_threshold": 8}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={**NODE, "temp_dir": folder, "include_dashboard": False, "_system_config": quick},
    )
    second = cluster.add_node(wait=True, **NODE)
    cluster.wait_for_nodes()
    print(json.dumps({"address": cluster.address}), flush=True)
    for line in sys.stdin:
        if line.strip() == "kill":
            pids = {name: process.pid for name, process in second.live_processes()}
            workers = children_of(pids["raylet"])
            players = [pid for pid in workers if "Player" in command_of(pid)]
            for pid in [*pids.values(), *workers]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            print(json.dumps({"players": len(players)}), flush=True)
    cluster.shutdown()


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace")


if __name__ == "__main__":
    main(sys.argv[1])
