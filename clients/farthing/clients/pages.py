"""How far a list in pages has come: one that does not end is none.

Boundary: what pages say of themselves. Source: spec/transport-http.md.
"""

from typing import Final

from farthing.protocol.errors import Unverified

__all__ = ["Pages"]

_PAGES_MAX: Final = 100_000


class Pages:
    """The pages of one list, of which each names the next."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def next(self, cursor: str, rows: int) -> str:
        """The cursor to go on with.

        Args:
            cursor: the one that a page names.
            rows: how many that page has.

        Raises:
            Unverified: it names another and has none, names one that was named before, or is one
                too many.
        """
        if not rows or cursor in self._seen or len(self._seen) == _PAGES_MAX:
            raise Unverified("the pages of the list do not end")
        self._seen.add(cursor)
        return cursor
