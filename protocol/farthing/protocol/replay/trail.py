"""What becomes of a charge after its capture: refunds, disputes and rulings, becoming payable.

Boundary: each record must carry the charge from where the record before left it, move exactly the
money that follows, and rule as the rules of tier 1 do on the case it holds.
Source: spec/disputes.md, spec/ledger.md.
"""

from farthing.protocol.canonical import Json
from farthing.protocol.disputes import rules
from farthing.protocol.disputes.case import Evidence, Outcome, Reason, Ruling
from farthing.protocol.ledger import AccountKind, Transfer, account_name
from farthing.protocol.money import format_units
from farthing.protocol.records import Record
from farthing.protocol.refunds import Split
from farthing.protocol.replay.keys import PLATFORM
from farthing.protocol.replay.reading import (
    JsonObject,
    changes,
    integer,
    member,
    only,
    post,
    require,
    same,
    same_postings,
    units,
)
from farthing.protocol.replay.rulings import case_of, filed, left_units, produced, ruled
from farthing.protocol.replay.shares import (
    in_escrow,
    payees,
    refunded,
    split_of,
    tail_after,
    taken_back,
)
from farthing.protocol.replay.story import Story
from farthing.protocol.shares import Part, spread

__all__ = [
    "follow_answer",
    "follow_dispute",
    "follow_overdue",
    "follow_refund",
    "follow_settlement",
]


def follow_refund(story: Story, record: Record) -> None:
    """The vendor gave back what the record says, and the platform its fee on it."""
    charge = story.the_charge()
    require(record.by.principal_id == charge["vendor_id"], record, "another than the vendor gave")
    amount = record.asked["amount"]
    require(isinstance(amount, dict), record, "no amount")
    decided = record.decided or {}
    back_units = units(decided, "units")
    require(0 < back_units <= left_units(charge), record, "more is given back than was charged")
    split = split_of(charge, back_units)
    shown = {"amount": format_units(back_units, _asset(charge)), "asset": _asset(charge)}
    require(amount == shown, record, "another amount was asked for")
    same(record, "decided", decided, fee_units=str(split.fee_units))
    require(charge["status"] != "disputed", record, "a disputed charge is given back")
    _postings(story, record, refunded(charge, split))
    changes(record, "charge")
    _carry(story, record, back_units, split, status=charge["status"])
    story.proved.append(
        f"record {record.seq}: the vendor gave back {shown['amount']} {shown['asset']}, the "
        "platform's fee on it included"
    )


def follow_settlement(story: Story, record: Record) -> None:
    """The dispute window closed, and the vendor's share became payable."""
    charge = story.the_charge()
    rest_units = left_units(charge)
    kept = split_of(charge, rest_units) if rest_units else Split(0, 0)
    require(record.by.principal_id == PLATFORM, record, "another than the platform settles")
    require(charge["status"] == "pending", record, "the charge is not pending")
    closed = integer(charge, "window_closes_at_us") <= record.at_us
    require(closed, record, "the dispute window is open")
    # All that is left, given back, would be every share that is kept: who gives it moves it on.
    waiting = payees(charge, kept._replace(fee_units=0))
    earned = payees({**charge, "status": "payable"}, kept._replace(fee_units=0))
    expected: list[Transfer] = []
    for pending, payable in zip(waiting, earned, strict=True):
        expected += post(pending.account, payable.account, _asset(charge), pending.units)
    _postings(story, record, expected)
    changes(record, "charge")
    _carry(story, record, 0, Split(0, 0), status="payable")
    story.proved.append(f"record {record.seq}: the vendor's share became payable")


def follow_dispute(story: Story, record: Record) -> None:
    """A dispute was filed in time by the buyer's side, and ruled on, or its money held."""
    charge, agreement = story.the_charge(), story.the_agreement()
    filer = record.by.principal_id
    require(filer in (charge["buyer_id"], charge["operator_id"]), record, "a stranger disputes")
    require(not charge["dispute_id"], record, "the charge was disputed before")
    in_time = record.at_us < integer(charge, "window_closes_at_us")
    require(charge["status"] == "pending" and in_time, record, "it was too late to dispute")
    same(record, "asked", record.asked, charge_id=charge["charge_id"])
    _rule(story, record, filed(record, charge, agreement), evidence=None, overdue=False)


