"""visual_count: pictures that show what the row says, and shapes that never overlap."""

import asyncio
import base64
import io
from collections import Counter

import pytest
from PIL import Image

from gymrail.models.scripted import ScriptedModel
from gymrail.play import play
from gymrail.registry import find
from gymrail_environments.visual_count.environment import COLORS, VisualCountTask

SPEC = find("visual_count")


def picture_of(task: VisualCountTask) -> Image.Image:
    url = task.responses_create_params["input"][0]["content"][1]["image_url"]
    return Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,"))))


def blobs(picture: Image.Image, color: tuple[int, int, int]) -> int:
    """Count the connected areas of one colour."""
    width, height = picture.size
    pixels = picture.convert("RGB").load()
    assert pixels is not None
    left = {(x, y) for x in range(width) for y in range(height) if pixels[x, y] == color}
    found = 0
    while left:
        found += 1
        waiting = [left.pop()]
        while waiting:
            x, y = waiting.pop()
            for near in ((x + right, y + down) for right in (-1, 0, 1) for down in (-1, 0, 1)):
                if near in left:
                    left.discard(near)
                    waiting.append(near)
    return found


def test_each_shape_of_the_row_is_one_area_of_its_colour_in_the_picture() -> None:
    for index in range(12):
        task = SPEC.generate("train", index)
        told: Counter[str] = Counter()
        for name, count in task.shapes.items():
            told[name.split()[0]] += count
        picture = picture_of(task)
        assert {color: blobs(picture, value) for color, value in COLORS.items()} == {
            color: told[color] for color in COLORS
        }
        assert task.shapes.get(f"{task.color} {task.shape}", 0) == task.expected_count


def test_the_text_asks_for_what_is_counted_and_tells_nothing_else() -> None:
    task = SPEC.generate("train", 4)
    text, image = task.responses_create_params["input"][0]["content"]
    assert text["text"] == f"How many {task.color} {task.shape}s are in the picture? End with 'Answer: <number>'."
    assert (image["type"], image["detail"]) == ("input_image", "auto")


@pytest.mark.parametrize(("said", "reward"), [("{0}", 1.0), ("{1}", 0.0), ("{0} or {1}", 0.0), ("many", 0.0)])
def test_the_exact_number_alone_pays(said: str, reward: float) -> None:
    task = SPEC.generate("train", 5)
    text = "Answer: " + said.format(task.expected_count, task.expected_count + 1)
    assert asyncio.run(play(SPEC, task, ScriptedModel([text]))).reward == reward


def test_settings_change_size_and_number() -> None:
    spec = SPEC.with_config({"size": 128, "cells": 3, "most": 2, "distractors": 0})
    tasks = [spec.generate("train", index) for index in range(20)]
    assert {picture_of(task).size for task in tasks} == {(128, 128)}
    assert {task.expected_count for task in tasks} == {0, 1, 2}
    assert all(sum(task.shapes.values()) == task.expected_count for task in tasks)
