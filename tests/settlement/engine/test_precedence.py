"""Bad input as a table: each its own code, and where several apply the first in precedence."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest

from farthing.protocol.errors import Code
from farthing.protocol.ledger import COUNTER_MAX
from farthing.protocol.messages.accounts import FUND_ACCOUNT, FundAccount
from farthing.protocol.messages.agents import FREEZE, Freeze
from farthing.protocol.messages.charges import REFUND_CHARGE, RefundCharge
from farthing.protocol.messages.holds import PLACE_HOLD, RELEASE_HOLD, PlaceHold, ReleaseHold
from farthing.protocol.money import INT64_MAX
from farthing.protocol.wire import Money, Role, Usage, money
from tests.construction import Trade
from tests.settlement.engine.treasurer import Treasury, card_of

PAGE = 2_000_000
ONE_PAGE = Money(amount="0.002", asset="USD")
ABSENT = "org_00000000000000000000000000"


@dataclass(slots=True)
class Case:
    """One call that is about to be made, and everything that can be wrong with it."""

    trade: Trade
    hold_id: str = ""
    charge_id: str = ""
    pages: int = 2
    meter: str = "page"
    amount: Money = ONE_PAGE
    owner: str = ""
    account: str = "prepaid"
    delivery: str = "b" * 64
    receiver: str = ""


Wrong = Callable[[Case], object]


def frozen(case: Case) -> object:
    ask = Freeze(
        principal_id=case.trade.agent.principal_id,
        reason="",
        idempotency_key=case.trade.room.key(),
    )
    return case.trade.room.done(case.trade.operator, FREEZE, ask)


def vendor_frozen(case: Case) -> object:
    ask = Freeze(
        principal_id=case.trade.vendor.principal_id,
        reason="",
        idempotency_key=case.trade.room.key(),
    )
    return case.trade.room.done(case.trade.room.staff(Role.ADMIN), FREEZE, ask)


def ended(case: Case) -> object:
    return case.trade.room.capture(case.trade.vendor, case.hold_id, 1)


def overdue(case: Case) -> object:
    return case.trade.room.advance(3_600)


def more_than_held(case: Case) -> None:
    case.pages = 3


def unknown_meter(case: Case) -> None:
    case.meter = "minute"


def another_listings(case: Case) -> None:
    case.delivery = "lst_00000000000000000000000000"


def too_many(case: Case) -> None:
    case.pages = 900_000_000_000_000


def poor(case: Case) -> None:
    case.pages = 100


def over_the_call(case: Case) -> object:
    return case.trade.room.grant(case.trade.operator, case.trade.agent, 1, 10**18)


def over_the_day(case: Case) -> object:
    return case.trade.room.grant(case.trade.operator, case.trade.agent, 10**18, 1)


def closed(case: Case) -> None:
    emptied(case)
    assert Treasury(case.trade).close(case.trade.operator, "prepaid").refused is None


def emptied(case: Case) -> None:
    """Spend all that the operator has, so that its account can be closed."""
    trade = case.trade
    units = trade.balance(trade.operator, "prepaid")
    card = card_of(money(units, "USD").amount)
    listing_id = trade.room.publish(trade.vendor, card=card, name="All there is")
    kept, trade.agreement_id = trade.agreement_id, trade.room.agree(trade.agent, listing_id)
    trade.captured(1)
    trade.agreement_id = kept


def full(case: Case) -> None:
    name = f"{case.trade.operator.principal_id}:prepaid:USD"
    account = case.trade.room.state.accounts[name]
    account.credits_posted += COUNTER_MAX - INT64_MAX
    account.debits_posted += COUNTER_MAX - INT64_MAX


def nothing(case: Case) -> None:
    case.amount = money(0, "USD")


def most(case: Case) -> None:
    case.amount = money(INT64_MAX, "USD")


def in_euros(case: Case) -> None:
    case.amount = Money(amount="0.001", asset="EUR")


def above_the_charge(case: Case) -> None:
    case.amount = Money(amount="9", asset=case.amount.asset)


def paid_out(case: Case) -> None:
    trade = case.trade
    trade.room.advance(86_400)
    available = trade.balance(trade.vendor, "vendor_payable")
    assert Treasury(trade).payout(available).refused is None


def unknown_owner(case: Case) -> None:
    case.owner = ABSENT


def no_account(case: Case) -> None:
    case.account = "partner_payable"


def place(case: Case) -> Any:
    trade = case.trade
    ask = PlaceHold(
        agreement_id=trade.agreement_id,
        workload=(Usage(meter=case.meter, quantity=str(case.pages)),),
        args_sha256="a" * 64,
        idempotency_key=trade.room.key(),
    )
    return trade.room.submit(trade.agent, PLACE_HOLD, ask)


def capture(case: Case) -> Any:
    other: dict[str, Any] = {"usage": {case.meter: case.pages}}
    if case.delivery.startswith("lst_"):
        other["listing_id"] = case.delivery
    return case.trade.room.capture(case.trade.vendor, case.hold_id, case.pages, **other)


def release(case: Case) -> Any:
    ask = ReleaseHold(hold_id=case.hold_id, idempotency_key=case.trade.room.key())
    return case.trade.room.submit(case.trade.vendor, RELEASE_HOLD, ask)


def refund(case: Case) -> Any:
    ask = RefundCharge(
        charge_id=case.charge_id, amount=case.amount, idempotency_key=case.trade.room.key()
    )
    return case.trade.room.submit(case.trade.vendor, REFUND_CHARGE, ask)


def fund(case: Case) -> Any:
    ask = FundAccount(
        organisation_id=case.owner or case.trade.operator.principal_id,
        amount=case.amount,
        reference="",
        idempotency_key=case.trade.room.key(),
    )
    return case.trade.room.submit(case.trade.room.staff(Role.TREASURER), FUND_ACCOUNT, ask)


def top_up(case: Case) -> Any:
    return Treasury(case.trade).ask(case.trade.operator, "create_top_up", amount=case.amount)


def payout(case: Case) -> Any:
    return Treasury(case.trade).ask(case.trade.vendor, "request_payout", amount=case.amount)


def close(case: Case) -> Any:
    return Treasury(case.trade).ask(
        case.trade.room.staff(Role.TREASURER),
        "close_account",
        organisation_id=case.owner or case.trade.operator.principal_id,
        account=case.account,
        asset="USD",
    )


# call, what is wrong with it (in the order in which it is brought about), the one answer
TABLE: tuple[tuple[Callable[[Case], Any], tuple[Wrong, ...], Code], ...] = (
    (place, (unknown_meter,), Code.USAGE_INVALID),
    (place, (unknown_meter, frozen), Code.USAGE_INVALID),
    (place, (too_many,), Code.AMOUNT_OVERFLOW),
    (place, (too_many, frozen, over_the_call), Code.AMOUNT_OVERFLOW),
    (place, (full,), Code.AMOUNT_OVERFLOW),
    (place, (frozen, over_the_call, poor), Code.FROZEN),
    (place, (over_the_call, poor), Code.PER_CALL_LIMIT_EXCEEDED),
    (place, (over_the_day, poor), Code.BUDGET_EXCEEDED),
    (place, (closed, over_the_day), Code.BUDGET_EXCEEDED),
    (place, (closed,), Code.ACCOUNT_CLOSED),
    (place, (poor,), Code.INSUFFICIENT_FUNDS),
    (capture, (ended,), Code.HOLD_RESOLVED),
    (capture, (ended, overdue, more_than_held), Code.HOLD_RESOLVED),
    (capture, (overdue,), Code.HOLD_EXPIRED),
    (capture, (overdue, another_listings, more_than_held), Code.HOLD_EXPIRED),
    (capture, (another_listings, unknown_meter), Code.DELIVERY_INVALID),
    (capture, (another_listings, more_than_held), Code.DELIVERY_INVALID),
    (capture, (unknown_meter,), Code.USAGE_INVALID),
    (capture, (unknown_meter, more_than_held), Code.USAGE_INVALID),
    (capture, (too_many,), Code.AMOUNT_OVERFLOW),
    (capture, (more_than_held,), Code.CAPTURE_EXCEEDS_HOLD),
    (release, (ended,), Code.HOLD_RESOLVED),
    (release, (overdue,), Code.HOLD_EXPIRED),
    (refund, (nothing,), Code.INVALID_AMOUNT),
    (refund, (in_euros,), Code.ASSET_MISMATCH),
    (refund, (in_euros, above_the_charge), Code.ASSET_MISMATCH),
    (refund, (above_the_charge,), Code.REFUND_EXCEEDS_CHARGE),
    (refund, (paid_out, above_the_charge), Code.REFUND_EXCEEDS_CHARGE),
    (refund, (paid_out,), Code.INSUFFICIENT_FUNDS),
    (fund, (nothing, unknown_owner), Code.INVALID_AMOUNT),
    (fund, (unknown_owner,), Code.NOT_FOUND),
    (fund, (most, full), Code.AMOUNT_OVERFLOW),
    (fund, (closed, full, most), Code.AMOUNT_OVERFLOW),
    (fund, (closed,), Code.ACCOUNT_CLOSED),
    (top_up, (nothing,), Code.INVALID_AMOUNT),
    (top_up, (full, most), Code.AMOUNT_OVERFLOW),
    (top_up, (closed,), Code.ACCOUNT_CLOSED),
    (payout, (nothing,), Code.INVALID_AMOUNT),
    (payout, (vendor_frozen, in_euros), Code.FROZEN),
    (payout, (in_euros,), Code.ACCOUNT_UNKNOWN),
    (payout, (), Code.INSUFFICIENT_FUNDS),
    (payout, (paid_out, most), Code.INSUFFICIENT_FUNDS),
    (close, (unknown_owner, no_account), Code.NOT_FOUND),
    (close, (no_account,), Code.ACCOUNT_UNKNOWN),
    (close, (), Code.ACCOUNT_IN_USE),
)


def named(row: tuple[Callable[[Case], Any], Iterable[Wrong], Code]) -> str:
    call, wrongs, _ = row
    return " ".join([call.__name__, *(each.__name__ for each in wrongs)])


@pytest.mark.parametrize(("call", "wrongs", "code"), TABLE, ids=map(named, TABLE))
def test_bad_input_has_one_answer_and_no_effect(
    call: Callable[[Case], Any], wrongs: tuple[Wrong, ...], code: Code
) -> None:
    trade = Trade.opened(funds=10 * PAGE)
    case = Case(trade)
    if call is refund:
        case.charge_id = trade.captured(2)
    elif call in {capture, release}:
        case.hold_id = trade.held(2)
    elif call is payout:
        trade.captured(2)
    for wrong in wrongs:
        wrong(case)
    before = {name: repr(account) for name, account in trade.room.state.accounts.items()}
    answer = call(case)

    assert answer.code is code
    assert {name: repr(account) for name, account in trade.room.state.accounts.items()} == before


@pytest.mark.parametrize("call", sorted({call.__name__ for call, _, _ in TABLE}))
def test_every_call_of_the_table_succeeds_with_nothing_wrong(call: str) -> None:
    trade = Trade.opened(funds=10 * PAGE)
    case = Case(trade)
    case.charge_id = trade.captured(2)
    case.hold_id = trade.held(2)
    calls = {each.__name__: each for each, _, _ in TABLE}
    if call == "payout":
        trade.room.advance(86_400)
    if call == "close":
        ended(case)
        emptied(case)
    answer = calls[call](case)

    assert answer.refused is None


def test_the_table_is_in_the_order_of_precedence() -> None:
    """Within one call, more that is wrong never gives a later code."""
    for call, wrongs, code in TABLE:
        for other, fewer, alone in TABLE:
            if call is other and set(fewer) < set(wrongs):
                assert code.precedence <= alone.precedence, named((call, wrongs, code))
