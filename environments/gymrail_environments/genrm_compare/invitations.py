"""Messages to write from notes: what they must tell, and what the notes say in confidence."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import yaml

_NOTES: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "data/notes.yaml").read_text(encoding="utf-8"))


def make_invitation(rng: Random) -> tuple[str, dict[str, Any]]:
    """Return a prompt and its row's fields; the anchors leave out a fact, or ramble."""
    reader, writer, other = rng.sample(_NOTES["names"], 3)
    hour = f"{rng.randint(1, 11)} pm"
    event, place, day, thing = (rng.choice(_NOTES[kind]) for kind in ("events", "places", "days", "things"))
    facts = [event, place, day, hour, thing]
    private = [each.format(number=rng.randint(40, 900), name=other) for each in rng.sample(_NOTES["secrets"], 2)]
    notes = [f"{event} at the {place}", f"{day}, {hour}", f"guests bring {thing}"]
    notes += [f"private: {secret}" for secret in private]
    rng.shuffle(notes)
    prompt = _NOTES["prompt"].format(writer=writer, reader=reader, notes="\n".join(map("- {}".format, notes)))
    left_out = rng.randrange(len(facts))
    brief = ", ".join(fact for number, fact in enumerate(facts) if number != left_out)
    rambling = _NOTES["rambling"].format(writer=writer, reader=reader, facts=facts)
    anchors = [f"Hi {reader}, you are invited! {brief}.", rambling]
    return prompt, {"principle": _NOTES["principle"], "facts": facts, "private": private, "anchors": anchors}
