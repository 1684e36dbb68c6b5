"""Environments written against the real `openenv-core` package, served as its users serve them.

python openenv_server.py KIND PORT
"""

import os
import sys
from random import Random

import uvicorn
from openenv.core.env_server import Action, Environment, Observation, State, create_fastapi_app
from openenv.core.env_server.mcp_environment import MCPEnvironment
from openenv.core.env_server.mcp_types import CallToolAction, CallToolObservation


class GuessAction(Action):
    guess: str


class GuessObservation(Observation):
    hint: str = ""


class Guess(Environment):
    """Guess a number from 1 to 9; "boom" breaks the environment, "die" its server."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(self, seed=None, episode_id=None, **kwargs):
        self._state = State(episode_id=episode_id, step_count=0)
        self.number = Random(f"guess:{seed}").randint(1, 9)
        return GuessObservation(hint=f"I think of a number from 1 to 9; it is {'odd' if self.number % 2 else 'even'}.")

    def step(self, action, timeout_s=None, **kwargs):
        self._state.step_count += 1
        if action.guess == "boom":
            raise ValueError("the world ended")
        if action.guess == "die":
            os._exit(1)
        if not action.guess.isdigit():
            return GuessObservation(hint="A number, please.", reward=-0.5)
        if int(action.guess) == self.number:
            return GuessObservation(hint="Right.", reward=1.0, done=True)
        return GuessObservation(hint="Higher." if int(action.guess) < self.number else "Lower.", reward=0.0)

    @property
    def state(self):
        return self._state


class Notes(MCPEnvironment):
    """Notes that are kept in the session, by MCP tools."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self):
        from fastmcp import FastMCP

        server = FastMCP("notes")
        self.notes = []

        @server.tool
        def add_note(text: str) -> str:
            """Write a note."""
            self.notes.append(text)
            return f"{len(self.notes)} notes"

        super().__init__(server)
        self._state = State(step_count=0)

    def reset(self, seed=None, episode_id=None, **kwargs):
        self.notes.clear()
        return Observation(done=False, reward=0.0)

    def _step_impl(self, action, timeout_s=None, **kwargs):
        raise ValueError("only tools")

    @property
    def state(self):
        return self._state


def main():
    kind, port = sys.argv[1], int(sys.argv[2])
    if kind == "guess":
        app = create_fastapi_app(Guess, GuessAction, GuessObservation, max_concurrent_envs=8)
    else:
        app = create_fastapi_app(Notes, CallToolAction, CallToolObservation, max_concurrent_envs=8)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


main()
