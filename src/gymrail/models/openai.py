"""Any OpenAI-compatible endpoint as a model: OpenAI, Azure, vLLM, SGLang, llama.cpp, TGI, a model server of NeMo Gym.

    async with OpenAIModel("Qwen/Qwen3-0.6B", "http://localhost:8000/v1") as model:
        await model.check()
        rollout = await play(spec, task, model)

Covers: Chat Completions and Responses, bounded retries, reasoning, token ids and log-probs, many calls at once.
Does not cover: streaming, background responses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from gymrail.errors import InputError
from gymrail.models.chat import ChatWire
from gymrail.models.fleet import open_endpoint
from gymrail.models.model import ModelRequest, ModelResponse
from gymrail.models.pace import Load, total_load
from gymrail.models.responses import ResponsesWire
from gymrail.models.wire import EndpointSettings, Wire, to_json

__all__ = ["EndpointSettings", "OpenAIModel"]

_MAX_HEADS = 256


class OpenAIModel:
    """A model behind an OpenAI-compatible endpoint. One instance serves many episodes and event loops at once."""

    provider = "openai"
    """The protocol's name in traces."""

    def __init__(
        self,
        model: str,
        base_url: str = "https://api.openai.com/v1",
        *,
        api_key: str | None = None,
        api: Literal["auto", "chat", "responses"] = "auto",
        settings: EndpointSettings | None = None,
    ) -> None:
        """Talk to nothing yet.

        Args:
            model: The name that the endpoint serves; a task row's own `model` does not count.
            base_url: With its version, such as `http://localhost:8000/v1`; a query is kept behind every path. Several
                that serve the same model are separated by commas.
            api_key: Sent as a bearer token; never logged or shown.
            api: "auto" speaks Responses with api.openai.com and Chat Completions, which all servers have, with others.

        Raises:
            InputError: the address or a setting is no good.
        """
        self.model = model
        self.settings = settings = settings or EndpointSettings()
        self._endpoint = open_endpoint(base_url, model, settings, api_key)
        if api not in ("auto", "chat", "responses"):
            raise InputError(f"api is {api!r}; it must be 'auto', 'chat' or 'responses'.")
        if api == "auto":
            api = "responses" if self._endpoint.host == "api.openai.com" else "chat"
        self._wire: Wire = (
            ResponsesWire(model, settings)
            if api == "responses"
            else ChatWire(model, settings, self._max_tokens_field())
        )
        self._heads: dict[bytes, bytes] = {}

    def __repr__(self) -> str:
        return f"OpenAIModel({self.model!r}, {self._endpoint.shown_url!r}, path={self._wire.path!r})"

    @property
    def calls(self) -> int:
        """Calls that were answered."""
        return self._endpoint.calls

    @property
    def retries(self) -> int:
        """Attempts after a call's first."""
        return self._endpoint.retries

    @property
    def loads(self) -> dict[str, Load]:
        """How many requests each address is sent at once, answers now, and keeps waiting."""
        return self._endpoint.loads

    @property
    def load(self) -> Load:
        """The same, of all addresses together."""
        return total_load(self._endpoint.loads.values())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; a later request opens new ones."""
        await self._endpoint.close()

    async def respond(self, request: ModelRequest) -> ModelResponse:
        """Answer a request; see `Model`.

        Raises:
            ModelError: refused, or no usable answer after the retries or within `request.timeout_seconds`.
            ContextOverflow: the conversation is too long.
            InputError: a parameter that the endpoint's API cannot say.
        """
        wire, parameters = self._wire, request.parameters
        conversation = wire.conversation(request.episode_id, request.input)
        head = self._head(request.tools, parameters)
        # Instructions alone, without a conversation behind them, must not end in a comma.
        body = b"%b%b%b" % (head if conversation else head.removesuffix(b","), conversation, wire.tail)
        return await self._endpoint.post(
            wire.path,
            body,
            wire.parse,
            timeout_seconds=request.timeout_seconds,
            max_output_tokens=parameters.get("max_output_tokens"),
            episode_id=request.episode_id,
        )

    async def check(self) -> None:
        """Find out before a run whether the endpoint can be reached, takes the key and serves the model.

        An endpoint that lists no models is taken at its word.

        Raises:
            ModelError: it cannot be reached, or refuses the key.
            InputError: it serves other models; the text names the nearest.
        """
        await self._endpoint.check()

    async def list_models(self) -> list[str]:
        """Return the names of the models that the endpoint serves; none where it has no list, or takes any name.

        Raises:
            ModelError: it cannot be reached, or refuses the key.
        """
        return await self._endpoint.list_models()

    def _head(self, tools: Sequence[Mapping[str, Any]], parameters: Mapping[str, Any]) -> bytes:
        key = to_json((tools, parameters))
        head = self._heads.get(key)
        if head is None:
            head = self._wire.head(tools, parameters)
            if len(self._heads) >= _MAX_HEADS:
                self._heads.clear()
            self._heads[key] = head
        return head

    def _max_tokens_field(self) -> str:
        if self.settings.max_tokens_field != "auto":
            return self.settings.max_tokens_field
        host = self._endpoint.host
        is_openai = host == "api.openai.com" or host.endswith(".azure.com")
        return "max_completion_tokens" if is_openai else "max_tokens"
