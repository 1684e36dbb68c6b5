"""Reviews by customers, and good and poor replies to them."""

from __future__ import annotations

from pathlib import Path
from random import Random

import yaml
from pydantic import BaseModel, ConfigDict

_SAID: dict[str, list[str]] = yaml.safe_load((Path(__file__).parent / "data/reviews.yaml").read_text(encoding="utf-8"))


class Review(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: str
    product: str
    what: str
    is_complaint: bool

    @property
    def prompt(self) -> str:
        return _SAID["prompt"][0].format(**dict(self), mood="disappointed" if self.is_complaint else "happy")


def make_review(rng: Random) -> Review:
    is_complaint = rng.random() < 0.7
    what = rng.choice(_SAID["faults" if is_complaint else "praises"])
    name, product = (rng.choice(_SAID[kind]) for kind in ("names", "products"))
    return Review(name=name, product=product, what=what, is_complaint=is_complaint)


def good_reply(review: Review, rng: Random) -> str:
    """A reply that thanks, names the matter, and says what happens next."""
    middle = ("sorry", "steps") if review.is_complaint else ("glad", "close")
    parts = [rng.choice(_SAID[kind]) for kind in ("thanks", *middle)]
    return " ".join(part.format(name=review.name, product=review.product, what=review.what) for part in parts)


def poor_reply(review: Review, rng: Random) -> str:
    """A reply that is rude or empty, leaves out most of it, echoes the review, or says one thing over and over."""
    kind = rng.randrange(5)
    if kind == 0:
        return rng.choice(_SAID["thanks"]).format(name=review.name)
    if kind == 1:
        return review.prompt
    if kind == 2:
        return " ".join([rng.choice(_SAID["steps"])] * rng.randint(3, 12))
    return " ".join(rng.sample(_SAID["poor"], rng.randint(1, 2))).strip()


def example_pair(rng: Random) -> tuple[str, str, str]:
    """A prompt, a good reply and a poor one, to learn from."""
    review = make_review(rng)
    return review.prompt, good_reply(review, rng), poor_reply(review, rng)
