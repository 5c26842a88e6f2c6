"""Which keys have surely never been added: bits in files, eight filters side by side in each.

Boundary: bits alone. Which filter is complete, and what its digest is, the index notes.

A place in a file is a byte, and each bit of it another filter's: four bytes tell of eight filters
at once. All four of a key are on one page, for finding a page costs more than reading it. A filter
of 24 places a key lets one unknown key in some 1,600 through.
"""

import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from struct import Struct
from typing import Final

__all__ = ["FILTERS", "Filter", "FilterFile", "passing"]

FILTERS: Final = 8
"""Filters of a file."""

# The first file is small, since most journals are.
_PLACES_FIRST: Final = 2**22
_PLACES: Final = 2**25
_PLACES_A_KEY: Final = 24
_PAGE_BITS: Final = 12
_IN_PAGE: Final = 2**_PAGE_BITS - 1
# Of a key, what names its page, and what its places on it.
_HALVES: Final = Struct("<2Q")
# So much at once, that the interpreter is given back soon.
_CHUNK: Final = 2**20


@dataclass(slots=True)
class Filter:
    """A filter by its number over all files: for keys of records after `after_seq`."""

    number: int
    after_seq: int
    keys: int = 0

    @property
    def place(self) -> int:
        """Its place in its file."""
        return self.number % FILTERS


class FilterFile:
    """Eight filters in a file.

    Args:
        folder: where it lies; made if it is not there, or not whole.
        number: which of them it is, from 0.
    """

    def __init__(self, folder: Path, number: int) -> None:
        places = _PLACES if number else _PLACES_FIRST
        path = folder / f"filters-{number}"
        if not path.exists() or path.stat().st_size != places:
            # Whole, for a hole that a full disk cannot fill would end the process.
            with path.open("wb") as file:
                for _ in range(0, places, _CHUNK):
                    file.write(bytes(_CHUNK))
        with path.open("r+b") as file:
            self.bits = mmap.mmap(file.fileno(), 0)
        self.places = places
        self.page_mask = (places - 1) & ~_IN_PAGE
        self.keys_max = places // _PLACES_A_KEY

    def add(self, place: int, keys: Iterable[bytes]) -> int:
        """Add keys to the filter at a place; gives how many."""
        bits, page_mask, bit = self.bits, self.page_mask, 1 << place
        count = 0
        for key in keys:
            count += 1
            page, where = _HALVES.unpack(key)
            page &= page_mask
            bits[page | where & _IN_PAGE] |= bit
            bits[page | where >> 12 & _IN_PAGE] |= bit
            bits[page | where >> 24 & _IN_PAGE] |= bit
            bits[page | where >> 36 & _IN_PAGE] |= bit
        return count

    def keep(self, count: int) -> None:
        """Forget all filters but the first so many."""
        kept = _only(count)
        for chunk in self._chunks():
            found = self.bits[chunk]
            if found != (left := found.translate(kept)):
                self.bits[chunk] = left

    def sha256(self, count: int) -> str:
        """The digest of the first so many filters, which are on the disk by then."""
        self.bits.flush()
        digest, kept = sha256(), _only(count)
        for chunk in self._chunks():
            digest.update(self.bits[chunk].translate(kept))
        return digest.hexdigest()

    def close(self) -> None:
        """Give the file free."""
        self.bits.close()

    def _chunks(self) -> Iterator[slice]:
        return (slice(first, first + _CHUNK) for first in range(0, self.places, _CHUNK))


def passing(files: tuple[FilterFile, ...], key: bytes) -> list[int]:
    """The numbers of the filters that a key may have been added to, from 0 over all files."""
    name, where = _HALVES.unpack(key)
    a, b = where & _IN_PAGE, where >> 12 & _IN_PAGE
    c, d = where >> 24 & _IN_PAGE, where >> 36 & _IN_PAGE
    found: list[int] = []
    for number, each in enumerate(files):
        bits, page = each.bits, name & each.page_mask
        hit = bits[page | a] & bits[page | b]
        if hit and (hit := hit & bits[page | c] & bits[page | d]):
            first = number * FILTERS
            found += [first + place for place in range(FILTERS) if hit >> place & 1]
    return found


def _only(count: int) -> bytes:
    bits = (1 << count) - 1
    return bytes(each & bits for each in range(256))
