"""Plays one run undisturbed, and one that is disturbed: its processes are killed, its model and its tools go wrong."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import IO

from tests.chaos.environment import VARIABLE
from tests.chaos.processes import ModelProcess, RunnerProcess, kill, model_options, orphans

ENVIRONMENT = Path(__file__).parent
VICTIMS = {"runner": 5, "worker": 4, "model": 3}
"""Who is killed, and how often beside the others."""
_POLL_SECONDS = 0.02
_ORPHAN_SECONDS = 60.0
"""How long what a killed runner leaves behind may take to notice."""
_EARLY_SHARE = 0.2
"""How often a runner that was killed is killed again while it starts."""
_TORN_SHARE = 0.25
"""How often the journal loses its end too when the runner is killed, as when the power fails."""


class ChaosError(Exception):
    """The run did not come to its end."""


@dataclass(frozen=True)
class Plan:
    """What is played, and what is done to it."""

    folder: Path
    rollouts: int
    kills: int
    seed: int = 0
    workers: int = 2
    compress: str | None = None
    repeats: int = 4
    concurrency: int = 96
    model_rate: float = 0.04
    """Share of the model's requests that go wrong."""
    tool_rate: float = 0.01
    """Share of the tool calls that do."""
    deadly_rate: float = 0.0004
    """Share of the tool calls that end their process; where the runner itself plays, none."""
    episode_seconds: float = 6.0
    run_seconds: float = 600.0
    """Limit of each of the two runs."""

    @property
    def undisturbed(self) -> Path:
        return self.folder / "undisturbed"

    @property
    def disturbed(self) -> Path:
        return self.folder / "disturbed"

    def options(self, run: Path, url: str) -> list[str]:
        """What `gymrail rollout` is called with."""
        options = [str(ENVIRONMENT), *model_options(url), "--run", str(run), "--resume", "--seed", str(self.seed)]
        options += ["--tasks", str(self.rollouts // self.repeats), "--repeats", str(self.repeats)]
        options += ["--concurrency", str(self.concurrency), "--deadline", f"{self.episode_seconds:g}s"]
        options += ["--workers", str(self.workers)] if self.workers else []
        return options + (["--compress", self.compress] if self.compress else [])


@dataclass
class Disturbed:
    """What was done to the run."""

    kills: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    torn: int = 0
    """Times that the end of a journal was cut off."""
    refused: int = 0
    """Starts that ended because the model was down."""
    faults: dict[str, int] = field(default_factory=dict)
    """What the model dealt out."""
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


def play_undisturbed(plan: Plan) -> float:
    """Play the run to its end without faults, and return its seconds."""
    with _opened(plan.folder) as log, ModelProcess(plan.folder, "undisturbed") as model:
        return _play_to_the_end(plan, plan.undisturbed, model, log, "undisturbed")


def play_disturbed(plan: Plan) -> Disturbed:
    """Kill and break until all kills are made and the run has ended."""
    with _opened(plan.folder) as log, ModelProcess(plan.folder, "disturbed", plan.model_rate, str(plan.seed)) as model:
        disturbance = _Disturbance(plan, model, log)
        disturbance.run()
        return disturbance.done


def resume_undisturbed(plan: Plan) -> float:
    """Go on with the disturbed run without faults: what can be scored is scored now."""
    with _opened(plan.folder) as log, ModelProcess(plan.folder, "resumed") as model:
        return _play_to_the_end(plan, plan.disturbed, model, log, "resumed")


def _play_to_the_end(plan: Plan, run: Path, model: ModelProcess, log: IO[bytes], mark: str) -> float:
    started = time.monotonic()
    runner = RunnerProcess(plan.options(run, model.url), log, f"{mark}-{os.getpid()}", {VARIABLE: "0:0:0"})
    try:
        while (code := runner.exit_code) is None:
            _check_time(started, plan)
            time.sleep(_POLL_SECONDS)
    finally:
        runner.kill()
    if code != 0:
        raise ChaosError(f"the run {run} ended with exit code {code} though nothing disturbed it:\n{_end_of(log)}")
    if left := orphans([runner.mark], _ORPHAN_SECONDS):
        raise ChaosError(f"the run {run} has ended and its processes {left} have not")
    return time.monotonic() - started


class _Disturbance:
    def __init__(self, plan: Plan, model: ModelProcess, log: IO[bytes]) -> None:
        self.plan = plan
        self.done = Disturbed()
        self._model = model
        self._log = log
        self._rng = Random(f"{plan.seed}:kills")
        self._kills = list(_schedule(plan, self._rng))
        """Those to come, the next one last: at which share of the run, and who."""
        self._whole = _size(plan.undisturbed)
        self._marks: list[str] = []
        self._model_back = 0.0
        """When the killed model is started again; 0 while it runs."""
        self._was_down = False
        """Whether the model was down since the runner was started."""

    def run(self) -> None:
        started = time.monotonic()
        overtime = was_killed = False
        while True:
            runner = self._start()
            try:
                if was_killed and self._rng.random() < _EARLY_SHARE:
                    time.sleep(self._rng.uniform(0, 1.2))
                    self.done.kills["runner while it starts"] += 1
                    continue
                code = self._watch(runner, overtime, started)
            finally:
                runner.kill()
            was_killed = code is None
            if was_killed:
                self._tear()
            elif code == 0 and not self._kills:
                break
            elif code == 0:
                overtime = True  # what failed is played again, and there is more to kill
            elif self._was_down:
                self.done.refused += 1
                self._bring_model_back()
            else:
                raise ChaosError(f"the runner ended with exit code {code}:\n{_end_of(self._log)}")
        self.done.seconds = time.monotonic() - started
        self.done.faults = self._model.faults
        if left := orphans(self._marks, _ORPHAN_SECONDS):
            self.done.problems.append(f"processes of ended runners are alive: {left}")
            for pid in left:
                kill(pid)

    def _start(self) -> RunnerProcess:
        self.done.starts += 1
        mark = f"disturbed-{os.getpid()}-{self.done.starts}"
        self._marks.append(mark)
        self._was_down = bool(self._model_back)
        deadly = self.plan.deadly_rate if self.plan.workers else 0
        variables = {VARIABLE: f"{self.plan.seed}:{self.plan.tool_rate}:{deadly}"}
        return RunnerProcess(self.plan.options(self.plan.disturbed, self._model.url), self._log, mark, variables)

    def _watch(self, runner: RunnerProcess, overtime: bool, started: float) -> int | None:
        """Return the exit code, or None where the runner was killed."""
        due_at = time.monotonic() + self._rng.uniform(0.5, 2.5) if overtime else None
        while (code := runner.exit_code) is None:
            _check_time(started, self.plan)
            if self._model_back and time.monotonic() > self._model_back:
                self._bring_model_back()
            is_due = self._kills and _size(self.plan.disturbed) >= self._kills[-1][0] * self._whole
            if due_at is None and is_due:
                due_at = time.monotonic() + self._rng.uniform(0, 0.3)
            if due_at is not None and self._kills and time.monotonic() >= due_at:
                if self._strike(runner, self._kills[-1][1]):
                    _, victim = self._kills.pop()
                    self.done.kills[victim] += 1
                    if victim == "runner":
                        return None
                due_at = time.monotonic() + self._rng.uniform(0.2, 1.0) if overtime else None
            time.sleep(_POLL_SECONDS)
        return code

    def _strike(self, runner: RunnerProcess, victim: str) -> bool:
        """Kill; False where there is nobody to kill yet."""
        if victim == "runner":
            if runner.exit_code is not None:
                return False
            runner.kill()
            return True
        if victim == "worker":
            workers = runner.workers
            return bool(workers) and kill(self._rng.choice(workers))
        if self._model_back:
            return False
        self._model.kill()
        self._model_back = time.monotonic() + self._rng.uniform(0.05, 1.0)
        self._was_down = True
        return True

    def _bring_model_back(self) -> None:
        if self._model_back:
            self._model_back = 0.0
            self._model.start()

    def _tear(self) -> None:
        """Cut into the last line of a journal, sometimes."""
        if self._rng.random() >= _TORN_SHARE:
            return
        for file in _files(self.plan.disturbed, self._rng.choice(("rollouts", "failures"))):
            size = file.stat().st_size
            end = file.read_bytes()[-4096:].removesuffix(b"\n")
            line = len(end) - (end.rfind(b"\n") + 1)
            if line > 2:
                os.truncate(file, size - self._rng.randrange(2, line))
                self.done.torn += 1


def _schedule(plan: Plan, rng: Random) -> Iterator[tuple[float, str]]:
    names = [name for name in VICTIMS if plan.workers or name != "worker"]
    victims = [*names, *rng.choices(names, [VICTIMS[name] for name in names], k=plan.kills)][: plan.kills]
    rng.shuffle(victims)
    shares = sorted((rng.uniform(0.01, 0.9) for _ in victims), reverse=True)
    return zip(shares, victims, strict=True)


def _files(run: Path, name: str) -> list[Path]:
    """A journal's file, compressed or not; none before the run has begun."""
    return [file for file in run.glob(f"{name}.jsonl*") if file.suffix in (".jsonl", ".zst")]


def _size(run: Path) -> int:
    return sum(file.stat().st_size for file in _files(run, "rollouts"))


def _end_of(log: IO[bytes]) -> str:
    return Path(log.name).read_text(encoding="utf-8", errors="replace")[-3000:]


def _check_time(started: float, plan: Plan) -> None:
    if time.monotonic() - started > plan.run_seconds:
        raise ChaosError(f"the run took longer than {plan.run_seconds:g} seconds; see {plan.folder}")


def _opened(folder: Path) -> IO[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / "runner.log").open("ab")
