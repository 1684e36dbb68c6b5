"""Any environment with Gymnasium's API (`reset`, `step`, `action_space`) as a Gymrail environment.

    gymrail rollout gymnasium:FrozenLake-v1?is_slippery=false --model ...

    class Lake(GymnasiumEnvironment):              # or one's own, with its manifest and its gold policy
        def make_game(self) -> Any:
            return FrozenLakeEnv(map_name="8x8", render_mode="ansi")

        def rules(self) -> str:
            return "Walk from S to G over the ice; H is a hole."

One row: {"seed": 7, "responses_create_params": {"input": []}}; the first observation is the prompt. Each answer has
one `<action>...</action>`, draws the next observation, and earns the game's step reward; the reward is their sum.
An answer without one valid action is told what is allowed and moves nothing; `max_invalid` in a row end the game.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random
from typing import Any, ClassVar

from pydantic import Field

from gymrail import environment as authoring
from gymrail.bridges.blocking import OwnThread
from gymrail.bridges.foreign import ask
from gymrail.bridges.naming import file_name, required, split_options, take_settings
from gymrail.bridges.spaces import as_text, describe_actions, names_of, parse_action
from gymrail.environment import Environment, Reply
from gymrail.errors import InputError, Stage, ToolError, did_you_mean, guard
from gymrail.rollout import Rollout, Verdict
from gymrail.spec import EnvironmentSpec, Manifest, make_config
from gymrail.task import Task
from gymrail.tools import tool

_ACTION = re.compile(r"<action>(.*?)</action>", re.DOTALL)
_COLOURED = re.compile(r"\x1b\[[0-9;]*m(.*?)\x1b\[0m", re.DOTALL)


class GymnasiumTask(Task):
    """A seeded game."""

    seed: int = 0


class GymnasiumConfig(authoring.Config):
    """Which environment, and how it is shown."""

    id: str = ""
    """What `gymnasium.make` takes, `module:Id` included."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of `gymnasium.make`."""
    actions: tuple[str, ...] = ()
    """Names of the actions 0, 1, ...; by default what the environment or Gymnasium's documentation calls them."""
    instructions: str = ""
    """What the prompt says of the game, before the actions and the first observation."""
    max_invalid: int = 3
    """Answers in a row without a valid action before the game ends."""


def find(name: str) -> EnvironmentSpec:
    """Load `ID[?KEY=VALUE&...]`: `act_by=tool`, `max_steps`, `reward_range` and the settings of `GymnasiumConfig` are
    ours, every other key is an argument of `gymnasium.make`.

    Raises:
        InputError: the package or the environment is not there, or a setting is wrong.
    """
    gymnasium = required("gymnasium", extra="gymnasium")
    id, options = split_options(name)
    cls = _ACT_BY.get(act_by := str(options.pop("act_by", "answer")))
    if cls is None:
        raise InputError(f"act_by is {act_by!r}. {did_you_mean(act_by, _ACT_BY)}")
    ours = {key: options.pop(key) for key in list(options) if key in ("actions", "instructions", "max_invalid")}
    settings = take_settings(options)
    config = make_config(cls, {"id": id, "arguments": options, **ours}, f"gymnasium:{id}")
    try:
        entry = gymnasium.spec(id)
        _make(config).close()  # what cannot be made is said now, and not by every episode
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        raise InputError(f"Gymnasium cannot make {id!r}: {error}") from None
    settings.setdefault("agent", {"max_steps": entry.max_episode_steps or 100})
    manifest = Manifest.model_validate(
        {
            "description": f"Gymnasium's {id}",
            "properties": {"rollout_structure": "multi-turn", "knowledge_domain": "games", "task_type": "synthetic"},
            "extra": "gymnasium",
            "reproducible": not entry.nondeterministic,
            **settings,
        }
    )
    return EnvironmentSpec(file_name(id), cls, manifest, config)


