"""A platform that does not do in time what time alone brings about is found."""

from collections.abc import Callable

import pytest
from msgspec import structs

from farthing.protocol.faults import FaultKind
from farthing.protocol.messages.disputes import INITIATE_DISPUTE, InitiateDispute
from farthing.protocol.records import Record, Request, parse_record
from farthing.protocol.times import DAY_US, format_time
from farthing.settlement.engine.due import next_due_us
from tests.construction import Trade
from tests.protocol.replay.forging import audited, rewritten
from tests.protocol.replay.metered import Metered
from tests.settlement.engine.treasurer import Treasury


def held(trade: Trade) -> None:
    trade.held(1)


def charged(trade: Trade) -> None:
    trade.captured(1)


def in_session(trade: Trade) -> None:
    Metered.opened(trade)


def disputed(trade: Trade) -> None:
    ask = InitiateDispute(
        charge_id=trade.captured(1), reason="not_delivered", idempotency_key=trade.room.key()
    )
    trade.room.done(trade.agent, INITIATE_DISPUTE, ask)


def given_credit(trade: Trade) -> None:
    ends_at = format_time(trade.room.now_us + DAY_US)
    Treasury(trade).grant_credit(1, expires_at=ends_at)


def announced(trade: Trade) -> None:
    Treasury(trade).top_up(1)


def funded_later(trade: Trade, later_us: int) -> list[Record]:
    """The journal, and money that comes some time after it."""
    records = [parse_record(data)[0] for data in trade.room.journal]
    funded = [each for each in records if each.operation == "fund_account"][-1]
    seq, at_us = records[-1].seq + 1, records[-1].at_us + later_us
    by = structs.replace(funded.by, proof_jti="later", proof_expires_at_us=at_us + 1)
    request = Request(key="later", sha256="", args_sha256={})
    return [*records, structs.replace(funded, seq=seq, at_us=at_us, by=by, request=request)]


THINGS: dict[str, Callable[[Trade], None]] = {
    "expire_hold": held,
    "settle_charge": charged,
    "expire_session": in_session,
    "close_evidence": disputed,
    "expire_lot": given_credit,
    "expire_top_up": announced,
}


@pytest.mark.parametrize("operation", THINGS)
def test_what_was_due_before_a_record_is_done_before_it(operation: str) -> None:
    trade = Trade.opened()
    THINGS[operation](trade)
    at_once = funded_later(trade, 1)
    later = funded_later(trade, 31 * DAY_US)
    fault = audited(rewritten(later, 0, lambda record: record)).fault
    assert audited(rewritten(at_once, 0, lambda record: record)).fault is None
    assert fault is not None
    assert (fault.seq, fault.kind) == (later[-1].seq, FaultKind.RECORD)
    assert operation in fault.why


@pytest.mark.parametrize("operation", THINGS)
def test_once_it_is_done_nothing_is_due(operation: str) -> None:
    trade = Trade.opened()
    THINGS[operation](trade)
    trade.room.advance(31 * 86_400)
    later = funded_later(trade, 1)
    assert operation in {record.operation for record in later}
    assert audited(rewritten(later, 0, lambda record: record)).fault is None


@pytest.mark.parametrize("operation", THINGS)
def test_what_is_done_in_the_very_instant_in_which_it_is_due_is_in_time(operation: str) -> None:
    trade = Trade.opened()
    THINGS[operation](trade)
    while operation not in (done := {each.operation for each in trade.room.advance(0)}):
        due_us = next_due_us(trade.room.state)
        assert due_us is not None, done
        trade.room.now_us = due_us
    assert audited(trade.room.journal).fault is None
