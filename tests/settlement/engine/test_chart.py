"""Credit lots, grace, shares and closing: every posting by the chart of spec/ledger.md."""

import re
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from farthing.identity.callers import Caller
from farthing.protocol.authority.standing import Standing
from farthing.protocol.errors import Code, NextAction
from farthing.protocol.ledger import AccountKind, fold, imbalances
from farthing.protocol.messages.disputes import INITIATE_DISPUTE, InitiateDispute
from farthing.protocol.money import parse_units
from farthing.protocol.records import parse_record
from farthing.protocol.times import DAY_US, format_time
from farthing.settlement.engine.lots import lot_view
from farthing.settlement.engine.packing import pack, unpack
from farthing.settlement.engine.questions import StandingOf
from farthing.settlement.engine.standing import answer
from farthing.settlement.engine.state import State, evolve
from tests.construction import Trade
from tests.settlement.engine.treasurer import DOLLAR, Treasury, card_of

CHAPTER = Path(__file__).resolve().parents[3] / "spec" / "ledger.md"
PARTNER_PPM = 50_000


def dollar_trade(**opened: Any) -> tuple[Treasury, Caller]:
    """A market whose page costs a dollar and whose vendor has a partner."""
    trade = Trade.opened(
        **{"funds": 20 * DOLLAR, "per_call": 100 * DOLLAR, "per_day": 10**12, **opened}
    )
    treasury = Treasury(trade)
    partner = trade.room.organisation("operator", "Operator Two")
    assert treasury.partner(partner, PARTNER_PPM).refused is None
    listing_id = trade.room.publish(trade.vendor, card=card_of("1"), name="Dear pages")
    trade.agreement_id = trade.room.agree(trade.agent, listing_id)
    return treasury, partner


def tomorrow(treasury: Treasury) -> str:
    return format_time(treasury.room.now_us + DAY_US)


