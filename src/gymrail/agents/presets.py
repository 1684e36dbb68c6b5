"""Ready-made programs: Claude Code, Codex, the OpenAI Agents SDK, LangGraph.

Each is given the episode's tools and nothing else: no shell, no files, no web, no memory, no settings of yours.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from gymrail.agents.command import SERVER_NAME, Program
from gymrail.errors import InputError, did_you_mean

_PROGRAMS = Path(__file__).parent / "programs"
_CODEX_CONFIG = f"""\
model = "{{model}}"
model_provider = "gymrail"
approval_policy = "never"
sandbox_mode = "read-only"
web_search = "disabled"
check_for_update_on_startup = false

[model_providers.gymrail]
name = "gymrail"
base_url = "{{model_url}}/v1"
wire_api = "responses"
env_key = "OPENAI_API_KEY"
request_max_retries = 0
stream_max_retries = 0

[mcp_servers.{SERVER_NAME}]
url = "{{mcp_url}}"
required = true
tool_timeout_sec = 3600

[features]
apps = false
goals = false
multi_agent = false
plugins = false
shell_tool = false
unified_exec = false

[tools]
view_image = false
"""


def find_program(name: str, path: str | None = None) -> Program:
    """Return a ready-made program.

    Args:
        name: one of `PRESETS`. path: the program's file, or for an SDK the Python interpreter that has it; looked for
        by its usual name by default.

    Raises:
        InputError: no such preset, or the program is not installed.
    """
    preset = PRESETS.get(name)
    if preset is None:
        raise InputError(f"There is no ready-made agent {name!r}. {did_you_mean(name, PRESETS)}")
    return preset(path)


def _claude_code(path: str | None) -> Program:
    return Program(
        (
            _installed(path or "claude", "npm install -g @anthropic-ai/claude-code"),
            "-p", "--output-format", "text", "--tools", "",
            "--mcp-config", "{mcp_config}", "--strict-mcp-config", "--allowedTools", f"mcp__{SERVER_NAME}",
        ),
        {
            "ANTHROPIC_MODEL": "{model}",
            "ANTHROPIC_SMALL_FAST_MODEL": "{model}",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "CLAUDE_CODE_MAX_RETRIES": "0",
            "CLAUDE_CONFIG_DIR": "{folder}/.claude",
            "DISABLE_AUTOUPDATER": "1",
            "MCP_TOOL_TIMEOUT": "3600000",
        },
    )  # fmt: skip


def _codex(path: str | None) -> Program:
    command = (_installed(path or "codex", "npm install -g @openai/codex"), "exec", "--skip-git-repo-check", "-")
    return Program(command, {"CODEX_HOME": "{folder}/.codex"}, {".codex/config.toml": _CODEX_CONFIG})


def _openai_agents(path: str | None) -> Program:
    python = _installed(path or sys.executable, "pip install openai-agents")
    return Program((python, str(_PROGRAMS / "play_with_openai_agents.py")), {"OPENAI_AGENTS_DISABLE_TRACING": "1"})


def _langgraph(path: str | None) -> Program:
    python = _installed(path or sys.executable, "pip install langchain langchain-openai langchain-mcp-adapters")
    return Program((python, str(_PROGRAMS / "play_with_langgraph.py")), {"LANGSMITH_TRACING": "false"})


PRESETS: dict[str, Callable[[str | None], Program]] = {
    "claude-code": _claude_code,
    "codex": _codex,
    "langgraph": _langgraph,
    "openai-agents": _openai_agents,
}


def _installed(program: str, how: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise InputError(
            f"There is no program {program!r} here; install it ({how}), or say where it is: --program PATH."
        )
    # The program is started in a folder of its own.
    return str(Path(found).absolute())
