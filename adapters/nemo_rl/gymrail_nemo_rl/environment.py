"""The native NeMo RL environment: a Ray actor on its `EnvironmentInterface` that plays our episodes.

    register()                                    # in the process that starts training; `launch` does it
    env: {gymrail: {environments: [{source: word_math, config: {}}], ...}}

`step` is asynchronous, so that episodes wait for their tools side by side. Nothing in NeMo RL calls
`global_post_process_and_metrics`; per-environment metrics come from the run directory, where every rollout is recorded.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

try:
    import ray
    import torch
    from nemo_rl.environments.interfaces import EnvironmentInterface, EnvironmentReturn
except ImportError as error:
    raise ImportError(
        f"The environment runs inside NeMo RL, which cannot be imported here: {error}. "
        "Set NEMO_RL_SOURCE to a checkout and NEMO_RL_PYTHON to its interpreter; see docs/nemo_rl.md."
    ) from error

from gymrail.agents.tool_loop import ToolLoop
from gymrail.limits import Limits
from gymrail.registry import find
from gymrail.spec import EnvironmentSpec
from gymrail_nemo_rl.configuration import ENVIRONMENT
from gymrail_nemo_rl.episodes import Answer, Episodes
from gymrail_nemo_rl.record import Record
from gymrail_nemo_rl.segments import Segments
from gymrail_nemo_rl.stepped import Room

ACTOR = "gymrail_nemo_rl.environment.GymrailEnvironment"


def register(name: str = ENVIRONMENT) -> None:
    """Make NeMo RL know our environment by name. Registering a name twice changes nothing."""
    from nemo_rl.distributed.ray_actor_environment_registry import ACTOR_ENVIRONMENT_REGISTRY
    from nemo_rl.distributed.virtual_cluster import PY_EXECUTABLES
    from nemo_rl.environments.utils import ENV_REGISTRY, register_env

    if name not in ENV_REGISTRY:
        register_env(name, ACTOR)
    # `create_env` asks for the interpreter of every actor's class, also of registered ones.
    ACTOR_ENVIRONMENT_REGISTRY.setdefault(ACTOR, PY_EXECUTABLES.SYSTEM)


class NativeEnvironment(EnvironmentInterface[dict[str, Any]]):
    """The environment without its actor."""

    def __init__(self, cfg: dict[str, Any]) -> None:
        """
        Args:
            cfg: the section `env.gymrail`, as `configuration` writes it.
        """
        specs = [_load(entry) for entry in cfg["environments"]]
        self._record = Record(Path(cfg["run"]), specs) if cfg.get("run") else None
        self._episodes = Episodes(
            specs,
            Segments(_tokenizer(cfg["tokenizer"])),
            Room(cfg["max_new_tokens"], cfg["max_total_sequence_length"]),
            agent=ToolLoop(cfg.get("max_steps")),
            limits=Limits(**(cfg.get("limits") or {})),
            record=self._record,
            train_truncated=cfg.get("train_truncated", True),
            reward_scales={
                spec.name: entry.get("reward_scale", 1.0)
                for spec, entry in zip(specs, cfg["environments"], strict=True)
            },
        )

    async def step(self, message_log_batch: Any, metadata: Any) -> EnvironmentReturn[dict[str, Any]]:
        """Answer the last turn of each conversation; see `Episodes.step`."""
        answers: list[Answer] = await self._episodes.step(message_log_batch, metadata)
        return EnvironmentReturn(
            observations=[{"role": "environment", "content": answer.text} for answer in answers],
            metadata=[answer.metadata for answer in answers],
            next_stop_strings=[None] * len(answers),
            rewards=torch.tensor([answer.reward for answer in answers], dtype=torch.float32),
            terminateds=torch.tensor([answer.is_over for answer in answers], dtype=torch.bool),
            answers=[answer.answer for answer in answers],
        )

    async def counts(self) -> dict[str, int]:
        """Return how many episodes NeMo RL left behind, and how many texts are tokenized otherwise than meant."""
        return {"abandoned": self._episodes.abandoned, "inexact": self._episodes.inexact}

    def global_post_process_and_metrics(self, batch: Any) -> tuple[Any, dict[str, float]]:
        """Return the batch as it is, and per-environment metrics of what finished since the last call."""
        return batch, self._episodes.take_metrics()

    async def shutdown(self) -> None:
        """Close every episode and the run's files."""
        await self._episodes.close()
        if self._record is not None:
            self._record.close()


GymrailEnvironment = ray.remote(NativeEnvironment)


def _load(entry: dict[str, Any]) -> EnvironmentSpec:
    spec = find(entry["source"])
    return spec.with_config(dict(entry["config"])) if entry.get("config") else spec


def _tokenizer(settings: dict[str, Any]) -> Any:
    from nemo_rl.algorithms.utils import get_tokenizer

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    return get_tokenizer(settings)
