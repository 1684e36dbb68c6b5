"""TRL's own trainer trains a vision model a step on an export with pictures, of the user's and of tools."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image
from transformers import AutoTokenizer, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from trl import SFTConfig, SFTTrainer

from gymrail.data.export import Sft, export
from gymrail.models.model import function_call, message
from tests.core.data.recorded import rollout, said, write_run

TEMPLATE = (
    "{% for entry in messages %}<|im_start|>{{ entry.role }}\n"
    "{% for part in entry.content or [] %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
)
SIDE, PATCH = 28, 14


def picture(colour: str) -> dict[str, Any]:
    file = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), colour).save(file, "PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return {"type": "input_image", "detail": "auto", "image_url": url}


def processor_of(checkpoint: str) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    images = CLIPImageProcessorPil(size={"height": SIDE, "width": SIDE}, do_center_crop=False)
    return LlavaProcessor(
        images, tokenizer, patch_size=PATCH, vision_feature_select_strategy="default", chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    )  # fmt: skip


def model_of(tokenizer: Any) -> Any:
    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlavaForConditionalGeneration(
        LlavaConfig(
            text_config={"model_type": "llama", "vocab_size": len(tokenizer), **small},
            vision_config={"model_type": "clip_vision_model", "image_size": SIDE, "patch_size": PATCH, **small},
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        )
    )


@pytest.mark.parametrize("format", ["parquet", "dataset"])
def test_a_vision_model_trains_a_step_on_pictures_of_users_and_tools(
    checkpoint: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    heard = {"type": "function_call_output", "call_id": "c", "output": [picture("blue")]}
    shown = rollout(function_call("look_up", "{}", "c"), heard, message("Red, then blue."))
    text = {"type": "input_text", "text": "Which colours?"}
    shown.task.responses_create_params["input"] = [{"role": "user", "content": [picture("red"), text]}]
    shown.conversation[0] = shown.task.responses_create_params["input"][0]
    export([write_run(tmp_path / "run", shown, said("None.", task="B?"))], tmp_path / "out", Sft(), format=format)
    load: Any = datasets.load_from_disk if format == "dataset" else datasets.load_dataset
    rows = load(str(tmp_path / "out"))["train"]
    processor = processor_of(checkpoint("tiny"))

    trainer: Any = SFTTrainer(
        model=model_of(processor.tokenizer),
        args=SFTConfig(
            output_dir=str(tmp_path / "train"), use_cpu=True, bf16=False, gradient_checkpointing=False, report_to=[],
            max_steps=1, per_device_train_batch_size=2, save_strategy="no", logging_steps=1, disable_tqdm=True,
            max_length=None,
        ),
        train_dataset=rows,
        processing_class=processor,
    )  # fmt: skip
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.train()

    assert batch["pixel_values"].shape[0] == 2
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 1
    assert losses[0] > 0
