"""Preparing tasks: what is merged, what is refused, what is measured; nothing is dropped in silence."""

import errno
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from gymrail.data.overlaps import SplitOverlaps
from gymrail.data.prepare import Prepared, Source, prepare
from gymrail.data.prompts import Prompt, PromptConfig
from gymrail.data.render import render
from gymrail.errors import InputError
from gymrail.spec import DatasetEntry, EnvironmentSpec, Manifest

MakeQuiz = Callable[..., EnvironmentSpec]


def write(path: Path, *lines: object) -> Path:
    path.write_bytes(b"".join((line if isinstance(line, bytes) else orjson.dumps(line)) + b"\n" for line in lines))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def task(text: str, answer: object = "A", **fields: object) -> dict[str, Any]:
    return {"responses_create_params": {"input": text}, "answer": answer, **fields}


def metrics(folder: Path, split: str = "train") -> dict[str, Any]:
    return orjson.loads((folder / f"{split}_metrics.json").read_bytes())


def test_sources_of_one_split_are_merged_in_order_with_their_agent(make_quiz: MakeQuiz, tmp_path: Path) -> None:
    one, two = make_quiz("one", 2), make_quiz("two", 1)
    held_out = write(tmp_path / "held.jsonl", task("?"))
    made = prepare(
        [Source(one, "train", repeats=2), Source(two, "train"), Source(one, "validation", held_out)], tmp_path / "out"
    )
    rows = read(tmp_path / "out/train.jsonl")
    assert [(row["responses_create_params"]["input"], row["agent_ref"]) for row in rows] == [
        (text, {"type": "responses_api_agents", "name": name})
        for text, name in [("one 0", "one"), ("one 0", "one"), ("one 1", "one"), ("one 1", "one"), ("two 0", "two")]
    ]
    assert {name: entry["rows"] for name, entry in made.splits.items()} == {"train": 5, "validation": 1}
    report = orjson.loads((tmp_path / "out/prepare.json").read_bytes())
    assert [(source["rows_read"], source["rows_written"], source["repeats"]) for source in report["sources"]] == [
        (2, 4, 2), (1, 1, 1), (1, 1, 1)
    ]  # fmt: skip


def test_a_line_that_nothing_is_changed_in_keeps_its_bytes(make_quiz: MakeQuiz, tmp_path: Path) -> None:
    line = (
        b'{ "responses_create_params": {"input": "?"}, "answer":"A", "n": 123456789012345678901234567890, "x": 1.50 }'
    )
    file = write(tmp_path / "raw.jsonl", line)
    prepare([Source(make_quiz("quiz"), "train", file)], tmp_path / "out")
    written = (tmp_path / "out/train.jsonl").read_bytes()
    assert written == line[:-1].rstrip() + b',"agent_ref":{"type":"responses_api_agents","name":"quiz"}}\n'


def test_a_prompt_is_made_of_fields_and_large_numbers_survive_it(make_quiz: MakeQuiz, tmp_path: Path) -> None:
    big = 123456789012345678901234567890
    file = write(
        tmp_path / "raw.jsonl",
        b'{"q": "How many?", "answer": "A", "n": %d}' % big,
        b'{"q": "Who?", "answer": "B", "n": %d, "responses_create_params": {"temperature": 0.5}}' % big,
    )
    prompt = Prompt(PromptConfig(user="{q}"), "p.yaml")
    made = prepare([Source(make_quiz("quiz"), "train", file, prompt)], tmp_path / "out")
    lines = (tmp_path / "out/train.jsonl").read_bytes()
    assert lines.count(str(big).encode()) == 2
    assert [row["responses_create_params"] for row in read(tmp_path / "out/train.jsonl")] == [
        {"input": [{"role": "user", "content": "How many?"}]},
        {"temperature": 0.5, "input": [{"role": "user", "content": "Who?"}]},
    ]
    assert made.sources[0]["prompt"]["shows"] == ["q"]
    assert made.sources[0]["prompt"]["does_not_show"] == ["answer", "points"]


