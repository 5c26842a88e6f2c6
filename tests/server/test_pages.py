"""What a party has, page by page: all of it, once, newest first, and nobody else's."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from farthing.clients.operators import Operator
from farthing.clients.transport import Connection
from farthing.protocol.errors import Code, Refused
from farthing.protocol.messages.agreements import LIST_AGREEMENTS, Agreement, ListAgreements
from farthing.protocol.messages.charges import LIST_CHARGES
from farthing.protocol.messages.disputes import INITIATE_DISPUTE, LIST_DISPUTES, InitiateDispute
from farthing.protocol.messages.holds import LIST_HOLDS
from farthing.protocol.messages.payments import LIST_PAYOUTS, LIST_TOP_UPS, ListTopUps
from farthing.protocol.messages.sessions import LIST_SESSIONS, OPEN_SESSION, OpenSession
from farthing.protocol.messages.treasury import LIST_CREDIT_LOTS
from farthing.protocol.wire import Money, Operation
from farthing.settlement.engine.questions import FiguresNow
from farthing.settlement.reports.listed import fold_listed
from tests.server.listening import held
from tests.serving import Shop, serving

HOLDS = 7
CHARGES = 5
SESSIONS = 3
USD = Money(amount="1", asset="USD")
# Where each listing has its things.
THINGS = {
    LIST_AGREEMENTS: "agreements",
    LIST_CHARGES: "charges",
    LIST_DISPUTES: "disputes",
    LIST_HOLDS: "holds",
    LIST_SESSIONS: "sessions",
    LIST_CREDIT_LOTS: "lots",
    LIST_PAYOUTS: "payouts",
    LIST_TOP_UPS: "top_ups",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    async with held(serving(tmp_path_factory.mktemp("pages"))) as server:
        made = await Shop.opened(server, balance="100", per_call="5", per_day="100")
        for _ in range(2):
            await trade(made)
        for _ in range(SESSIONS):
            await made.operator.create_top_up(USD)
            await server.treasurer.grant_credit(
                made.operator.connection.principal, USD, kind="promotional"
            )
        yield made


async def trade(shop: Shop) -> Agreement:
    """An agreement, holds, charges, a dispute and sessions under it."""
    buyer = shop.buyer.connection
    agreement = await shop.buyer.accept(await shop.buyer.quote(shop.listing_id, {"page": 1}))
    for number in range(HOLDS):
        hold = await shop.buyer.hold(agreement.agreement_id, {"page": 1}, {"call": str(number)})
        if number < CHARGES:
            hold_id = hold.answer.hold_id
            charge_id = await shop.captured(agreement, hold_id, {"page": 1}, "b" * 64)
    dispute = InitiateDispute(
        charge_id=charge_id, reason="calculation_error", idempotency_key=buyer.new_key()
    )
    await buyer.call(INITIATE_DISPUTE, dispute)
    for _ in range(SESSIONS):
        ask = OpenSession(
            agreement_id=agreement.agreement_id,
            cap=USD,
            per_call=USD,
            idempotency_key=buyer.new_key(),
        )
        await buyer.call(OPEN_SESSION, ask)
    return agreement


async def paged(
    connection: Connection, operation: Operation[Any, Any], limit: int = 2, **ask: object
) -> list[Any]:
    """The things of all pages."""
    found: list[Any] = []
    cursor = ""
    while True:
        page = await connection.call(operation, operation.ask(limit=limit, cursor=cursor, **ask))
        things = getattr(page, THINGS[operation])
        assert len(things) == limit or not page.cursor
        found += things
        cursor = page.cursor
        if not cursor:
            return found


@pytest.mark.parametrize(
    ("operation", "count"),
    [
        (LIST_AGREEMENTS, 2),
        (LIST_CHARGES, 2 * CHARGES),
        (LIST_DISPUTES, 2),
        (LIST_HOLDS, 2 * HOLDS),
        (LIST_SESSIONS, 2 * SESSIONS),
    ],
    ids=["agreements", "charges", "disputes", "holds", "sessions"],
)
async def test_pages_hold_everything_once_newest_first_for_each_side(
    shop: Shop, operation: Operation[Any, Any], count: int
) -> None:
    sides = (shop.buyer.connection, shop.operator.connection, shop.vendor.connection)
    pages = [await paged(side, operation) for side in sides]
    whole = await paged(sides[0], operation, limit=100)

    assert pages[0] == pages[1] == pages[2] == whole
    assert len({str(each) for each in whole}) == count


async def test_an_operators_top_ups_and_credit_are_paged_for_it_and_for_the_treasurer(
    shop: Shop,
) -> None:
    operator, treasurer = shop.operator.connection, shop.serving.treasurer.connection
    for operation in (LIST_TOP_UPS, LIST_CREDIT_LOTS):
        own = await paged(operator, operation)
        named = await paged(treasurer, operation, organisation_id=operator.principal)
        every = await paged(treasurer, operation)

        assert len(own) == SESSIONS
        assert own == named == every
    assert await paged(shop.vendor.connection, LIST_PAYOUTS) == []


async def test_what_waits_for_the_treasurer_is_asked_for_alone(shop: Shop) -> None:
    operator = Operator(await shop.serving.organisation("operator", "Operator Waiting"))
    treasurer = shop.serving.treasurer
    first, second = [await operator.create_top_up(USD) for _ in range(2)]
    before = (await treasurer.top_ups(status="pending")).top_ups
    await treasurer.fail_top_up(first.top_up_id)
    waiting = await paged(treasurer.connection, LIST_TOP_UPS, status="pending")
    failed = await paged(operator.connection, LIST_TOP_UPS, status="failed")

    assert {first, second} <= set(before)
    assert waiting == [each for each in before if each.top_up_id != first.top_up_id]
    assert [each.top_up_id for each in failed] == [first.top_up_id]
    assert (await treasurer.payouts(status="requested")).payouts == ()
    with pytest.raises(Refused) as refused:
        await treasurer.connection.call(LIST_TOP_UPS, ListTopUps(status="paid"))  # type: ignore[arg-type]
    assert (refused.value.code, refused.value.refusal.path) == (Code.INVALID_ARGUMENT, "status")
    await treasurer.confirm_top_up(first.top_up_id)
    assert await paged(operator.connection, LIST_TOP_UPS, status="failed") == []


async def test_what_is_under_one_agreement_or_listing_is_asked_for_alone(shop: Shop) -> None:
    buyer = shop.buyer.connection
    newest, oldest = await paged(buyer, LIST_AGREEMENTS, listing_id=shop.listing_id)
    of_newest = await paged(buyer, LIST_CHARGES, agreement_id=newest.agreement_id)
    of_oldest = await paged(buyer, LIST_CHARGES, agreement_id=oldest.agreement_id)

    assert of_newest + of_oldest == await paged(buyer, LIST_CHARGES)
    assert {each.agreement_id for each in of_newest} == {newest.agreement_id}


async def test_nobody_sees_what_is_anothers(shop: Shop) -> None:
    stranger = await shop.serving.organisation("vendor", "Vendor Stranger")
    agreement = (await paged(shop.buyer.connection, LIST_AGREEMENTS))[0]

    for operation in (LIST_AGREEMENTS, LIST_CHARGES, LIST_DISPUTES, LIST_HOLDS, LIST_SESSIONS):
        assert await paged(stranger, operation) == []
    with pytest.raises(Refused) as refused:
        await paged(stranger, LIST_HOLDS, agreement_id=agreement.agreement_id)
    assert refused.value.code is Code.NOT_FOUND


async def test_what_begins_between_two_pages_moves_none_of_them(shop: Shop) -> None:
    buyer = shop.buyer.connection
    before = await paged(buyer, LIST_AGREEMENTS)
    first = await buyer.call(LIST_AGREEMENTS, ListAgreements(limit=1))
    later = await trade(shop)
    second = await buyer.call(LIST_AGREEMENTS, ListAgreements(limit=1, cursor=first.cursor))

    assert [*first.agreements, *second.agreements] == before
    newest = await buyer.call(LIST_AGREEMENTS, ListAgreements(limit=1))
    assert newest.agreements[0].agreement_id == later.agreement_id
    assert newest.as_of_seq >= second.as_of_seq > first.as_of_seq


async def test_a_page_of_more_than_a_hundred_is_refused(shop: Shop) -> None:
    with pytest.raises(Refused) as refused:
        await shop.buyer.connection.call(LIST_AGREEMENTS, ListAgreements(limit=101))

    assert refused.value.code is Code.INVALID_ARGUMENT


async def test_a_record_begins_at_most_one_thing_of_a_noun_for_a_party(shop: Shop) -> None:
    records = [each async for each in upto(shop)]
    begun = [fold_listed([each]) for each in records]
    rows = [
        (each.party, each.noun, each.seq)
        for record, some in zip(records, begun, strict=True)
        for each in some
        if each.seq == record.seq
    ]

    assert len(rows) == len(set(rows)) > HOLDS


async def upto(shop: Shop) -> AsyncIterator[Any]:
    engine = shop.serving.service.market.engine
    last = (await engine.ask(FiguresNow())).seq
    async for committed in engine.follow(0):
        yield committed.record
        if committed.seq == last:
            return
