"""A hold for a call of the platform's own is captured for an answer that it has accepted alone."""

from dataclasses import replace
from typing import Any

import pytest

from farthing.protocol.contracts import DeliveryRecord
from farthing.protocol.errors import Code, Refusal
from farthing.protocol.ids import derive_id
from farthing.protocol.messages.holds import PlaceHold
from farthing.protocol.messages.services import CALL_SERVICE, CallService
from farthing.protocol.records import Record
from farthing.protocol.wire import Usage
from farthing.settlement.engine.commands import Seen, platform_command
from farthing.settlement.engine.services import AbandonHold, AcceptAnswer, ServiceCall, objection
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


def answer(trade: Trade, hold_id: str, pages: int, **changed: Any) -> AcceptAnswer:
    """What the vendor signed for an answer, as the platform takes it."""
    agreement = trade.room.state.agreements[trade.agreement_id]
    given: dict[str, Any] = {
        "hold_id": hold_id,
        "agreement_id": agreement.agreement_id,
        "vendor_id": trade.vendor.principal_id,
        "listing_id": agreement.listing_id,
        "args_sha256": "a" * 64,
        "result_sha256": "c" * 64,
        "output_schema_sha256": agreement.output_schema_sha256,
        "usage": {"page": pages},
        "delivered_at_us": trade.room.now_us,
    }
    return AcceptAnswer(
        delivery=DeliveryRecord(**(given | changed)),
        signature="signature",
        signed_by=trade.vendor.key_thumbprint,
    )


def accepted(trade: Trade, hold_id: str, pages: int) -> Record:
    record = trade.room.run(answer(trade, hold_id, pages).command)
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


def test_it_is_placed_under_its_own_name_and_captured_for_an_answer() -> None:
    trade = Trade.opened(funds=100 * PAGE)

    hold_id = held(trade)

    assert hold_id == derive_id("hld", trade.agent.principal_id, "call_service", KEY)
    record = accepted(trade, hold_id, 2)
    assert [change.noun for change in record.changed][:2] == ["hold", "charge"]
    assert record.asked == {"hold_id": hold_id, "result_sha256": "c" * 64}
    assert record.facts is not None
    assert record.facts["delivery_signature"] == "signature"
    assert trade.balance(trade.operator, "prepaid") == 98 * PAGE


def test_it_costs_what_a_hold_of_the_buyers_own_costs() -> None:
    one, other = Trade.opened(funds=100 * PAGE), Trade.opened(funds=100 * PAGE)

    called = accepted(one, held(one), 2)
    captured = other.room.capture(other.vendor, other.held(3), 2)

    assert called.moved == captured.moved
    assert called.counted == captured.counted
    assert called.decided == captured.decided


def test_its_payee_captures_nothing_by_itself() -> None:
    trade = Trade.opened(funds=100 * PAGE)
    hold_id = held(trade)
    before = books(trade)

    refusal = trade.room.capture(trade.vendor, hold_id, 2)

    assert isinstance(refusal, Refusal), "it leaves no record"
    assert refusal.code is Code.ANSWER_AWAITED
    assert books(trade) == before
    accepted(trade, hold_id, 2)
    late = trade.room.capture(trade.vendor, hold_id, 2)
    assert isinstance(late, Record)
    assert late.refusal is not None
    assert late.refusal.code is Code.HOLD_RESOLVED


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"usage": {"page": 4}}, Code.CAPTURE_EXCEEDS_HOLD),
        ({"usage": {"word": 1}}, Code.USAGE_INVALID),
        ({"args_sha256": "b" * 64}, Code.DELIVERY_INVALID),
        ({"output_schema_sha256": "b" * 64}, Code.DELIVERY_INVALID),
    ],
)
def test_an_answer_that_could_not_be_paid_changes_nothing(
    changed: dict[str, Any], code: Code
) -> None:
    trade = Trade.opened(funds=100 * PAGE)
    given = answer(trade, held(trade), 2, **changed)
    before = books(trade)

    refusal = objection(trade.room.state, given, trade.room.now_us)
    record = trade.room.run(given.command)

    assert refusal is not None
    assert refusal.code is code
    assert isinstance(record, Record)
    assert (record.moved, record.changed, record.counted) == ((), (), ())
    assert books(trade) == before


def test_an_answer_is_signed_by_a_key_of_its_vendor_that_is_in_force() -> None:
    trade = Trade.opened(funds=100 * PAGE)
    given = replace(answer(trade, held(trade), 2), signed_by=trade.agent.key_thumbprint)

    refusal = objection(trade.room.state, given, trade.room.now_us)

    assert refusal is not None
    assert refusal.code is Code.SIGNATURE_INVALID


def test_a_buyers_own_hold_is_not_captured_by_the_platform() -> None:
    trade = Trade.opened(funds=100 * PAGE)
    hold_id = trade.held(3)
    before = books(trade)

    trade.room.run(answer(trade, hold_id, 2).command)

    assert books(trade) == before


def test_after_its_time_no_answer_is_paid() -> None:
    trade = Trade.opened(funds=100 * PAGE)
    hold_id = held(trade)
    trade.room.now_us = trade.room.state.holds[hold_id].expires_at_us
    given = answer(trade, hold_id, 2)

    refusal = objection(trade.room.state, given, trade.room.now_us)

    assert refusal is not None
    assert refusal.code is Code.HOLD_EXPIRED
    record = trade.room.run(given.command)
    assert isinstance(record, Record)
    assert not record.changed


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
    late = trade.room.capture(trade.vendor, hold_id, 2)
    assert isinstance(late, Record)
    assert isinstance(late.refusal, Refusal)
    assert not accepted(trade, hold_id, 2).changed


def test_what_has_ended_otherwise_stands() -> None:
    trade = Trade.opened(funds=100 * PAGE)
    captured = held(trade)
    accepted(trade, captured, 2)
    before = books(trade)

    for hold_id in (captured, f"hld_{'0' * 26}"):
        record = abandoned(trade, hold_id)

        assert (record.moved, record.changed, record.counted) == ((), (), ())
        assert books(trade) == before


def test_what_a_buyer_set_aside_itself_the_platform_does_not_give_back() -> None:
    trade = Trade.opened(funds=100 * PAGE)
    hold_id = trade.held(2)

    assert not abandoned(trade, hold_id).changed
    assert trade.room.state.holds[hold_id].status == "open"


def test_what_is_past_its_time_expires_and_is_not_given_back() -> None:
    trade = Trade.opened(funds=100 * PAGE)
    hold_id = held(trade)
    trade.room.now_us = trade.room.state.holds[hold_id].expires_at_us

    assert not abandoned(trade, hold_id).changed
    assert trade.room.state.holds[hold_id].status == "open"
