"""Documents with a BM25 index over them, loaded once per process.

A corpus is a JSONL file (`{"id": "...", "title": "...", "text": "..."}` a line, id and title optional), a text file, or
a folder of `.jsonl`, `.txt` and `.md` files.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from gymrail.errors import InputError

_WORD = re.compile(r"\w+")
_SUFFIXES = (".jsonl", ".txt", ".md")


class Document(NamedTuple):
    """One document."""

    id: str
    title: str
    text: str


class Hit(NamedTuple):
    """A document that was found."""

    document: Document
    score: float


@dataclass(frozen=True, slots=True)
class Corpus:
    """Documents in order, and their index. Safe to share between threads."""

    documents: tuple[Document, ...]
    by_id: dict[str, Document]
    index: Any

    @classmethod
    def of(cls, documents: Iterable[Document]) -> Corpus:
        """Index documents.

        Raises:
            InputError: there are none, or two have one id; or bm25s is not installed.
        """
        found = tuple(documents)
        by_id = {document.id: document for document in found}
        if not found:
            raise InputError("A corpus needs at least one document; this one has none.")
        if len(by_id) < len(found):
            twice = next(one.id for place, one in enumerate(found) if by_id[one.id] is not found[place])
            raise InputError(f"Two documents of the corpus have the id {twice!r}; ids must differ.")
        try:
            import bm25s
        except ImportError as error:
            raise InputError(f"Search needs bm25s ({error}): pip install 'gymrail[search]'") from None
        index = bm25s.BM25()
        # An empty document would leave an empty vocabulary behind.
        words = [words_of(f"{document.title} {document.text}") or ["_"] for document in found]
        index.index(words, show_progress=False)
        return cls(found, by_id, index)

    @classmethod
    def load(cls, path: str | Path) -> Corpus:
        """Read a corpus from a file or a folder; the same files are read once per process.

        Raises:
            InputError: there is none, or a line is no document.
        """
        files = _files(Path(path))
        return _load(tuple((str(file.resolve()), file.stat().st_mtime_ns) for file in files), str(Path(path)))

    def search(self, query: str, limit: int) -> list[Hit]:
        """Return the best documents, best first; those that share no word with the query are left out."""
        words = [word for word in words_of(query) if word in self.index.vocab_dict]
        if not words:
            return []
        scores = self.index.get_scores(words).tolist()
        best = sorted(
            (place for place, score in enumerate(scores) if score > 0), key=lambda place: (-scores[place], place)
        )
        return [Hit(self.documents[place], scores[place]) for place in best[:limit]]


def words_of(text: str) -> list[str]:
    """Return a text's words as they are indexed: lower case, without endings of the plural."""
    return [_stem(word) for word in _WORD.findall(text.casefold())]


def _stem(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return f"{word[:-3]}y"
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _files(path: Path) -> Sequence[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"No corpus at {str(path)!r}; give a .jsonl or text file, or a folder of them.")
    found = sorted(file for file in path.rglob("*") if file.is_file() and file.suffix in _SUFFIXES)
    if not found:
        raise InputError(f"The folder {str(path)!r} has no {', '.join(_SUFFIXES)} file.")
    return found


@functools.lru_cache(maxsize=4)
def _load(files: tuple[tuple[str, int], ...], root: str) -> Corpus:
    documents: list[Document] = []
    base = Path(root).resolve()
    for name, _ in files:
        file = Path(name)
        shown = file.relative_to(base).as_posix() if file != base else file.name
        if file.suffix == ".jsonl":
            documents += _lines(file, shown)
        else:
            documents.append(Document(shown, file.stem, file.read_text(encoding="utf-8", errors="replace")))
    return Corpus.of(documents)


def _lines(file: Path, shown: str) -> Iterable[Document]:
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise InputError(f"{file}, line {number}: not JSON: {error}.") from None
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise InputError(f"{file}, line {number}: a document is an object with a 'text'.")
        yield Document(str(row.get("id", f"{shown}:{number}")), str(row.get("title", "")), row["text"])
