"""A resources server of NeMo Gym, or one of ours, by its address.

    gymrail rollout nemo_gym:http://localhost:8000#tasks.jsonl --model ...

It is what the plain address names too; `clients/remote.py` and `clients/stepped.py` speak the protocol.
"""

from __future__ import annotations

import os

from gymrail.clients.discover import find_remote
from gymrail.errors import InputError
from gymrail.spec import EnvironmentSpec


def find(name: str) -> EnvironmentSpec:
    """Load `URL[,URL ...][#TASKS.jsonl]`; the variable GYMRAIL_KEY holds the server's key.

    Raises:
        InputError: nothing answers there, or it is no environment's server.
    """
    if not name.startswith(("http://", "https://")):
        raise InputError(f"{name!r} is no address; write nemo_gym:http://HOST:PORT#TASKS.jsonl.")
    return find_remote(name, key=os.environ.get("GYMRAIL_KEY"))
