import asyncio

import pytest

from gymrail.errors import InputError
from gymrail.verifiers.lexical import LexicalModel
from gymrail.verifiers.reward_model import RewardModel

PAIRS = [
    ("Say hello to Ana.", "Hello Ana, how are you?", "Go away."),
    ("Say hello to Ben.", "Hello Ben!", "What?"),
] * 20


def test_a_model_learned_from_pairs_prefers_what_the_better_replies_say() -> None:
    model = LexicalModel.learn(PAIRS)
    verifier = RewardModel(model, "clip", model.low, model.high)
    good, poor = (
        asyncio.run(verifier(text, question="Say hello to Cleo.")).reward for text in ("Hello Cleo!", "Go away.")
    )
    assert poor == 0.0
    assert good > 0.5


def test_equal_pairs_and_seeds_learn_equal_weights() -> None:
    assert LexicalModel.learn(PAIRS, 3) == LexicalModel.learn(PAIRS, 3) != LexicalModel.learn(PAIRS, 4)


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(InputError, match="no pairs"):
        LexicalModel.learn([])
