"""Books in which money goes back otherwise than is said, or a debt is forgotten, are found out."""

from collections.abc import Callable
from functools import cache

import pytest
from msgspec import structs

from farthing.protocol.faults import FaultKind
from farthing.protocol.ledger import Movement, Transfer
from farthing.protocol.records import Record, parse_record
from farthing.protocol.wire import money
from tests.construction import Trade
from tests.protocol.replay.forging import Forge, after, audited, rewritten
from tests.settlement.engine.treasurer import DOLLAR, Treasury

HALF = DOLLAR // 2
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
