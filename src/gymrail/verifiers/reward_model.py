"""A learned reward model as a verifier: it reads the talk and gives its answer a number.

    verifier = RewardModel(SequenceClassifier.load("org/reward-model"))               # a checkpoint, in this process
    verifier = RewardModel(RewardEndpoint("http://localhost:8000", "org/reward-model"))   # served, for example by vLLM
    verdict = await verifier("It is Oslo.", question="What is the capital of Norway?")

A score may be any number; `squash` brings it into the range that the environment declares. A model that is down, has no
room for the talk or gives what is no number raises `VerifierError`: a failure, never a reward.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pydantic import Field, model_validator

from gymrail.environment import Config
from gymrail.errors import ContextOverflow, InputError, ModelError, VerifierError, did_you_mean
from gymrail.models.endpoint import Endpoint
from gymrail.models.http import TryAgain
from gymrail.models.wire import EndpointSettings, to_json
from gymrail.rollout import Verdict, text_of
from gymrail.task import Item

Chat = list[dict[str, str]]
"""`{"role": ..., "content": ...}` messages; the last is the assistant's answer."""
Squash = Literal["sigmoid", "clip", "none"]


class Scorer(Protocol):
    """Scores answers; many at once.

    Raises:
        VerifierError: there is no score.
    """

    async def score(self, chat: Chat) -> float: ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True)
class RewardModel:
    """The verifier. The metric `score` is the model's own number."""

    scorer: Scorer
    squash: Squash = "sigmoid"
    """"sigmoid" maps a score to (0, 1); "clip" cuts it to [low, high] and maps that to [0, 1]; "none" leaves it, for
    environments whose reward range holds whatever the model may say."""
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if self.squash not in ("sigmoid", "clip", "none"):
            raise InputError(f"squash is {self.squash!r}. {did_you_mean(self.squash, ('sigmoid', 'clip', 'none'))}")
        if not -math.inf < self.low < self.high < math.inf:
            raise InputError(f"low is {self.low!r} and high is {self.high!r}; low must be the smaller of two numbers.")

    async def __call__(
        self, answer: str, /, *, question: str | None = None, conversation: Sequence[Item] | None = None, **fields: Any
    ) -> Verdict:
        """Score an answer to a question, or to a conversation that does not hold it yet.

        Raises:
            VerifierError: there is no score.
            InputError: neither a question nor a conversation is given.
        """
        if question is None and conversation is None:
            raise InputError("A reward model needs the field 'question' or 'conversation': what was answered.")
        asked = [{"role": "user", "content": question}] if question is not None else chat_of(conversation or ())
        score = await self.scorer.score([*asked, {"role": "assistant", "content": answer}])
        if not math.isfinite(score):
            raise VerifierError(f"The reward model's score is {score!r}; it must be a finite number.")
        return Verdict(squashed(score, self.squash, self.low, self.high), metrics={"score": score})

    async def aclose(self) -> None:
        """Give back what the scorer holds."""
        await self.scorer.aclose()


def squashed(score: float, squash: Squash, low: float = 0.0, high: float = 1.0) -> float:
    """Return the reward that a score stands for."""
    if squash == "none":
        return score
    if squash == "clip":
        return min(1.0, max(0.0, (score - low) / (high - low)))
    # Written for both signs so that exp never overflows.
    return 1 / (1 + math.exp(-score)) if score >= 0 else math.exp(score) / (1 + math.exp(score))


def chat_of(items: Sequence[Item]) -> Chat:
    """Return the messages of a conversation as text; tool calls, their outputs and reasoning are left out."""
    chat: Chat = []
    for item in items:
        role = item.get("role")
        if role is None:
            continue
        role = "system" if role == "developer" else role
        if chat and chat[-1]["role"] == role == "assistant":  # two messages around a tool call are one turn
            chat[-1]["content"] += "\n" + text_of(item)
        else:
            chat.append({"role": role, "content": text_of(item)})
    return chat


Api = Literal["pooling", "classify", "score"]


