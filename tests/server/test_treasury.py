"""The treasury over the real server: who may, money by hand, the books at any record."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from farthing.clients.operators import Operator
from farthing.clients.transport import Connection
from farthing.clients.treasurers import Treasurer
from farthing.protocol.errors import Code, Refused, Unverified
from farthing.protocol.messages import payments, treasury
from farthing.protocol.messages.accounts import GET_TRIAL_BALANCE, GetTrialBalance, TrialBalance
from farthing.protocol.money import parse_units
from farthing.protocol.wire import Money, Operation, Role
from farthing.settlement.engine.questions import AllAccounts, FiguresNow
from tests.server.listening import held
from tests.serving import Serving, Shop, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

STAFF = (Role.ADMIN, Role.TREASURER)
FIVE = Money(amount="5", asset="USD")
OPERATIONS = {
    each.name: each
    for noun in (payments, treasury)
    for each in vars(noun).values()
    if isinstance(each, Operation)
}
WRITES = {
    "close_account", "confirm_payout", "confirm_top_up", "fail_payout", "fail_top_up",
    "grant_credit", "reverse_payout", "reverse_top_up", "send_payout", "withdraw_credit",
}  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    async with held(serving(tmp_path_factory.mktemp("treasury"))) as server:
        yield await Shop.opened(server)


def callers(shop: Shop) -> dict[Role, Connection]:
    return {
        Role.ADMIN: shop.serving.staff(Role.ADMIN),
        Role.BUYER: shop.buyer.connection,
        Role.OPERATOR: shop.operator.connection,
        Role.TREASURER: shop.serving.staff(Role.TREASURER),
        Role.VENDOR: shop.vendor.connection,
    }


def arguments(shop: Shop, operation: Operation[Any, Any]) -> dict[str, Any]:
    """Arguments of the right form, of things that are not there where an id is asked for."""
    given = {
        "account": "prepaid",
        "amount": FIVE,
        "asset": "USD",
        "idempotency_key": shop.operator.connection.new_key(),
        "kind": "bought",
        "lot_id": f"lot_{'0' * 26}",
        "organisation_id": shop.operator.connection.principal,
        "partner_id": shop.operator.connection.principal,
        "payout_id": f"pay_{'0' * 26}",
        "ppm": 1,
        "subject_id": f"org_{'0' * 26}",
        "top_up_id": f"top_{'0' * 26}",
        "total": FIVE,
    }
    names = operation.ask.__dataclass_fields__
    found = {name: value for name, value in given.items() if name in names}
    if operation.name == "request_payout":
        del found["account"]
    return found


async def test_what_moves_the_platforms_money_is_the_treasurers_alone() -> None:
    assert {name for name in OPERATIONS if OPERATIONS[name].roles == {Role.TREASURER}} == WRITES
    assert OPERATIONS["set_partner"].roles == {Role.ADMIN}


@pytest.mark.parametrize("role", [role for role in Role if role not in {"anyone", "newcomer"}])
@pytest.mark.parametrize("name", OPERATIONS)
async def test_an_operation_is_called_by_its_roles_alone(shop: Shop, name: str, role: Role) -> None:
    operation = OPERATIONS[name]
    before = await shop.serving.service.market.ask(AllAccounts())
    code = None
    try:
        ask = operation.ask(**arguments(shop, operation))
        await callers(shop)[role].call(operation, ask)
    except Refused as refused:
        code = refused.code

    assert (code is Code.NOT_PERMITTED) == (role not in operation.roles)
    if code is not None:
        after = await shop.serving.service.market.ask(AllAccounts())
        assert after.accounts == before.accounts


async def test_money_by_hand_comes_and_goes_in_two_phases(shop: Shop) -> None:
    treasurer = shop.serving.treasurer
    top_up = await shop.operator.create_top_up(FIVE)
    assert (top_up.status, top_up.url) == ("pending", "")
    confirmed = await treasurer.confirm_top_up(top_up.top_up_id, "wire-42")
    assert (confirmed.status, confirmed.reference) == ("posted", "wire-42")
    listed = await treasurer.top_ups()
    assert listed.top_ups[0] == confirmed
    assert (await shop.operator.top_ups()).top_ups[0] == confirmed
    with pytest.raises(Refused) as refused:
        await treasurer.fail_top_up(top_up.top_up_id)
    assert refused.value.code is Code.PAYMENT_RESOLVED


async def test_money_by_hand_goes_back_as_far_as_it_is_said_in_all(shop: Shop) -> None:
    treasurer, one = shop.serving.treasurer, Money(amount="1", asset="USD")
    operator = Operator(await shop.serving.organisation("operator", "Operator Four"))
    top_up = await operator.create_top_up(FIVE)
    await treasurer.confirm_top_up(top_up.top_up_id)
    part = await treasurer.reverse_top_up(top_up.top_up_id, one, "wire-44")
    assert (part.status, part.reversed) == ("posted", one)
    whole = await treasurer.reverse_top_up(top_up.top_up_id, FIVE, may_owe=True)
    assert (await operator.top_ups()).top_ups == (whole,)
    with pytest.raises(Refused, match="already") as refused:
        await treasurer.reverse_top_up(top_up.top_up_id, FIVE)
    assert refused.value.code is Code.PAYMENT_RESOLVED
    with pytest.raises(Refused) as nothing:
        await treasurer.reverse_payout(f"pay_{'0' * 26}", one)
    assert nothing.value.code is Code.NOT_FOUND


async def test_a_partner_is_known_to_the_vendor_itself_and_staff_alone(shop: Shop) -> None:
    partner = Treasurer(await shop.serving.organisation("operator", "Operator Partner"))
    vendor_id, listing_id = shop.vendor.vendor_id, shop.listing_id
    stranger = await shop.serving.organisation("vendor", "Vendor Stranger")
    concerned = [shop.vendor.connection, partner.connection, *map(shop.serving.staff, STAFF)]

    async def asked(by: Connection, subject_id: str) -> treasury.PartnerView:
        return await Treasurer(by).partner(subject_id)

    partner_id = partner.connection.principal
    with pytest.raises(Refused):
        await shop.vendor.partner()
    for subject_id, ppm in ((vendor_id, 20_000), (listing_id, 50_000)):
        named = await shop.serving.admin.set_partner(subject_id, partner_id, ppm)
        # What is said of a vendor holds on a listing of which nothing is.
        for asked_of in {subject_id, listing_id}:
            for each in concerned:
                assert await asked(each, asked_of) == replace(named, subject_id=asked_of)
        for unconcerned in (stranger, shop.operator.connection):
            with pytest.raises(Refused) as refused:
                await asked(unconcerned, subject_id)
            assert refused.value.code is Code.NOT_FOUND


async def test_nobody_sees_anothers_payments(shop: Shop) -> None:
    stranger = await shop.serving.organisation("operator", "Operator Three")
    ask = payments.ListTopUps(organisation_id=shop.operator.connection.principal)
    with pytest.raises(Refused) as refused:
        await stranger.call(payments.LIST_TOP_UPS, ask)
    assert refused.value.code is Code.NOT_FOUND


async def test_a_lot_is_listed_with_what_became_of_it(shop: Shop) -> None:
    organisation_id = shop.operator.connection.principal
    credits_ = Money(amount="2.5", asset="CRD")
    lot = await shop.serving.treasurer.grant_credit(
        organisation_id, credits_, kind="promotional", priority=1
    )
    (mine,) = [each for each in (await shop.operator.credit_lots()).lots if each == lot]
    assert (mine.amount, mine.free) == (credits_, credits_)
    assert (await shop.serving.treasurer.credit_lots(organisation_id)).lots[0] == lot


async def test_the_trial_balance_of_a_record_is_what_it_was_then(shop: Shop) -> None:
    treasurer, market = shop.serving.treasurer, shop.serving.service.market
    asked = []
    for number in range(3):
        await treasurer.fund(shop.operator.connection.principal, FIVE, f"wire-{number}")
        asked.append(await treasurer.trial_balance())
    for now in asked:
        then = await treasurer.trial_balance(now.as_of_seq)
        assert then == now
        assert then.balanced
    first = await treasurer.trial_balance(1)
    assert (first.rows, first.as_of_seq) == ((), 1)
    seq = (await market.ask(FiguresNow())).seq
    with pytest.raises(Refused) as refused:
        await treasurer.trial_balance(seq + 1)
    assert refused.value.code in {Code.INVALID_ARGUMENT, Code.UNAVAILABLE}


async def test_a_small_market_is_one_page_and_says_what_each_asset_adds_up_to(shop: Shop) -> None:
    treasurer = shop.serving.treasurer
    await treasurer.fund(shop.operator.connection.principal, FIVE, "wire")
    await treasurer.fund(shop.operator.connection.principal, Money(amount="7", asset="EUR"), "wire")

    page = await treasurer.connection.call(GET_TRIAL_BALANCE, GetTrialBalance())

    assert page.cursor == ""
    assert page == await shop.serving.admin.trial_balance()
    assert {"EUR", "USD"} <= {each.asset for each in page.totals}
    for total in page.totals:
        rows = [each for each in page.rows if each.asset == total.asset]
        debits = sum(parse_units(each.debits_posted, each.asset) for each in rows)
        assert parse_units(total.debits_posted, total.asset) == debits
        assert (total.debits_posted, total.debits_pending) == (
            total.credits_posted,
            total.credits_pending,
        )


async def test_pages_of_a_trial_balance_are_of_the_first_ones_record_whatever_is_done_between(
    shop: Shop,
) -> None:
    treasurer, organisation_id = shop.serving.treasurer, shop.operator.connection.principal
    await treasurer.fund(organisation_id, FIVE, "wire")
    whole = await treasurer.trial_balance()
    ask = GetTrialBalance(limit=2)
    pages = [await treasurer.connection.call(GET_TRIAL_BALANCE, ask)]
    while pages[-1].cursor:
        # Another account of each organisation, some before the page and some behind it.
        await treasurer.grant_credit(
            organisation_id, Money(amount="1", asset="JPY"), kind="promotional", priority=1
        )
        await treasurer.fund(organisation_id, FIVE, "wire")
        ask = replace(ask, cursor=pages[-1].cursor)
        pages.append(await treasurer.connection.call(GET_TRIAL_BALANCE, ask))

    assert len(pages) > 2
    assert [row for page in pages for row in page.rows] == list(whole.rows)
    for page in pages:
        assert (page.totals, page.balanced) == (whole.totals, True)
        assert page.as_of_seq == whole.as_of_seq


async def test_a_cursor_of_another_record_or_of_one_to_come_is_refused(shop: Shop) -> None:
    connection = shop.serving.treasurer.connection
    page = await connection.call(GET_TRIAL_BALANCE, GetTrialBalance(limit=1))
    seq, _, after = page.cursor.partition("-")

    for ask in (
        GetTrialBalance(at_seq=int(seq) - 1, cursor=page.cursor),
        GetTrialBalance(cursor=f"{int(seq) + 1000}-{after}"),
    ):
        with pytest.raises(Refused) as refused:
            await connection.call(GET_TRIAL_BALANCE, ask)
        assert (refused.value.code, refused.value.refusal.path) == (Code.INVALID_ARGUMENT, "cursor")
    again = GetTrialBalance(at_seq=int(seq), cursor=page.cursor)
    assert (await connection.call(GET_TRIAL_BALANCE, again)).as_of_seq == int(seq)


class Paged(Connection):
    """A connection to a platform whose pages are short, and which may tell of them otherwise."""

    tells: Callable[[TrialBalance], TrialBalance] | None = None

    async def call(self, operation: Any, ask: Any) -> Any:
        page = await super().call(operation, replace(ask, limit=3))
        return self.tells(page) if self.tells else page


async def test_a_trial_balance_of_many_pages_is_one_and_each_row_of_it_counts(shop: Shop) -> None:
    staff = shop.serving.treasurer.connection
    whole = await shop.serving.treasurer.trial_balance()
    short = Paged(staff.url, signer=staff.signer, http=shop.serving.http)
    treasurer = Treasurer(short)

    assert len(whole.rows) > 3
    assert await treasurer.trial_balance() == whole
    assert await treasurer.trial_balance(whole.as_of_seq) == whole


def with_each(page: TrialBalance, **members: str) -> TrialBalance:
    return replace(
        page,
        rows=tuple(replace(each, **members) for each in page.rows),
        totals=tuple(replace(each, **members) for each in page.totals),
    )


@pytest.mark.parametrize(
    ("tells", "found"),
    [
        (lambda page: replace(page, rows=page.rows[1:]), "do not add up"),
        (lambda page: replace(page, balanced=False), "not as balanced"),
        (partial(with_each, debits_pending="1"), "do not add up"),
        (partial(with_each, asset="ZZZ"), "not all amounts"),
        (partial(with_each, credits_posted="many"), "not all amounts"),
    ],
)
async def test_a_trial_balance_that_is_told_otherwise_does_not_verify(
    shop: Shop, tells: Callable[[TrialBalance], TrialBalance], found: str
) -> None:
    staff = shop.serving.treasurer.connection
    lying = Paged(staff.url, signer=staff.signer, http=shop.serving.http)
    lying.tells = tells

    with pytest.raises(Unverified, match=found):
        await Treasurer(lying).trial_balance()


async def test_a_treasury_that_starts_again_knows_what_was_pending(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    async with serving(folder) as server:
        operator = (await Shop.opened(server)).operator
        top_up = await operator.create_top_up(FIVE)
    async with serving(folder) as server:
        again: Serving = server
        confirmed = await again.treasurer.confirm_top_up(top_up.top_up_id)
        assert confirmed.status == "posted"
