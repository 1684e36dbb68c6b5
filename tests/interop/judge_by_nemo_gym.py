"""Judges answers with nemo-gym's own resources servers. Run by their Python; reads and writes JSON lines.

{"server": "mcqa", "task": {...row...}, "output": [...items...]}  ->  {"reward": 1.0}
"""

import asyncio
import contextlib
import importlib
import io
import json
import sys
from pathlib import Path
from unittest.mock import MagicMock

import resources_servers
from nemo_gym.server_utils import ServerClient

CLASSES = {
    "mcqa": "MCQA",
    "structured_outputs": "StructuredOutputs",
    "instruction_following": "InstructionFollowing",
    "calendar": "Calendar",
}


def load(server):
    folder = next(Path(place) / server for place in resources_servers.__path__)
    sys.path.insert(0, str(folder))  # its app imports modules beside it by their bare names
    app = importlib.import_module(f"resources_servers.{server}.app")
    config = getattr(app, f"{CLASSES[server]}ResourcesServerConfig")(host="", port=0, entrypoint="", name="")
    made = getattr(app, f"{CLASSES[server]}ResourcesServer")(config=config, server_client=MagicMock(spec=ServerClient))
    return made, getattr(app, f"{CLASSES[server]}VerifyRequest")


def response(output):
    return {
        "id": "resp_0", "created_at": 0.0, "model": "script", "object": "response", "output": output,
        "parallel_tool_calls": False, "tool_choice": "auto", "tools": [],
    }  # fmt: skip


async def judge(case, servers):
    server, request = servers[case["server"]]
    body = request.model_validate({**case["task"], "response": response(case["output"])})
    return (await server.verify(body)).reward


def prepare_instructions():
    """Make the detector deterministic, and tokenizers of data that today's nltk does not download: the same algorithm
    (Punkt), without its list of abbreviations."""
    import langdetect
    import nltk
    from verifiable_instructions import instructions_util

    langdetect.DetectorFactory.seed = 0
    sentences, words = nltk.tokenize.PunktSentenceTokenizer(), nltk.tokenize.NLTKWordTokenizer()
    instructions_util._get_sentence_tokenizer = lambda: sentences
    nltk.word_tokenize = lambda text: [word for one in sentences.tokenize(text) for word in words.tokenize(one)]
    nltk.download = lambda *names, **options: None


async def main():
    cases = [json.loads(line) for line in sys.stdin]
    if any(case["server"] == "instruction_following" for case in cases):
        prepare_instructions()
    said = io.StringIO()
    with contextlib.redirect_stdout(said):  # they print
        servers = {name: load(name) for name in {case["server"] for case in cases}}
        rewards = [await judge(case, servers) for case in cases]
    for reward in rewards:
        print(json.dumps({"reward": reward}))


asyncio.run(main())
