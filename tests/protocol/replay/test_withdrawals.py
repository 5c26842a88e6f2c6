"""Books in which more is taken out than was said or was there, are found out."""

from functools import cache

import pytest
from msgspec import structs

from farthing.protocol.faults import FaultKind
from farthing.protocol.ledger import Movement
from farthing.protocol.records import Record, parse_record
from farthing.protocol.wire import money
from tests.construction import Trade
from tests.protocol.replay.forging import Forge, after, audited, rewritten
from tests.settlement.engine.test_withdrawals import withdraw
from tests.settlement.engine.treasurer import DOLLAR, Treasury


@cache
def journal() -> tuple[Record, ...]:
    """Money is taken out that is there, and owed in part; credit too; a payout is taken back."""
    treasury = Treasury(Trade.opened(funds=0, per_call=10 * DOLLAR, per_day=100 * DOLLAR))
    room, trade = treasury.room, treasury.trade
    room.fund(trade.operator, DOLLAR)
    trade.captured(10)
    room.advance(86_400)
    taken = treasury.payout(1)
    treasury.ask(trade.vendor, "cancel_payout", payout_id=taken.changed[0].id)
    lot_id = treasury.grant_credit(DOLLAR, "promotional")
    treasury.ask(
        treasury.treasurer, "withdraw_credit", lot_id=lot_id, amount=money(DOLLAR // 2, "USD")
    )
    withdraw(treasury, DOLLAR, may_owe=True)
    return tuple(parse_record(data)[0] for data in room.journal)


def the(operation: str) -> Record:
    return next(each for each in journal() if each.operation == operation)


def one_more(record: Record) -> Record:
    first, *others = record.moved
    return structs.replace(record, moved=(structs.replace(first, units=first.units + 1), *others))


def all_owed(record: Record) -> Record:
    had, owed = record.moved
    return structs.replace(record, moved=(structs.replace(owed, units=had.units + owed.units),))


def not_to_be_owed(record: Record) -> Record:
    return structs.replace(record, asked={**record.asked, "may_owe": False})


def to_breakage(record: Record) -> Record:
    (gone,) = record.moved
    return structs.replace(record, moved=(structs.replace(gone, credit="platform:breakage:USD"),))


def more_than_is_free(record: Record) -> Record:
    asked = {**record.asked, "amount": {"amount": "2", "asset": "USD"}}
    return structs.replace(record, asked=asked)


def by_another(record: Record) -> Record:
    operator = the("fund_account").asked["organisation_id"]
    assert isinstance(operator, str)
    return structs.replace(
        record, by=structs.replace(record.by, principal_id=operator, organisation_id=operator)
    )


FORGERIES: dict[str, tuple[str, Forge]] = {
    "more goes than was said": ("withdraw_funds", one_more),
    "what its operator had is not taken": ("withdraw_funds", all_owed),
    "it is owed though it was not to be": ("withdraw_funds", not_to_be_owed),
    "more credit goes than was said": ("withdraw_credit", one_more),
    "credit goes elsewhere": ("withdraw_credit", to_breakage),
    "more credit than was free": ("withdraw_credit", more_than_is_free),
    "less is noted of the lot": ("withdraw_credit", after("lot", withdrawn_units="1")),
    "the lot keeps what was taken": ("withdraw_credit", after("lot", free_units=str(DOLLAR))),
    "a payout failed by who asked for it": ("cancel_payout", after("payout", status="failed")),
}


def test_the_journal_as_it_is_has_no_fault() -> None:
    assert audited(rewritten(journal(), 0, lambda record: record)).fault is None


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_withdrawal_is_found(forgery: str) -> None:
    operation, forge = FORGERIES[forgery]
    record = the(operation)
    fault = audited(rewritten(journal(), record.seq, forge)).fault
    assert fault is not None
    assert (fault.seq, fault.kind) == (record.seq, FaultKind.LEDGER), fault


def test_a_payout_that_another_takes_back_is_found() -> None:
    record = the("cancel_payout")
    fault = audited(rewritten(journal(), record.seq, by_another)).fault
    assert fault is not None
    assert fault.seq == record.seq


def test_nothing_gives_way_to_a_payout_that_nobody_gave_up() -> None:
    treasury = Treasury(Trade.opened())
    treasury.trade.captured(10)
    treasury.room.advance(86_400)
    first, second = treasury.payout(1).changed[0], treasury.payout(2).changed[0]
    treasury.ask(treasury.treasurer, "confirm_payout", payout_id=first.id)
    records = [parse_record(data)[0] for data in treasury.room.journal]
    waits = next(each.moved[0] for each in records if second.id in {c.id for c in each.changed})

    def forge(record: Record) -> Record:
        failed = structs.replace(second, after={**second.after, "status": "failed"})
        void = structs.replace(waits, movement=Movement.VOID)
        return structs.replace(
            record, changed=(*record.changed, failed), moved=(void, *record.moved)
        )

    fault = audited(rewritten(records, records[-1].seq, forge)).fault
    assert audited(rewritten(records, 0, forge)).fault is None
    assert fault is not None
    assert (fault.seq, fault.kind) == (records[-1].seq, FaultKind.LEDGER)
