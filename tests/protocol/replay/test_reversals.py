"""Books in which money goes back otherwise than is said, or a debt is forgotten, are found out."""

from collections.abc import Callable
from functools import cache
from typing import Literal

import pytest
from msgspec import structs

from farthing.protocol.faults import FaultKind
from farthing.protocol.ledger import Movement, Transfer
from farthing.protocol.messages.holds import RELEASE_HOLD, ReleaseHold
from farthing.protocol.records import Record, parse_record
from farthing.protocol.wire import money
from farthing.settlement.engine import accounts, payouts
from tests.construction import Trade
from tests.protocol.replay.forging import Forge, after, audited, rewritten
from tests.settlement.engine.treasurer import DOLLAR, Treasury, posted

HALF, PAGE = DOLLAR // 2, 2_000_000
Moves = Callable[[Record], tuple[Transfer, ...]]


@cache
def journal() -> tuple[Record, ...]:
    """A top-up goes back in two steps, more than is left of it; then money comes."""
    treasury = Treasury(Trade.opened(funds=0))
    top_up_id = treasury.top_up(DOLLAR)
    treasury.event(top_up_id, "paid", "evt_1")
    treasury.trade.captured(10)
    treasury.ask(
        treasury.treasurer, "reverse_top_up", top_up_id=top_up_id, total=money(HALF, "USD")
    )
    treasury.event(top_up_id, "reversed", "evt_2", units=str(DOLLAR))
    treasury.room.fund(treasury.trade.operator, DOLLAR)
    return tuple(parse_record(data)[0] for data in treasury.room.journal)


def the(operation: str) -> Record:
    return [each for each in journal() if each.operation == operation][-1]


def moving(moves: Moves) -> Forge:
    return lambda record: structs.replace(record, moved=moves(record))


def all_owed(record: Record) -> tuple[Transfer, ...]:
    """What its operator had is not taken."""
    had, owed = record.moved
    return (structs.replace(owed, units=had.units + owed.units),)


def more_of_it_owed(record: Record) -> tuple[Transfer, ...]:
    had, owed = record.moved
    return structs.replace(had, units=had.units - 1), structs.replace(owed, units=owed.units + 1)


def less_of_it(record: Record) -> tuple[Transfer, ...]:
    had, owed = record.moved
    return had, structs.replace(owed, units=owed.units - 1)


def not_repaid(record: Record) -> tuple[Transfer, ...]:
    return record.moved[:1]


def repaid_in_part(record: Record) -> tuple[Transfer, ...]:
    came, repaid = record.moved
    return came, structs.replace(repaid, units=repaid.units - 1)


def repaid_twice(record: Record) -> tuple[Transfer, ...]:
    return *record.moved, record.moved[1]


def to_the_fee(record: Record) -> tuple[Transfer, ...]:
    (gone,) = record.moved
    return (structs.replace(gone, credit="platform:platform_fee:USD"),)


def test_the_journal_as_it_is_has_no_fault() -> None:
    assert [each.movement for each in the("process_event").moved] == [Movement.POST] * 2
    assert audited(rewritten(journal(), 0, lambda record: record)).fault is None


