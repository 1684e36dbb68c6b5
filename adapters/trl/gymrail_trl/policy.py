"""The trainer's live policy as a Gymrail model: Transformers on CPU or GPU, vLLM in the same process, or vLLM
behind a URL."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gymrail.errors import InputError, ModelError, attempt
from gymrail.models.chat_template import ChatTemplate
from gymrail.models.token_model import Sample, Sampling, TokenModel
from gymrail.models.transformers import TransformersSampler, eos_ids


def live_policy(trainer: Any, sampling: Sampling, context_length: int | None) -> TokenModel:
    """Return a model that samples from the weights being trained, token ids in and token ids out.

    Raises:
        InputError: a vLLM mode that this adapter does not know.
    """
    tokenizer = getattr(trainer, "_tokenizer", trainer.processing_class)
    model = trainer.accelerator.unwrap_model(trainer.model)
    template = ChatTemplate(tokenizer, eos_token_ids=sorted(eos_ids(model, tokenizer)))
    limit = context_length or getattr(model.config, "max_position_embeddings", None)
    if not trainer.args.use_vllm:
        sampler: Any = TransformersSampler(model, tokenizer, generating=lambda: _gathered(trainer))
    elif trainer.args.vllm_mode == "colocate":
        sampler = ColocatedSampler(trainer, sampling)
    elif trainer.args.vllm_mode == "server":
        from gymrail.models.completions import CompletionsSampler

        args = trainer.args
        url = args.vllm_server_base_url or f"http://{args.vllm_server_host}:{args.vllm_server_port}"
        sampler = CompletionsSampler(f"{url.rstrip('/')}/v1", model=trainer.model.config.name_or_path)
    else:
        raise InputError(
            f"settings.vllm_mode is {trainer.args.vllm_mode!r}; the adapter knows 'colocate' and 'server'."
        )
    return TokenModel(template, sampler, sampling, limit)


@contextmanager
def _gathered(trainer: Any) -> Iterator[Any]:
    """Sharded weights (DeepSpeed ZeRO 3, FSDP) are gathered while sampling, the way TRL does it for its own
    generation."""
    from trl.models.utils import unwrap_model_for_generation

    with unwrap_model_for_generation(
        trainer.model_wrapped, trainer.accelerator, gather_deepspeed3_params=trainer.args.ds3_gather_for_generation
    ) as unwrapped:
        yield unwrapped


_Asked = tuple[list[int], int, "asyncio.Future[Sample]"]
"""A prompt, how many tokens its answer may have, and who waits for it."""


class ColocatedSampler:
    """Samples through the trainer's own vLLM engine. Requests that wait together go through one call.

    `_generate_single_turn` is private to TRL and has moved: its parameters are looked up by name, and a version without
    it is refused.
    """

    def __init__(self, trainer: Any, sampling: Sampling) -> None:
        generate = getattr(trainer, "_generate_single_turn", None)
        if generate is None:
            raise InputError(
                "This TRL has no _generate_single_turn, so vLLM cannot be shared; use settings.vllm_mode=server."
            )
        names = inspect.signature(generate).parameters
        self._extra = {"num_generations": 1} if "num_generations" in names else {}
        self._generate = generate
        self._sampling = sampling
        self._engine = getattr(trainer, "vllm_generation", None)
        self._waiting: list[_Asked] = []
        self._worker: asyncio.Task[None] | None = None

    async def sample(self, prompt_ids: list[int], sampling: Sampling) -> Sample:
        if (sampling.temperature, sampling.top_p) != (self._sampling.temperature, self._sampling.top_p):
            raise InputError(
                "A task sets its own temperature or top_p; the trainer's vLLM samples with the recipe's for every task."
            )
        future: asyncio.Future[Sample] = asyncio.get_running_loop().create_future()
        self._waiting.append((prompt_ids, sampling.max_output_tokens, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.ensure_future(self._work())
        return await future

    async def _work(self) -> None:
        while self._waiting:
            await asyncio.sleep(0.002)
            waiting, self._waiting = self._waiting, []
            # An episode that ran out of time has left.
            batch = [entry for entry in waiting if not entry[2].done()]
            if batch:
                self._run_batch(batch)

    def _run_batch(self, batch: list[_Asked]) -> None:
        """Sample on the trainer's own thread, where it has its weights."""
        with _engine_limit(self._engine, max(limit for _, limit, _ in batch)):
            answer, error = attempt(self._ask, [prompt for prompt, _, _ in batch])
        if error is not None and not isinstance(error, Exception):
            raise error
        ids, log_probs = answer if answer is not None else ((), None)
        if error is None and (log_probs is None or len(ids) != len(batch)):
            shown = f"{len(ids)} answers for {len(batch)} prompts, log-probs: {log_probs is not None}."
            error = ModelError(f"vLLM returned {shown}")
        elif error is not None:
            # Each waiting episode fails, and is tried again; the sampler lives on.
            error = ModelError(f"vLLM failed: {type(error).__name__}: {error}")
        if error is not None:
            for _, _, future in batch:
                future.set_exception(error)
            return
        assert log_probs is not None
        for (_, limit, future), sampled, values in zip(batch, ids, log_probs, strict=True):
            future.set_result(Sample(list(sampled)[:limit], [float(value) for value in values][:limit]))

    def _ask(self, prompts: list[list[int]]) -> tuple[Any, Any]:
        return self._generate(prompts, None, {}, **self._extra)


@contextmanager
def _engine_limit(engine: Any, tokens: int) -> Iterator[None]:
    """Have TRL's engine stop at an answer's limit; its own is that of a whole episode."""
    whole = getattr(engine, "max_completion_length", None)
    if whole is None:  # a release that keeps it elsewhere: what is too long is cut
        yield
        return
    engine.max_completion_length = tokens
    try:
        yield
    finally:
        engine.max_completion_length = whole