class GymnasiumEnvironment(Environment[GymnasiumTask]):
    """A game played by answers. Override `make_game`, `rules`, `show` or `action_names` for a game of one's own;
    `make_game` may return any object with `reset(seed=)`, `step(action)` and `action_space`."""

    Config = GymnasiumConfig
    reward_range = (float("-inf"), float("inf"))
    in_thread: ClassVar[bool] = True
    """Whether the game runs in a thread of its own; False for games that are known to be quick."""
    how_to_act: ClassVar[str] = "Answer with exactly one action, as <action>NAME</action>."
    config: GymnasiumConfig
    thread: OwnThread | None = None
    game: Any = None

    @classmethod
    def generate(cls, rng: Random) -> Task:
        return cls.task_type.model_validate({"responses_create_params": {"input": []}, "seed": rng.getrandbits(31)})

    def make_game(self) -> Any:
        """Return the environment; by default `gymnasium.make(config.id)`, as text where it can be."""
        return _make(self.config)

    def rules(self) -> str:
        """Say what the game is about."""
        return self.config.instructions

    def show(self, observation: Any) -> str:
        """Return an observation as text: what the environment draws as text, or else the observation's own values."""
        if getattr(self.game, "render_mode", None) == "ansi":
            drawn = self.game.render()
            # Colours mark where the player is.
            return _COLOURED.sub(r"[\1]", "".join(drawn) if isinstance(drawn, list) else str(drawn)).strip("\n")
        return as_text(observation)

    def action_names(self) -> Sequence[str]:
        """Name the actions 0, 1, ...; empty where numbers must do."""
        return self.config.actions or names_of(self.game)

    async def seed(self) -> None:
        self.total, self.is_over = 0.0, False
        self.steps = self.invalid = self.refused = 0
        shown = await self._run("seed", self._reset)
        self.task = self.task.opened("\n\n".join(part for part in (self.rules(), self._choices(), shown) if part))

    async def play_action(self, text: str, stage: Stage) -> tuple[str, float]:
        """Do what `text` names, and return the next observation and the step's reward.

        Raises:
            ToolError: it names no action; the text says what is allowed.
        """
        action = parse_action(text, self.game.action_space, self.names)
        shown, reward = await self._run(stage, self._step, action)
        self.invalid = 0
        return shown, reward

    async def reply(self, rollout: Rollout) -> Reply | None:
        try:
            shown, reward = await self.play_action(_chosen(rollout.final_text), "reply")
        except ToolError as error:
            self.invalid += 1
            self.refused += 1
            if self.invalid >= self.config.max_invalid:
                return None
            return Reply(f"{error} {self.how_to_act}", 0.0)
        if self.is_over:
            rollout.step_rewards.append(reward)
            return None
        return Reply(shown, reward)

    def verify(self, rollout: Rollout) -> Verdict:
        end = "over" if self.is_over else "not over"
        metrics = {"game_steps": self.steps, "finished": self.is_over, "invalid_answers": self.refused}
        return Verdict(
            self.total, metrics=metrics, reason=f"{self.total:g} after {self.steps} steps, the game is {end}"
        )

    async def close(self) -> None:
        closing = getattr(self.game, "close", None)
        if self.thread is not None:
            self.thread.close(closing)
        elif closing is not None:
            closing()

    def _reset(self) -> str:
        self.game = self.make_game()
        observation, _ = self.game.reset(seed=self.task.seed)
        self.names = tuple(self.action_names())
        return self.show(observation)

    def _step(self, action: Any) -> tuple[str, float]:
        observation, reward, terminated, truncated, _ = self.game.step(action)
        self.total += float(reward)
        self.steps += 1
        self.is_over = bool(terminated or truncated)
        return self.show(observation), float(reward)

    async def _run(self, stage: Stage, function: Any, *arguments: Any) -> Any:
        if not self.in_thread:
            return await guard(stage, function, *arguments, kind="environment")
        if self.thread is None:
            self.thread = OwnThread(self.config.id or type(self).__name__)
        return await ask(stage, self.thread, function, *arguments)

    def _choices(self) -> str:
        return f"{describe_actions(self.game.action_space, self.names)} {self.how_to_act}"


class GymnasiumByTool(GymnasiumEnvironment):
    """The same, played by calls of the tool `act`."""

    how_to_act = "Call the tool `act` with one action at a time."

    @tool
    async def act(self, action: str) -> str:
        """Do one action and see what comes of it.

        Args:
            action: The action's name or number.
        """
        if self.is_over:
            raise ToolError("The game is over.")
        shown, reward = await self.play_action(action, "tool")
        self.done = self.is_over
        return f"{shown}\n\nReward: {reward:g}" + ("\nThe game is over." if self.is_over else "")

    async def reply(self, rollout: Rollout) -> None:
        return None


_ACT_BY = {"answer": GymnasiumEnvironment, "tool": GymnasiumByTool}


def _chosen(answer: str) -> str:
    found = _ACTION.findall(answer)
    if len(found) != 1:
        raise ToolError(f"Your answer has {len(found) or 'no'} <action>...</action>.")
    return found[0]


def _make(config: GymnasiumConfig) -> Any:
    gymnasium = required("gymnasium", extra="gymnasium")
    arguments = dict(config.arguments)
    if "ansi" in _render_modes(gymnasium, gymnasium.spec(config.id)):
        arguments.setdefault("render_mode", "ansi")
    return gymnasium.make(config.id, **arguments)


def _render_modes(gymnasium: Any, entry: Any) -> Sequence[str]:
    creator = entry.entry_point
    if isinstance(creator, str):
        creator = gymnasium.envs.registration.load_env_creator(creator)
    return getattr(creator, "metadata", {}).get("render_modes", ())
