from dataclasses import replace

import pytest

from farthing.protocol.errors import Code, Refusal
from farthing.protocol.messages.agents import FREEZE, UNFREEZE, Freeze, Unfreeze
from farthing.protocol.messages.agreements import TERMINATE_AGREEMENT, TerminateAgreement
from farthing.protocol.messages.authority import REVOKE_AUTHORITY, RevokeAuthority
from farthing.protocol.messages.holds import RELEASE_HOLD, ReleaseHold
from farthing.protocol.records import Record
from farthing.protocol.wire import Role
from farthing.server.market import command_of
from farthing.settlement.engine.commands import Seen
from tests.construction import Trade
from tests.settlement.oracle import graduated_price

PAGE = 2_000_000


def snapshot(trade: Trade) -> object:
    state = trade.room.state
    accounts = {
        name: (a.debits_pending, a.debits_posted, a.credits_pending, a.credits_posted)
        for name, a in state.accounts.items()
    }
    return accounts, dict(state.holds), dict(state.charges), dict(state.counters)


def test_a_hold_sets_aside_exactly_the_quoted_price() -> None:
    trade = Trade.opened(funds=100 * PAGE)
    trade.held(12)
    assert trade.balance(trade.operator, "prepaid") == 100 * PAGE - graduated_price(0, 12)


def test_a_capture_of_the_whole_workload_costs_what_was_quoted() -> None:
    trade = Trade.opened()
    charge = trade.room.state.charges[trade.captured(12)]
    assert charge.amount_units == graduated_price(0, 12) == 23_000_000
    assert charge.fee_units == 575_000
    assert trade.balance(trade.vendor, "vendor_pending") == 23_000_000 - 575_000
    assert trade.balance("platform", "platform_fee") == 575_000


def test_a_partial_capture_releases_the_rest_to_balance_and_budget() -> None:
    trade = Trade.opened(funds=100 * PAGE, per_day=20 * PAGE)
    record = trade.room.capture(trade.vendor, trade.held(10), 4)
    charge = trade.room.state.charges[record.changed[1].id]
    assert (charge.amount_units, charge.released_units) == (4 * PAGE, 6 * PAGE)
    assert trade.balance(trade.operator, "prepaid") == 96 * PAGE
    assert sum(trade.room.state.counters.values()) == 4 * PAGE


def test_splitting_usage_over_captures_costs_the_same_as_one() -> None:
    split, whole = Trade.opened(), Trade.opened()
    for pages in (3, 9, 8):
        split.captured(pages)
    whole.captured(20)
    assert split.balance(split.operator, "prepaid") == whole.balance(whole.operator, "prepaid")


@pytest.mark.parametrize(
    ("funds", "per_call", "per_day", "code", "remaining"),
    [
        (10 * PAGE, 10 * PAGE, 10 * PAGE, None, ""),
        (9 * PAGE, 10 * PAGE, 10 * PAGE, Code.INSUFFICIENT_FUNDS, "0.018"),
        (10 * PAGE, 9 * PAGE, 10 * PAGE, Code.PER_CALL_LIMIT_EXCEEDED, "0.018"),
        (10 * PAGE, 10 * PAGE, 9 * PAGE, Code.BUDGET_EXCEEDED, "0.018"),
        (9 * PAGE, 9 * PAGE, 9 * PAGE, Code.PER_CALL_LIMIT_EXCEEDED, "0.018"),
    ],
)
def test_limits_refuse_what_is_above_them_and_say_what_remains(
    funds: int, per_call: int, per_day: int, code: Code | None, remaining: str
) -> None:
    trade = Trade.opened(funds=funds, per_call=per_call, per_day=per_day)
    before = snapshot(trade)
    record = trade.room.hold(trade.agent, trade.agreement_id, 10)
    assert record.code is code
    if code is not None:
        assert record.refusal.remaining == remaining
        assert record.refusal.required == "0.02"
        assert snapshot(trade) == before


def test_every_reason_is_named_in_order_of_precedence() -> None:
    trade = Trade.opened(funds=PAGE, per_call=PAGE, per_day=PAGE)
    record = trade.room.hold(trade.agent, trade.agreement_id, 10)
    assert record.refusal.reasons == (
        Code.PER_CALL_LIMIT_EXCEEDED,
        Code.BUDGET_EXCEEDED,
        Code.INSUFFICIENT_FUNDS,
    )


def test_the_day_budget_starts_anew_at_midnight_utc() -> None:
    trade = Trade.opened(per_day=10 * PAGE)
    trade.captured(10)
    assert trade.room.hold(trade.agent, trade.agreement_id, 1).code is Code.BUDGET_EXCEEDED
    trade.room.advance(12 * 3600)
    assert trade.room.hold(trade.agent, trade.agreement_id, 1).code is None


