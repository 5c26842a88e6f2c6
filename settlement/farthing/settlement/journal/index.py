"""Which record a key last stood in."""

from collections.abc import Iterable
from pathlib import Path

__all__ = ["Index"]


class Index:
    """Keys of 16 bytes, each with the newest record it stood in.

    Args:
        path: the side file; None keeps everything in memory.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[bytes, int] = {}

    def open(self, identity: str) -> int:
        """Take what the file holds of the journal `identity`; give how far it is complete."""
        del identity
        return 0

    def get(self, key: bytes) -> int | None:
        """The newest record of a key."""
        return self._known.get(key)

    def add(self, entries: Iterable[tuple[bytes, int]], through_seq: int) -> None:
        """Take in what records up to `through_seq`, durable now, have settled."""
        del through_seq
        self._known.update(entries)

    def close(self) -> None:
        """Give the file free."""
