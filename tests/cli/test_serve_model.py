"""`gymrail serve-model` and `gymrail serve --agent`, as processes; `gymrail rollout --agent`."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai

from gymrail.registry import find

PROGRAM = """
import os, sys
from openai import OpenAI
prompt = sys.stdin.read()
with OpenAI(max_retries=0) as client:
    print(client.responses.create(model="any", input=prompt).output_text)
"""


@contextmanager
def served(*arguments: str) -> Iterator[tuple[str, str]]:
    """Run a server; yield its address and its key."""
    command = [sys.executable, "-m", "gymrail", *arguments, "--port", "0"]
    variables = {name: value for name, value in os.environ.items() if name != "GYMRAIL_KEY"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=variables) as process:
        try:
            assert process.stderr is not None
            said = process.stderr.readline()
            said += process.stderr.readline()
            address, key = re.search(r"on (http://\S+)", said), re.search(r"Key \(shown once\): (\S+)", said)
            assert address is not None, said
            yield address[1], key[1] if key else ""
        finally:
            process.terminate()
            process.wait(timeout=120)


def test_a_served_model_answers_with_its_key(tmp_path: Path) -> None:
    script = tmp_path / "turns.json"
    script.write_text('["Hello."]')
    with (
        served("serve-model", "-m", f"script:{script}") as (url, key),
        openai.OpenAI(base_url=url, api_key=key, max_retries=0) as client,
    ):
        assert client.responses.create(model="any", input="Hi").output_text == "Hello."
        assert (
            client.chat.completions.create(model="any", messages=[{"role": "user", "content": "Hi"}])
            .choices[0]
            .message.content
            == "Hello."
        )


def test_a_served_agent_plays_rows() -> None:
    row = next(find("session_counter").tasks("train", limit=1)).row
    with served("serve", "session_counter", "--agent", "tool_loop", "--model", "oracle", "--open") as (url, _):
        request = urllib.request.Request(f"{url}/run", json.dumps(row).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as response:
            assert json.load(response)["reward"] == 1.0


def test_an_oracle_cannot_be_served_and_an_agent_needs_a_model(run: Any) -> None:
    refused = run("serve-model", "-m", "oracle")
    assert (refused.code, "a served model knows none" in refused.stderr) == (2, True)
    refused = run("serve", "session_counter", "--agent", "tool_loop", "--model", "oracle", "--for-training")
    assert (refused.code, "what a trainer serves has an address" in refused.stderr) == (2, True)
    refused = run("serve", "session_counter", "--agent", "tool_loop")
    assert (refused.code, "--agent needs the model" in refused.stderr) == (2, True)
    refused = run("serve", "session_counter", "--model", "oracle")
    assert (refused.code, "A model is asked by an agent" in refused.stderr) == (2, True)


def test_a_program_plays_the_rollouts_of_a_run(run: Any, echo: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    agent = ("--agent", "command", "--command", f"{sys.executable} {program}")
    done = run("rollout", echo, "-m", "oracle", "-n", 2, *agent, "--run", tmp_path / "run", "--json")
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout)["overall"]["reward"]["mean"] == 1.0
    written = json.loads((tmp_path / "run/rollouts.jsonl").read_text().splitlines()[0])
    assert [item["type"] for item in written["response"]["output"]] == ["message"]


def test_an_agent_that_is_not_there_is_refused_with_what_helps(run: Any, echo: Path) -> None:
    for arguments, said in [
        (("--agent", "codexx"), "Did you mean 'codex'?"),
        (("--agent", "command"), "go together"),
        (("--command", "cat"), "go together"),
        (("--agent", "command", "--command", "/nowhere/program"), "There is no program '/nowhere/program'"),
        (("--program", "cat"), "where a ready-made agent is"),
        (("--agent", "codex", "--program", "/nowhere/codex"), "npm install -g @openai/codex"),
    ]:
        refused = run("rollout", echo, "-m", "oracle", *arguments)
        assert (refused.code, said in refused.stderr) == (2, True), refused.stderr