def test_every_bad_row_is_listed_and_nothing_is_written(make_quiz: MakeQuiz, tmp_path: Path) -> None:
    file = write(
        tmp_path / "raw.jsonl",
        task("fine"), {"answer": "A"}, b"{broken", task("?", 5),
        {**task("?"), "responses_create_params": {"inpt": "?"}}, b"[1]", {**task("?"), "responses_create_params": {}},
        {**task("?"), "responses_create_params": {"input": "?", "tools": [{"name": "look_down"}]}},
    )  # fmt: skip
    with pytest.raises(InputError) as refused:
        prepare([Source(make_quiz("quiz"), "train", file)], tmp_path / "out")
    text = str(refused.value)
    assert text.startswith("7 of 8 rows are bad, and nothing was written.")
    for expected in (
        f"{file}, line 2: field 'responses_create_params': Field required",
        f"{file}, line 3: not valid JSON",
        f"{file}, line 4: field 'answer': Input should be a valid string (value 5)",
        "'inpt' is no Responses parameter. Did you mean 'input'?",
        f"{file}, line 6: a row must be a JSON object",
        f"{file}, line 7: field 'responses_create_params': has no 'input'",
        "the tool 'look_down', which quiz does not have. Did you mean 'look_up'?",
    ):
        assert expected in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["quiz", "raw.jsonl"]


def test_an_error_lists_no_more_than_it_is_asked_to(make_quiz: MakeQuiz, tmp_path: Path) -> None:
    file = write(tmp_path / "raw.jsonl", *[task("?", 5)] * 50)
    with pytest.raises(InputError) as refused:
        prepare([Source(make_quiz("quiz"), "train", file)], tmp_path / "out", max_errors=3)
    assert str(refused.value).count("line ") == 3
    assert "50 of 50 rows are bad" in str(refused.value)


def test_bad_rows_that_are_skipped_are_kept_in_a_file(make_quiz: MakeQuiz, tmp_path: Path) -> None:
    file = write(tmp_path / "raw.jsonl", task("1"), task("2", 5), b"{broken", task("4"))
    made = prepare([Source(make_quiz("quiz"), "train", file)], tmp_path / "out", skip_bad=True)
    assert (made.bad_rows, made.splits["train"]["rows"]) == (2, 2)
    second, third = read(tmp_path / "out/bad_rows.jsonl")
    assert (second["line"], second["field"], second["value"], second["row"]) == (2, "answer", 5, task("2", 5))
    assert (third["line"], third["value"]) == (3, "{broken")
    with pytest.raises(InputError, match=r"all of its 1 rows are bad"):
        prepare([Source(make_quiz("q"), "train", write(tmp_path / "b.jsonl", b"{"))], tmp_path / "o", skip_bad=True)


def test_rows_of_several_agents_in_one_source_are_mixed_up_environments(make_quiz: MakeQuiz, tmp_path: Path) -> None:
    named = [task(name, agent_ref={"type": "responses_api_agents", "name": name}) for name in ("math", "math", "shop")]
    quiz = make_quiz("quiz")
    with pytest.raises(InputError, match=r"names the agent 'shop', the rows before it 'math'"):
        prepare([Source(quiz, "train", write(tmp_path / "raw.jsonl", *named))], tmp_path / "out")
    made = prepare([Source(quiz, "train", write(tmp_path / "raw.jsonl", *named[:2]))], tmp_path / "out")
    assert made.sources[0]["agents_replaced"] == {"math": 2}
    assert {row["agent_ref"]["name"] for row in read(tmp_path / "out/train.jsonl")} == {"quiz"}


def test_generated_tasks_need_a_number_and_bring_their_prompts(sums: EnvironmentSpec, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"sums generates as many train tasks as asked for; say how many: --limit N"):
        prepare([Source(sums, "train")], tmp_path / "out")
    prepare([Source(sums, "train", limit=5, seed=1)], tmp_path / "out")
    tasks = [task.row for task in sums.tasks("train", limit=5, seed=1)]
    assert [{**row, "agent_ref": None} for row in read(tmp_path / "out/train.jsonl")] == [
        {**row, "agent_ref": None} for row in tasks
    ]


def test_tool_schemas_are_written_where_rows_have_none_of_their_own(make_quiz: MakeQuiz, tmp_path: Path) -> None:
    own = {"responses_create_params": {"input": "?", "tools": []}, "answer": "A"}
    file = write(tmp_path / "raw.jsonl", task("?"), own)
    prepare([Source(make_quiz("quiz"), "train", file)], tmp_path / "out", with_tools=True, agent_name="{environment}_x")
    first, second = read(tmp_path / "out/train.jsonl")
    assert [tool["name"] for tool in first["responses_create_params"]["tools"]] == ["look_up"]
    assert second["responses_create_params"]["tools"] == []
    assert first["agent_ref"]["name"] == "quiz_x"


