"""The live policy behind vLLM's two modes, without vLLM: what the engine is asked, and what is made of its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from families import PAD
from test_endpoint_failures import served

from gymrail import Rollout
from gymrail.data.mixture import Member, Mixture
from gymrail.errors import InputError
from gymrail.models.token_model import Sample, Sampling
from gymrail.models.transformers import TransformersSampler, eos_ids, load_checkpoint
from gymrail.tokens import sequence_of
from gymrail_trl import RolloutFunction, group_dataset
from gymrail_trl.policy import ColocatedSampler, live_policy
from tests.core.models.test_completions import serve_greedily

SAMPLING = Sampling(temperature=1.0, max_output_tokens=48)


def trainer_with(checkpoint: str, **args: Any) -> Any:
    """What the adapter looks at in a trainer, around a real checkpoint."""
    model, tokenizer = load_checkpoint(checkpoint, device="cpu")
    return SimpleNamespace(
        args=SimpleNamespace(use_vllm=True, vllm_server_base_url=None, vllm_server_host="127.0.0.1", **args),
        accelerator=SimpleNamespace(unwrap_model=lambda wrapped: wrapped, process_index=0),
        model=model,
        processing_class=tokenizer,
        state=SimpleNamespace(global_step=0),
        num_generations=4,
        num_generations_eval=4,
    )


def play_batch(trainer: Any) -> list[Rollout]:
    mixture = Mixture([Member(PAD)], seed=0)
    rollouts = RolloutFunction({"train": mixture}, sampling=SAMPLING, retries=0)
    prompts = [prompt for prompt in group_dataset(mixture, "train", 2)["prompt"] for _ in range(4)]
    columns = rollouts(prompts, trainer)
    assert all(len(column) == 8 for column in columns.values())
    return rollouts.last_rollouts


@pytest.mark.parametrize("has_num_generations", [True, False])
def test_colocated_vllm_is_asked_in_batches_and_its_ids_are_kept(
    has_num_generations: bool, checkpoint: Callable[[str], str]
) -> None:
    trainer = trainer_with(checkpoint("tiny"), vllm_mode="colocate")
    engine = TransformersSampler(trainer.model, trainer.processing_class)
    batches: list[int] = []

    def generate(prompt_ids: Any, images: Any, multimodal_fields: Any, num_generations: int = 1) -> Any:
        assert (images, multimodal_fields, num_generations) == (None, {}, 1)
        batches.append(len(prompt_ids))
        samples = engine.generate(prompt_ids, SAMPLING)
        return [sample.token_ids for sample in samples], [sample.log_probs for sample in samples]

    older = lambda prompt_ids, images, fields: generate(prompt_ids, images, fields)  # noqa: E731
    trainer._generate_single_turn = generate if has_num_generations else older

    rollouts = play_batch(trainer)

    assert batches[0] == 8
    assert {rollout.failure for rollout in rollouts} == {None}
    assert all(len(sequence_of(rollout).completion_ids) > 10 for rollout in rollouts)


def test_an_engine_that_gives_no_log_probs_fails_the_rollouts(checkpoint: Callable[[str], str]) -> None:
    trainer = trainer_with(checkpoint("tiny"), vllm_mode="colocate")
    trainer._generate_single_turn = lambda prompt_ids, images, fields: ([[1]] * len(prompt_ids), None)

    rollouts = play_batch(trainer)

    assert {rollout.failure.kind for rollout in rollouts if rollout.failure} == {"model"}
    assert [rollout.reward for rollout in rollouts] == [None] * 8


def test_a_vllm_server_is_asked_with_token_ids(checkpoint: Callable[[str], str]) -> None:
    trainer = trainer_with(checkpoint("tiny"), vllm_mode="server")
    model = trainer.model

    with served(serve_greedily(model, eos_ids(model, trainer.processing_class))) as url:
        trainer.args.vllm_server_base_url = url.removesuffix("/v1")
        rollouts = play_batch(trainer)

    assert {rollout.failure for rollout in rollouts} == {None}
    assert all(len(sequence_of(rollout).completion_ids) > 10 for rollout in rollouts)


def test_an_unknown_vllm_mode_is_refused(checkpoint: Callable[[str], str]) -> None:
    with pytest.raises(InputError, match="'colocate' and 'server'"):
        live_policy(trainer_with(checkpoint("tiny"), vllm_mode="elsewhere"), SAMPLING, None)


def test_an_answer_of_the_colocated_engine_ends_at_its_own_limit(checkpoint: Callable[[str], str]) -> None:
    trainer = trainer_with(checkpoint("tiny"), vllm_mode="colocate")
    engine = trainer.vllm_generation = SimpleNamespace(max_completion_length=4096)
    asked: list[int] = []

    def generate(prompt_ids: Any, images: Any, multimodal_fields: Any) -> Any:
        asked.append(engine.max_completion_length)
        return [[7] * 60 for _ in prompt_ids], [[-1.0] * 60 for _ in prompt_ids]

    trainer._generate_single_turn = generate

    rollouts = play_batch(trainer)

    assert (set(asked), engine.max_completion_length) == ({SAMPLING.max_output_tokens}, 4096)
    calls = [item for rollout in rollouts for item in rollout.model_calls()]
    assert {len(item["generation_token_ids"]) for item in calls} == {SAMPLING.max_output_tokens}
    assert {len(item["generation_log_probs"]) for item in calls} == {SAMPLING.max_output_tokens}


def test_an_engine_that_breaks_fails_the_episodes_that_wait_and_answers_the_next(
    checkpoint: Callable[[str], str],
) -> None:
    trainer = trainer_with(checkpoint("tiny"), vllm_mode="colocate")

    def generate(prompt_ids: Any, images: Any, multimodal_fields: Any) -> Any:
        if len(prompt_ids) > 1:
            raise RuntimeError("out of memory")
        return [[7, 8] for _ in prompt_ids], [[-1.0, -1.0] for _ in prompt_ids]

    trainer._generate_single_turn = generate
    sampler = ColocatedSampler(trainer, SAMPLING)

    async def ask() -> tuple[list[Any], Sample]:
        broken = await asyncio.gather(*(sampler.sample([1], SAMPLING) for _ in range(2)), return_exceptions=True)
        return broken, await sampler.sample([1], SAMPLING)

    broken, answered = asyncio.run(asyncio.wait_for(ask(), 30))

    assert [str(error) for error in broken] == ["vLLM failed: RuntimeError: out of memory"] * 2
    assert answered == Sample([7, 8], [-1.0, -1.0])


def test_an_episode_that_left_the_queue_holds_up_no_other(checkpoint: Callable[[str], str]) -> None:
    trainer = trainer_with(checkpoint("tiny"), vllm_mode="colocate")
    trainer._generate_single_turn = lambda prompt_ids, images, fields: (
        [[7]] * len(prompt_ids),
        [[-1.0]] * len(prompt_ids),
    )
    sampler = ColocatedSampler(trainer, SAMPLING)

    async def ask() -> list[Any]:
        waiting = [asyncio.ensure_future(sampler.sample([place], SAMPLING)) for place in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        return await asyncio.gather(*waiting, return_exceptions=True)

    first, *others = asyncio.run(asyncio.wait_for(ask(), 30))

    assert isinstance(first, asyncio.CancelledError)
    assert others == [Sample([7], [-1.0])] * 2