FORGERIES: dict[str, tuple[str, Forge]] = {
    "what its operator had is not taken": ("process_event", moving(all_owed)),
    "more is owed than it had not": ("process_event", moving(more_of_it_owed)),
    "less has gone than is said": ("process_event", moving(less_of_it)),
    "a lower total": ("process_event", after("top_up", reversed_units=str(DOLLAR - 1))),
    "more than came": ("process_event", after("top_up", reversed_units=str(DOLLAR + 1))),
    "no more than before": ("process_event", after("top_up", reversed_units=str(HALF))),
    "a top-up that failed": ("process_event", after("top_up", status="failed")),
    "another total": ("reverse_top_up", after("top_up", reversed_units=str(HALF + 1))),
    "a larger top-up": ("reverse_top_up", after("top_up", amount_units=str(2 * DOLLAR))),
    "to the platform itself": ("reverse_top_up", moving(to_the_fee)),
    "a debt forgotten": ("fund_account", moving(not_repaid)),
    "a debt paid in part": ("fund_account", moving(repaid_in_part)),
    "a debt paid twice": ("fund_account", moving(repaid_twice)),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_reversal_is_found(forgery: str) -> None:
    operation, forge = FORGERIES[forgery]
    record = the(operation)
    fault = audited(rewritten(journal(), record.seq, forge)).fault
    assert fault is not None
    assert (fault.seq, fault.kind) == (record.seq, FaultKind.LEDGER), fault


def found(treasury: Treasury, operation: str, forge: Forge) -> str:
    """Why an audit does not take the last record of an operation, forged."""
    records = [parse_record(data)[0] for data in treasury.room.journal]
    assert audited(rewritten(records, 0, forge)).fault is None
    seq = [each.seq for each in records if each.operation == operation][-1]
    fault = audited(rewritten(records, seq, forge)).fault
    assert fault is not None
    assert fault.seq == seq
    return fault.why


def shifted(first: int, second: int) -> Forge:
    """The two transfers of a record with so much more."""

    def moves(record: Record) -> tuple[Transfer, ...]:
        one, two = record.moved
        return (
            structs.replace(one, units=one.units + first),
            structs.replace(two, units=two.units + second),
        )

    return moving(moves)


def in_grace() -> Treasury:
    """Four pages came, two are spent, all four go back, and a grace would cover the rest."""
    treasury = Treasury(Trade.opened(funds=0))
    top_up_id = posted(treasury, 4 * PAGE)
    treasury.grace(DOLLAR)
    treasury.trade.captured(2)
    total = money(4 * PAGE, "USD")
    treasury.ask(
        treasury.treasurer, "reverse_top_up", top_up_id=top_up_id, total=total, may_owe=True
    )
    return treasury


def test_what_goes_back_is_not_taken_from_a_grace() -> None:
    why = found(in_grace(), "reverse_top_up", shifted(PAGE, -PAGE))
    assert "of its grace" in why


def test_a_debt_is_not_paid_of_a_grace() -> None:
    treasury = in_grace()
    treasury.room.fund(treasury.trade.operator, PAGE)
    assert "of its grace" in found(treasury, "fund_account", shifted(0, PAGE))


def test_nobody_is_made_to_owe_by_hand_who_was_not_to() -> None:
    def without(record: Record) -> Record:
        asked = {name: each for name, each in record.asked.items() if name != "may_owe"}
        return structs.replace(record, asked=asked)

    assert "was not to be" in found(in_grace(), "reverse_top_up", without)


def test_no_more_goes_back_than_the_treasurer_said() -> None:
    def said_less(record: Record) -> Record:
        asked = {**record.asked, "total": {"amount": "0.001", "asset": "USD"}}
        return structs.replace(record, asked=asked)

    assert "than was said" in found(in_grace(), "reverse_top_up", said_less)


def test_a_payout_that_never_left_does_not_come_back() -> None:
    treasury = Treasury(Trade.opened(funds=DOLLAR))
    treasury.trade.captured(10)
    treasury.room.advance(86_400)
    units = treasury.trade.balance(treasury.trade.vendor, "vendor_payable")
    payout_id = treasury.payout(units).changed[0].id
    treasury.ask(treasury.treasurer, "fail_payout", payout_id=payout_id)
    treasury.event(payout_id, "paid", "evt_1")

    def moved_nothing(record: Record) -> Record:
        return structs.replace(after("payout", status="posted")(record), moved=())

    assert "no state of a payout" in found(treasury, "process_event", moved_nothing)


def owing_with_money() -> tuple[Treasury, str]:
    """An operator that owes ten pages, and has them again: what it had set aside was released."""
    treasury = Treasury(Trade.opened(funds=0))
    top_up_id, hold_id = posted(treasury, DOLLAR), treasury.trade.held(10)
    treasury.event(top_up_id, "reversed", "evt_back", units=str(DOLLAR))
    release = ReleaseHold(hold_id=hold_id, idempotency_key=treasury.room.key())
    treasury.room.done(treasury.trade.vendor, RELEASE_HOLD, release)
    return treasury, top_up_id


def test_a_platform_that_lets_an_operator_spend_what_it_owes_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    treasury, _ = owing_with_money()
    monkeypatch.setattr(accounts, "owed_units", lambda *_: 0)
    treasury.trade.held(1)
    fault = audited(treasury.room.journal).fault
    assert fault is not None
    assert "sets aside what it has" in fault.why


def test_a_platform_that_pays_a_partner_what_it_owes_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    treasury = Treasury(Trade.opened(funds=0))
    trade, top_up_id = treasury.trade, posted(treasury, DOLLAR)
    treasury.earned_as_partner()
    treasury.event(top_up_id, "reversed", "evt_back", units=str(DOLLAR))
    monkeypatch.setattr(payouts, "owed_units", lambda *_: 0)
    earned = trade.balance(trade.operator, "partner_payable")
    assert treasury.payout(earned, trade.operator, account="partner_payable").refused is None
    fault = audited(treasury.room.journal).fault
    assert fault is not None
    assert "sets aside what it has" in fault.why


@pytest.mark.parametrize("outcome", ["failed", "paid"])
def test_an_event_that_posts_nothing_leaves_what_is_owed(
    outcome: Literal["failed", "paid"],
) -> None:
    treasury, top_up_id = owing_with_money()
    if outcome == "failed":
        top_up_id = treasury.top_up(DOLLAR)
    assert treasury.event(top_up_id, outcome, "evt_late").changed
    assert audited(treasury.room.journal).fault is None
