"""A local reward model, with a real checkpoint: scores are the forward pass's own, whatever they are batched with."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2ForSequenceClassification, PreTrainedTokenizerFast

from gymrail.errors import InputError, VerifierError
from gymrail.verifiers.reward_model import RewardModelSettings
from gymrail.verifiers.sequence_classifier import SequenceClassifier

WORDS = ("<pad>", "<eos>", "user", "assistant", ":", "what", "is", "two", "and", "four", "five", "a", "long", "story")
TEMPLATE = "{% for m in messages %}{{ m.role }} : {{ m.content }} <eos> {% endfor %}"


def save(folder: Path, *, labels: int = 1, template: str | None = TEMPLATE, positions: int = 64) -> str:
    core = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="a"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>")
    tokenizer.chat_template = template
    torch.manual_seed(3)
    config = GPT2Config(vocab_size=len(WORDS), n_positions=positions, n_embd=16, n_layer=2, n_head=2, pad_token_id=0)
    config.num_labels = labels
    GPT2ForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("rm"))


def chat(answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": "what is two and two"}, {"role": "assistant", "content": answer}]


def direct(checkpoint: str, answer: str) -> float:
    """The score by Transformers alone, unbatched."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoint)
    model = GPT2ForSequenceClassification.from_pretrained(checkpoint).eval()
    text: Any = tokenizer.apply_chat_template(chat(answer), tokenize=False)
    with torch.no_grad():
        return model(**tokenizer(text, return_tensors="pt", add_special_tokens=False)).logits[0, 0].item()


ANSWERS = ["four", "five", "a long long story and a story", "four four", "is"]


def test_scores_are_those_of_a_direct_forward_pass_alone_and_in_one_batch(checkpoint: str) -> None:
    classifier = SequenceClassifier.load(checkpoint, device="cpu")
    batches: list[int] = []
    forward = classifier.forward
    classifier.forward = lambda batch: batches.append(len(batch)) or forward(batch)

    async def scores() -> list[float]:
        return await asyncio.gather(*(classifier.score(chat(answer)) for answer in ANSWERS))

    expected = [direct(checkpoint, answer) for answer in ANSWERS]
    assert asyncio.run(scores()) == pytest.approx(expected, abs=1e-5)
    assert batches == [5]
    assert [asyncio.run(classifier.score(chat(answer))) for answer in ANSWERS] == pytest.approx(expected, abs=1e-5)
    assert len({round(score, 4) for score in expected}) == 5


def test_a_batch_is_no_larger_than_allowed(checkpoint: str) -> None:
    classifier = SequenceClassifier.load(checkpoint, device="cpu", max_batch=2)
    batches: list[int] = []
    forward = classifier.forward
    classifier.forward = lambda batch: batches.append(len(batch)) or forward(batch)
    results = classifier.score_batch([chat(answer) for answer in ANSWERS])
    assert results == pytest.approx([direct(checkpoint, answer) for answer in ANSWERS], abs=1e-5)
    assert batches == [2, 2, 1]


def test_a_talk_that_is_too_long_fails_alone_or_is_cut_at_its_beginning(tmp_path: Path) -> None:
    path = save(tmp_path, positions=16)
    long = chat("long " * 40)
    classifier = SequenceClassifier.load(path, device="cpu")
    short, error = classifier.score_batch([chat("four"), long])
    assert isinstance(short, float)
    assert isinstance(error, VerifierError)
    assert "16 at most" in str(error)
    with pytest.raises(VerifierError, match="16 at most"):
        asyncio.run(classifier.score(long))
    assert len(SequenceClassifier.load(path, device="cpu", truncate=True).encode(long)) == 16


def test_a_forward_pass_that_breaks_fails_those_in_its_batch_and_no_later_one(checkpoint: str) -> None:
    classifier = SequenceClassifier.load(checkpoint, device="cpu")
    forward = classifier.forward

    def broken(batch: Any) -> list[float]:
        raise RuntimeError("out of memory")

    classifier.forward = broken
    with pytest.raises(VerifierError, match="RuntimeError: out of memory"):
        asyncio.run(classifier.score(chat("four")))
    classifier.forward = forward
    assert asyncio.run(classifier.score(chat("four"))) == pytest.approx(direct(checkpoint, "four"), abs=1e-5)


def test_an_encoder_without_a_chat_template_reads_question_and_answer(tmp_path: Path) -> None:
    classifier = SequenceClassifier.load(save(tmp_path, template=None), device="cpu")
    tokenizer = classifier.tokenizer
    assert classifier.encode(chat("four")) == tokenizer("what is two and two", "four")["input_ids"]
    assert isinstance(asyncio.run(classifier.score(chat("four"))), float)


def test_a_head_with_several_labels_needs_one_named(tmp_path: Path) -> None:
    path = save(tmp_path, labels=3)
    with pytest.raises(InputError, match="3 labels; name one"):
        SequenceClassifier.load(path, device="cpu")
    with pytest.raises(InputError, match="label is 3"):
        SequenceClassifier.load(path, device="cpu", label=3)
    one, two = (SequenceClassifier.load(path, device="cpu", label=label) for label in (0, 2))
    assert asyncio.run(one.score(chat("four"))) != asyncio.run(two.score(chat("four")))


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No sequence-classification checkpoint"):
        RewardModelSettings(checkpoint=str(tmp_path)).build()


def test_half_precision_is_asked_for_by_name(checkpoint: str) -> None:
    scorer = RewardModelSettings(checkpoint=checkpoint, device="cpu", dtype="bfloat16").build()
    assert isinstance(scorer, SequenceClassifier)
    assert scorer.model.dtype == torch.bfloat16
    assert asyncio.run(scorer.score(chat("four"))) == pytest.approx(direct(checkpoint, "four"), abs=0.05)
