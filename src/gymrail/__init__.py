"""Gymrail: write an RL environment once; serve it to any MCP agent; train on it with TRL, Unsloth or NeMo RL."""

from gymrail.environment import Config, Environment, Reply, ToolServer, call
from gymrail.episode import Episode
from gymrail.errors import GymrailError, ToolError
from gymrail.rollout import Outcome, Rollout, Verdict
from gymrail.task import Task
from gymrail.tools import File, Image, tool

__version__ = "0.1.0"

__all__ = [
    "Config",
    "Environment",
    "Episode",
    "File",
    "GymrailError",
    "Image",
    "Outcome",
    "Reply",
    "Rollout",
    "Task",
    "ToolError",
    "ToolServer",
    "Verdict",
    "call",
    "tool",
]
