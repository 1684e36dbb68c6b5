"""Prompt configs: what is filled in, what is refused, and that nothing else of a row gets into the prompt."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gymrail.data.prompts import Prompt, PromptConfig, PromptError
from gymrail.errors import InputError
from gymrail.task import Task


class QuizTask(Task):
    question: str
    expected_answer: str
    verifier_metadata: dict | None = None


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def prompt(**config: object) -> Prompt:
    return Prompt(PromptConfig.model_validate(config), "prompt.yaml")


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "prompt.yaml"
    file.write_text(text, encoding="utf-8")
    return file


@given(system=TEXT, before=TEXT, value=TEXT, after=TEXT)
def test_texts_and_values_come_through_whatever_they_hold(system: str, before: str, value: str, after: str) -> None:
    def escape(text: str) -> str:
        return text.replace("{", "{{").replace("}", "}}")

    config = {"system": escape(system), "user": f"{escape(before)}{{question}}{escape(after)}"}
    read = Prompt(PromptConfig.model_validate(yaml.safe_load(yaml.safe_dump(config))))
    assert read.messages({"question": value}) == [
        {"role": "system", "content": system},
        {"role": "user", "content": f"{before}{value}{after}"},
    ]


@given(row=st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), TEXT | st.integers() | st.lists(TEXT)))
def test_a_prompt_says_what_format_map_says(row: dict) -> None:
    user = " ".join(f"{{{name}}} {{{name}!r:>4}}" for name in row) + " {{}}"
    assert prompt(user=user).messages(row)[-1]["content"] == user.format_map(row)


def test_examples_are_filled_from_their_own_fields_or_have_templates_of_their_own() -> None:
    made = prompt(
        user="Q: {question}",
        assistant="A: {expected_answer}",
        examples=[
            {"fields": {"question": "1 + 1", "expected_answer": 2}},
            {"user": "Of {topic}?", "assistant": "Yes {{}}."},
        ],
    )
    assert [(item["role"], item["content"]) for item in made.messages({"question": "3 + 3", "topic": "sums"})] == [
        ("user", "Q: 1 + 1"),
        ("assistant", "A: 2"),
        ("user", "Of sums?"),
        ("assistant", "Yes {}."),
        ("user", "Q: 3 + 3"),
    ]
    assert made.fields == ["topic", "question"]
    assert made.answer_fields == []


def test_images_stand_behind_the_text() -> None:
    made = prompt(user="What is it?", images=["{picture}"])
    url = "data:image/png;base64,AAAA"
    assert made.messages({"picture": url}) == [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "What is it?"},
                {"type": "input_image", "image_url": url, "detail": "auto"},
            ],
        }
    ]
    with pytest.raises(PromptError, match="is no image"):
        made.messages({"picture": "/etc/passwd"})


def test_other_parameters_of_a_row_stay() -> None:
    row = {"question": "?", "responses_create_params": {"temperature": 0.5}, "expected_answer": "4"}
    assert prompt(user="{question}").apply(row) == {
        "question": "?",
        "responses_create_params": {"temperature": 0.5, "input": [{"role": "user", "content": "?"}]},
        "expected_answer": "4",
    }


def test_a_row_with_a_prompt_of_its_own_is_refused() -> None:
    with pytest.raises(PromptError, match="has a prompt of its own"):
        prompt(user="{question}").apply({"question": "?", "responses_create_params": {"input": "Hi"}})


@pytest.mark.parametrize(
    ("row", "field", "message"),
    [
        ({"questoin": "?"}, "question", "Did you mean 'questoin'?"),
        ({"question": None}, "question", "is null"),
        ({"question": "?", "meta": {}}, "meta[level]", "has nothing at 'level'"),
    ],
)
def test_a_row_that_cannot_be_shown_says_why(row: dict, field: str, message: str) -> None:
    with pytest.raises(PromptError) as refused:
        prompt(user="{question}{meta[level]}").messages(row)
    assert refused.value.field == field
    assert message in refused.value.message


def test_an_unknown_field_is_named_with_the_nearest() -> None:
    made = prompt(user="{qestion} {extra}")
    with pytest.raises(InputError, match=r"names \{qestion\}.*Did you mean 'question'\?"):
        made.check(QuizTask)
    prompt(user="{question} {extra}").check(QuizTask, {"extra": 1})
    assert prompt(user="{question}").unused(QuizTask) == ["expected_answer", "verifier_metadata"]


def test_fields_that_hold_the_answer_are_told() -> None:
    shown = "{question} {expected_answer} {verifier_metadata} {verifier_metadata[topic]} {meta[answer]} {gold_answer}"
    assert prompt(user=shown).answer_fields == [
        "expected_answer",
        "verifier_metadata",
        "meta[answer]",
        "gold_answer",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user: '{question'", "is no template: "),
        ("user: '\\boxed{}'", "write the name of a field between the braces"),
        ("user: '{a.b}'", "with brackets: {a[b]}"),
        ("user: '{a!x}'", "after '!' stands s, r or a"),
        ("user: '{a:{b}}'", "a field within a field"),
        ("usr: hi", "Did you mean 'user'?"),
        ("system: hi", "'user' is required"),
        ("- hi", "a prompt is a mapping"),
        ("user: [", "not valid YAML"),
        ("user: hi\nexamples: [{user: hi}]", "example 1 has no 'assistant'"),
        ("user: hi\nassistant: ho", "there are no 'examples'"),
        ("user: '{q}'\nexamples: [{fields: {w: 1}, assistant: hi}]", "example 1: field 'q' the row lacks it"),
    ],
)
def test_a_config_with_a_mistake_is_refused_at_once(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError) as refused:
        Prompt.read(write(tmp_path, text))
    assert message in str(refused.value)


def test_a_config_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Cannot read the prompt"):
        Prompt.read(tmp_path / "none.yaml")
