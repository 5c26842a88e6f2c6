"""Allowances: two sides to make one, every way of use judged by it, nothing lost in counting."""

from collections.abc import Mapping
from typing import Any

import pytest

from farthing.identity.callers import Caller
from farthing.protocol.errors import Code, Refusal
from farthing.protocol.messages.allowances import (
    APPROVE_ALLOWANCE,
    PROPOSE_ALLOWANCE,
    AllowanceUse,
    ApproveAllowance,
    ProposeAllowance,
)
from farthing.protocol.messages.holds import RELEASE_HOLD, ReleaseHold
from farthing.protocol.records import Record, parse_record
from farthing.protocol.times import SECOND_US, format_time
from farthing.protocol.usage import UsageOutcome
from farthing.protocol.wire import Usage
from farthing.settlement.engine.allowances import allowance_use
from farthing.settlement.engine.packing import pack, unpack
from tests.construction import Trade
from tests.protocol.replay.metered import Metered, events

DAY_S = 86_400


def limits(pages: int | None) -> tuple[Usage, ...]:
    return () if pages is None else (Usage(meter="page", quantity=str(pages)),)


def proposed(
    trade: Trade,
    by: Caller,
    *,
    per_day: int | None = None,
    in_all: int | None = None,
    **more: Any,
) -> Any:
    ask = ProposeAllowance(
        agreement_id=trade.agreement_id,
        per_day=limits(per_day),
        in_all=limits(in_all),
        idempotency_key=trade.room.key(),
        **more,
    )
    return trade.room.submit(by, PROPOSE_ALLOWANCE, ask)


def approved(trade: Trade, by: Caller, allowance_id: str = "") -> Any:
    allowance = trade.room.state.allowances.get(trade.agreement_id)
    if not allowance_id:
        assert allowance is not None
        assert allowance.proposed is not None
        allowance_id = allowance.proposed.allowance_id
    ask = ApproveAllowance(
        agreement_id=trade.agreement_id,
        allowance_id=allowance_id,
        idempotency_key=trade.room.key(),
    )
    return trade.room.submit(by, APPROVE_ALLOWANCE, ask)


def in_force(trade: Trade, **limits: Any) -> None:
    assert done(proposed(trade, trade.agent, **limits))
    assert done(approved(trade, trade.vendor))


def done(decision: Any) -> bool:
    return isinstance(decision, Record) and decision.refusal is None


def code(decision: Any) -> Code | None:
    refusal = decision.refusal if isinstance(decision, Record) else decision
    return refusal.code if isinstance(refusal, Refusal) else None


def shown(trade: Trade) -> AllowanceUse:
    state = trade.room.state
    return allowance_use(
        trade.agreement_id,
        state.allowances.get(trade.agreement_id),
        state.positions.get(trade.agreement_id, {}),
        trade.room.now_us,
    )


def meters(trade: Trade) -> Mapping[str, tuple[str, str, str]]:
    return {each.period: (each.used, each.held, each.remaining) for each in shown(trade).meters}


@pytest.mark.parametrize(
    ("proposer", "approver"), [("agent", "vendor"), ("operator", "vendor"), ("vendor", "operator")]
)
def test_the_other_side_puts_a_proposal_in_force(proposer: str, approver: str) -> None:
    trade = Trade.opened()
    others = {"agent", "operator", "vendor"} - {approver}

    assert done(proposed(trade, getattr(trade, proposer), per_day=5))
    assert shown(trade).status == "none"
    for other in sorted(others):
        assert code(approved(trade, getattr(trade, other))) is Code.NOT_PERMITTED
    record = approved(trade, getattr(trade, approver))

    assert done(record)
    assert [each.noun for each in record.changed] == ["allowance"]
    found = shown(trade).in_force
    assert found is not None
    assert found.proposed_by == getattr(trade, proposer).principal_id
    assert found.approved_by == getattr(trade, approver).principal_id
    assert shown(trade).proposed is None


def test_a_stranger_neither_proposes_nor_approves() -> None:
    trade = Trade.opened()
    stranger = trade.room.organisation("vendor", "Vendor Two")
    proposed(trade, trade.agent, per_day=5)

    assert code(proposed(trade, stranger, per_day=1)) is Code.NOT_FOUND
    assert code(approved(trade, stranger)) is Code.NOT_FOUND


def test_a_proposal_that_has_ended_meanwhile_is_put_in_force_by_nobody() -> None:
    trade = Trade.opened()
    ends_at = format_time(trade.room.now_us + SECOND_US)
    assert done(proposed(trade, trade.agent, per_day=5, expires_at=ends_at))
    trade.room.now_us += SECOND_US

    assert code(approved(trade, trade.vendor)) is Code.NOT_FOUND
    assert shown(trade).status == "none"


def test_what_is_approved_is_what_was_read() -> None:
    trade = Trade.opened()
    first = proposed(trade, trade.agent, per_day=5).changed[0].after["proposed"]["allowance_id"]
    proposed(trade, trade.agent, per_day=500)

    assert code(approved(trade, trade.vendor, first)) is Code.NOT_FOUND
    assert shown(trade).status == "none"


@pytest.mark.parametrize("name", ["per_day", "in_all"])
def test_a_limit_is_of_a_meter_of_the_card_once(name: str) -> None:
    trade = Trade.opened()
    for meters in ((Usage(meter="no-such", quantity="1"),), limits(1) + limits(2)):
        ask = ProposeAllowance(
            agreement_id=trade.agreement_id,
            idempotency_key=trade.room.key(),
            **{name: meters},  # type: ignore[arg-type]
        )
        record = trade.room.submit(trade.agent, PROPOSE_ALLOWANCE, ask)
        assert isinstance(record, Record)
        assert record.refusal is not None
        assert record.refusal.path == f"{name}.{len(meters) - 1}.meter"


