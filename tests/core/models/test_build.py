import asyncio
from pathlib import Path

import pytest

from gymrail.environment import call
from gymrail.errors import InputError
from gymrail.models.build import build_model, read_script
from gymrail.models.openai import OpenAIModel
from gymrail.models.scripted import Oracle, ScriptedModel


@pytest.mark.parametrize(("text", "noise"), [("oracle", 0.0), ("oracle:0.25", 0.25), ("oracle:1", 1.0)])
def test_an_oracle_has_the_noise_and_the_seed_that_it_is_given(text: str, noise: float) -> None:
    model = build_model(text, seed=3)
    assert isinstance(model, Oracle)
    assert (model.noise, model.seed) == (noise, 3)


def test_openai_speaks_to_its_api_and_an_address_to_its_own() -> None:
    hosted, local = (
        build_model("openai:gpt-5", api_key="k"),
        build_model("http://127.0.0.1:8000/v1", model_name="Qwen/Q"),
    )
    assert isinstance(hosted, OpenAIModel)
    assert isinstance(local, OpenAIModel)
    assert (hosted.model, local.model) == ("gpt-5", "Qwen/Q")
    assert "api.openai.com" in repr(hosted)
    assert "127.0.0.1:8000" in repr(local)
    asyncio.run(hosted.close())
    asyncio.run(local.close())


def test_a_script_holds_texts_calls_and_calls_at_once(tmp_path: Path) -> None:
    file = tmp_path / "turns.json"
    file.write_text('["Hi", {"name": "add", "arguments": {"a": 1}}, [{"name": "x"}, {"name": "y"}]]')
    turns = ["Hi", call("add", a=1), [call("x"), call("y")]]
    assert read_script(file) == turns
    model = build_model(f"script:{file}")
    assert isinstance(model, ScriptedModel)
    assert model.script == turns


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "a list of turns"),
        ('["a", 3]', "turn 2 is 3"),
        ('[{"arguments": {}}]', "turn 1"),
        ('[{"name": "a", "arguments": "x"}]', "turn 1"),
        ("[[]]", "turn 1"),
        ("[", "not valid JSON"),
    ],
)
def test_a_bad_script_names_the_file_and_the_turn(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "turns.json"
    file.write_text(content)
    with pytest.raises(InputError, match=r"turns\.json") as error:
        read_script(file)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("orcle", "Did you mean 'oracle'?"),
        ("openai", "openai:MODEL"),
        ("openai:", "openai:MODEL"),
        ("oracle:much", "a number from 0 to 1"),
        ("oracle:-0.1", "a number from 0 to 1"),
        ("oracle:nan", "a number from 0 to 1"),
        ("http://127.0.0.1/v1", "--model-name"),
        ("script:no_such.json", "cannot be read"),
        ("Qwen/Qwen3-0.6B", "no such folder"),
    ],
)
def test_a_text_that_names_no_model_says_what_is_allowed(text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        build_model(text)
    assert message in str(error.value)


def test_a_model_name_without_an_address_is_refused() -> None:
    with pytest.raises(InputError, match="goes with an endpoint's address"):
        build_model("oracle", model_name="x")


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"without config\.json"):
        build_model(str(tmp_path))
