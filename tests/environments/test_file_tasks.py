"""file_tasks: the final files count, and nothing that was not asked."""

import asyncio
from typing import Any

import pytest

from gymrail import GymrailError, Rollout, call
from gymrail.environment import Turn
from gymrail.models.scripted import ScriptedModel
from gymrail.play import play
from gymrail.registry import find
from gymrail_environments.file_tasks.environment import FileTask, wanted_files

SPEC = find("file_tasks")
TASK = FileTask.ask(
    "Move every letter into the folder letters, and delete c.txt.",
    files={"a.txt": "Kind: letter\n", "in/b.txt": "Kind: letter\n", "c.txt": "x", "d.txt": "y"},
    steps=[
        ["move_file", "a.txt", "letters/a.txt"],
        ["move_file", "in/b.txt", "letters/b.txt"],
        ["delete_file", "c.txt"],
    ],
)
MOVE_A = call("move_file", source="a.txt", destination="letters/a.txt")
MOVE_B = call("move_file", source="in/b.txt", destination="letters/b.txt")
DELETE = call("delete_file", path="c.txt")


def played(*turns: Turn) -> Rollout:
    rollout = asyncio.run(play(SPEC, TASK, ScriptedModel([*turns, "Done."])))
    assert rollout.failure is None
    return rollout


@pytest.mark.parametrize(
    "turns",
    [
        (MOVE_A, MOVE_B, DELETE),
        ([DELETE, MOVE_B, MOVE_A],),
        (
            call("write_file", path="letters/a.txt", content="Kind: letter\n"),
            call("delete_file", path="a.txt"),
            MOVE_B,
            DELETE,
        ),
        (call("move_file", source="in", destination="letters"), MOVE_A, DELETE),
        (MOVE_A, MOVE_B, DELETE, call("write_file", path="e", content=""), call("delete_file", path="e")),
    ],
)
def test_any_way_to_the_wanted_files_pays(turns: tuple[Turn, ...]) -> None:
    rollout = played(*turns)
    assert (rollout.reward, rollout.metrics["partial"], rollout.metrics["wrong_files"]) == (1.0, 1.0, 0)


@pytest.mark.parametrize(
    "turns",
    [
        (),
        (MOVE_A, MOVE_B),
        (MOVE_A, MOVE_B, DELETE, call("write_file", path="e.txt", content="")),
        (MOVE_A, MOVE_B, DELETE, call("edit_file", path="d.txt", old_text="y", new_text="z")),
        (MOVE_A, call("move_file", source="in/b.txt", destination="letter/b.txt"), DELETE),
        (call("delete_file", path="in"), MOVE_A, DELETE),
    ],
)
def test_what_is_missing_or_was_not_asked_earns_nothing(turns: tuple[Turn, ...]) -> None:
    rollout = played(*turns)
    assert rollout.reward == 0.0
    assert rollout.metrics["partial"] < 1.0
    assert "is not as it should be" in (rollout.verdict_reason or "")


def test_every_generated_task_asks_for_a_change_and_names_no_path_of_it() -> None:
    for index in range(80):
        task = SPEC.generate("train", index)
        assert wanted_files(task) != task.files
        assert not any(path in task.responses_create_params["input"] for path in task.files)


@pytest.mark.parametrize("steps", [[["rm", "a.txt"]], [["move_file", "a.txt"]]])
def test_a_row_with_a_step_that_is_none_is_refused(steps: Any) -> None:
    with pytest.raises(GymrailError, match="is no step"):
        FileTask.from_row({**TASK.row, "steps": steps})


def test_the_directory_is_gone_when_the_episode_is_over() -> None:
    roots = []

    class Spying:
        async def respond(self, request: Any) -> Any:
            return await ScriptedModel(["Done."]).respond(request)

        def bind(self, episode: Any) -> Any:
            roots.append(episode.environment.directory.root)
            return self

    asyncio.run(play(SPEC, TASK, Spying()))
    assert [root.exists() for root in roots] == [False]
