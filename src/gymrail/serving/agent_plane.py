"""The agent plane: which paths are an agent's, and what they lead to. Everything else is the control plane's.

/e/<token>/<tool>   /e/<token>/mcp   /<env>/<tool>   /<env>/mcp   and /<tool>, /mcp where one environment is served
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import ASGIApp, Receive, Scope, Send

from gymrail.serving.auth import credentials_of
from gymrail.serving.mcp import McpEndpoint
from gymrail.serving.service import Service
from gymrail.serving.tool_route import ToolRoute


class AgentPlane:
    """Finds the route of an agent's request."""

    def __init__(self, service: Service, endpoints: Mapping[str, McpEndpoint]) -> None:
        self.service = service
        self.endpoints = endpoints
        self.tool = ToolRoute(service)

    def find(self, path: str) -> tuple[ASGIApp, dict[str, str]] | None:
        """Return the route and the path's parameters; None for a path of the control plane."""
        match path.split("/"):
            case ["", "e", token, name]:
                return self._route(name), {"token": token, "tool": name}
            case ["", environment, name] if environment in self.service.specs and self._is_agents(name):
                return self._route(name), {"environment": environment, "tool": name}
            case ["", name] if self.service.is_single and self._is_agents(name):
                return self._route(name), {"tool": name}
        return None

    async def mcp(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Find the episode and hand the request to its environment's MCP."""
        held = self.service.agent_episode(scope, scope["path_params"].get("environment"), credentials_of(scope))
        await self.endpoints[held.environment].handle(scope, receive, send, held)

    def _route(self, name: str) -> ASGIApp:
        return self.mcp if name == "mcp" else self.tool

    def _is_agents(self, name: str) -> bool:
        return name == "mcp" or (name != "" and name not in self.service.reserved)