def test_without_a_grant_nothing_can_be_bought() -> None:
    trade = Trade.opened()
    ask = RevokeAuthority(
        agent_id=trade.agent.principal_id, asset="USD", idempotency_key=trade.room.key()
    )
    trade.room.done(trade.operator, REVOKE_AUTHORITY, ask)
    assert trade.room.hold(trade.agent, trade.agreement_id, 1).code is Code.AUTHORITY_MISSING


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"vendors_deny": "vendor"}, Code.VENDOR_NOT_ALLOWED),
        ({"vendors_allow": "other"}, Code.VENDOR_NOT_ALLOWED),
        ({"vendors_allow": "vendor"}, None),
        ({"vendors_allow": "vendor", "vendors_deny": "vendor"}, Code.VENDOR_NOT_ALLOWED),
        ({"capabilities_deny": "documents"}, Code.CAPABILITY_NOT_ALLOWED),
        ({"capabilities_allow": "images"}, Code.CAPABILITY_NOT_ALLOWED),
        ({"capabilities_allow": "documents.text"}, None),
    ],
)
def test_a_deny_wins_and_an_allow_list_is_exhaustive(
    limits: dict[str, str], code: Code | None
) -> None:
    trade = Trade.opened()
    names = {"vendor": trade.vendor.principal_id, "other": trade.operator.principal_id}
    given = {name: (names.get(value, value),) for name, value in limits.items()}
    trade.room.grant(trade.operator, trade.agent, 10**9, 10**9, **given)
    assert trade.room.hold(trade.agent, trade.agreement_id, 1).code is code


def test_an_expired_grant_buys_nothing() -> None:
    trade = Trade.opened()
    expires_at = "2026-11-20T12:00:30.000000Z"
    trade.room.grant(trade.operator, trade.agent, 10**9, 10**9, expires_at=expires_at)
    assert trade.room.hold(trade.agent, trade.agreement_id, 1).code is None
    trade.room.advance(30)
    assert trade.room.hold(trade.agent, trade.agreement_id, 1).code is Code.AUTHORITY_EXPIRED


@pytest.mark.parametrize("by", ["operator", "platform"])
@pytest.mark.parametrize("whom", ["agent", "organisation"])
def test_a_freeze_stops_new_holds_and_lets_delivered_work_be_captured(by: str, whom: str) -> None:
    trade = Trade.opened()
    hold_id = trade.held(2)
    principal = trade.agent if whom == "agent" else trade.operator
    caller = trade.operator if by == "operator" else trade.room.staff(Role.ADMIN)
    ask = Freeze(
        principal_id=principal.principal_id, reason="test", idempotency_key=trade.room.key()
    )
    trade.room.done(caller, FREEZE, ask)
    assert trade.room.hold(trade.agent, trade.agreement_id, 1).code is Code.FROZEN
    assert trade.room.capture(trade.vendor, hold_id, 2).code is None
    thaw = Unfreeze(
        principal_id=principal.principal_id, reason="test", idempotency_key=trade.room.key()
    )
    outcome = trade.room.submit(trade.operator, UNFREEZE, thaw)
    if by == "operator":
        assert isinstance(outcome, Record)
    else:
        assert isinstance(outcome, Refusal)
        assert outcome.code is Code.NOT_PERMITTED


def test_only_the_payee_captures_or_releases() -> None:
    trade = Trade.opened()
    hold_id = trade.held(2)
    stranger = trade.room.organisation("vendor", "Vendor Two")
    for caller in (stranger, trade.agent, trade.operator):
        for signed_by in ("", "nobody's key"):
            refusal = trade.room.capture(caller, hold_id, 2, signed_by=signed_by)
            assert refusal.code is Code.NOT_FOUND
        release = ReleaseHold(hold_id=hold_id, idempotency_key=trade.room.key())
        refusal = trade.room.submit(caller, RELEASE_HOLD, release)
        assert isinstance(refusal, Refusal)
        assert refusal.code is Code.NOT_FOUND


def test_a_hold_resolves_once() -> None:
    trade = Trade.opened()
    hold_id = trade.held(2)
    assert trade.room.capture(trade.vendor, hold_id, 2).code is None
    assert trade.room.capture(trade.vendor, hold_id, 2).code is Code.HOLD_RESOLVED
    release = ReleaseHold(hold_id=hold_id, idempotency_key=trade.room.key())
    record = trade.room.submit(trade.vendor, RELEASE_HOLD, release)
    assert isinstance(record, Record)
    assert record.code is Code.HOLD_RESOLVED


def test_an_overdue_hold_goes_back_whole_and_cannot_be_captured() -> None:
    trade = Trade.opened(funds=10 * PAGE)
    hold_id = trade.held(2)
    (expiry,) = trade.room.advance(60)
    assert expiry.operation == "expire_hold"
    assert trade.balance(trade.operator, "prepaid") == 10 * PAGE
    assert sum(trade.room.state.counters.values()) == 0
    assert trade.room.capture(trade.vendor, hold_id, 2).code is Code.HOLD_EXPIRED


