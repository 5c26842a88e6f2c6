"""All records of one charge, replayed in the order of the journal.

Boundary: which record may come when, and what the sum of it all must be; each record by itself is
followed in `trade` and `trail`. Source: spec/evidence.md.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from farthing.protocol.errors import Broken, Unverified
from farthing.protocol.keys import PublicKey
from farthing.protocol.ledger import AccountKind, Movement, Transfer, fold, imbalances
from farthing.protocol.money import format_units
from farthing.protocol.records import Record
from farthing.protocol.replay.billing import follow_report, follow_session
from farthing.protocol.replay.corrections import follow_correction
from farthing.protocol.replay.keys import KEY_OPERATIONS, PLATFORM
from farthing.protocol.replay.reading import member, require, units
from farthing.protocol.replay.shares import payers
from farthing.protocol.replay.story import Story
from farthing.protocol.replay.trade import (
    follow_agreement,
    follow_capture,
    follow_hold,
    follow_publication,
)
from farthing.protocol.replay.trail import (
    follow_answer,
    follow_dispute,
    follow_overdue,
    follow_refund,
    follow_settlement,
)
from farthing.protocol.shares import merged

__all__ = ["replay_charge"]

_Follow = Callable[[Story, Record], None]

# A call that the platform makes begins with a hold and ends with a capture like every other.
_SAME: Final = {"call_service": "place_hold", "accept_answer": "capture_hold"}
# Each of these stands once, in this order; keys may begin and end anywhere between.
_TRADE: Final[Mapping[str, _Follow]] = {
    "publish_listing": follow_publication,
    "accept_terms": follow_agreement,
    "place_hold": follow_hold,
    "capture_hold": follow_capture,
}
# A session's charge is billed by a report in a capture's place.
_BY_SESSION: Final[Mapping[str, _Follow]] = {
    "open_session": follow_session,
    "report_usage": follow_report,
}
_TRAIL: Final[Mapping[str, _Follow]] = {
    "correct_usage": follow_correction,
    "refund_charge": follow_refund,
    "settle_charge": follow_settlement,
    "initiate_dispute": follow_dispute,
    "submit_evidence": follow_answer,
    "close_evidence": follow_overdue,
}


def replay_charge(records: Iterable[Record], quote_key: PublicKey) -> Story:
    """Follow every record of a charge, and the money of all of them together.

    Args:
        records: by `seq`, with no two alike: the keys of the parties, publication, agreement,
            hold, capture, and what changed the charge afterwards.
        quote_key: the platform's key that signed the quote.

    Raises:
        Unverified: naming the first record that does not follow.
    """
    story = Story(quote_key=quote_key)
    awaited = list(_TRADE)
    for record in records:
        try:
            _follow(story, record, awaited)
        except (ArithmeticError, Broken, LookupError, TypeError, ValueError) as error:
            # What the platform signed need not be well-formed in every part.
            text = f"record {record.seq} ({record.operation}): {error!r}"
            raise Unverified(text) from error
    if awaited:
        raise Unverified(f"the record of {awaited[0]} is missing")
    _check_parties(story)
    _check_sum(story)
    return story


def _follow(story: Story, record: Record, awaited: list[str]) -> None:
    operation = _SAME.get(record.operation, record.operation)
    require(record.refused is None, record, "it is a refusal")
    if operation in KEY_OPERATIONS:
        story.keys.learn(record)
        return
    story.keys.check_speaker(record)
    if operation in _TRAIL and not awaited:
        _TRAIL[operation](story, record)
        return
    if operation == "open_session" and awaited == ["place_hold", "capture_hold"]:
        awaited[:] = _BY_SESSION
    require(bool(awaited) and operation == awaited[0], record, "it has no place here")
    follow = _BY_SESSION.get(operation) or _TRADE[operation]
    awaited.pop(0)
    follow(story, record)


def _check_parties(story: Story) -> None:
    """Require nobody's keys to be there but the parties': what is not needed is not proven."""
    agreement = story.the_agreement()
    parties = {member(agreement, name) for name in ("buyer_id", "operator_id", "vendor_id")}
    if strangers := story.keys.principals - parties:
        raise Unverified(f"the keys of a stranger are in the pack: {min(strangers)}")
    story.proved.append(
        "each signature is by a key that the journal had registered for that very party, and "
        "each record but the platform's own was asked for by a party with such a key"
    )


def _check_sum(story: Story) -> None:
    """Require all postings of the charge together to leave what it says of itself."""
    charge, hold = story.the_charge(), story.the_hold()
    asset, held_units = member(charge, "asset"), units(hold, "amount_units")
    clearing = f"{PLATFORM}:{AccountKind.EXTERNAL_CLEARING}:{asset}"
    # The buyer's side had at least this much, or the hold would have been refused.
    paying = [part for part in merged(payers(hold)) if part.units]
    had = [
        Transfer(movement=Movement.POST, debit=clearing, credit=account, asset=asset, units=n)
        for account, n in paying
    ]
    try:
        accounts = fold([*had, *story.moved])
    except Broken as error:
        raise Unverified(f"the postings of the charge do not fold: {error}") from error
    paid_units = units(charge, "amount_units") - units(charge, "refunded_units")
    spent_units = held_units - sum(accounts[name].available_units for name, _ in paying)
    if imbalances(accounts) or spent_units != paid_units:
        raise Unverified("the postings of the charge do not add up")
    story.proved.append(
        f"every posting has two equal sides, and together they cost the buyer "
        f"{format_units(spent_units, asset)} {asset}"
    )
