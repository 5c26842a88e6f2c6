"""Charges of a whole journal: what each record moves is what it makes of its charge, to the unit.

Boundary: where the money of a charge lies follows from the charge alone, so a record that changes
one moves the difference, between the accounts of its agreement's parties and of nobody else.
Source: spec/ledger.md, spec/audit.md.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Final, NamedTuple

from farthing.protocol.canonical import Json
from farthing.protocol.faults import FaultKind, RuleBroken, rule
from farthing.protocol.ledger import AccountKind, Movement, split_account
from farthing.protocol.records import Record
from farthing.protocol.refunds import Split, split_refund
from farthing.protocol.replay.blocks import amount_of, asset_of
from farthing.protocol.replay.budgets import Budgets
from farthing.protocol.replay.keys import PLATFORM
from farthing.protocol.replay.reading import JsonObject, half_digest, integer, member, units

__all__ = ["Charges"]

_BEGINS: Final = frozenset({"accept_answer", "capture_hold", "report_usage"})
_CHANGES: Final = frozenset({
    "corrected", "dispute_id", "fee_returned_units", "refunded_units", "status", "tail",
    "trail_seqs",
})  # fmt: skip
_STATUSES: Final = frozenset({"disputed", "payable", "pending"})
_PAYERS: Final = frozenset(
    {AccountKind.PREPAID, AccountKind.DEFERRED_REVENUE, AccountKind.PROMOTIONAL_CREDIT}
)
# By operation, from where to where it takes a charge; what gives back leaves it where it is.
_ANY: Final = {("pending", "pending"), ("payable", "payable")}
_STEPS: Final = {
    "close_evidence": {("disputed", "pending")},
    "correct_usage": _ANY,
    "initiate_dispute": {("pending", "disputed"), ("pending", "pending")},
    "refund_charge": _ANY,
    "settle_charge": {("pending", "payable")},
    "submit_evidence": {("disputed", "disputed"), ("disputed", "pending")},
}
_ASIDE: Final = frozenset({Movement.PENDING, Movement.VOID})
_Where = Mapping[tuple[str, str], int]
_charge = rule(FaultKind.CHARGE, "the charge")


class _Charge(NamedTuple):
    """What was charged under an agreement, what was given back of it, and by whom."""

    agreement: JsonObject
    status: str
    amount_units: int
    fee_units: int
    partner_units: int
    refunded_units: int
    fee_returned_units: int
    partner_returned_units: int
    changes: int
    window_closes_at_us: int
    fixed: bytes
    dispute_id: str
    corrected: Json | None


class Charges:
    """Charges, as the records so far leave them.

    Args:
        budgets: Which agreements there are.
    """

    def __init__(self, budgets: Budgets) -> None:
        self._budgets = budgets
        self._charges: dict[str, _Charge] = {}

    def follow(self, record: Record) -> bool:
        """Judge the next record, and learn from it; whether it changes a charge.

        Raises:
            RuleBroken: It breaks a rule.
        """
        changes = [each for each in record.changed if each.noun == "charge"]
        if not changes:
            return False
        _charge(len(changes) == 1, "more than one changes at once")
        (change,) = changes
        named = record.asked.get("charge_id", change.id)
        _charge(named == change.id, "another changes than was asked for")
        before, after = self._charges.get(change.id), self._read(change.after)
        if (before is None) != (record.operation in _BEGINS):
            raise RuleBroken(FaultKind.CHARGE, "a charge begins otherwise than by a delivery")
        if before is not None:
            _continues(before, after)
            told = change.after["trail_seqs"]
            last = told[-1] if isinstance(told, list) and told else 0
            followed = (after.changes, last) == (before.changes + 1, record.seq)
            _charge(followed, "its trail does not follow")
        _charge(after.refunded_units <= after.amount_units, "more is given back than was charged")
        fits = 0 <= after.fee_returned_units <= after.fee_units <= after.amount_units
        _charge(fits, "the fee is more than the charge")
        if before is not None:
            _becomes(record, before, after)
        aside = any(each.movement in _ASIDE for each in record.moved)
        _charge(before is None or not aside, "something is set aside for what was charged")
        expected = Counter(_lies(after))
        expected.subtract(_lies(before) if before is not None else {})
        if _moved(record, after.agreement) != {where: n for where, n in expected.items() if n}:
            raise RuleBroken(FaultKind.CHARGE, "its postings are not what becomes of the charge")
        self._charges[change.id] = after
        return True

    def as_it_was(self, after: JsonObject) -> JsonObject:
        """A charge before a record, but for its trail, by what it is after it."""
        before = self._charges[member(after, "charge_id")]
        tail = after.get("tail")
        was: JsonObject = {
            **after,
            "status": before.status,
            "refunded_units": str(before.refunded_units),
            "fee_returned_units": str(before.fee_returned_units),
        }
        if isinstance(tail, dict):
            was["tail"] = {**tail, "returned_units": str(before.partner_returned_units)}
        return was

    def _read(self, charge: JsonObject) -> _Charge:
        agreement = self._budgets.agreements[member(charge, "agreement_id")]
        for name in ("buyer_id", "operator_id", "vendor_id", "asset", "rate_card_sha256"):
            _charge(charge[name] == agreement[name], f"its {name} is not the agreement's")
        _charge(charge["status"] in _STATUSES, "it stands as no charge does")
        partner, tail = agreement.get("partner"), charge.get("tail")
        partner_units = returned_units = 0
        if isinstance(tail, dict):
            partner_units = units(tail, "amount_units")
            returned_units = units(tail, "returned_units")
            named = isinstance(partner, dict) and partner["partner_id"] == tail["partner_id"]
            _charge(named, "its partner is not the agreement's")
        return _Charge(
            agreement,
            member(charge, "status"),
            units(charge, "amount_units"),
            units(charge, "fee_units"),
            partner_units,
            int(str(charge.get("refunded_units", 0))),
            int(str(charge.get("fee_returned_units", 0))),
            returned_units,
            len(charge["trail_seqs"]) if isinstance(charge["trail_seqs"], list) else 0,
            integer(charge, "window_closes_at_us"),
            _fixed(charge),
            member(charge, "dispute_id"),
            charge.get("corrected"),
        )


def _continues(before: _Charge, after: _Charge) -> None:
    """What is charged never changes; what is given back only grows."""
    if before.fixed != after.fixed or before[2:5] != after[2:5]:
        raise RuleBroken(FaultKind.CHARGE, "what was charged changes afterwards")
    if any(one > other for one, other in zip(before[5:8], after[5:8], strict=True)):
        raise RuleBroken(FaultKind.CHARGE, "what was given back is taken again")
    if before.status == "payable" != after.status:
        raise RuleBroken(FaultKind.CHARGE, "what was payable is pending again")


def _becomes(record: Record, before: _Charge, after: _Charge) -> None:
    """What is given back divides as it must, and each operation does what is for it."""
    step = (before.status, after.status)
    _charge(step in _STEPS.get(record.operation, ()), f"{step[0]} becomes {step[1]} by it")
    back_units = after.refunded_units - before.refunded_units
    split = Split(0, 0)
    if back_units:
        split = split_refund(
            amount_units=before.amount_units,
            fee_units=before.fee_units,
            refunded_units=before.refunded_units,
            fee_returned_units=before.fee_returned_units,
            back_units=back_units,
            partner_units=before.partner_units,
            partner_returned_units=before.partner_returned_units,
        )
    disputes = record.operation == "initiate_dispute"
    _charge(disputes or before.dispute_id == after.dispute_id, "it is disputed by the way")
    corrects = record.operation == "correct_usage"
    _charge(corrects or before.corrected == after.corrected, "it is corrected by the way")
    returned = (
        after.fee_returned_units - before.fee_returned_units,
        after.partner_returned_units - before.partner_returned_units,
    )
    _charge(returned == (split.fee_units, split.partner_units), "what is given back is not shared")
    is_over = record.at_us >= before.window_closes_at_us
    match record.operation:
        case "settle_charge":
            _charge(is_over, "it is settled while it can be disputed")
            _charge(back_units == 0, "something is given back by it")
        case "initiate_dispute":
            _charge(not is_over, "it is disputed too late")
        case "refund_charge":
            vendor = record.by.principal_id == before.agreement["vendor_id"]
            _charge(vendor, "another than its vendor gives back")
            asked = asset_of(record.asked, "amount"), amount_of(record.asked, "amount")
            same = asked == (before.agreement["asset"], back_units)
            _charge(same, "other than was asked for is given back")
        case _:
            pass


def _fixed(charge: JsonObject) -> bytes:
    """Half a digest of what of a charge stays as it began."""
    kept: JsonObject = {name: each for name, each in charge.items() if name not in _CHANGES}
    return half_digest(kept)


def _lies(charge: _Charge) -> _Where:
    """By owner and kind of account what of a charge lies there; of who paid all kinds are one."""
    agreement, status = charge.agreement, charge.status
    left_units = charge.amount_units - charge.refunded_units
    fee_units = charge.fee_units - charge.fee_returned_units
    partner_units = charge.partner_units - charge.partner_returned_units
    paid = {(member(agreement, "operator_id"), ""): -left_units}
    if status == "disputed":
        return {**paid, (PLATFORM, AccountKind.DISPUTE_ESCROW): left_units}
    payable = status == "payable"
    vendor = AccountKind.VENDOR_PAYABLE if payable else AccountKind.VENDOR_PENDING
    lies = {
        **paid,
        (PLATFORM, AccountKind.PLATFORM_FEE): fee_units,
        (member(agreement, "vendor_id"), vendor): left_units - fee_units - partner_units,
    }
    partner = agreement.get("partner")
    if isinstance(partner, dict):
        kind = AccountKind.PARTNER_PAYABLE if payable else AccountKind.PARTNER_PENDING
        lies[member(partner, "partner_id"), kind] = partner_units
    return lies


def _moved(record: Record, agreement: JsonObject) -> _Where:
    """What a record posts to each account, less what it posts from it."""
    moved: Counter[tuple[str, str]] = Counter()
    for each in record.moved:
        _charge(each.asset == agreement["asset"], "it moves another asset")
        if each.movement is Movement.POST:
            moved[_where(each.credit)] += each.units
            moved[_where(each.debit)] -= each.units
    return {where: n for where, n in moved.items() if n}


def _where(account: str) -> tuple[str, str]:
    owner, kind, _ = split_account(account)
    return owner, "" if kind in _PAYERS else kind