def follow_answer(story: Story, record: Record) -> None:
    """The vendor produced a body, and the dispute was ruled on it."""
    dispute = story.the_dispute()
    require(record.by.principal_id == dispute["vendor_id"], record, "a stranger answers")
    same(record, "asked", record.asked, dispute_id=dispute["dispute_id"])
    evidence = produced(record)
    require(evidence is not None, record, "the case is of another body")
    _rule(story, record, dispute, evidence=evidence, overdue=False)


def follow_overdue(story: Story, record: Record) -> None:
    """The vendor's time to answer passed, and the dispute was ruled without it."""
    dispute = story.the_dispute()
    require(record.by.principal_id == PLATFORM, record, "another than the platform closes")
    overdue = integer(dispute, "evidence_due_at_us") <= record.at_us
    require(overdue, record, "the vendor still had time")
    _rule(story, record, dispute, evidence=None, overdue=True)


def _rule(
    story: Story, record: Record, dispute: JsonObject, *, evidence: Evidence | None, overdue: bool
) -> None:
    """Decide again on the case as it must have been, and follow what the ruling leads to."""
    charge, agreement = story.the_charge(), story.the_agreement()
    require(dispute["status"] == "needs_evidence", record, "the dispute was decided before")
    case = case_of(charge, agreement, evidence, overdue=overdue)
    ruling = rules.decide(Reason(member(dispute, "reason")), case, story.the_offer().card)
    decided: JsonObject = {"case": case.document(), "ruling": ruling.document()}
    require(record.decided == decided, record, "the rule decides otherwise")
    _, dispute_change = changes(record, "charge", "dispute")
    is_ruled = ruling.outcome is not Outcome.NEEDS_EVIDENCE
    after = ruled(dispute, ruling, record.seq) if is_ruled else dispute
    require(dispute_change.after == after, record, "the dispute does not follow from the ruling")
    into = _into_escrow(story, dispute) if dispute["seq"] == record.seq else []
    out = _out_of_escrow(story, dispute, ruling) if is_ruled else []
    same_postings(record, [*into, *out])
    story.moved += [*into, *out]
    split = split_of(charge, ruling.credit_units)
    dispute_id = member(dispute, "dispute_id")
    _carry(
        story,
        record,
        ruling.credit_units,
        split,
        status="pending" if is_ruled else "disputed",
        dispute_id=dispute_id,
    )
    story.dispute = dispute_change.after
    credit = f"{format_units(ruling.credit_units, _asset(charge))} {_asset(charge)}"
    story.proved.append(
        f"record {record.seq}: dispute {dispute_id} ({dispute['reason']}) is decided by rule "
        f"{ruling.rule_id} as the record says: {ruling.outcome.value}"
        + (f", {credit} returned" if ruling.credit_units else "")
    )


def _into_escrow(story: Story, dispute: JsonObject) -> list[Transfer]:
    charge, held = story.the_charge(), in_escrow(dispute)
    return spread(payees(charge, held), [_escrow(charge, held)], _asset(charge))


def _out_of_escrow(story: Story, dispute: JsonObject, ruling: Ruling) -> list[Transfer]:
    """The credit to the buyer's side, the rest to where it came from."""
    charge, held = story.the_charge(), in_escrow(dispute)
    credit = split_of(charge, ruling.credit_units)
    kept = Split(*(one - other for one, other in zip(held, credit, strict=True)))
    takers = taken_back(charge, ruling.credit_units)
    takers += payees({**charge, "status": "pending"}, kept)
    return spread([_escrow(charge, held)], takers, _asset(charge))


def _escrow(charge: JsonObject, held: Split) -> Part:
    account = account_name(PLATFORM, AccountKind.DISPUTE_ESCROW, _asset(charge))
    return Part(account, sum(held))


def _carry(story: Story, record: Record, back_units: int, split: Split, **also: Json) -> None:
    """Require the charge to be what it was, less what was given back, and remember it."""
    charge = story.the_charge()
    returned_units = units(charge, "fee_returned_units") + split.fee_units
    trail_seqs = charge["trail_seqs"]
    assert isinstance(trail_seqs, list), "checked at the capture"
    expected: JsonObject = {
        **charge,
        "refunded_units": str(units(charge, "refunded_units") + back_units),
        "fee_returned_units": str(returned_units),
        "trail_seqs": [*trail_seqs, record.seq],
        **tail_after(charge, split),
        **also,
    }
    after = only(record.changed[0], "charge_id", record)
    require(after == expected, record, "the charge does not follow from the one before")
    story.charge = after


def _postings(story: Story, record: Record, expected: list[Transfer]) -> None:
    same_postings(record, expected)
    story.moved += expected


def _asset(charge: JsonObject) -> str:
    return member(charge, "asset")
