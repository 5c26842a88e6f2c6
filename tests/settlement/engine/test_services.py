"""A hold for a call of the platform's own is one like every other, but for who gives it back."""

from farthing.protocol.errors import Refusal
from farthing.protocol.ids import derive_id
from farthing.protocol.messages.holds import PlaceHold
from farthing.protocol.messages.services import CALL_SERVICE, CallService
from farthing.protocol.records import Record
from farthing.protocol.wire import Usage
from farthing.settlement.engine.commands import Seen, platform_command
from farthing.settlement.engine.services import AbandonHold, ServiceCall
from tests.construction import Trade

PAGE = 2_000_000
KEY = "the-key-of-a-call-1"


def called(trade: Trade, pages: int = 3, *, key: str = KEY) -> Record | Refusal | Seen:
    usage = (Usage(meter="page", quantity=str(pages)),)
    ask = CallService(
        agreement_id=trade.agreement_id,
        workload=usage,
        arguments={"pdf": "secret"},
        idempotency_key=key,
    )
    place = PlaceHold(
        agreement_id=trade.agreement_id, workload=usage, args_sha256="a" * 64, idempotency_key=key
    )
    return trade.room.submit(trade.agent, CALL_SERVICE, ask, body=ServiceCall(place=place))


def held(trade: Trade, pages: int = 3) -> str:
    record = called(trade, pages)
    assert isinstance(record, Record)
    assert record.refusal is None, record.refusal
    return record.changed[0].id


def abandoned(trade: Trade, hold_id: str) -> Record:
    command = platform_command("abandon_hold", AbandonHold(hold_id=hold_id, reason="vendor_failed"))
    record = trade.room.run(command)
    assert isinstance(record, Record)
    return record


def books(trade: Trade) -> object:
    """Every account, hold and counter."""
    state = trade.room.state
    accounts = {
        name: (a.debits_pending, a.debits_posted, a.credits_pending, a.credits_posted)
        for name, a in state.accounts.items()
    }
    return accounts, dict(state.holds), dict(state.counters)


def test_it_is_placed_under_its_own_name_and_captured_like_every_other() -> None:
    trade = Trade.opened(funds=100 * PAGE)

    hold_id = held(trade)

    assert hold_id == derive_id("hld", trade.agent.principal_id, "call_service", KEY)
    record = trade.room.capture(trade.vendor, hold_id, 2)
    assert record.refusal is None
    assert trade.balance(trade.operator, "prepaid") == 98 * PAGE


def test_of_the_arguments_the_record_has_the_digest_alone() -> None:
    trade = Trade.opened()

    held(trade)

    assert b"secret" not in trade.room.journal[-1]
    assert b"a" * 64 in trade.room.journal[-1]


def test_under_one_key_it_is_placed_once_beside_a_hold_of_the_same_key() -> None:
    trade = Trade.opened()
    held(trade)

    assert isinstance(called(trade), Seen)
    other = trade.room.hold(trade.agent, trade.agreement_id, 3, key=KEY)
    assert isinstance(other, Record)


def test_what_is_given_back_is_free_in_balance_and_budget() -> None:
    trade = Trade.opened(funds=100 * PAGE, per_day=20 * PAGE)
    hold_id = held(trade)

    abandoned(trade, hold_id)

    assert trade.room.state.holds[hold_id].status == "released"
    assert trade.balance(trade.operator, "prepaid") == 100 * PAGE
    assert sum(trade.room.state.counters.values()) == 0
    assert isinstance(trade.room.capture(trade.vendor, hold_id, 2).refusal, Refusal)


def test_what_has_ended_otherwise_stands() -> None:
    trade = Trade.opened(funds=100 * PAGE)
    captured = held(trade)
    trade.room.capture(trade.vendor, captured, 2)
    before = books(trade)

    for hold_id in (captured, f"hld_{'0' * 26}"):
        record = abandoned(trade, hold_id)

        assert (record.moved, record.changed, record.counted) == ((), (), ())
        assert books(trade) == before


def test_what_is_past_its_time_expires_and_is_not_given_back() -> None:
    trade = Trade.opened(funds=100 * PAGE)
    hold_id = held(trade)
    trade.room.now_us = trade.room.state.holds[hold_id].expires_at_us

    assert not abandoned(trade, hold_id).changed
    assert trade.room.state.holds[hold_id].status == "open"