def test_holds_reserve_what_they_may_use_and_give_back_what_they_do_not() -> None:
    trade = Trade.opened()
    in_force(trade, per_day=10)
    first = trade.held(6)

    assert code(trade.room.hold(trade.agent, trade.agreement_id, 5)) is Code.ALLOWANCE_EXCEEDED
    second = trade.held(4)
    assert meters(trade) == {"day": ("0", "10", "0")}
    trade.room.capture(trade.vendor, first, 2)
    assert meters(trade) == {"day": ("2", "4", "4")}
    release = ReleaseHold(hold_id=second, idempotency_key=trade.room.key())
    trade.room.submit(trade.vendor, RELEASE_HOLD, release)
    assert meters(trade) == {"day": ("2", "0", "8")}
    trade.held(8)
    trade.room.advance(7 * DAY_S)
    assert meters(trade) == {"day": ("0", "0", "10")}


def test_holds_from_before_an_allowance_count_and_can_be_captured() -> None:
    trade = Trade.opened()
    held = trade.held(6)
    in_force(trade, per_day=5)

    assert meters(trade) == {"day": ("0", "6", "0")}
    assert done(trade.room.capture(trade.vendor, held, 6))
    assert meters(trade) == {"day": ("6", "0", "0")}
    assert code(trade.room.hold(trade.agent, trade.agreement_id, 1)) is Code.ALLOWANCE_EXCEEDED


def test_a_day_s_allowance_is_whole_again_on_the_next_and_that_of_the_agreement_is_not() -> None:
    trade = Trade.opened()
    trade.captured(3)
    in_force(trade, per_day=5, in_all=10)

    trade.captured(5)
    assert code(trade.room.hold(trade.agent, trade.agreement_id, 1)) is Code.ALLOWANCE_EXCEEDED
    trade.room.advance(DAY_S)
    assert meters(trade) == {"day": ("0", "0", "5"), "agreement": ("8", "0", "2")}
    assert code(trade.room.hold(trade.agent, trade.agreement_id, 3)) is Code.ALLOWANCE_EXCEEDED
    assert done(trade.room.hold(trade.agent, trade.agreement_id, 2))


def test_events_beyond_an_allowance_are_rejected_and_cost_nothing() -> None:
    trade = Trade.opened()
    in_force(trade, per_day=10)
    session = Metered.opened(trade)
    trade.held(2)

    record = session.report(events(1, 5, 4, 3, at_us=trade.room.now_us))
    failed = session.report(
        events(4, 9, at_us=trade.room.now_us, outcome=UsageOutcome.FAILED_VENDOR)
    )

    assert record.decided is not None
    assert record.decided["rejected"] == [[1, "over_allowance", 2]]
    assert record.decided["amounts"] == ["10000000", "0", "6000000"]
    assert failed.decided is not None
    assert failed.decided["rejected"] == []
    assert meters(trade) == {"day": ("8", "2", "0")}


def test_what_is_only_reported_is_taken_and_shown() -> None:
    trade = Trade.opened()
    in_force(trade, per_day=1, enforcement="report")
    session = Metered.opened(trade)

    trade.captured(2)
    record = session.report(events(1, 5, at_us=trade.room.now_us))

    assert record.decided is not None
    assert record.decided["rejected"] == []
    assert meters(trade) == {"day": ("7", "0", "0")}


def test_use_that_no_amount_holds_is_beyond_the_allowance_before_all_else() -> None:
    trade = Trade.opened()
    in_force(trade, per_day=10)
    session = Metered.opened(trade)

    record = session.report(events(1, 10**15, at_us=trade.room.now_us))

    assert record.decided is not None
    assert record.decided["rejected"] == [[0, "over_allowance", 1]]


def test_after_its_end_nothing_more_may_be_used() -> None:
    trade = Trade.opened()
    session = Metered.opened(trade)
    ends_us = trade.room.now_us + 60 * SECOND_US
    in_force(trade, expires_at=format_time(ends_us))
    assert done(trade.room.hold(trade.agent, trade.agreement_id, 1))
    trade.room.advance(60)

    assert shown(trade).status == "expired"
    assert code(trade.room.hold(trade.agent, trade.agreement_id, 1)) is Code.ALLOWANCE_EXCEEDED
    late = session.report([*events(1, 1, at_us=ends_us - 1), *events(2, 1, at_us=ends_us)])
    assert late.decided is not None
    assert late.decided["rejected"] == [[1, "over_allowance", 2]]


def test_an_allowance_is_lifted_as_it_was_made() -> None:
    trade = Trade.opened()
    in_force(trade, per_day=0)
    assert code(trade.room.hold(trade.agent, trade.agreement_id, 1)) is Code.ALLOWANCE_EXCEEDED

    in_force(trade)

    assert done(trade.room.hold(trade.agent, trade.agreement_id, 1))


def test_a_snapshot_keeps_an_allowance_and_what_was_used_of_it() -> None:
    trade = Trade.opened()
    in_force(trade, per_day=10)
    trade.captured(2)
    trade.held(3)
    state = trade.room.state
    for shelf in (state.holds, state.charges, state.outcomes, state.sessions):
        shelf.forget()
    before = meters(trade)

    trade.room.state = unpack(pack(state), lambda seq: _record(trade, seq))

    assert meters(trade) == before == {"day": ("2", "3", "5")}


def _record(trade: Trade, seq: int) -> Record:

    return parse_record(trade.room.journal[seq - 1])[0]
