"""What a refusal tells besides its code: the argument, what was needed and left, the way on."""

import pytest
from msgspec import structs

from farthing.protocol.errors import Code, NextAction
from farthing.protocol.times import parse_time
from farthing.protocol.wire import Money, Usage, money
from tests.construction import Trade
from tests.settlement.engine.asks import ASKS, PAGE, Call, refusal_of
from tests.settlement.engine.spoiling import allowed_nothing, amount, frozen, just_sent
from tests.settlement.engine.treasurer import DOLLAR, Treasury, card_of
from tests.settlement.engine.wrongs import WRONGS


def spoilt(operation: str, says: str) -> Call:
    """A call with what is wrong of it by `WRONGS`."""
    call = ASKS[operation]()
    next(each for each in WRONGS[operation] if each.says == says).spoil(call)
    return call


def earned(pages: int) -> Treasury:
    """A market whose vendor has earned a tenth of a dollar a page, less the fee of 2.5 %."""
    trade = Trade.opened(funds=100 * DOLLAR, per_call=100 * DOLLAR, per_day=100 * DOLLAR)
    listing_id = trade.room.publish(trade.vendor, card=card_of("0.1"), name="Pages")
    trade.agreement_id = trade.room.agree(trade.agent, listing_id)
    trade.captured(pages)
    return Treasury(trade)


def test_a_call_dearer_than_the_cap_is_told_so_with_both_amounts() -> None:
    call = ASKS["open_session"]()
    call.give(cap=money(2 * PAGE, "USD"), per_call=money(3 * PAGE, "USD"))
    refusal = call.refused()

    assert (refusal.code, refusal.path) == (Code.INVALID_AMOUNT, "per_call.amount")
    assert (refusal.required, refusal.remaining, refusal.asset) == ("0.006", "0.004", "USD")
    assert "cap" in refusal.message


def test_an_amount_of_nothing_is_not_called_badly_written() -> None:
    for operation in ("open_session", "top_up_session", "refund_charge", "request_payout"):
        call = ASKS[operation]()
        amount(Code.INVALID_AMOUNT, next(iter(amounts(call))), amount="0").spoil(call)

        assert call.refused().message == "The amount must be above nothing."