def test_metrics_have_the_names_and_roundings_of_the_protocol(make_quiz: MakeQuiz, tmp_path: Path) -> None:
    talk = {"input": [{"role": "user", "content": "a  b"}, {"role": "user", "content": "c"}], "temperature": 0.5}
    file = write(
        tmp_path / "raw.jsonl",
        task("one two", "A", points=2, kind=["x", "y"]),
        {"responses_create_params": {**talk, "tools": [{"name": "look_up"}]}, "answer": "B", "points": 5, "kind": "x"},
    )
    made: Prepared = prepare([Source(make_quiz("quiz"), "train", file, repeats=2)], tmp_path / "out")
    found = metrics(tmp_path / "out")
    assert made.splits["train"]["rows"] == found["Number of examples"] == 4
    assert found["points"] == {
        "Total # non-null values": 4, "Average": 3.5, "Min": 2.0, "Max": 5.0, "Standard deviation": 1.73
    }  # fmt: skip
    assert found["Number of tools"]["Total # non-null values"] == 2
    assert (found["Number of turns"]["Average"], found["Temperature"]["Average"]) == (1.5, 0.5)
    assert found["kind"] == {"unique_count": 2, "total_count": 6}
    words = [len(text.split()) for text in ('{"input": "one two"}',)]
    assert found["Json-dumped number of words (proxy for token count)"]["Min"] == words[0]


def test_a_prompt_that_shows_the_answer_is_warned_about(make_quiz: MakeQuiz, tmp_path: Path) -> None:
    rows = [{"q": f"Is it {number}?", "answer": f"word{number}", "hint": f"word{number}"} for number in range(20)]
    file, quiz = write(tmp_path / "raw.jsonl", *rows), make_quiz("quiz")
    for user, expected in [("{q} {answer}", "shows {answer} to the agent"), ("{q} {hint}", "20 of 20 rows")]:
        prompt = Prompt(PromptConfig(user=user), "p.yaml")
        (warning,) = prepare([Source(quiz, "train", file, prompt)], tmp_path / user[4:8]).warnings
        assert expected in warning
    fine = Prompt(PromptConfig(user="{q}"), "p.yaml")
    assert prepare([Source(quiz, "train", file, fine)], tmp_path / "fine").warnings == []


def test_rows_that_two_splits_share_are_warned_about_and_counted(make_quiz: MakeQuiz, tmp_path: Path) -> None:
    quiz = make_quiz("quiz", 0)
    train = write(tmp_path / "train.jsonl", task("Who?"), task("What?"), task("Where?"), task("Where?"))
    held_out = write(tmp_path / "held.jsonl", task("  WHO? ", extra=1), task("What?", "B"), task("When?"))
    splits = [Source(quiz, "train", train, repeats=2), Source(quiz, "validation", held_out)]
    made = prepare(splits, tmp_path / "out")
    assert made.overlaps == [{"split": "validation", "also_in": "train", "rows": 1}]
    (warning,) = made.warnings
    assert "1 rows of validation ask the same as rows of train" in warning
    assert orjson.loads((tmp_path / "out/prepare.json").read_bytes())["overlaps"] == made.overlaps
    overlaps = SplitOverlaps(["train", "validation"])
    for split, seed in (("train", 1), ("validation", 2), ("validation", 1)):  # one question of two states
        overlaps.add(split, {"question": "How many?", "answer": 3, "seed": seed}, is_generated=True)
    assert overlaps.to_json() == [{"split": "validation", "also_in": "train", "rows": 1}]
    alone = prepare(splits[:1], tmp_path / "one")  # what stands twice in one split is not held out
    assert (alone.overlaps, alone.warnings) == ([], [])


