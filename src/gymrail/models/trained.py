"""A policy that a trainer serves while it trains it, such as NeMo RL's behind NeMo Gym's model server."""

from __future__ import annotations

from gymrail.errors import InputError
from gymrail.models.openai import EndpointSettings, OpenAIModel


def trained_model(url: str, name: str | None, api_key: str | None = None) -> OpenAIModel:
    """Return the model at an address, asked over Responses: its token ids come with every answer and go back with
    every later request, so that the server can continue exactly what was sampled.

    Raises:
        InputError: it is no address.
    """
    if not url.startswith(("http://", "https://")):
        raise InputError(f"The model is {url!r}; what a trainer serves has an address: http://HOST:PORT/v1.")
    # "auto": where the context ran out, NeMo Gym's model server gives an empty answer without tokens.
    settings = EndpointSettings(token_ids="auto", carry_token_ids=True)
    return OpenAIModel(name or "policy_model", url, api_key=api_key, api="responses", settings=settings)