def test_whose_earnings_are_all_pending_is_told_how_much_waits_and_where_to_see_it() -> None:
    refusal = refusal_of(earned(10).payout(DOLLAR // 2))

    assert (refusal.code, refusal.path) == (Code.INSUFFICIENT_FUNDS, "amount.amount")
    assert (refusal.required, refusal.remaining, refusal.asset) == ("0.5", "0", "USD")
    assert "0.975 USD waits" in refusal.message
    assert "list_charges" in refusal.message
    assert refusal.next_action is NextAction.WAIT


def test_who_asks_for_more_than_is_payable_is_told_to_ask_for_less() -> None:
    treasury = earned(10)
    treasury.room.advance(86_400)
    refusal = refusal_of(treasury.payout(DOLLAR))

    assert (refusal.required, refusal.remaining) == ("1", "0.975")
    assert "waits" not in refusal.message
    assert refusal.next_action is NextAction.REDUCE


def test_an_asset_in_which_nothing_was_earned_is_the_argument_at_fault() -> None:
    treasury = earned(10)
    euro = Money(amount="1", asset="EUR")
    foreign = treasury.ask(treasury.trade.vendor, "request_payout", amount=euro)
    nothing = treasury.payout(DOLLAR, by=treasury.trade.operator)
    held = Treasury(Trade.opened())
    held.trade.held(1)

    refused = [refusal_of(each) for each in (foreign, nothing, held.payout(1))]
    assert {each.code for each in refused} == {Code.ACCOUNT_UNKNOWN}
    assert [each.path for each in refused] == ["amount.asset", "account", "account"]


def test_who_closes_an_account_of_another_asset_is_told_that_the_asset_is_wrong() -> None:
    treasury = earned(10)
    refusal = refusal_of(treasury.close(treasury.trade.operator, "prepaid", "EUR"))

    assert (refusal.code, refusal.path) == (Code.ACCOUNT_UNKNOWN, "asset")


def test_a_refund_of_what_was_paid_out_says_how_much_is_left_of_it() -> None:
    treasury = earned(10)
    (charge_id,) = (each.charge_id for each in treasury.room.state.charges.values())
    treasury.room.advance(86_400)
    assert treasury.payout(DOLLAR // 2).refused is None
    refusal = refusal_of(treasury.refund(charge_id, DOLLAR))

    assert (refusal.code, refusal.path) == (Code.INSUFFICIENT_FUNDS, "amount.amount")
    assert (refusal.required, refusal.remaining, refusal.asset) == ("0.975", "0.475", "USD")
    assert "paid out" in refusal.message
    assert refusal.next_action is NextAction.REDUCE


def argument(call: Call, path: str) -> object:
    """What a dotted path names of a call; a member of a document it has is named alone."""
    name, *_ = path.split(".")
    return getattr(call.ask, name)


@pytest.mark.parametrize(
    "operation", ["accept_terms", "call_service", "open_session", "place_hold", "top_up_session"]
)
def test_what_may_not_be_bought_is_told_of_an_argument_that_the_call_has(operation: str) -> None:
    for wrong in WRONGS[operation]:
        call = ASKS[operation]()
        wrong.spoil(call)
        refusal = call.refused()
        if refusal.code not in {Code.FROZEN, Code.AUTHORITY_EXPIRED} or refusal.path:
            assert argument(call, refusal.path) is not None, wrong.says


@pytest.mark.parametrize(
    ("wrong", "path"),
    [("over the call", "per_call.amount"), ("over the day", "cap.amount")],
)
def test_each_limit_of_a_session_names_the_amount_that_is_above_it(wrong: str, path: str) -> None:
    assert spoilt("open_session", wrong).refused().path == path


@pytest.mark.parametrize("operation", ["call_service", "open_session", "place_hold"])
def test_whose_vendor_is_frozen_is_not_told_that_it_is_itself(operation: str) -> None:
    call = ASKS[operation]()
    frozen("vendor").spoil(call)
    refusal = call.refused()

    assert (refusal.code, refusal.path) == (Code.FROZEN, "agreement_id")
    assert refusal.message == "The vendor is frozen: nothing can be bought from it."
    assert refusal.next_action is NextAction.USE_OTHER_VENDOR
    frozen("agent").spoil(call)
    assert call.refused().message == Code.FROZEN.says


def test_terms_of_a_frozen_vendor_are_accepted_and_its_agreement_sets_nothing_aside() -> None:
    call = ASKS["accept_terms"]()
    frozen("vendor").spoil(call)
    trade = call.trade
    agreement_id = trade.room.agree(trade.agent, trade.listing_id)

    assert trade.room.hold(trade.agent, agreement_id, 1).code is Code.FROZEN
    call.turn("principals", trade.vendor.principal_id, frozen_by=())
    assert trade.room.hold(trade.agent, agreement_id, 1).code is None


def test_an_amount_in_another_asset_is_told_which_it_must_be() -> None:
    for operation, name in (("open_session", "cap"), ("refund_charge", "amount")):
        call = ASKS[operation]()
        amount(Code.ASSET_MISMATCH, name, asset="EUR").spoil(call)

        assert (call.refused().path, call.refused().required) == (f"{name}.asset", "USD")


# What a call has wrong by `WRONGS`, where the refusal points, and a word of what it says.
SAID = (
    ("unfreeze", "another's freeze", "principal_id", "frozen by another"),
    ("approve_allowance", "own proposal", "allowance_id", "other side approves"),
    ("approve_allowance", "absent allowance_id", "allowance_id", "proposal waits"),
    ("propose_allowance", "unknown meter", "in_all.0.meter", "no price for the meter minute"),
    ("accept_terms", "quoted from a position", "quote.agreement_id", "under an agreement"),
    ("accept_terms", "another's quote", "quote.buyer_id", "another buyer's"),
    ("close_account", "something waits on it", "account", "Nothing stands"),
    ("grant_credit", "ended before it begins", "expires_at", "ended before"),
    ("grant_credit", "absent organisation_id", "organisation_id", "no operator"),
    ("fund_account", "absent organisation_id", "organisation_id", "no operator"),
    ("set_grace", "absent organisation_id", "organisation_id", "no operator"),
    ("set_authority", "ended before it begins", "expires_at", "ended before"),
    ("propose_allowance", "ended before it begins", "expires_at", "ended before"),
    ("capture_hold", "overdue", "hold_id", "its buyer's again"),
    ("set_partner", "more than there is", "ppm", "975000 millionths"),
    ("set_partner", "its own partner", "partner_id", "own partner"),
    ("set_partner", "absent subject_id", "subject_id", "no vendor or listing"),
    ("set_partner", "absent partner_id", "partner_id", "no operator or vendor"),
    ("set_authority", "per_day_max {'asset': 'EUR'}", "per_day_max.asset", "one asset"),
    ("revoke_authority", "no grant", "asset", "no authority grant for this asset"),
    ("revoke_authority", "foreign agent_id", "agent_id", "may see"),
    ("refund_charge", "in dispute", "amount.amount", "in dispute"),
    ("refund_charge", "in many parts", "amount.amount", "the rest can be"),
    ("place_hold", "no workload", "workload", "No usage"),
    ("capture_hold", "held for fewer", "delivery.usage.page", "More of the meter page"),
    ("initiate_dispute", "nothing is left", "charge_id", "Nothing is left"),
    ("submit_evidence", "late", "dispute_id", "evidence is over"),
    ("request_payout", "vendor frozen", "", "paid out"),
    ("send_payout", "vendor frozen", "payout_id", "paid out"),
)


@pytest.mark.parametrize(("operation", "wrong", "path", "word"), SAID)
def test_what_is_wrong_is_said_of_the_argument_where_it_is(
    operation: str, wrong: str, path: str, word: str
) -> None:
    refusal = spoilt(operation, wrong).refused()

    assert refusal.path == path
    assert word in refusal.message


def test_a_capture_of_more_than_was_held_for_says_of_how_much() -> None:
    refusal = spoilt("capture_hold", "held for fewer").refused()

    assert (refusal.required, refusal.remaining) == ("2", "1")


def test_what_an_allowance_leaves_is_told_of_the_meter_that_would_pass_it() -> None:
    call = ASKS["place_hold"]()
    allowed_nothing(call)
    refusal = call.refused()

    assert (refusal.required, refusal.remaining, refusal.path) == ("2", "0", "workload")
    assert "0 of the meter page" in refusal.message
    assert refusal.next_action is NextAction.REDUCE


def test_less_is_not_the_way_on_from_an_allowance_that_has_ended() -> None:
    call = ASKS["place_hold"]()
    allowed_nothing(call)
    agreement_id = call.trade.agreement_id
    limits = structs.replace(call.state.allowances[agreement_id].limits, expires_at_us=1)
    call.turn("allowances", agreement_id, limits=limits)

    assert "has ended" in call.refused().message
    assert call.refused().next_action is NextAction.CONTACT_OPERATOR


def test_who_fails_a_payout_that_may_still_be_paid_is_told_to_wait_and_until_when() -> None:
    call = ASKS["fail_payout"]()
    just_sent(call)
    refusal = call.refused()

    assert parse_time(refusal.required) > call.trade.room.now_us
    assert refusal.next_action is NextAction.WAIT


def test_a_meter_that_would_count_too_far_is_told_how_far_it_counts() -> None:
    call = ASKS["place_hold"]()
    call.give(workload=(Usage(meter="page", quantity=str(10**16 - 1)),))

    assert str(10**15) in call.refused().message


def amounts(call: Call) -> dict[str, Money]:
    """The amounts that a call names."""
    members = {name: getattr(call.ask, name) for name in call.ask.__dataclass_fields__}
    return {name: each for name, each in members.items() if isinstance(each, Money)}
