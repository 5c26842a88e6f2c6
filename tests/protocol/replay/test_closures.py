"""Something that begins on an account that was closed, or one closed with money on it, is found."""

from collections.abc import Callable

import pytest
from msgspec import structs

from farthing.protocol.canonical import Json
from farthing.protocol.faults import Fault, FaultKind
from farthing.protocol.records import Record, parse_record
from farthing.protocol.wire import money
from tests.construction import Trade
from tests.protocol.replay.forging import audited, rewritten
from tests.protocol.replay.metered import Metered
from tests.settlement.engine.treasurer import DOLLAR, Treasury

BEGINNINGS: dict[str, Callable[[Treasury], object]] = {
    "create_top_up": lambda treasury: treasury.top_up(1),
    "fund_account": lambda treasury: treasury.room.fund(treasury.trade.operator, 1),
    "grant_credit": lambda treasury: treasury.grant_credit(1),
    "open_session": lambda treasury: Metered.opened(treasury.trade),
    "place_hold": lambda treasury: treasury.trade.held(1),
    "set_grace": lambda treasury: treasury.grace(1),
}


def closed_then(operation: str, funds: int) -> tuple[Trade, list[Record]]:
    """A market where somebody's emptied account is closed, and then something begins."""
    trade = Trade.opened(funds=funds)
    treasury, room = Treasury(trade), trade.room
    other = room.organisation("operator", "Operator Two")
    top_up = treasury.ask(other, "create_top_up", amount=money(1, "USD")).changed[0]
    treasury.event(top_up.id, "paid", "evt_1")
    treasury.event(top_up.id, "reversed", "evt_2", units="1")
    assert treasury.close(other, "prepaid").refused is None
    BEGINNINGS[operation](treasury)
    return trade, [parse_record(data)[0] for data in room.journal]


def closing(owner: str, kind: str, records: list[Record]) -> Fault | None:
    """What is found where another account was closed."""
    (closed,) = [each for each in records if each.operation == "close_account"]

    def forge(record: Record) -> Record:
        name = f"{owner}:{kind}:USD"
        (change,) = record.changed
        asked: dict[str, Json] = {**record.asked, "organisation_id": owner, "account": kind}
        after: dict[str, Json] = {**change.after, "account": name}
        return structs.replace(
            record, asked=asked, changed=(structs.replace(change, id=name, after=after),)
        )

    return audited(rewritten(records, closed.seq, forge)).fault


@pytest.mark.parametrize("operation", BEGINNINGS)
def test_nothing_begins_on_an_account_that_was_closed(operation: str) -> None:
    is_bought = operation in {"open_session", "place_hold"}
    trade, records = closed_then(operation, funds=DOLLAR if is_bought else 0)
    party, kind = (trade.vendor, "vendor_payable") if is_bought else (trade.operator, "prepaid")
    fault = closing(party.principal_id, kind, records)
    assert audited(rewritten(records, 0, lambda record: record)).fault is None
    assert fault is not None
    assert (fault.seq, fault.kind) == (records[-1].seq, FaultKind.LEDGER)
    assert operation in fault.why


def test_an_account_with_something_on_it_is_not_closed() -> None:
    trade, records = closed_then("set_grace", funds=DOLLAR)
    fault = closing(trade.operator.principal_id, "prepaid", records)
    assert fault is not None
    assert (fault.seq, fault.kind) == (records[-2].seq, FaultKind.LEDGER)


def test_the_account_that_was_named_is_closed() -> None:
    _, records = closed_then("set_grace", funds=0)
    (closed,) = [each for each in records if each.operation == "close_account"]

    def forge(record: Record) -> Record:
        return structs.replace(record, asked={**record.asked, "account": "vendor_payable"})

    fault = audited(rewritten(records, closed.seq, forge)).fault
    assert fault is not None
    assert (fault.seq, fault.kind) == (closed.seq, FaultKind.LEDGER)
