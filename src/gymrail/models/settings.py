"""A model that an environment needs (a judge, a simulated user), as its settings name it: an address, never a key.

judge:
  model: http://localhost:8000/v1
  model_name: Qwen/Qwen3-8B
  api_key_env: JUDGE_KEY
  parameters: {temperature: 0, max_output_tokens: 1024}
"""

from __future__ import annotations

import os
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field, field_validator

from gymrail.errors import InputError, did_you_mean
from gymrail.models.build import build_model
from gymrail.models.model import Model
from gymrail.models.scripted import Oracle
from gymrail.task import RESPONSES_PARAMETERS

_NOT_SETTINGS = frozenset({"input", "model", "stream", "tools", "tool_choice"})


class ModelSettings(BaseModel):
    """Which model, and how it is asked. Written to run configurations as it stands, so it holds no secret."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    """As on the command line: `openai:MODEL`, an endpoint's address (several, separated by commas), a checkpoint's
    folder, `script:FILE.json`."""
    model_name: str | None = None
    """The model at an endpoint that is given by its address."""
    api_key_env: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """The environment variable that holds the key; by default OPENAI_API_KEY, where it is set."""
    parameters: dict[str, Any] = {}
    """Responses parameters of every request: `temperature`, `max_output_tokens`, `reasoning`, ..."""
    timeout_seconds: float = Field(120.0, gt=0)
    """One request, its retries and its waits for a busy endpoint included."""
    max_retries: int = Field(6, ge=0)
    """Attempts after the first where the endpoint fails; being refused as one too many (429) is waited out."""

    @field_validator("parameters")
    @classmethod
    def _are_parameters(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        allowed = RESPONSES_PARAMETERS - _NOT_SETTINGS
        for name in parameters:
            if name not in allowed:
                raise ValueError(f"{name!r} is no parameter of a request. {did_you_mean(name, allowed)}")
        return parameters

    def build(self) -> Model:
        """Return the model; one with a `close` method is the caller's to close.

        Raises:
            InputError: there is no such model, its key is missing, or it is one that plays episodes alone.
        """
        from gymrail.models.wire import EndpointSettings  # the HTTP client is loaded where it is used

        # A configuration, a recipe and a worker process have the variable's name alone, and a key must not stand there.
        variable = self.api_key_env or "OPENAI_API_KEY"
        key = os.environ.get(variable) or None
        if key is None and (self.model.startswith("openai:") or self.api_key_env is not None):
            raise InputError(
                f"Model {self.model!r} needs a key, and the environment variable {variable!r} is not set: "
                f"export {variable}=..."
            )
        settings = EndpointSettings(max_retries=self.max_retries, api_key_name=variable)
        built = build_model(
            self.model, model_name=self.model_name, api_key=key, api_key_name=variable, settings=settings
        )
        if isinstance(built, Oracle):
            raise InputError("Model 'oracle' plays episodes and answers no single request; name another model.")
        return cast(Model, built)

    @property
    def shown(self) -> str:
        """The model's name for people and metrics."""
        return self.model_name or self.model.removeprefix("openai:")