def test_a_hold_is_over_at_the_very_instant_of_its_end_though_it_still_stands() -> None:
    trade = Trade.opened(funds=10 * PAGE)
    hold_id = trade.held(2)
    trade.room.now_us = trade.room.state.holds[hold_id].expires_at_us
    assert trade.room.capture(trade.vendor, hold_id, 2).code is Code.HOLD_EXPIRED


def test_a_capture_above_the_hold_is_refused_whole() -> None:
    trade = Trade.opened()
    hold_id = trade.held(2)
    before = snapshot(trade)
    record = trade.room.capture(trade.vendor, hold_id, 3)
    assert record.code is Code.CAPTURE_EXCEEDS_HOLD
    assert snapshot(trade) == before
    assert trade.room.capture(trade.vendor, hold_id, 2).code is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("args_sha256", "c" * 64),
        ("output_schema_sha256", "c" * 64),
        ("listing_id", "lst_00000000000000000000000000"),
        ("agreement_id", "agr_00000000000000000000000000"),
    ],
)
def test_a_delivery_record_of_something_else_captures_nothing(field: str, value: str) -> None:
    trade = Trade.opened()
    record = trade.room.capture(trade.vendor, trade.held(1), 1, **{field: value})
    assert record.code is Code.DELIVERY_INVALID
    assert record.refusal.path == f"delivery.{field}"


def test_the_vendors_share_stays_pending_until_the_window_closes() -> None:
    trade = Trade.opened()
    charge_id = trade.captured(10)
    trade.room.advance(599)
    assert trade.balance(trade.vendor, "vendor_payable") == 0
    trade.room.advance(1)
    assert trade.balance(trade.vendor, "vendor_pending") == 0
    assert trade.balance(trade.vendor, "vendor_payable") == 10 * PAGE * 975 // 1000
    assert trade.room.state.charges[charge_id].status == "payable"


def test_a_terminated_agreement_takes_no_new_hold_and_keeps_the_open_ones() -> None:
    trade = Trade.opened()
    hold_id = trade.held(1)
    ask = TerminateAgreement(
        agreement_id=trade.agreement_id, reason="done", idempotency_key=trade.room.key()
    )
    trade.room.done(trade.agent, TERMINATE_AGREEMENT, ask)
    assert trade.room.hold(trade.agent, trade.agreement_id, 1).code is Code.AGREEMENT_ENDED
    assert trade.room.capture(trade.vendor, hold_id, 1).code is None


def test_a_foreign_agreement_is_not_found() -> None:
    trade = Trade.opened()
    other = trade.room.agent(trade.room.organisation("operator", "Operator Two"), "Agent Two")
    refusal = trade.room.hold(other, trade.agreement_id, 1)
    assert isinstance(refusal, Refusal)
    assert refusal.code is Code.NOT_FOUND


def test_the_same_key_gives_the_same_record_for_ever() -> None:
    trade = Trade.opened()
    key = trade.room.key()
    first = trade.room.hold(trade.agent, trade.agreement_id, 2, key)
    trade.room.advance(86_400)
    assert trade.room.hold(trade.agent, trade.agreement_id, 2, key) == Seen(seq=first.seq)
    assert trade.room.hold(trade.agent, trade.agreement_id, 3, key) == Seen(seq=first.seq)


def test_a_remembered_refusal_is_answered_again_after_its_cause_is_gone() -> None:
    trade = Trade.opened(funds=PAGE)
    key = trade.room.key()
    refused = trade.room.hold(trade.agent, trade.agreement_id, 2, key)
    assert refused.code is Code.INSUFFICIENT_FUNDS
    trade.room.fund(trade.operator, 10 * PAGE)
    assert trade.room.hold(trade.agent, trade.agreement_id, 2, key) == Seen(seq=refused.seq)
    assert trade.room.hold(trade.agent, trade.agreement_id, 2).code is None


def test_a_used_proof_is_refused_with_the_effect_and_forgotten_after_its_time() -> None:
    trade = Trade.opened()
    record = trade.room.hold(trade.agent, trade.agreement_id, 1)
    again = replace(
        trade.agent,
        proof_jti=record.by.proof_jti,
        proof_expires_at_us=record.by.proof_expires_at_us,
    )
    release = ReleaseHold(hold_id=record.changed[0].id, idempotency_key=trade.room.key())
    burnt = (again.key_thumbprint, again.proof_jti)
    assert burnt in trade.room.state.burnt
    replayed = trade.room.run(command_of(again, RELEASE_HOLD, release))
    assert isinstance(replayed, Refusal)
    assert replayed.code is Code.PROOF_REPLAYED
    trade.room.advance(31)
    trade.held(1)
    assert burnt not in trade.room.state.burnt
