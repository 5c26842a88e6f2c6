"""Reading a signed document strictly: every member named, typed and bounded, nothing unknown.

Boundary: one object at a time, by value. What the members mean belongs to the document's own
module (`listing`, `terms`); hostile prose is the catalog's affair, except that characters nobody
can see are refused here.
"""

import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from enum import StrEnum
from typing import Final, TypeVar

from farthing.protocol.canonical import Json
from farthing.protocol.ids import id_pattern

__all__ = [
    "DIGEST",
    "SLUG",
    "DocumentError",
    "Fault",
    "Fields",
    "misread",
    "quantities_document",
    "read_document",
    "unseen",
]

SLUG: Final = re.compile(r"[a-z0-9]+(?:[-._][a-z0-9]+)*")
DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_QUANTITY: Final = re.compile(r"0|[1-9][0-9]{0,15}")
# Control, format (bidirectional, zero-width, tag), surrogate, private use, unassigned, and the
# line and paragraph separators: none has a place in one line of plain text.
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Letters, marks and symbols of which nothing is seen either: those of Unicode's
# Default_Ignorable_Code_Point in other categories, and an empty cell of Braille.
_BLANK: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)

E = TypeVar("E", bound=StrEnum)


class Fault(StrEnum):
    """What can be wrong at one place of a document."""

    WRONG_TYPE = "wrong_type"
    MISSING = "missing"
    UNKNOWN_FIELD = "unknown_field"
    UNKNOWN_VALUE = "unknown_value"
    INVALID_TEXT = "invalid_text"
    INVALID_FORM = "invalid_form"
    OUT_OF_RANGE = "out_of_range"
    WRONG_COUNT = "wrong_count"
    DUPLICATE = "duplicate"


class DocumentError(ValueError):
    """A document that is not what its schema name says.

    Attributes:
        path: The offending field in dotted form, `""` for the document itself.
        reason: The fault.
    """

    def __init__(self, path: str, reason: Fault) -> None:
        super().__init__(f"{path or 'document'}: {reason}")
        self.path = path
        self.reason = reason


