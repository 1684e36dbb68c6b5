"""A local sequence-classification checkpoint as a reward model: concurrent episodes share forward passes.

Torch and Transformers are imported when a checkpoint is loaded, not before: the core does not depend on them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any, Self
from weakref import WeakKeyDictionary

from gymrail.errors import InputError, VerifierError, attempt
from gymrail.verifiers.reward_model import Chat, choose

_GATHER_SECONDS = 0.002
"""What a batch waits for others that finish in the same turn of the event loop."""


class SequenceClassifier:
    """Scores chats with a classification head. One instance serves many episodes and event loops; the event loop stays
    free, and one batch runs at a time."""

    def __init__(
        self, model: Any, tokenizer: Any, *, label: int | None = None, max_batch: int = 16, truncate: bool = False
    ) -> None:
        """
        Args:
            label: which logit is the reward; may be left out where the head has one.
            max_batch: chats per forward pass.
            truncate: cut a chat that is too long at its beginning, instead of failing.

        Raises:
            InputError: the head has several labels and none is named, or padding has no token.
        """
        count = model.config.num_labels
        if (label is None and count != 1) or (label is not None and not 0 <= label < count):
            raise InputError(
                f"label is {label!r}, and the checkpoint's head has {count} labels; name one: label=0, ..."
            )
        if tokenizer.pad_token_id is None:
            if tokenizer.eos_token_id is None:
                raise InputError("The checkpoint's tokenizer has neither a padding nor an end-of-text token.")
            tokenizer.pad_token = tokenizer.eos_token
        if model.config.pad_token_id is None:  # by it the head finds a sequence's last token
            model.config.pad_token_id = tokenizer.pad_token_id
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.label = label
        self.max_batch = max_batch
        self.truncate = truncate
        self._forward = threading.Lock()
        self._queues: WeakKeyDictionary[asyncio.AbstractEventLoop, _Queue] = WeakKeyDictionary()

    @classmethod
    def load(
        cls, path: str, *, device: str | None = None, dtype: str = "auto", label: int | None = None,
        max_batch: int = 16, truncate: bool = False,
    ) -> Self:  # fmt: skip
        """Load a checkpoint folder or a hub id.

        Args:
            device: "cpu", "cuda", ...; a GPU where there is one by default.
            dtype: "auto" (as saved, but float32 on CPU), "float32", "bfloat16", ...

        Raises:
            InputError: the packages or the checkpoint are missing, or it has no usable head.
        """
        try:
            import torch
            from transformers import AutoModelForSequenceClassification, AutoTokenizer
        except ImportError as error:
            raise InputError("A local reward model needs Transformers and torch: pip install 'gymrail[trl]'") from error
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        dtype = "float32" if dtype == "auto" and device == "cpu" else dtype
        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(path)
            model: Any = AutoModelForSequenceClassification.from_pretrained(path, dtype=dtype)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"No sequence-classification checkpoint could be loaded from {path!r}: {reason}"
            ) from error
        return cls(model.to(device), tokenizer, label=label, max_batch=max_batch, truncate=truncate)

    async def score(self, chat: Chat) -> float:
        """Return the reward of a chat's last message; see `Scorer`.

        Raises:
            VerifierError: the chat is too long, or the forward pass failed.
        """
        loop = asyncio.get_running_loop()
        queue = self._queues.setdefault(loop, _Queue(self))
        return await queue.score(chat)

    async def aclose(self) -> None:
        """Nothing is held that the garbage collector does not give back."""

    def encode(self, chat: Chat) -> list[int]:
        """Return a chat's token ids: by the chat template or, for encoders without one, as question and answer.

        Raises:
            VerifierError: the chat is longer than the model can read.
        """
        tokenizer = self.tokenizer
        if tokenizer.chat_template is not None:
            text = tokenizer.apply_chat_template(chat, tokenize=False)
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        else:
            asked = "\n\n".join(message["content"] for message in chat[:-1])
            ids = tokenizer(asked, chat[-1]["content"])["input_ids"]
        limit = getattr(self.model.config, "max_position_embeddings", None)
        if limit is not None and len(ids) > limit:
            if not self.truncate:
                raise VerifierError(f"The talk has {len(ids)} tokens, and the reward model reads {limit} at most.")
            ids = ids[-limit:]
        return list(ids)

    def forward(self, batch: Sequence[list[int]]) -> list[float]:
        """Score encoded chats in one forward pass, padded on the right."""
        import torch

        width, device = max(map(len, batch)), self.model.device
        pad = self.tokenizer.pad_token_id
        ids = [chat + [pad] * (width - len(chat)) for chat in batch]
        mask = [[1] * len(chat) + [0] * (width - len(chat)) for chat in batch]
        with self._forward, torch.inference_mode():
            output = self.model(
                input_ids=torch.tensor(ids, device=device), attention_mask=torch.tensor(mask, device=device)
            )
        return [float(choose(logits, self.label)) for logits in output.logits.float().tolist()]

    def score_batch(self, chats: Sequence[Chat]) -> list[float | VerifierError]:
        """Score chats, `max_batch` at once; where one cannot be scored its error stands in its place."""
        results: list[float | VerifierError] = [VerifierError("not scored")] * len(chats)
        encoded: list[tuple[int, list[int]]] = []
        for place, chat in enumerate(chats):
            ids, error = attempt(self.encode, chat)
            if error is None and ids:
                encoded.append((place, ids))
            else:
                results[place] = _as_verifier_error(error or ValueError("the chat has no tokens"))
        encoded.sort(key=lambda entry: len(entry[1]))  # chats of like length pad each other little
        for start in range(0, len(encoded), self.max_batch):
            part = encoded[start : start + self.max_batch]
            scores, error = attempt(self.forward, [ids for _, ids in part])
            for index, (place, _) in enumerate(part):
                results[place] = _as_verifier_error(error) if scores is None else scores[index]
        return results


class _Queue:
    """One event loop's waiting chats."""

    def __init__(self, classifier: SequenceClassifier) -> None:
        self.classifier = classifier
        self.waiting: list[tuple[Chat, asyncio.Future[float]]] = []
        self.worker: asyncio.Task[None] | None = None

    async def score(self, chat: Chat) -> float:
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.waiting.append((chat, future))
        if self.worker is None or self.worker.done():
            self.worker = asyncio.ensure_future(self._work())
        return await future

    async def _work(self) -> None:
        while self.waiting:
            await asyncio.sleep(_GATHER_SECONDS)
            taken = [entry for entry in self.waiting if not entry[1].done()]
            self.waiting = []
            results = await asyncio.to_thread(self.classifier.score_batch, [chat for chat, _ in taken])
            for (_, future), result in zip(taken, results, strict=True):
                if future.done():
                    continue
                if isinstance(result, VerifierError):
                    future.set_exception(result)
                else:
                    future.set_result(result)


def _as_verifier_error(error: BaseException | None) -> VerifierError:
    if isinstance(error, VerifierError):
        return error
    return VerifierError(f"The reward model failed: {type(error).__name__}: {error}")
