"""Who plays the user of an environment: its script, or a model that the settings name.

class ServiceConfig(UserConfig): ...

@classmethod
def setup(cls, config): return open_player(config)          # a model, or None for the script
@classmethod
async def teardown(cls, shared): await close_player(shared)
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from gymrail.environment import Config
from gymrail.models.model import Model
from gymrail.models.settings import ModelSettings
from gymrail.users.scripted import ScriptedUser, UserScript
from gymrail.users.simulated import DEFAULT_SETTINGS, CustomerBrief, SimulatedUser, SimulatorSettings
from gymrail.users.user import User


class UserConfig(Config):
    """Settings of an environment whose user may be played by a model."""

    user: ModelSettings | None = None
    """The model that plays the user; without one the row's script does, which needs none."""
    user_attempts: int = Field(default=3, ge=1)
    """Messages that the player is asked for before the rollout fails."""
    user_max_chars: int = Field(default=4000, ge=1)
    """The longest message of a customer."""
    user_seed: int = 0
    """Names the marks in the player's prompts, with the task's id."""

    @property
    def simulator(self) -> SimulatorSettings:
        if self.user is None:
            return DEFAULT_SETTINGS
        parameters = {**DEFAULT_SETTINGS.parameters, **self.user.parameters}
        return SimulatorSettings(self.user_attempts, parameters, self.user.timeout_seconds, self.user_max_chars)


class CustomerScenario(BaseModel):
    """Who the customer is and what it wants, as rows of `tool_simulation` have it."""

    customer_persona: str = ""
    reason_for_contact: str
    customer_details: str = ""
    unknown_info: str = ""
    """What the customer does not know."""
    task_instructions: str = ""

    def brief(self, hidden: tuple[str, ...] = ()) -> CustomerBrief:
        """What a player is told; empty fields are told as the brief's defaults."""
        told = {
            "persona": self.customer_persona,
            "details": self.customer_details,
            "unknown": self.unknown_info,
            "instructions": self.task_instructions,
        }
        given: dict[str, Any] = {name: text for name, text in told.items() if text.strip()}
        return CustomerBrief(self.reason_for_contact, **given, hidden=hidden)


def open_player(config: UserConfig) -> Model | None:
    """Return the model that plays, None for the script.

    Raises:
        InputError: the settings name no model that can play.
    """
    return None if config.user is None else config.user.build()


async def close_player(player: Any) -> None:
    """Close the model's connections, where it has any."""
    close = getattr(player, "close", None)
    if close is not None:
        await close()


def cast_user(
    config: UserConfig,
    player: Model | None,
    script: UserScript,
    scenario: CustomerScenario,
    task_id: str,
    hidden: tuple[str, ...] = (),
) -> User:
    """Return the user of one episode."""
    if player is None:
        return ScriptedUser(script)
    seed = f"{config.user_seed}:{task_id}"
    return SimulatedUser(player, scenario.brief(hidden), seed=seed, settings=config.simulator)
