"""search_qa: every question is answered by the documents alone, one after the other."""

import asyncio
import re

import pytest

from gymrail import Rollout, call
from gymrail.environment import Turn
from gymrail.models.scripted import Oracle, ScriptedModel
from gymrail.play import play
from gymrail.registry import find
from gymrail_environments.search_qa.environment import SearchQaTask, country
from gymrail_environments.search_qa.world import LINKS, make_world

SPEC = find("search_qa")
WORLD = country(0, 80)
TEXTS = {document.title: document.text for document in WORLD.documents}
READ = {
    "birthplace": r"was born in ([^.]+)\.", "employer": r"works for ([^.]+)\.", "teacher": r"was taught by ([^.]+)\.",
    "mayor": r"The mayor of .+? is ([^.]+)\.", "founder": r"was begun by ([^.]+)\.",
    "seat": r"has its seat in ([^.]+)\.",
    "founded": r"was founded in (\d+)\.", "opened": r"opened its doors in (\d+)\.",
}  # fmt: skip


def played(task: SearchQaTask, *turns: Turn) -> Rollout:
    rollout = asyncio.run(play(SPEC, task, ScriptedModel(turns)))
    assert rollout.failure is None
    return rollout


def test_a_reader_of_the_documents_finds_the_answer_of_every_question() -> None:
    for index in range(80):
        task = SPEC.generate("train", index)
        subject = task.start
        for relation in task.path:
            found = re.search(READ[relation], TEXTS[subject])
            assert found is not None
            subject = found[1]
        assert subject == task.answer


def test_the_name_of_a_subject_finds_its_document_first() -> None:
    task = SPEC.generate("train", 0)
    for title in list(TEXTS)[::40]:
        rollout = played(task, call("search", query=title, k=3), "Answer: 1")
        assert title in str(rollout.calls[0].output)


def test_the_oracle_opens_as_many_documents_as_the_question_has_hops() -> None:
    task = SPEC.generate("train", 1)
    rollout = asyncio.run(play(SPEC, task, Oracle()))
    assert (rollout.reward, rollout.metrics["documents_opened"]) == (1.0, len(task.path))


@pytest.mark.parametrize("said", ["Answer: {0} or 1500", "Answer: 1050", "I do not know."])
def test_other_answers_earn_nothing(said: str) -> None:
    task = SPEC.generate("train", 2)
    assert played(task, said.format(task.answer)).reward == 0.0


def test_a_question_never_comes_back_to_where_it_was_and_does_not_name_what_is_between() -> None:
    for index in range(80):
        task = SPEC.generate("train", index)
        subjects = [task.start]
        for relation in task.path[:-1]:
            assert relation in LINKS
            subjects.append(WORLD.facts[subjects[-1]][relation])
        assert len(set(subjects)) == len(subjects)
        assert not any(subject in task.responses_create_params["input"] for subject in subjects[1:])
        assert 2 <= len(task.path) <= 4


def test_countries_are_the_same_from_the_same_number_and_of_the_asked_size() -> None:
    assert make_world(1, 10) == make_world(1, 10) != make_world(2, 10)
    assert len(make_world(1, 10).documents) == 50


def test_a_row_of_another_country_is_a_failure_and_no_score() -> None:
    task = SearchQaTask.ask("?", start="Nobody Here", path=["teacher"], answer="1")
    rollout = asyncio.run(play(SPEC, task, ScriptedModel(["x"])))
    assert rollout.reward is None
    assert rollout.failure is not None
    assert "is not in this country" in rollout.failure.message
