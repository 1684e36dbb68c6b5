"""Search a corpus by BM25, without a network, and read its documents page by page."""

from __future__ import annotations

import asyncio
from typing import Any

from gymrail import ToolError, ToolServer, tool
from gymrail.errors import InputError, did_you_mean
from gymrail_mcp_servers.search.corpus import Corpus, Document, words_of

_MAX_HITS = 20
_SNIPPET_CHARACTERS = 300


class Search(ToolServer):
    """Find documents of a corpus by words, and read them."""

    def __init__(self) -> None:
        self._corpus: Corpus | None = None
        self._page_characters = 3000

    async def seed(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, *, index: Corpus | None = None, corpus: str | None = None, page_characters: int = 3000
    ) -> None:
        """Choose what is searched.

        Args:
            index: A corpus that was loaded before; share one between episodes.
            corpus: Path of a `.jsonl` or text file or of a folder, instead; it is read once per process.
            page_characters: Length of a page of a document.

        Raises:
            InputError: both are given, or the corpus cannot be read.
        """
        if index is not None and corpus is not None:
            raise InputError("Search has one corpus; give `index` or `corpus`, and not both.")
        self._corpus = index if corpus is None else await asyncio.to_thread(Corpus.load, corpus)
        self._page_characters = max(1, page_characters)

    @tool(read_only=True, blocking=True)
    def search(self, query: str, k: int = 5) -> list[dict[str, Any]]:
        """Search the documents by words; the best matches come first, each with its id, title and a passage.

        Args:
            query: Words to look for.
            k: How many results, 1 to 20.
        """
        if not 1 <= k <= _MAX_HITS:
            raise ToolError(f"k is {k}; it must be from 1 to {_MAX_HITS}.")
        return [
            {
                "document_id": hit.document.id,
                "title": hit.document.title,
                "passage": passage(hit.document, query),
                "score": round(hit.score, 3),
            }
            for hit in self._opened().search(query, k)
        ]

    @tool(read_only=True)
    def open_document(self, document_id: str, page: int = 1) -> str:
        """Read a document.

        Args:
            document_id: The id, as `search` returned it.
            page: Which page of a long document; the first is 1.
        """
        documents = self._opened().by_id
        if document_id not in documents:
            near = did_you_mean(document_id, documents, limit=0) if len(documents) <= 2000 else ""
            hint = f" {near}" if near.startswith("Did you mean") else ""
            raise ToolError(f"There is no document {document_id[:100]!r}.{hint} `search` returns ids.")
        document, size = documents[document_id], self._page_characters
        pages = max(1, -(-len(document.text) // size))
        if not 1 <= page <= pages:
            raise ToolError(f"Document {document_id!r} has {pages} pages; page is {page}.")
        text = document.text[(page - 1) * size : page * size]
        heading = f"{document.title}\n\n" if document.title else ""
        return f"{heading}{text}" + (f"\n\n(page {page} of {pages})" if pages > 1 else "")

    def _opened(self) -> Corpus:
        if self._corpus is None:
            raise ToolError("There is nothing to search: the server was started without --config corpus=PATH.")
        return self._corpus


def passage(document: Document, query: str) -> str:
    """Return the part of a document that holds the most of the query's words."""
    wanted = set(words_of(query))
    text, step = document.text, _SNIPPET_CHARACTERS // 2
    starts = range(0, max(1, len(text) - step), step)
    best = max(
        starts, key=lambda start: (len(wanted & set(words_of(text[start : start + _SNIPPET_CHARACTERS]))), -start)
    )
    return " ".join(text[best : best + _SNIPPET_CHARACTERS].split())
