"""An environment whose verifier measures a number for some rollouts, none for others, and breaks on one."""

from __future__ import annotations

from gymrail import Environment, Rollout, Task, Verdict


class Moody(Environment[Task]):
    """Say how you are."""

    def verify(self, rollout: Rollout) -> Verdict:
        said = rollout.final_text
        if said == "broken":
            raise RuntimeError("nobody knows")
        measured = {"calm": {"mood": 0.5}, "silent": {}, "odd": {"mood": None}}
        return Verdict(1.0, metrics=measured[said])