class RewardEndpoint:
    """A reward model behind an endpoint with vLLM's pooling routes, which stand beside `/v1` and not below it.

    `pooling` posts messages to /pooling, and takes the number of a sequence, or of the last token where each has one.
    `classify` posts messages to /classify and asks for logits (`use_activation: false`). `score` posts the question and
    the answer as a pair of texts to /score. What fails is tried again, as any model endpoint of Gymrail is.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api: Api = "pooling",
        label: int | None = None,
        api_key: str | None = None,
        settings: EndpointSettings | None = None,
        timeout_seconds: float = 120.0,
    ) -> None:
        """
        Args:
            label: which number is the reward, where the model gives several.
            timeout_seconds: one score, with all its attempts.

        Raises:
            InputError: the address or the api is no good.
        """
        if api not in ("pooling", "classify", "score"):
            raise InputError(f"api is {api!r}. {did_you_mean(api, ('pooling', 'classify', 'score'))}")
        root = base_url.rstrip("/").removesuffix("/v1")
        self.model = model
        self.api = api
        self.label = label
        self.timeout_seconds = timeout_seconds
        self._endpoint = Endpoint(root, model, settings or EndpointSettings(), api_key)

    async def score(self, chat: Chat) -> float:
        """Return the model's number; see `Scorer`."""
        try:
            return await self._endpoint.post(
                self.api, self._body(chat), self._read, timeout_seconds=self.timeout_seconds
            )
        except (ModelError, ContextOverflow) as error:
            raise VerifierError(f"The reward model failed: {error}") from error

    async def aclose(self) -> None:
        """Close the connections; a later score opens new ones."""
        await self._endpoint.close()

    def _body(self, chat: Chat) -> bytes:
        if self.api == "score":
            asked = "\n\n".join(message["content"] for message in chat[:-1])
            return to_json({"model": self.model, "text_1": asked, "text_2": chat[-1]["content"]})
        body: dict[str, Any] = {"model": self.model, "messages": chat}
        if self.api == "classify":
            body["use_activation"] = False
        return to_json(body)

    def _read(self, payload: dict[str, Any]) -> float:
        entry = payload["data"][0]
        if self.api == "score":
            return _number(entry["score"])
        values = entry["data"] if self.api == "pooling" else entry["probs"]
        if values and isinstance(values[-1], list):
            values = values[-1]  # a number for each token: the last one has read everything
        if isinstance(values, str):
            raise TryAgain(f"the answer's data is text ({values[:40]!r}); the endpoint must send numbers")
        return _number(choose(values, self.label))


def choose(values: Sequence[Any], label: int | None) -> Any:
    """Return the number that is the reward.

    Raises:
        VerifierError: there are several and none is named, or the named one is not there.
    """
    if label is None and len(values) != 1:
        raise VerifierError(f"The reward model gives {len(values)} numbers; name the one that counts: label=0, ...")
    if label is not None and not 0 <= label < len(values):
        raise VerifierError(f"label is {label!r}, and the reward model gives {len(values)} numbers.")
    return values[label or 0]


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return float(value)


class RewardModelSettings(Config):
    """A reward model in an environment's settings: a checkpoint or an address."""

    checkpoint: str | None = None
    """A folder or a hub id, loaded into this process; needs the extra `trl`."""
    device: str | None = None
    dtype: str = "auto"
    max_batch: int = Field(default=16, ge=1)
    url: str | None = None
    """An endpoint with vLLM's routes."""
    model_name: str | None = None
    """The model at the endpoint."""
    api: Api = "pooling"
    api_key_env: str | None = None
    """The environment variable that holds the endpoint's key, where it wants one."""
    timeout_seconds: float = Field(default=120.0, gt=0)
    max_retries: int = Field(default=6, ge=0)
    label: int | None = None
    """Which output is the reward, where the model has several."""

    @model_validator(mode="after")
    def _names_one(self) -> RewardModelSettings:
        if (self.checkpoint is None) == (self.url is None):
            raise ValueError("give either 'checkpoint' or 'url'")
        if self.url is not None and self.model_name is None:
            raise ValueError("an 'url' needs 'model_name', the model that the endpoint serves")
        return self

    def build(self) -> Scorer:
        """Return the scorer; `aclose` is the caller's to call.

        Raises:
            InputError: there is no such checkpoint, or a package or the key is missing.
        """
        if self.checkpoint is not None:
            from gymrail.verifiers.sequence_classifier import SequenceClassifier

            return SequenceClassifier.load(
                self.checkpoint, device=self.device, dtype=self.dtype, label=self.label, max_batch=self.max_batch
            )
        assert self.url is not None and self.model_name is not None
        key_name = self.api_key_env or "api_key_env"
        settings = EndpointSettings(max_retries=self.max_retries, api_key_name=key_name)
        key = os.environ.get(key_name) if self.api_key_env else None
        if self.api_key_env and not key:
            raise InputError(f"The environment variable {key_name!r} is not set: export {key_name}=...")
        return RewardEndpoint(
            self.url, self.model_name, api=self.api, label=self.label, api_key=key,
            settings=settings, timeout_seconds=self.timeout_seconds,
        )  # fmt: skip
