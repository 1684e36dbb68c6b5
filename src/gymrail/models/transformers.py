"""A local Transformers checkpoint as a model: concurrent episodes share batches; token ids and log-probs are exact.

Torch and Transformers are imported when a model is loaded, not before: the core does not depend on them.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gymrail.errors import InputError, ModelError
from gymrail.models.chat_template import ChatTemplate
from gymrail.models.token_model import DEFAULT_SAMPLING, Sample, Sampling, TokenModel


class TransformersSampler:
    """Samples from a live Transformers model. Requests that wait together go through one `generate`.

    The event loop stays free: `generate` runs in a thread, and what arrives meanwhile makes the next batch.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        max_batch: int = 256,
        generating: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        """
        Args:
            model: anything with `generate`.
            tokenizer: for padding and end-of-turn ids.
            max_batch: sequences per `generate`.
            generating: entered around each batch; trainers gather sharded weights there.
        """
        self.model = model
        self.max_batch = max_batch
        self.generating = generating
        self.eos_token_ids = sorted(eos_ids(model, tokenizer))
        self.pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.eos_token_ids[0]
        self._waiting: dict[Sampling, list[tuple[list[int], asyncio.Future[Sample]]]] = defaultdict(list)
        self._worker: asyncio.Task[None] | None = None

    async def sample(self, prompt_ids: list[int], sampling: Sampling) -> Sample:
        future: asyncio.Future[Sample] = asyncio.get_running_loop().create_future()
        self._waiting[sampling].append((prompt_ids, future))
        if self._worker is None or self._worker.done() or self._worker.get_loop() is not asyncio.get_running_loop():
            self._worker = asyncio.ensure_future(self._work())
        return await future

    async def _work(self) -> None:
        while self._waiting:
            # Episodes that the last batch woke take a few turns of the loop to come back with their next prompt.
            await asyncio.sleep(0.002)
            sampling = max(self._waiting, key=lambda key: len(self._waiting[key]))
            queue = self._waiting.pop(sampling)
            live = [entry for entry in queue if not entry[1].done()]
            # Prompts of like length pad each other little.
            live.sort(key=lambda entry: len(entry[0]))
            for start in range(0, len(live), self.max_batch):
                await self._run_batch(live[start : start + self.max_batch], sampling)

    async def _run_batch(self, batch: list[tuple[list[int], asyncio.Future[Sample]]], sampling: Sampling) -> None:
        try:
            samples = await asyncio.to_thread(self.generate, [prompt for prompt, _ in batch], sampling)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            # Out of memory, a prompt past the model's positions, an unknown id: each waiting episode fails, the
            # sampler lives on.
            for _, future in batch:
                if not future.done():
                    future.set_exception(ModelError(f"generate failed: {type(error).__name__}: {error}"))
            return
        for (_, future), sample in zip(batch, samples, strict=True):
            if not future.done():
                future.set_result(sample)

    def generate(self, prompts: Sequence[list[int]], sampling: Sampling) -> list[Sample]:
        """Sample one turn after each prompt, in one batch, left-padded."""
        import torch

        width = max(map(len, prompts))
        padded = [[self.pad_token_id] * (width - len(ids)) + ids for ids in prompts]
        mask = [[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts]
        greedy = sampling.temperature == 0
        chosen: dict[str, Any] = {"do_sample": False} if greedy else {
            "do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0
        }  # fmt: skip
        with self.generating() as unwrapped, torch.no_grad():
            model = unwrapped if unwrapped is not None else self.model
            was_training = model.training
            model.eval()
            try:
                output = model.generate(
                    input_ids=torch.tensor(padded, device=model.device),
                    attention_mask=torch.tensor(mask, device=model.device),
                    max_new_tokens=sampling.max_output_tokens,
                    eos_token_id=self.eos_token_ids,
                    pad_token_id=self.pad_token_id,
                    return_dict_in_generate=True,
                    output_logits=True,
                    **chosen,
                )
            finally:
                model.train(was_training)
        sampled = output.sequences[:, width:]
        logits = torch.stack(output.logits, 1).float() / (1.0 if greedy else sampling.temperature)
        log_probs = torch.log_softmax(logits, -1).gather(-1, sampled.unsqueeze(-1)).squeeze(-1)
        return [self._trim(ids, values) for ids, values in zip(sampled.tolist(), log_probs.tolist(), strict=True)]

    def _trim(self, ids: list[int], log_probs: list[float]) -> Sample:
        ends = set(self.eos_token_ids)
        length = next((index + 1 for index, token in enumerate(ids) if token in ends), len(ids))
        return Sample(ids[:length], log_probs[:length])


def eos_ids(model: Any, tokenizer: Any) -> set[int]:
    """Collect every id that ends a turn: the generation config's (a number or a list) and the tokenizer's."""
    declared = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    listed = declared if isinstance(declared, list | tuple) else [] if declared is None else [declared]
    return {int(token) for token in (*listed, tokenizer.eos_token_id) if token is not None}


def load_tokenizer(path: str) -> tuple[Any, set[int]]:
    """Load a checkpoint's tokenizer alone, and every id that ends a turn as its generation config declares them.

    Raises:
        InputError: Transformers or the tokenizer is missing.
    """
    try:
        from transformers import AutoTokenizer, GenerationConfig
    except ImportError as error:
        raise InputError("A tokenizer needs Transformers: pip install 'gymrail[trl]'") from error
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        is_path = path.startswith((".", "/", "~")) or path.count("/") != 1
        why = "there is no such folder" if is_path and not Path(path).is_dir() else str(error).splitlines()[0]
        raise InputError(f"No tokenizer could be loaded from {path!r}: {why}") from error
    try:
        declared: Any = GenerationConfig.from_pretrained(path)
    except (OSError, ValueError):
        declared = None  # a tokenizer's folder need not have one
    return tokenizer, eos_ids(SimpleNamespace(generation_config=declared), tokenizer)


def policy_model(
    model: Any,
    tokenizer: Any,
    *,
    sampling: Sampling = DEFAULT_SAMPLING,
    context_length: int | None = None,
    name: str = "policy",
) -> TokenModel:
    """Wrap a loaded model and its tokenizer as a Gymrail model."""
    template = ChatTemplate(tokenizer, eos_token_ids=sorted(eos_ids(model, tokenizer)))
    limit = context_length or getattr(model.config, "max_position_embeddings", None)
    return TokenModel(template, TransformersSampler(model, tokenizer), sampling, limit, name)


def load(
    path: str, *, sampling: Sampling = DEFAULT_SAMPLING, device: str | None = None, dtype: str = "auto"
) -> TokenModel:
    """Load a checkpoint as a Gymrail model; see `load_checkpoint`."""
    model, tokenizer = load_checkpoint(path, device=device, dtype=dtype)
    return policy_model(model, tokenizer, sampling=sampling, name=Path(path).name)


def quiet_loading() -> None:
    """Switch off Transformers' own progress bars, for programs that show their own."""
    try:
        from transformers.utils import logging
    except ImportError:
        return
    logging.disable_progress_bar()


def load_checkpoint(path: str, *, device: str | None = None, dtype: str = "auto") -> tuple[Any, Any]:
    """Load a checkpoint folder or a hub id: the model and its tokenizer, which pads on the left.

    Args:
        device: "cpu", "cuda", ...; a GPU where there is one by default.
        dtype: "auto" (as saved, but float32 on CPU, where half precision is slow), "float32", "bfloat16", ...

    Raises:
        InputError: the packages or the checkpoint are missing.
    """
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise InputError("A local checkpoint needs Transformers and torch: pip install 'gymrail[trl]'") from error
    if dtype != "auto" and not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise InputError(f"dtype is {dtype!r}; torch has no such type. Use auto, bfloat16 or float32.")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = "float32" if dtype == "auto" and device == "cpu" else dtype
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(path, padding_side="left")
        model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
    except (OSError, ValueError) as error:
        raise InputError(f"No checkpoint could be loaded from {path!r}: {str(error).splitlines()[0]}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model.to(device), tokenizer
