"""Shared checkpoints: made once per test session, on one thread, because two only wait for each other at this size."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Return the folder of a family's tiny checkpoint."""
    import torch
    from families import make_checkpoint

    from gymrail_trl.train import _quiet

    torch.set_num_threads(1)
    _quiet()
    made: dict[str, str] = {}

    def get(family: str) -> str:
        if family not in made:
            path = tmp_path_factory.mktemp(family)
            make_checkpoint(family, path)
            made[family] = str(path)
        return made[family]

    return get
