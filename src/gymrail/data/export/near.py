"""Near duplicates: how alike two texts are, estimated from a signature of each.

A text is the set of its five-word shingles. One hash function sorts the shingles into bins and keeps the smallest of
each bin (one-permutation hashing, Li, Owen and Zhang 2012); an empty bin takes what another holds, chosen by the bin's
number alone (optimal densification, Shrivastava 2017). The share of equal bins estimates the Jaccard similarity with a
standard deviation of at most 0.045. Signatures are compared where one of their bands is equal; bands are as long as
they can be while two texts at the threshold are found with a probability of 0.99.
"""

from __future__ import annotations

import re
import sqlite3
import struct
import zlib
from random import Random

BINS = 128
WORDS = 5
"""Words in a shingle."""
_EMPTY = 0xFFFFFFFF
_FOUND = 0.99
_WORD = re.compile(r"\w+|[^\w\s]")
_FORMAT = struct.Struct(f"<{BINS}I")


def _detours() -> list[list[int]]:
    """For each bin, in which order it asks the others when it is empty."""
    orders = []
    for number in range(BINS):
        order = [other for other in range(BINS) if other != number]
        Random(f"bin:{number}").shuffle(order)
        orders.append(order)
    return orders


_DETOURS = _detours()


def signature(text: str) -> bytes:
    """Return the signature of a text; equal for equal texts, on every machine."""
    words = _WORD.findall(text.lower())
    shingles = {" ".join(words[place : place + WORDS]) for place in range(max(1, len(words) - WORDS + 1))}
    bins = [_EMPTY] * BINS
    for shingle in shingles:
        # CRC-32 alone is linear: alike shingles would fall into related bins. Multiplying and folding mixes it.
        mixed = (zlib.crc32(shingle.encode()) * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        mixed ^= mixed >> 29
        number, value = mixed % BINS, (mixed >> 16) & 0xFFFFFFFE
        if value < bins[number]:
            bins[number] = value
    if _EMPTY in bins:
        filled = [value != _EMPTY for value in bins]
        for number in range(BINS):
            if not filled[number]:
                bins[number] = bins[next(other for other in _DETOURS[number] if filled[other])]
    return _FORMAT.pack(*bins)


def similarity(one: bytes, other: bytes) -> float:
    """The estimated Jaccard similarity of the texts of two signatures."""
    return sum(a == b for a, b in zip(_FORMAT.unpack(one), _FORMAT.unpack(other), strict=True)) / BINS


def band_length(threshold: float) -> int:
    """How many bins a band has, so that texts as alike as the threshold are compared with a probability of 0.99."""
    fitting = [length for length in range(1, 17) if 1 - (1 - threshold**length) ** (BINS // length) >= _FOUND]
    return max(fitting, default=1)


class Seen:
    """The signatures that were kept, on disk."""

    def __init__(self, database: sqlite3.Connection, threshold: float) -> None:
        self._database = database
        self._threshold = threshold
        self._length = band_length(threshold)
        database.execute("CREATE TABLE bands (band INTEGER, place INTEGER)")
        database.execute("CREATE INDEX by_band ON bands (band)")
        database.execute("CREATE TABLE signatures (place INTEGER PRIMARY KEY, signature BLOB)")

    def is_new(self, place: int, text: bytes) -> bool:
        """Whether no kept signature is as alike as the threshold; then this one is kept too."""
        width = 4 * self._length
        bands = [
            zlib.crc32(text[start : start + width]) << 16 | start for start in range(0, 4 * BINS - width + 1, width)
        ]
        marks = ",".join("?" * len(bands))
        found = self._database.execute(
            f"SELECT signature FROM signatures WHERE place IN (SELECT place FROM bands WHERE band IN ({marks}))",
            bands,
        )
        if any(similarity(text, other) >= self._threshold for (other,) in found):
            return False
        self._database.executemany("INSERT INTO bands VALUES (?, ?)", ((band, place) for band in bands))
        self._database.execute("INSERT INTO signatures VALUES (?, ?)", (place, text))
        return True
