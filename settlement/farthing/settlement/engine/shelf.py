"""A mapping of which only the unsettled part is kept in memory.

Boundary: the engine sees a mapping; where the rest of it lies is the journal's business. A value
that is settled can be read back from the record that settled it, so it may be forgotten.
"""

from collections.abc import Callable
from typing import Generic, TypeVar, overload

__all__ = ["Shelf"]

Key = TypeVar("Key")
Value = TypeVar("Value")
Default = TypeVar("Default")


class Shelf(dict[Key, Value], Generic[Key, Value]):
    """What is kept, and a way to recall what is not.

    Iterating, comparing and `in` see what is kept; `get` and indexing see everything.

    Attributes:
        recall: finds a value that was forgotten; None for one that never was.
        settled: kept values that can be forgotten once their record is durable, with its seq.
    """

    __slots__ = ("recall", "settled")

    def __init__(self) -> None:
        """Start empty, with nothing to recall."""
        super().__init__()
        self.recall: Callable[[Key], Value | None] | None = None
        self.settled: dict[Key, int] = {}

    def put(self, key: Key, value: Value, *, settled_by: int = 0) -> None:
        """Keep a value; `settled_by` is the record after which it need not be kept."""
        self[key] = value
        if settled_by:
            self.settled[key] = settled_by
        else:
            self.settled.pop(key, None)

    def kept(self, key: Key) -> Value | None:
        """The value if it is in memory, without looking further."""
        return dict.get(self, key)

    @overload
    def get(self, key: Key, default: None = None, /) -> Value | None: ...
    @overload
    def get(self, key: Key, default: Value, /) -> Value: ...
    @overload
    def get(self, key: Key, default: Default, /) -> Value | Default: ...
    def get(self, key: Key, default: object = None, /) -> object:
        """The value, recalled if need be."""
        value = dict.get(self, key)
        if value is None and self.recall is not None:
            value = self.recall(key)
        return default if value is None else value

    def __missing__(self, key: Key) -> Value:
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def forget(self) -> None:
        """Let go of everything settled."""
        for key in self.settled:
            self.pop(key, None)
        self.settled.clear()
