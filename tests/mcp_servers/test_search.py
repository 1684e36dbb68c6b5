"""The search server: the right document first, the same on every machine, read once."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gymrail import ToolError
from gymrail.errors import InputError
from gymrail.registry import find_tool_server
from gymrail_mcp_servers.search.corpus import Corpus, Document, words_of
from gymrail_mcp_servers.search.server import Search

DOCUMENTS = [
    Document("d1", "Harbours", "The harbour of Velm was built by masons. It holds forty boats."),
    Document("d2", "Bakers", "Two bakers sell bread at the harbour."),
    Document("d3", "Empty", ""),
    Document("d4", "Long", "word " * 1000 + "The lantern hangs over the gate."),
]


def opened(**settings: Any) -> Search:
    server = Search()
    asyncio.run(server.seed(**settings))
    return server


def found(server: Search, query: str, k: int = 5) -> list[str]:
    return [hit["document_id"] for hit in server.search(query, k)]


def test_the_best_match_comes_first_and_what_shares_no_word_is_left_out() -> None:
    server = opened(index=Corpus.of(DOCUMENTS))
    assert found(server, "Who BAKES bread? bakers") == ["d2"]
    assert found(server, "harbour masons") == ["d1", "d2"]
    assert found(server, "boat") == ["d1"]
    assert found(server, "zeppelin") == found(server, "") == found(server, "?!") == []
    assert found(server, "harbour masons", 1) == ["d1"]


def test_a_result_shows_the_passage_that_holds_the_words() -> None:
    hit = opened(index=Corpus.of(DOCUMENTS)).search("lantern gate", 1)[0]
    assert (hit["title"], "The lantern hangs over the gate." in hit["passage"]) == ("Long", True)
    assert len(hit["passage"]) <= 300


def test_equal_scores_keep_the_order_of_the_corpus() -> None:
    same = [Document(f"d{number}", "", "the same text") for number in range(30)]
    assert found(opened(index=Corpus.of(same)), "same", 20) == [f"d{number}" for number in range(20)]


def test_documents_are_read_page_by_page() -> None:
    server = opened(index=Corpus.of(DOCUMENTS))
    assert server.open_document("d2") == "Bakers\n\nTwo bakers sell bread at the harbour."
    assert "(page 2 of 2)" in server.open_document("d4", 2)
    for arguments in (("d4", 3), ("d4", 0)):
        with pytest.raises(ToolError, match="has 2 pages"):
            server.open_document(*arguments)
    with pytest.raises(ToolError, match=r"no document 'd22'\. Did you mean 'd2'\?"):
        server.open_document("d22")


@pytest.mark.parametrize("k", [0, -1, 21])
def test_the_number_of_results_is_bounded(k: int) -> None:
    with pytest.raises(ToolError, match="from 1 to 20"):
        opened(index=Corpus.of(DOCUMENTS)).search("harbour", k)


def test_a_corpus_is_read_from_a_file_or_a_folder_once(tmp_path: Path) -> None:
    rows = [{"id": "a", "title": "T", "text": "red fox"}, {"text": "blue fox"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "page.md").write_text("# green fox", encoding="utf-8")
    (tmp_path / "picture.png").write_bytes(b"fox")
    server = opened(corpus=str(tmp_path))
    assert sorted(found(server, "fox")) == ["a", "rows.jsonl:2", "sub/page.md"]
    assert Corpus.load(tmp_path) is Corpus.load(tmp_path)
    assert found(opened(corpus=str(tmp_path / "sub" / "page.md")), "green") == ["page.md"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", "{", "line 1: not JSON"),
        ("x.jsonl", '{"text": "a"}\n{"title": "b"}', "line 2: a document is an object with a 'text'"),
        ("x.jsonl", "", "at least one document"),
        ("x.jsonl", '{"id": 1, "text": "a"}\n{"id": "1", "text": "b"}', "Two documents of the corpus have the id '1'"),
        ("y.png", "", r"has no \.jsonl"),
    ],
)
def test_a_corpus_that_cannot_be_read_says_where(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        opened(corpus=str(tmp_path if name.endswith("png") else tmp_path / name))


def test_no_corpus_is_said_when_it_is_missed_and_no_path_at_once() -> None:
    with pytest.raises(ToolError, match="corpus=PATH"):
        opened().search("x")
    with pytest.raises(InputError, match="No corpus at 'nowhere'"):
        opened(corpus="nowhere")


def test_words_are_compared_without_case_and_plural() -> None:
    assert words_of("Boats, glass; STORIES - gas") == ["boat", "glass", "story", "gas"]


def test_the_registry_finds_it() -> None:
    assert find_tool_server("search") is Search
