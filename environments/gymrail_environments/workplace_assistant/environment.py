"""An office to run: emails, a calendar, project tasks, customers and web analytics, in 27 tools.

One row:

    {"responses_create_params": {"input": [{"role": "system", "content": "Today is ..."},
        {"role": "user", "content": "Cancel my next meeting with Priya."}], "parallel_tool_calls": false},
     "ground_truth": [{"name": "calendar_delete_event", "arguments": "{\"event_id\": \"00000042\"}"}],
     "category": "workplace_assistant_calendar", "office_seed": 3}
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import orjson
from pydantic import BaseModel

from gymrail import Config, Environment, Rollout, Task, Verdict
from gymrail.environment import Call, Turn
from gymrail.errors import InputError
from gymrail.verifiers.state import Changes, compare
from gymrail_environments.workplace_assistant.plan import Step, calls_of, changes_state, follow, play
from gymrail_environments.workplace_assistant.requests import draw_request
from gymrail_mcp_servers.workplace.generated import OWNER, generated_office
from gymrail_mcp_servers.workplace.server import PLOTS, Workplace
from gymrail_mcp_servers.workplace.tables import Office, load_office

SYSTEM = (
    "Today is Thursday, 2023-11-30, and it is 23:59. You are the office assistant of "
    f"{OWNER}, who writes to you. Use the tools to do what is asked and nothing else."
)
OFFICES = 8
"""Different generated offices that tasks are about."""
MAX_CALLS = 5
"""A task's calls, one a turn, and the final answer make six steps."""
_CACHED = 20_000
_DRAWS = 200


class GroundTruthCall(BaseModel):
    name: str
    arguments: str | dict[str, Any]
    """JSON text in public rows."""


class WorkplaceTask(Task):
    ground_truth: list[GroundTruthCall]
    """The calls that do what is asked; what they leave behind is expected, not that they are made."""
    category: str = ""
    office_seed: int | None = None
    """The generated office that the task is about; None for the tables of `data_dir`."""
    plan: list[Step] | None = None
    """How a generated task is solved by looking things up; for the gold policy."""


class WorkplaceConfig(Config):
    data_dir: str | None = None
    """Folder of the original's CSV tables (`csv_data`), for public rows."""
    partial_credit: bool = False
    """Whether a state that is partly right earns its share, where otherwise only the expected one earns 1."""


@dataclass
class Shared:
    """What all episodes share."""

    office: Office | None
    """The tables of `data_dir`."""
    expected: dict[Any, Changes] = field(default_factory=dict)
    """What ground truths change, by office and calls."""


class WorkplaceAssistant(Environment[WorkplaceTask]):
    """Right when the tables end as the ground truth leaves them: reads are free, any side effect fails."""

    Config = WorkplaceConfig
    office: Workplace
    shared: Shared

    @classmethod
    def setup(cls, config: WorkplaceConfig) -> Shared:
        return Shared(load_office(Path(config.data_dir)) if config.data_dir else None)

    @classmethod
    def generate(cls, rng: Random) -> WorkplaceTask:
        for _ in range(_DRAWS):
            seed = rng.randrange(OFFICES)
            office = generated_office(seed)
            category, prompt, plan, intents = draw_request(rng, office)
            try:
                calls = calls_of(plan, office)
            except LookupError:  # it asks for something that is not there
                continue
            truth = [
                {"name": one.name, "arguments": orjson.dumps(dict(one.arguments)).decode()}
                for one in calls
                if changes_state(one.name)
            ]
            if len(calls) <= MAX_CALLS and len(play(truth, office).changes()) >= intents:
                return WorkplaceTask.ask(
                    prompt, system=SYSTEM, parameters={"parallel_tool_calls": False}, ground_truth=truth,
                    category=f"workplace_assistant_{category}", office_seed=seed, plan=plan,
                )  # fmt: skip
        raise InputError(f"None of {_DRAWS} drawn requests can be done in {MAX_CALLS} calls; raise MAX_CALLS.")

    def seed(self) -> None:
        self.office.seed(self._start)

    def verify(self, rollout: Rollout) -> Verdict:
        found = compare(self.office.changes(), self._expected)
        reward = found.score if self.config.partial_credit else float(found.is_equal)
        metrics = {"partial": found.score, "missing": len(found.missing), "side_effects": len(found.unexpected)}
        return Verdict(reward, metrics=metrics, reason=found.difference or None)

    def solve(self) -> Generator[Turn, str, None]:
        """Look everything up, as an agent would; a row without a plan is solved by its ground truth."""
        try:
            if self.task.plan is not None:
                yield from follow(self.task.plan)
            elif self.task.ground_truth:
                yield [Call(one.name, _object(one.arguments)) for one in self.task.ground_truth]
        except LookupError:  # an earlier mistake of a noisy teacher
            yield "I could not find what this is about."
        yield "Done."

    def sabotage(self, turn: Turn, rng: Random) -> Turn:
        """Take the wrong row, the wrong person or the wrong plot; looking up goes well."""
        if not isinstance(turn, Call):
            return turn if isinstance(turn, str) else list(turn)[1:]
        if not changes_state(turn.name):
            return turn
        return Call(turn.name, {**turn.arguments, **_mistake(turn, self._start, rng)})

    @property
    def _start(self) -> Office:
        seed, office = self.task.office_seed, self.shared.office
        if office is None and seed is None:
            raise InputError(
                "This row names no office_seed, so it is about the original's tables; set data_dir to their folder "
                "(csv_data of NeMo Gym's workplace_assistant), as in --config data_dir=FOLDER."
            )
        if office is not None and seed is not None:
            raise InputError(f"This row is about generated office {seed}; leave data_dir out of the settings.")
        return generated_office(seed or 0) if office is None else office

    @property
    def _expected(self) -> Changes:
        key = (self.task.office_seed, orjson.dumps([[one.name, one.arguments] for one in self.task.ground_truth]))
        cache = self.shared.expected
        if key not in cache:
            if len(cache) >= _CACHED:
                cache.clear()
            cache[key] = play([one.model_dump() for one in self.task.ground_truth], self._start).changes()
        return cache[key]


def _object(arguments: str | dict[str, Any]) -> dict[str, Any]:
    return orjson.loads(arguments) if isinstance(arguments, str) else arguments


def _mistake(turn: Call, office: Office, rng: Random) -> dict[str, Any]:
    tables = {"email_id": office.emails, "event_id": office.calendar, "task_id": office.tasks}
    for name, value in turn.arguments.items():
        if name in tables or name == "customer_id":
            ids = tables.get(name, office.customers).positions
            return {name: rng.choice([id for id in ids if id != value])}
        if name == "plot_type":
            return {name: rng.choice([kind for kind in PLOTS if kind != value])}
        if "@" in value:
            return {name: rng.choice([address for address in office.directory if address != value])}
    return {}
