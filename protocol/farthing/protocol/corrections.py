"""Billed usage that its vendor takes back: what is signed, what may be taken, what it is worth.

Boundary: values and arithmetic. The engine gives back by it, and whoever proves it again uses the
very same. Source: spec/metering.md#corrections.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import sha256
from itertools import pairwise
from typing import Final, NamedTuple

import msgspec

from farthing.protocol.calls import reported_calls
from farthing.protocol.canonical import INTEGER_MAX, Json, canonical_bytes
from farthing.protocol.documents import DocumentError, Fault, Fields
from farthing.protocol.rating import CompiledCard, Line, Position, RateCard, rate
from farthing.protocol.rating.card import QUANTITY_MAX
from farthing.protocol.records import Record
from farthing.protocol.usage import BATCH_EVENTS_MAX, BILLED, METERS_MAX, is_meter

__all__ = [
    "CHANGES_MAX",
    "CORRECT_USAGE",
    "CallBack",
    "Correction",
    "Misfit",
    "Worth",
    "billed_by",
    "calls_document",
    "calls_sha256",
    "correction_of",
    "misfit",
    "read_calls",
    "read_correction",
    "worth",
]

CORRECT_USAGE: Final = "correct_usage"
CHANGES_MAX: Final = 32
"""How often a charge has changed when no more of it is corrected: each holds its whole batch."""

_ID_CHARACTERS_MAX: Final = 64
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,15}")
_ENCODER: Final = msgspec.json.Encoder(order="sorted")


class CallBack(msgspec.Struct, frozen=True):
    """Quantities of one call by meter: what it used, or what of that is taken back."""

    seq: int
    usage: dict[str, int]


class Correction(msgspec.Struct, frozen=True, kw_only=True):
    """What a vendor takes back of the calls of one charge, ascending by call."""

    charge_id: str
    calls: tuple[CallBack, ...]

    def document(self) -> dict[str, Json]:
        """The document that the vendor signs."""
        return {"charge_id": self.charge_id, "corrections": calls_document(self.calls)}

    def signed_bytes(self) -> bytes:
        """The bytes that are signed: the document's canonical ones."""
        return canonical_bytes(self.document())

    def totals(self) -> dict[str, int]:
        """What is taken back by meter, all calls together."""
        totals: dict[str, int] = {}
        for each in self.calls:
            for meter, quantity in each.usage.items():
                totals[meter] = totals.get(meter, 0) + quantity
        return dict(sorted(totals.items()))


class Misfit(NamedTuple):
    """What of a correction cannot be taken back: where, why, and the most that could."""

    path: str
    says: str
    remaining: str = ""


class Worth(NamedTuple):
    """What usage taken back is worth, line by line, and where the position is without it."""

    lines: tuple[Line, ...]
    units: int
    position: dict[str, int]


def read_correction(document: Json) -> Correction:
    """Read a correction.

    Raises:
        DocumentError: for the first member that is not one's, such as `corrections.3.usage.page`.
    """
    fields = Fields(document)
    charge_id = fields.text("charge_id", length_max=_ID_CHARACTERS_MAX)
    calls = _calls(fields, "corrections")
    fields.end()
    for place, (one, other) in enumerate(pairwise(calls), 1):
        if one.seq >= other.seq:
            raise DocumentError(f"corrections.{place}.call", Fault.INVALID_FORM)
    return Correction(charge_id=charge_id, calls=calls)


def correction_of(record: Record) -> Correction:
    """What an accepted correction took back; raises as `read_correction`."""
    return read_correction((record.facts or {})["correction"])


def read_calls(document: Json) -> tuple[CallBack, ...]:
    """What billed calls used, as `calls_document` wrote it; raises as `read_correction`."""
    return _calls(Fields({"calls": document}), "calls", least=0)


def calls_document(calls: Iterable[CallBack]) -> list[Json]:
    """Calls and their quantities, as they are signed and kept."""
    return [
        {
            "call": str(each.seq),
            "usage": {meter: str(quantity) for meter, quantity in each.usage.items()},
        }
        for each in calls
    ]


def calls_sha256(calls: Sequence[CallBack]) -> bytes:
    """What stands for the billed calls of a charge in an auditor's memory, and nowhere else."""
    return sha256(_ENCODER.encode(calls)).digest()


def billed_by(record: Record) -> list[CallBack]:
    """The calls that an accepted report bills, in its batch's order, with what each used."""
    return [
        CallBack(each.seq, {meter: n for meter, n in each.usage.items() if n})
        for each in reported_calls(record)
        if each.is_taken and each.outcome in BILLED
    ]


def misfit(
    correction: Correction, billed: Mapping[int, Mapping[str, int]], corrected: Collection[int]
) -> Misfit | None:
    """The first thing of a correction that cannot be taken back.

    Args:
        correction: what is to be taken back.
        billed: what the billed calls of its charge used, by number.
        corrected: the calls that were corrected before.
    """
    for place, each in enumerate(correction.calls):
        path = f"corrections.{place}"
        used = billed.get(each.seq)
        if used is None:
            return Misfit(f"{path}.call", "The charge bills no such call.")
        if each.seq in corrected:
            return Misfit(f"{path}.call", "The call was corrected before.")
        for meter, quantity in each.usage.items():
            if quantity > used.get(meter, 0):
                text = "The call used less of the meter."
                return Misfit(f"{path}.usage.{meter}", text, str(used.get(meter, 0)))
    return None


def worth(card: RateCard | CompiledCard, position: Position, totals: Mapping[str, int]) -> Worth:
    """What taking usage back is worth at a position, which holds it.

    For each meter `round(P(position)) - round(P(position - quantity))`, so that all charges of an
    agreement, less all corrections, stay the price of its position.

    Args:
        card: the agreement's rate card.
        position: the agreement's, with what is taken back in it.
        totals: what is taken back, by meter.
    """
    after = dict(position)
    for meter, quantity in totals.items():
        after[meter] = after.get(meter, 0) - quantity
        assert after[meter] >= 0, "a position holds all that was billed"
    rating = rate(card, after, totals)
    return Worth(rating.lines, rating.total_units, after)


def _calls(fields: Fields, name: str, least: int = 1) -> tuple[CallBack, ...]:
    calls: list[CallBack] = []
    for each in fields.each(name, count_min=least, count_max=BATCH_EVENTS_MAX):
        seq = _number(each, "call", INTEGER_MAX)
        meters, names = each.fields("usage"), each.mapping("usage")
        if not least <= len(names) <= METERS_MAX:
            raise DocumentError(meters.path, Fault.WRONG_COUNT)
        usage: dict[str, int] = {}
        for meter in names:
            if not is_meter(meter):
                raise DocumentError(meters.path, Fault.INVALID_FORM)
            usage[meter] = _number(meters, meter, QUANTITY_MAX)
        each.end()
        calls.append(CallBack(seq, usage))
    return tuple(calls)


def _number(fields: Fields, name: str, at_most: int) -> int:
    number = int(fields.text(name, length_max=len(str(INTEGER_MAX)), form=_NUMBER))
    if number > at_most:
        raise DocumentError(fields.at(name), Fault.OUT_OF_RANGE)
    return number