def test_a_manifest_names_the_prompt_of_a_dataset(make_quiz: MakeQuiz, tmp_path: Path) -> None:
    made = make_quiz("quiz", prompt="prompt.yaml")
    folder = tmp_path / "quiz"
    write(folder / "train.jsonl", {"q": "Who?", "answer": "A"}, {"q": "What?", "answer": "B"})
    (folder / "prompt.yaml").write_text("user: 'Say: {q}'", encoding="utf-8")
    assert [task.input_items[0]["content"] for task in made.tasks("train")] == ["Say: Who?", "Say: What?"]
    report = prepare([Source(made, "train")], tmp_path / "out").sources[0]
    assert report["prompt"]["shows"] == ["q"]
    (folder / "prompt.yaml").write_text("user: 'Say: {w}'", encoding="utf-8")
    with pytest.raises(InputError, match=r"names \{w\}"):
        list(made.tasks("train"))
    with pytest.raises(ValueError, match="is generated, and its tasks have prompts"):
        DatasetEntry(name="x", split="train", source="generator", prompt="p.yaml")
    write(folder / "train.jsonl", {"q": "Who?", "answer": "A"}, {"answer": "B"})
    (folder / "prompt.yaml").write_text("user: 'Say: {q}'", encoding="utf-8")
    with pytest.raises(InputError, match=r"line 2: field 'q': the row lacks it"):
        list(made.tasks("train"))


def test_sources_that_are_not_there_are_said(make_quiz: MakeQuiz, tmp_path: Path) -> None:
    quiz = make_quiz("quiz")
    with pytest.raises(InputError, match="There is no file"):
        prepare([Source(quiz, "train", tmp_path / "none.jsonl")], tmp_path / "out")
    with pytest.raises(InputError, match=r"has no split 'validation'. Allowed: train"):
        prepare([Source(quiz, "validation")], tmp_path / "out")
    with pytest.raises(InputError, match="it is empty"):
        prepare([Source(quiz, "train", write(tmp_path / "empty.jsonl"))], tmp_path / "out")
    with pytest.raises(InputError, match="There is nothing to prepare"):
        prepare([], tmp_path / "out")
    with pytest.raises(InputError, match="exists already"):
        prepare([Source(quiz, "train")], tmp_path)


def test_rows_of_a_saved_dataset_are_prepared(tmp_path: Path, make_quiz: MakeQuiz) -> None:
    import datasets

    folder = tmp_path / "hub"
    datasets.Dataset.from_list([task("1?"), task("2?", None)]).save_to_disk(folder / "data")
    entry = DatasetEntry(name="d", split="train", source="huggingface", path="data")
    spec = EnvironmentSpec("hub", make_quiz("quiz").cls, Manifest(datasets=[entry]), path=folder)
    made = prepare([Source(spec, "train")], tmp_path / "out", skip_bad=True)
    assert (made.splits["train"]["rows"], made.bad_rows) == (1, 1)
    assert read(tmp_path / "out/bad_rows.jsonl")[0]["file"] == "dataset data"


def test_render_writes_prompts_and_nothing_else(tmp_path: Path) -> None:
    file = write(tmp_path / "raw.jsonl", {"q": "Who?", "answer": "A"}, {"q": None, "answer": "B"})
    prompt = Prompt(PromptConfig(system="Be kind.", user="{q}"), "p.yaml")
    with pytest.raises(InputError, match=r"1 of 2 rows are bad.*\n.*line 2: field 'q': is null"):
        render([file], prompt, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
    made = render([file], prompt, tmp_path / "out.jsonl", skip_bad=True)
    assert (made.rows, made.bad_rows, made.shows, made.does_not_show) == (1, 1, ["q"], ["answer"])
    assert read(tmp_path / "out.jsonl") == [
        {
            "q": "Who?",
            "answer": "A",
            "responses_create_params": {
                "input": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Who?"}]
            },
        }
    ]
    assert read(tmp_path / "out.bad.jsonl")[0]["line"] == 2
    with pytest.raises(InputError, match="exists already"):
        render([file], prompt, tmp_path / "out.jsonl")


def test_memory_does_not_grow_with_the_rows(make_quiz: MakeQuiz, tmp_path: Path) -> None:
    quiz, peaks = make_quiz("quiz"), []
    for count in (500, 2000, 8000):
        file = write(tmp_path / f"{count}.jsonl", *(task("What is it? " * 20, "A", n=n % 7) for n in range(count)))
        tracemalloc.start()
        prepare([Source(quiz, "train", file)], tmp_path / f"out{count}")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < peaks[1] + 100_000, peaks


def test_a_full_disk_is_one_sentence_and_leaves_nothing(make_quiz: MakeQuiz, tmp_path: Path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("gymrail.data.prepare.RowStatistics.add", full)
    with pytest.raises(InputError, match=r"Cannot write '.*out': No space left on device"):
        prepare([Source(make_quiz("quiz"), "train")], tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["quiz"]
