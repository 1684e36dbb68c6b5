"""TRL's own tool loop over our environments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from families import PAD, Pad
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from gymrail import Environment, Rollout, Task, tool
from gymrail.errors import InputError
from gymrail.registry import find
from gymrail.spec import EnvironmentSpec
from gymrail.tools import ToolSpec
from gymrail_trl import environment_dataset, environment_factory
from gymrail_trl.tiny import RESPONSE_TEMPLATE


class OneDigit(Environment[Task]):
    """Press any key, and be paid for it."""

    presses = 0

    @tool
    def press(self, digit: int) -> str:
        """Press a key.

        Args:
            digit: The key.
        """
        self.presses += 1
        if digit == 7:
            raise RuntimeError("seven is broken")
        return "ok"

    def verify(self, rollout: Rollout) -> float:
        return float(self.presses > 0)

    @classmethod
    def generate(cls, rng: Any) -> Task:
        return Task.ask(f"Type {rng.randint(0, 9)}.", nonce=rng.random())


SPEC = EnvironmentSpec("one_digit", OneDigit)


def config(output: Path) -> GRPOConfig:
    return GRPOConfig(
        output_dir=str(output),
        max_steps=2,
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=64,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        logging_steps=1,
        max_tool_calling_iterations=2,
    )


def test_trl_s_own_loop_trains_on_our_environment_and_a_crash_is_left_out(
    checkpoint: Callable[[str], str], tmp_path: Path
) -> None:
    recorded: list[Rollout] = []
    tokenizer = AutoTokenizer.from_pretrained(checkpoint("tiny"), padding_side="left")
    tokenizer.response_template = RESPONSE_TEMPLATE
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(checkpoint("tiny"), dtype="float32"),
        args=config(tmp_path),
        train_dataset=environment_dataset([SPEC], "train", 8),
        environment_factory=environment_factory([SPEC], record=recorded.append),
        processing_class=tokenizer,
    )
    trainer.train()

    assert trainer.state.global_step == 2
    assert {"rewards/one_digit/mean"} <= trainer.state.log_history[0].keys()
    scored = [rollout for rollout in recorded if rollout.reward is not None]
    assert any(rollout.calls for rollout in scored)
    assert all(rollout.reward == float(bool(rollout.calls)) for rollout in scored)
    for rollout in recorded:
        if any(call.parsed.get("digit") == 7 for call in rollout.calls):
            assert rollout.reward is None
            assert rollout.failure is not None
            assert rollout.failure.kind == "tool"


def test_tools_carry_their_own_names_types_and_words() -> None:
    from transformers.utils import get_json_schema

    session = environment_factory([SPEC])["one_digit"]()

    assert get_json_schema(session.press) == {
        "type": "function",
        "function": {
            "name": "press",
            "description": "Press a key.",
            "parameters": {
                "type": "object",
                "properties": {"digit": {"type": "integer", "description": "The key."}},
                "required": ["digit"],
            },
            "return": {"type": "string", "description": "The result."},
        },
    }


def test_every_shipped_environment_with_tools_gives_schemas_that_trl_can_render() -> None:
    from transformers.utils import get_json_schema

    for name in ("word_math", "treasure_hunt", "session_counter", "multi_step", "single_tool"):
        spec = find(name)
        session = environment_factory([spec])[name]()
        for tool_name in spec.tools:
            schema = get_json_schema(getattr(session, tool_name))
            assert set(schema["function"]["parameters"]["properties"]) == set(
                spec.tools[tool_name].parameters["properties"]
            )


def test_an_environment_with_user_turns_is_refused_with_the_way_out() -> None:
    assert Pad.reply is not Environment.reply
    with pytest.raises(InputError, match="RolloutFunction"):
        environment_factory([PAD])


def test_a_tool_without_a_python_signature_is_refused_with_the_way_out() -> None:
    foreign = replace(SPEC.tools["press"], arguments_model=None)

    class Elsewhere(EnvironmentSpec):
        @property
        def tools(self) -> dict[str, ToolSpec]:
            return {"press": foreign}

    with pytest.raises(InputError, match="RolloutFunction"):
        environment_factory([Elsewhere("elsewhere", OneDigit)])
