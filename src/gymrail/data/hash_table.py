"""A table of 64-bit hashes, numbered in the order they came: 8 bytes each and 4 for their place, where a Python set
takes 60 or more."""

from __future__ import annotations

import hashlib
from array import array

_EMPTY = 0
_START = 1 << 10


class HashTable:
    """Numbers hashes from 0 on. What else is known of a hash, its owner keeps in an array under the same number."""

    def __init__(self) -> None:
        self.keys = array("Q")
        self._places = array("I", bytes(4 * _START))
        """For each place, the number of the key that stands there plus 1."""
        self._mask = _START - 1

    def __len__(self) -> int:
        return len(self.keys)

    def __contains__(self, key: int) -> bool:
        return self.find(key) >= 0

    def find(self, key: int) -> int:
        """Return a hash's number; -1 where it is not there."""
        places, keys, mask = self._places, self.keys, self._mask
        place = key & mask
        while (number := places[place]) != _EMPTY:
            if keys[number - 1] == key:
                return number - 1
            place = (place + 1) & mask
        return -1

    def add(self, key: int) -> int:
        """Return a hash's number, a new one where it was not there: then `len` grows."""
        places, keys, mask = self._places, self.keys, self._mask
        place = key & mask
        while (number := places[place]) != _EMPTY:
            if keys[number - 1] == key:
                return number - 1
            place = (place + 1) & mask
        keys.append(key)
        places[place] = len(keys)
        if 3 * len(keys) > 2 * mask:
            self._grow()
        return len(keys) - 1

    def _grow(self) -> None:
        mask = 2 * self._mask + 1
        places = array("I", bytes(4 * (mask + 1)))
        for number, key in enumerate(self.keys, start=1):
            place = key & mask
            while places[place] != _EMPTY:
                place = (place + 1) & mask
            places[place] = number
        self._places, self._mask = places, mask


def hash64(data: bytes) -> int:
    """Return 64 bits of a cryptographic hash: the same on every machine."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest())