def test_the_worked_example_of_the_chapter_comes_out_to_the_unit() -> None:
    treasury, partner = dollar_trade(funds=1)
    # The market is opened with one unit, which is paid out of the example's twenty.
    top_up_id = treasury.top_up(20 * DOLLAR - 1)
    treasury.event(top_up_id, "paid", "evt_1")
    treasury.grant_credit(10 * DOLLAR, expires_at=tomorrow(treasury))
    treasury.grant_credit(5 * DOLLAR, "promotional", priority=0)
    charge_id = treasury.trade.captured(12)
    assert treasury.refund(charge_id, 6 * DOLLAR).refused is None
    treasury.room.advance(2 * 86_400)

    names = {
        "operator": treasury.trade.operator.principal_id,
        "partner": partner.principal_id,
        "platform": "platform",
        "vendor": treasury.trade.vendor.principal_id,
    }
    table = re.findall(
        r"^\| `(\w+):(\w+)` \| ([\d.]+) \| ([\d.]+) \| (-?)([\d.]+) \|$",
        CHAPTER.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    accounts = treasury.room.state.accounts
    assert len(table) == len(accounts)
    for owner, kind, debits, credits_, sign, balance in table:
        account = accounts[f"{names[owner]}:{kind}:USD"]
        assert account.debits_posted == parse_units(debits, "USD")
        assert account.credits_posted == parse_units(credits_, "USD")
        assert account.posted_units == (-1 if sign else 1) * parse_units(balance, "USD")


def test_the_chart_names_every_kind_of_account() -> None:
    named = set(
        re.findall(r"^\| `(\w+)` \| \w+ \| (?:credit|debit) \|", CHAPTER.read_text(), re.MULTILINE)
    )

    assert named == {kind.value for kind in AccountKind}


def test_a_charge_is_shared_in_the_one_record_of_its_capture() -> None:
    treasury, partner = dollar_trade()
    record = treasury.room.capture(treasury.trade.vendor, treasury.trade.held(10), 10)
    posted = {each.credit: each.units for each in record.moved if each.movement == "post"}

    assert posted == {
        f"{treasury.trade.vendor.principal_id}:vendor_pending:USD": 9_250_000_000,
        "platform:platform_fee:USD": 250_000_000,
        f"{partner.principal_id}:partner_pending:USD": 500_000_000,
    }


def test_a_partner_named_later_has_no_share_of_what_was_agreed_before() -> None:
    trade = Trade.opened()
    partner = trade.room.organisation("operator", "Operator Two")
    assert Treasury(trade).partner(partner, PARTNER_PPM).refused is None
    charge = trade.room.state.charges[trade.captured(3)]

    assert charge.tail is None
    assert trade.balance(partner, "partner_pending") == 0


def test_the_listings_partner_goes_before_the_vendors_and_nought_is_nobody() -> None:
    treasury, _ = dollar_trade()
    other = treasury.room.organisation("vendor", "Vendor Two")
    trade = treasury.trade
    listing_id = trade.room.publish(trade.vendor, card=card_of("1"), name="Partner's pages")
    assert treasury.partner(other, 10_000, listing_id).refused is None
    trade.agreement_id = trade.room.agree(trade.agent, listing_id)
    trade.captured(1)
    assert trade.balance(other, "partner_pending") == 10_000_000
    assert treasury.partner(other, 0, listing_id).refused is None
    trade.agreement_id = trade.room.agree(trade.agent, listing_id)
    trade.captured(1)
    assert trade.balance(other, "partner_pending") == 10_000_000


def test_fee_and_partner_together_are_at_most_the_whole() -> None:
    treasury, partner = dollar_trade()

    assert treasury.partner(partner, 975_001).code is Code.INVALID_ARGUMENT
    assert treasury.partner(partner, 975_000).refused is None
    assert treasury.partner(treasury.trade.vendor, 1).code is Code.INVALID_ARGUMENT


@given(st.integers(1, 7), st.lists(st.integers(1, 4 * DOLLAR), max_size=4))
def test_given_back_in_parts_every_share_is_given_back_whole(pages: int, parts: list[int]) -> None:
    treasury, partner = dollar_trade()
    before = treasury.balances()
    charge_id = treasury.trade.captured(pages)
    left = pages * DOLLAR
    for part in [*parts, pages * DOLLAR]:
        if left:
            assert treasury.refund(charge_id, min(part, left)).refused is None
            left -= min(part, left)

    assert treasury.balances() == before
    assert treasury.trade.balance(partner, "partner_pending") == 0


def test_a_share_that_its_partner_was_paid_is_not_given_back() -> None:
    treasury, partner = dollar_trade()
    charge_id = treasury.trade.captured(6)
    treasury.room.advance(2 * 86_400)
    share = treasury.trade.balance(partner, "partner_payable")
    assert treasury.payout(share, partner, account="partner_payable").refused is None
    refused = treasury.refund(charge_id, 6 * DOLLAR).refusal
    assert refused is not None
    assert (refused.code, refused.remaining) == (Code.INSUFFICIENT_FUNDS, "")
    assert refused.next_action is NextAction.WAIT


def test_a_disputed_share_waits_in_escrow_and_a_ruling_gives_each_back_its_part() -> None:
    treasury, partner = dollar_trade()
    treasury.grant_credit(4 * DOLLAR)
    before = treasury.balances()
    charge_id = treasury.trade.captured(6)
    ask = InitiateDispute(
        charge_id=charge_id, reason="not_delivered", idempotency_key=treasury.room.key()
    )
    treasury.room.done(treasury.trade.agent, INITIATE_DISPUTE, ask)
    assert treasury.trade.balance("platform", "dispute_escrow") == 6 * DOLLAR
    assert treasury.trade.balance(partner, "partner_pending") == 0
    treasury.room.advance(3601)

    assert treasury.balances() == before
    (lot,) = treasury.room.state.lots.values()
    assert lot.free_units == 4 * DOLLAR


def test_lots_are_spent_by_priority_then_end_then_age_and_before_money() -> None:
    treasury, _ = dollar_trade()
    never = treasury.grant_credit(DOLLAR)
    late = treasury.grant_credit(DOLLAR, expires_at=format_time(treasury.room.now_us + 2 * DAY_US))
    soon = treasury.grant_credit(DOLLAR, expires_at=tomorrow(treasury))
    first = treasury.grant_credit(DOLLAR, "promotional", priority=1)
    younger = treasury.grant_credit(DOLLAR)
    hold = treasury.room.state.holds[treasury.trade.held(7)]

    assert [each.lot_id for each in hold.drawn] == [first, soon, late, *sorted([never, younger])]
    assert treasury.trade.balance(treasury.trade.operator, "prepaid") == 18 * DOLLAR


def test_what_a_hold_has_drawn_is_spent_by_nobody_else_and_comes_back() -> None:
    treasury, _ = dollar_trade(funds=1)
    lot_id = treasury.grant_credit(5 * DOLLAR)
    hold_id = treasury.trade.held(4)
    refused = treasury.room.hold(treasury.trade.agent, treasury.trade.agreement_id, 2)
    assert refused.code is Code.INSUFFICIENT_FUNDS
    treasury.room.capture(treasury.trade.vendor, hold_id, 1)
    lot = treasury.room.state.lots[lot_id]
    assert (lot.free_units, lot.held_units) == (4 * DOLLAR, 0)


def test_a_lot_that_ends_under_an_open_hold_still_pays_it_and_the_rest_is_breakage() -> None:
    treasury, _ = dollar_trade(funds=1)
    expires_at = format_time(treasury.room.now_us + 10_000_000)
    lot_id = treasury.grant_credit(5 * DOLLAR, expires_at=expires_at)
    hold_id = treasury.trade.held(4)
    (record,) = treasury.room.advance(20)
    assert record.operation == "expire_lot"
    assert treasury.trade.balance("platform", "breakage") == DOLLAR
    treasury.room.capture(treasury.trade.vendor, hold_id, 3)
    treasury.room.advance(0)
    assert treasury.trade.balance("platform", "breakage") == 2 * DOLLAR
    ended = lot_view(treasury.room.state.lots[lot_id])
    assert (ended.spent.amount, ended.expired.amount) == ("3", "2")
    assert treasury.trade.balance(treasury.trade.operator, "deferred_revenue") == 0


def test_a_refund_unwinds_the_order_of_consumption() -> None:
    treasury, _ = dollar_trade()
    first = treasury.grant_credit(2 * DOLLAR, priority=1)
    second = treasury.grant_credit(2 * DOLLAR, "promotional", priority=2)
    charge_id = treasury.trade.captured(5)
    lots = treasury.room.state.lots
    found = []
    for _ in range(5):
        treasury.refund(charge_id, DOLLAR)
        money = treasury.trade.balance(treasury.trade.operator, "prepaid")
        found.append((money, lots[second].free_units, lots[first].free_units))

    assert [tuple(each // DOLLAR for each in one) for one in found] == [
        (20, 0, 0), (20, 1, 0), (20, 2, 0), (20, 2, 1), (20, 2, 2),
    ]  # fmt: skip


def test_credit_stands_on_its_account_until_it_is_spent_or_ends() -> None:
    treasury, _ = dollar_trade()
    treasury.grant_credit(3 * DOLLAR, "promotional")
    treasury.grant_credit(3 * DOLLAR, expires_at=tomorrow(treasury))
    treasury.trade.captured(4)
    treasury.trade.held(1)
    lots = treasury.room.state.lots.values()
    for kind in ("deferred_revenue", "promotional_credit"):
        left = sum(each.free_units + each.held_units for each in lots if each.kind == kind)
        name = f"{treasury.trade.operator.principal_id}:{kind}:USD"
        assert treasury.room.state.accounts[name].posted_units == left


def test_a_grace_is_spent_after_money_and_no_further() -> None:
    treasury, _ = dollar_trade(funds=DOLLAR)
    assert treasury.grace(3 * DOLLAR).refused is None
    treasury.trade.held(4)
    refused = treasury.room.hold(treasury.trade.agent, treasury.trade.agreement_id, 1)
    assert refused.code is Code.INSUFFICIENT_FUNDS
    assert refused.refusal.remaining == "0"
    assert treasury.trade.balance(treasury.trade.operator, "prepaid") == -3 * DOLLAR
    lowered = treasury.grace(2 * DOLLAR)
    assert lowered.code is Code.INSUFFICIENT_FUNDS
    assert lowered.refusal is not None
    assert lowered.refusal.required == "3"


def test_what_an_agent_is_told_it_has_left_is_what_a_hold_can_draw_on() -> None:
    treasury, _ = dollar_trade(funds=DOLLAR)
    treasury.grace(2 * DOLLAR)
    treasury.grant_credit(4 * DOLLAR)
    treasury.grant_credit(8 * DOLLAR, "promotional")
    question: Any = StandingOf(principal_id=treasury.trade.agent.principal_id)
    before = answer(treasury.room.state, question, treasury.room.now_us)
    treasury.trade.held(14)
    after = answer(treasury.room.state, question, treasury.room.now_us)
    assert isinstance(before, Standing)
    assert isinstance(after, Standing)
    assert before.available_units == {"USD": 15 * DOLLAR}
    assert (after.available_units, after.pending_units) == ({"USD": DOLLAR}, {"USD": 14 * DOLLAR})


def test_an_operator_chooses_less_than_it_is_granted_and_never_more() -> None:
    treasury, _ = dollar_trade(funds=DOLLAR)
    operator = treasury.trade.operator
    assert treasury.grace(5 * DOLLAR, operator).refused is None
    assert not any(treasury.room.state.grace_units.values())
    assert treasury.grace(3 * DOLLAR).refused is None
    assert set(treasury.room.state.grace_units.values()) == {3 * DOLLAR}
    assert treasury.grace(2 * DOLLAR, operator).refused is None
    assert set(treasury.room.state.grace_units.values()) == {2 * DOLLAR}
    stranger = treasury.room.organisation("operator", "Operator Three")
    assert treasury.grace(1, stranger).code is Code.NOT_FOUND


def test_on_a_closed_account_nothing_new_begins_and_what_was_begun_ends() -> None:
    treasury, _ = dollar_trade(funds=2 * DOLLAR)
    trade = treasury.trade
    assert treasury.close(trade.operator, "prepaid").code is Code.ACCOUNT_IN_USE
    charge_id = trade.captured(2)
    assert treasury.close(trade.operator, "prepaid").refused is None
    assert trade.room.hold(trade.agent, trade.agreement_id, 1).code is Code.ACCOUNT_CLOSED
    assert treasury.refund(charge_id, DOLLAR).refused is None
    assert trade.balance(trade.operator, "prepaid") == DOLLAR
    assert trade.room.hold(trade.agent, trade.agreement_id, 1).code is Code.ACCOUNT_CLOSED


def test_the_journal_and_a_snapshot_give_the_same_state() -> None:
    treasury, partner = dollar_trade()
    treasury.grace(DOLLAR)
    treasury.grant_credit(3 * DOLLAR, expires_at=tomorrow(treasury))
    treasury.trade.captured(4)
    treasury.trade.held(2)
    treasury.top_up(DOLLAR)
    treasury.close(partner, "partner_payable")
    live = treasury.room.state
    replayed = State()
    records = [parse_record(line)[0] for line in treasury.room.journal]
    for record in records:
        evolve(replayed, record)
    unpacked = unpack(pack(live), lambda seq: records[seq - 1])
    for name in (
        "accounts", "lots", "free_lots", "graces", "grace_units", "closures", "partners",
        "top_ups", "payouts", "holds", "charges", "agreements",
    ):  # fmt: skip
        assert getattr(replayed, name) == getattr(live, name)
        assert getattr(unpacked, name) == getattr(live, name)
    assert not imbalances(live.accounts)
    moved = (each for record in records for each in record.moved)
    assert fold(moved, live.grace_units) == live.accounts