class Fields:
    """One JSON object being read: each member is taken by its kind; `end` refuses the rest."""

    __slots__ = ("_left", "_members", "path")

    def __init__(self, value: Json, path: str = "") -> None:
        if not isinstance(value, dict):
            raise DocumentError(path, Fault.WRONG_TYPE)
        self.path = path
        self._members: Mapping[str, Json] = value
        self._left = set(value)

    def has(self, name: str) -> bool:
        """Whether an optional member is there."""
        return name in self._members

    def value(self, name: str) -> Json:
        """The member as it stands."""
        if name not in self._members:
            raise DocumentError(self.at(name), Fault.MISSING)
        self._left.discard(name)
        return self._members[name]

    def text(self, name: str, *, length_max: int, form: re.Pattern[str] | None = None) -> str:
        """One line of visible text, of the given form if there is one."""
        return _text(self.value(name), self.at(name), length_max, form)

    def digest(self, name: str) -> str:
        """A SHA-256, in hex."""
        return self.text(name, length_max=64, form=DIGEST)

    def typeid(self, name: str, prefix: str) -> str:
        """An id of the kind that the prefix says."""
        return self.text(name, length_max=40, form=re.compile(id_pattern(prefix)))

    def quantity(self, name: str) -> int:
        """A quantity, from an integer text."""
        return int(self.text(name, length_max=16, form=_QUANTITY))

    def quantities(self, name: str, *, count_min: int, count_max: int) -> Mapping[str, int]:
        """Quantities by meter, as `quantities_document` writes them."""
        quantities: dict[str, int] = {}
        for each in self.each(name, count_min=count_min, count_max=count_max):
            meter = each.text("meter", length_max=64, form=SLUG)
            each.check_order("meter", meter, quantities)
            quantities[meter] = each.quantity("quantity")
            each.end()
        return quantities

    def check_order(self, name: str, value: str, before: Collection[str]) -> None:
        """Refuse what does not stand in the order of its names: one meaning, one document."""
        if value in before:
            raise DocumentError(self.at(name), Fault.DUPLICATE)
        if value < max(before, default=""):
            raise DocumentError(self.at(name), Fault.INVALID_FORM)

    def integer(self, name: str, *, at_least: int, at_most: int) -> int:
        """An integer within bounds, both included."""
        value = self.value(name)
        if isinstance(value, bool) or not isinstance(value, int):
            raise DocumentError(self.at(name), Fault.WRONG_TYPE)
        if not at_least <= value <= at_most:
            raise DocumentError(self.at(name), Fault.OUT_OF_RANGE)
        return value

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self.value(name)
        if not isinstance(value, bool):
            raise DocumentError(self.at(name), Fault.WRONG_TYPE)
        return value

    def member(self, name: str, kind: type[E]) -> E:
        """A word of a closed set."""
        value = self.value(name)
        if not isinstance(value, str):
            raise DocumentError(self.at(name), Fault.WRONG_TYPE)
        try:
            return kind(value)
        except ValueError:
            raise DocumentError(self.at(name), Fault.UNKNOWN_VALUE) from None

    def texts(
        self,
        name: str,
        *,
        count_min: int,
        count_max: int,
        length_max: int,
        form: re.Pattern[str] | None = None,
    ) -> tuple[str, ...]:
        """A list of distinct lines of text."""
        lines: list[str] = []
        for path, each in self._items(name, count_min, count_max):
            line = _text(each, path, length_max, form)
            if line in lines:
                raise DocumentError(path, Fault.DUPLICATE)
            lines.append(line)
        return tuple(lines)

    def mapping(self, name: str) -> Mapping[str, Json]:
        """An object that is kept as it stands, such as a JSON Schema."""
        value = self.value(name)
        if not isinstance(value, dict):
            raise DocumentError(self.at(name), Fault.WRONG_TYPE)
        return value

    def fields(self, name: str) -> "Fields":
        """A nested object, to be read in turn."""
        return Fields(self.value(name), self.at(name))

    def each(self, name: str, *, count_min: int, count_max: int) -> "Iterator[Fields]":
        """The objects of a list, to be read in turn."""
        for path, each in self._items(name, count_min, count_max):
            yield Fields(each, path)

    def end(self) -> None:
        """Refuse what nobody has read: an unknown member might bind somebody."""
        for name in sorted(self._left):
            raise DocumentError(self.at(name), Fault.UNKNOWN_FIELD)

    def at(self, name: str) -> str:
        """The path of a member."""
        return f"{self.path}.{name}" if self.path else name

    def _items(self, name: str, count_min: int, count_max: int) -> Iterator[tuple[str, Json]]:
        value = self.value(name)
        if not isinstance(value, list):
            raise DocumentError(self.at(name), Fault.WRONG_TYPE)
        if not count_min <= len(value) <= count_max:
            raise DocumentError(self.at(name), Fault.WRONG_COUNT)
        for index, each in enumerate(value):
            yield f"{self.at(name)}.{index}", each


def read_document(value: Json, schema: str) -> Fields:
    """Open a document that must call itself `schema`."""
    fields = Fields(value)
    if fields.value("schema") != schema:
        raise DocumentError("schema", Fault.UNKNOWN_VALUE)
    return fields


def quantities_document(quantities: Mapping[str, int]) -> list[Json]:
    """Quantities by meter, in the order of their names."""
    return [{"meter": meter, "quantity": str(quantities[meter])} for meter in sorted(quantities)]


def unseen(text: str) -> str:
    """The first character of a text that a reader could not see, `""` when there is none."""
    if text.isascii() and text.isprintable():
        return ""
    return next((each for each in text if unicodedata.category(each) in _UNSEEN), "")


def misread(name: str) -> str:
    """What a name must be, and is not, for nobody to read it as another or as none; `""` if it is.

    Source: UAX #31 (no ignorable characters, one normalisation form), UAX #15.
    """
    if unseen(name) or name != name.strip() or _BLANK.search(name):
        return "one line of which every character can be seen"
    if not unicodedata.is_normalized("NFC", name):
        return "in Unicode's composed form (NFC)"
    return ""


def _text(value: Json, path: str, length_max: int, form: re.Pattern[str] | None) -> str:
    if not isinstance(value, str):
        raise DocumentError(path, Fault.WRONG_TYPE)
    if not 1 <= len(value) <= length_max or value != value.strip() or unseen(value):
        raise DocumentError(path, Fault.INVALID_TEXT)
    if form is not None and not form.fullmatch(value):
        raise DocumentError(path, Fault.INVALID_FORM)
    return value
