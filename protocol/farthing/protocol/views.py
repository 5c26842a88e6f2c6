"""What is shown of one record: the things behind it, when it took effect, and that it says so.

Boundary: pure; functions of the record alone, so that who holds its receipt can compare.
Source: spec/statements.md.
"""

from collections.abc import Mapping
from itertools import count
from typing import Final

from farthing.protocol.errors import Unverified
from farthing.protocol.messages.statements import RecordView
from farthing.protocol.records import Record
from farthing.protocol.times import format_time, parse_time

__all__ = ["check_view", "effective_at_us", "held_seq", "ids_of", "reference_of"]

# Members of a thing's document that name another thing behind the same line.
_NAMED: Final = ("agreement", "hold", "session", "charge", "dispute")
# What is changed beside the trade and opens by no operation of its own.
_UNNAMED: Final = frozenset(
    {"allowance", "position", "platform", "grant", "key", "principal", "listing"}
)
# Effects whose id is derived from the request, since nothing in state bears it.
_DERIVED: Final = {
    "correct_usage": ("correction", "cor"),
    "fund_account": ("funding", "fnd"),
    "refund_charge": ("refund", "rfd"),
    "withdraw_funds": ("withdrawal", "wdl"),
}


def check_view(view: RecordView, seq: int, proven: Record) -> None:
    """Require that what is shown of a record is what the proven record says.

    When a capture took effect follows from when its hold was placed too: that it is not before the
    delivery is all that is known of it here.

    Args:
        view: what the platform shows.
        seq: the record that was asked for.
        proven: the record of the view's receipt.

    Raises:
        Unverified: it is another record, or shown otherwise.
    """
    if not seq == view.seq == view.receipt.seq == proven.seq:
        raise Unverified(f"another record was given than record {seq}")
    shown = view.operation, view.recorded_at, view.ids, list(view.postings)
    postings = [each.document() for each in proven.moved]
    said = proven.operation, format_time(proven.at_us), ids_of(proven), postings
    if shown != said or not _took_effect(proven, view.effective_at):
        raise Unverified(f"record {seq} is shown otherwise than it is proven")


def effective_at_us(record: Record, held_at_us: int) -> int:
    """When a record took effect: a delivery when it was delivered, the rest when recorded.

    A vendor states when it delivered; that it was after the hold and before the capture is known,
    and a statement that says otherwise is brought within those bounds.

    Args:
        record: the record.
        held_at_us: when the hold was placed that a capture is of.
    """
    delivery = (record.facts or {}).get("delivery")
    if record.refused is not None or not isinstance(delivery, dict):
        return record.at_us
    delivered_at_us = delivery.get("delivered_at_us")
    if not isinstance(delivered_at_us, int):
        return record.at_us
    return min(max(delivered_at_us, held_at_us), record.at_us)


def held_seq(record: Record) -> int:
    """Where the hold was placed that a delivery was made under; 0 where there is none."""
    if record.facts is None or "delivery" not in record.facts:
        return 0
    holds = [change.after for change in record.changed if change.noun == "hold"]
    return int(holds[0]["seq"]) if holds else 0


def ids_of(record: Record) -> dict[str, str]:
    """The things behind a record, by noun."""
    ids: dict[str, str] = {}
    for change in record.changed:
        if change.noun in _UNNAMED:
            continue
        ids[_free(change.noun, ids)] = change.id
        for noun in _NAMED:
            if thing_id := change.after.get(f"{noun}_id"):
                ids.setdefault(noun, str(thing_id))
    if (derived := _DERIVED.get(record.operation)) and record.request is not None:
        noun, prefix = derived
        ids[noun] = record.new_id(prefix)
    return dict(sorted(ids.items()))


def reference_of(record: Record) -> str:
    """What a record is booked under outside, such as a wire's number; empty where nothing is."""
    return str(record.asked.get("reference", ""))


def _took_effect(record: Record, shown: str) -> bool:
    try:
        at_us = parse_time(shown)
    except ValueError:
        return False
    return effective_at_us(record, 0) <= at_us <= record.at_us


def _free(noun: str, ids: Mapping[str, str]) -> str:
    """The noun, or where a record has several things of it, the next number of it."""
    if noun not in ids or noun in _NAMED:
        return noun
    return next(name for n in count(2) if (name := f"{noun}_{n}") not in ids)
