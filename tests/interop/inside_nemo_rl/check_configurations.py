"""Checks configurations as our launcher does, with NeMo RL's own loader and classes, and reads its keys anew.

Runs in NeMo RL's environment: `check_configurations.py REQUEST ANSWER`, both JSON.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from gymrail.errors import InputError
from gymrail_nemo_rl.launch import check
from gymrail_nemo_rl.read_keys import read_keys


def outcome(path: str, algorithm: str) -> dict[str, Any]:
    """The whole configuration, or why it is refused."""
    try:
        return {"config": check(Path(path), algorithm)}
    except InputError as error:
        return {"refused": str(error)}


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    answer = {"keys": read_keys(Path(os.environ["NEMO_RL_SOURCE"]))}
    answer["checked"] = {name: outcome(*asked) for name, asked in request.items()}
    Path(sys.argv[2]).write_text(json.dumps(answer), encoding="utf-8")


main()
