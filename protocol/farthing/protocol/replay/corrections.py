"""Billed usage taken back: what the vendor signed, priced anew, and given back as a refund is.

Boundary: `follow_correction` is for the records of one charge, `Corrections` for a whole journal,
of which it keeps two digests for each charge of a session. Source: spec/metering.md#corrections.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from farthing.protocol.canonical import Json, canonical_bytes, sha256_hex
from farthing.protocol.corrections import (
    CORRECT_USAGE,
    CallBack,
    Correction,
    Worth,
    billed_by,
    calls_sha256,
    misfit,
    read_calls,
    read_correction,
    worth,
)
from farthing.protocol.documents import DocumentError
from farthing.protocol.errors import Unverified
from farthing.protocol.faults import FaultKind, RuleBroken, rule
from farthing.protocol.money import format_units
from farthing.protocol.rating import CompiledCard, RateCard, line_document
from farthing.protocol.records import Change, Record
from farthing.protocol.refunds import Split
from farthing.protocol.replay.allowances import Allowances
from farthing.protocol.replay.keys import KeyHistory
from farthing.protocol.replay.reading import (
    JsonObject,
    half_digest,
    member,
    quantities,
    text_fact,
    units,
)
from farthing.protocol.replay.shares import refunded, split_of, tail_after
from farthing.protocol.replay.story import Story
from farthing.protocol.signatures import InvalidSignature, Typ, verify_detached

__all__ = ["Corrections", "follow_correction"]

_correction = rule(FaultKind.CHARGE, "the correction")


class Corrections:
    """The charges of sessions, each as two digests: of what its calls used, and of itself.

    Args:
        allowances: where each agreement's position stands.
        keys: who held which key when.
        cards: the rate cards published so far.
    """

    def __init__(
        self, allowances: Allowances, keys: KeyHistory, cards: Mapping[str, CompiledCard]
    ) -> None:
        self._allowances = allowances
        self._keys = keys
        self._cards = cards
        self._calls: dict[str, bytes] = {}
        self._charges: dict[str, bytes] = {}

    def begin(self, charge_id: str, billed: Sequence[CallBack]) -> None:
        """Remember what the calls used that a new charge bills."""
        self._calls[charge_id] = calls_sha256(billed)

    def follow(self, record: Record) -> None:
        """Judge the next record, if it is a correction. Raises `RuleBroken`."""
        if record.operation == CORRECT_USAGE:
            change = _the(record, "charge")
            before = change.before or {}
            known = self._charges.get(change.id)
            _correction(known == half_digest(before), "its charge was another before")
            billed = _billed(record)
            same_calls = self._calls.get(change.id) == calls_sha256(billed)
            _correction(same_calls, "the charge's calls had used something else")
            position = self._allowances.position(member(before, "agreement_id"))
            card = self._cards[member(before, "rate_card_sha256")]
            _check(record, before, billed, position=position, card=card, keys=self._keys)
        for change in record.changed:
            if change.noun == "charge" and change.id in self._calls:
                self._charges[change.id] = half_digest(change.after)


def follow_correction(story: Story, record: Record) -> None:
    """The vendor took back what it signed, and it is given back as the card says.

    Where the agreement's position stood, which moves with other charges too, the record says.
    """
    charge, report = story.the_charge(), story.report
    if report is None:
        raise Unverified(f"record {record.seq} ({record.operation}): the charge is of no session")
    try:
        _correction(_the(record, "charge").before == charge, "its charge was another before")
        billed = _billed(record)
        _correction(billed == tuple(billed_by(report)), "the calls had used something else")
        position = quantities(_the(record, "position").after)
        for meter, quantity in _signed(record, story.keys).totals().items():
            position[meter] = position.get(meter, 0) + quantity
        card = story.the_offer().card
        followed = _check(record, charge, billed, position=position, card=card, keys=story.keys)
    except RuleBroken as error:
        raise Unverified(f"record {record.seq} ({record.operation}): {error.why}") from error
    story.moved += record.moved
    story.charge = followed.charge
    asset = member(charge, "asset")
    story.proved.append(
        f"record {record.seq}: the vendor signed that {followed.calls} of the calls had used less, "
        f"and {format_units(followed.units, asset)} {asset} that the card gives for the difference "
        "from the position in the record was given back, the platform's fee on it included"
    )


class _Followed(NamedTuple):
    """What a correction leaves of its charge, what it gave back, of how many calls."""

    charge: JsonObject
    units: int
    calls: int


def _check(
    record: Record,
    charge: JsonObject,
    billed: Sequence[CallBack],
    *,
    position: Mapping[str, int],
    card: RateCard | CompiledCard,
    keys: KeyHistory,
) -> _Followed:
    """Everything that the record says, from the charge before it, its calls and the position."""
    _correction(charge["vendor_id"] == record.by.principal_id, "another than the vendor corrects")
    correction = _signed(record, keys)
    asked: JsonObject = {
        "calls": len(correction.calls),
        "charge_id": charge["charge_id"],
        "correction_sha256": sha256_hex(correction.signed_bytes()),
    }
    _correction(record.asked == asked, "it was asked for another")
    _correction(correction.charge_id == charge["charge_id"], "it is of another charge")
    before = _corrected(charge)
    used = {each.seq: each.usage for each in billed}
    wrong = misfit(correction, used, before)
    _correction(wrong is None, f"{wrong.path}: {wrong.says}" if wrong else "")
    back = worth(card, position, correction.totals())
    split = _split(record, charge, back)
    numbers = sorted((*before, *(each.seq for each in correction.calls)))
    after: JsonObject = {
        **charge,
        "refunded_units": str(units(charge, "refunded_units") + back.units),
        "fee_returned_units": str(units(charge, "fee_returned_units") + split.fee_units),
        "trail_seqs": [*_list(charge["trail_seqs"]), record.seq],
        **tail_after(charge, split),
        "corrected": list[Json](numbers),
    }
    changed = _the(record, "charge")
    follows = (changed.id, changed.after) == (charge["charge_id"], after)
    _correction(follows, "the charge does not follow")
    moved = _the(record, "position")
    _correction(moved.id == charge["agreement_id"], "another agreement's position moves")
    _correction(quantities(moved.after) == back.position, "the position does not follow")
    others = {each.noun for each in record.changed} - {"charge", "position", "allowance", "lot"}
    _correction(not others, "it changes something else")
    _correction(record.moved == tuple(refunded(charge, split)), "its postings do not follow")
    return _Followed(after, back.units, len(correction.calls))


def _split(record: Record, charge: JsonObject, back: Worth) -> Split:
    """How what is given back divides, where the charge holds it and the record says so."""
    left_units = units(charge, "amount_units") - units(charge, "refunded_units")
    _correction(charge["status"] != "disputed", "a disputed charge is corrected")
    _correction(0 < left_units >= back.units, "more is given back than was charged")
    split = split_of(charge, back.units)
    decided: JsonObject = {
        "fee_units": str(split.fee_units),
        "lines": [line_document(line) for line in back.lines],
        "units": str(back.units),
    }
    _correction(record.decided == decided, "the card gives other lines")
    return split


def _signed(record: Record, keys: KeyHistory) -> Correction:
    document = (record.facts or {})["correction"]
    of_vendor = keys.keys_of(record.by.principal_id, Typ.CORRECTION)
    try:
        verify_detached(
            text_fact(record, "correction_signature"),
            Typ.CORRECTION,
            canonical_bytes(document),
            of_vendor,
        )
        return read_correction(document)
    except (InvalidSignature, DocumentError) as error:
        raise RuleBroken(FaultKind.SIGNATURE, f"the correction: {error}") from error


def _billed(record: Record) -> tuple[CallBack, ...]:
    try:
        return read_calls((record.facts or {})["billed"])
    except DocumentError as error:
        raise RuleBroken(FaultKind.CHARGE, f"the correction: {error}") from error


def _corrected(charge: JsonObject) -> list[int]:
    numbers = _list(charge.get("corrected", []))
    return [each for each in numbers if isinstance(each, int)]


def _list(value: Json) -> list[Json]:
    if not isinstance(value, list):
        raise TypeError("not a list")
    return value


def _the(record: Record, noun: str) -> Change:
    found = [change for change in record.changed if change.noun == noun]
    _correction(len(found) == 1, f"it changes {len(found)} of the noun {noun}")
    return found[0]
