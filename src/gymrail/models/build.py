"""From text to a model: what `--model` on the command line and `model:` in a configuration may say.

oracle                     the environment's gold policy; oracle:0.5 spoils half of its turns
openai:MODEL               OpenAI's API
http://HOST:PORT/v1        any OpenAI-compatible endpoint; needs the model's name too
http://A/v1,http://B/v1    several that serve the same model
script:FILE.json           a JSON list of turns: text, {"name": ..., "arguments": {...}}, or a list of such calls
FOLDER                     a local Transformers checkpoint
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from gymrail.environment import Call, Turn
from gymrail.errors import InputError, did_you_mean
from gymrail.models.model import EpisodePolicy, Model
from gymrail.models.scripted import Oracle, ScriptedModel

if TYPE_CHECKING:
    from gymrail.models.wire import EndpointSettings

OPENAI_URL = "https://api.openai.com/v1"
FORMS = "oracle, oracle:NOISE, openai:MODEL, http://HOST:PORT/v1, script:FILE.json or a checkpoint's folder"
_PREFIXES = ("oracle", "openai", "script", "http", "https")


def build_model(
    text: str,
    *,
    model_name: str | None = None,
    api_key: str | None = None,
    api_key_name: str = "OPENAI_API_KEY",
    seed: int = 0,
    settings: EndpointSettings | None = None,
) -> Model | EpisodePolicy:
    """Return the model that `text` names; models with a `close` method are the caller's to close.

    Args:
        text: one of the forms above.
        model_name: the model at an endpoint that is given by its address.
        api_key: for endpoints.
        api_key_name: where the key came from, for error messages.
        seed: of the oracle's mistakes.
        settings: of an endpoint; they name the key too, in place of `api_key_name`.

    Raises:
        InputError: the text has none of the forms, or what it names is not there.
    """
    kind, colon, rest = text.partition(":")
    if model_name is not None and kind not in ("http", "https"):
        raise InputError(f"A model name ({model_name!r}) goes with an endpoint's address; the model here is {text!r}.")
    if kind in ("http", "https"):
        if not model_name:
            raise InputError(f"The endpoint {text!r} needs the model's name: --model-name NAME.")
        return _endpoint(model_name, text, api_key, api_key_name, settings)
    if text == "oracle":
        return Oracle(seed=seed)
    if colon and kind == "oracle":
        return Oracle(_noise(rest, text), seed)
    if colon and kind == "openai" and rest:
        return _endpoint(rest, OPENAI_URL, api_key, api_key_name, settings)
    if colon and kind == "script" and rest:
        return ScriptedModel(read_script(Path(rest)))
    if Path(text).is_dir():
        return _checkpoint(Path(text))
    if "/" in text:
        raise InputError(f"Model {text!r}: there is no such folder. Allowed: {FORMS}.")
    raise InputError(f"Model {text!r} is not known. {did_you_mean(kind, _PREFIXES)} A model is {FORMS}.")


def address_of(text: str) -> str | None:
    """Return the address, or addresses, of the endpoint that `text` names; None where the model is none."""
    kind, _, rest = text.partition(":")
    if kind in ("http", "https"):
        return text
    return OPENAI_URL if kind == "openai" and rest else None


def read_script(path: Path) -> list[Turn]:
    """Read scripted turns from a JSON file.

    Raises:
        InputError: naming the file, the turn and its value.
    """
    try:
        turns = orjson.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"Script '{path}' cannot be read: {error.strerror}.") from None
    except orjson.JSONDecodeError as error:
        raise InputError(f"Script '{path}' is not valid JSON: {error}.") from None
    if not isinstance(turns, list):
        raise InputError(f"Script '{path}' is {type(turns).__name__}; it must be a list of turns.")
    return [_turn(turn, f"Script '{path}', turn {number}") for number, turn in enumerate(turns, 1)]


def _turn(turn: Any, where: str) -> Turn:
    if isinstance(turn, str):
        return turn
    if isinstance(turn, list) and turn:
        return [_call(part, where) for part in turn]
    return _call(turn, where)


def _call(value: Any, where: str) -> Call:
    if isinstance(value, Mapping):
        name, arguments = value.get("name"), value.get("arguments", {})
        if isinstance(name, str) and isinstance(arguments, Mapping):
            return Call(name, arguments)
    raise InputError(
        f'{where} is {value!r}; a turn is text, a call {{"name": ..., "arguments": {{...}}}}, or a list of calls.'
    )


def _noise(value: str, text: str) -> float:
    try:
        noise = float(value)
    except ValueError:
        noise = -1.0
    if not 0 <= noise <= 1:
        raise InputError(f"Model {text!r}: the oracle's noise is {value!r}; it must be a number from 0 to 1.")
    return noise


def _endpoint(
    name: str, base_url: str, api_key: str | None, api_key_name: str, settings: EndpointSettings | None
) -> Model:
    from gymrail.models.openai import EndpointSettings, OpenAIModel  # the HTTP client is loaded where it is used

    settings = settings or EndpointSettings(api_key_name=api_key_name)
    return OpenAIModel(name, base_url, api_key=api_key, settings=settings)


def _checkpoint(path: Path) -> Model:
    if not (path / "config.json").is_file():
        raise InputError(f"Model '{path}' is a folder without config.json; a Transformers checkpoint has one.")
    from gymrail.models.transformers import load, quiet_loading

    quiet_loading()
    return load(str(path))
