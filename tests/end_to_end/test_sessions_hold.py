"""What must hold of sessions, against a real server: free rides, races, replays, forgeries, skew.

The vendor's own side of the same promises is tests/clients/test_session_desk.py.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from farthing.clients.operators import Member
from farthing.clients.transport import Connection
from farthing.clients.vendors import Vendor
from farthing.protocol.errors import Code, Refused
from farthing.protocol.ids import HoldId
from farthing.protocol.messages.charges import LIST_CHARGES, ListCharges
from farthing.protocol.messages.sessions import (
    CLOSE_SESSION,
    REPORT_USAGE,
    CloseSession,
)
from farthing.protocol.proofs import Voucher, voucher_jwt
from farthing.protocol.times import SECOND_US
from farthing.protocol.wire import money
from tests.metering import PAGE_UNITS, Metered, flat_agreement, metered, reasons
from tests.papers import signing_key
from tests.processes import ServerProcess, free_port
from tests.remote import Market, enrolled, opened

pytestmark = pytest.mark.asyncio(loop_scope="module")

AT_ONCE = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A server of two front ends, its market, and an agreement at one price a page."""

    market: Market
    agreement_id: str
    facts: dict[str, Any]
    http: httpx2.AsyncClient

    async def vendor(self, name: str) -> Connection:
        return await enrolled(self.facts, self.http, "vendor", name)

    async def session(self, **ask: Any) -> Metered:
        return await metered(self.market, self.agreement_id, **ask)

    async def close(self, session: Metered, by: Connection) -> None:
        ask = CloseSession(session_id=session.session.session_id, idempotency_key=by.new_key())
        await by.call(CLOSE_SESSION, ask)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    server = ServerProcess(tmp_path_factory.mktemp("hold"), free_port(), workers=2)
    try:
        facts = await server.start()
        async with httpx2.AsyncClient() as http:
            market = await opened(facts, http)
            agreement_id = await flat_agreement(market)
            yield Place(market=market, agreement_id=agreement_id, facts=facts, http=http)
    finally:
        server.stop()


# The four free rides


async def test_what_was_signed_for_something_else_pays_for_nothing(place: Place) -> None:
    mine, other = await place.session(), await place.session()
    listed = mine.events(1, 1)
    hold = await place.market.buyer.hold(
        place.agreement_id, {"page": 1}, {}, key=mine.vendor.new_key()
    )
    of_hold = Voucher(
        agreement_id=mine.session.agreement_id,  # type: ignore[arg-type]
        hold_id=HoldId(hold.answer.hold_id),
        args_sha256="a" * 64,
        seq=1,
        max_cum_units=10**9,
        ack="",
    )
    foreign = await flat_agreement(place.market, "Other pages")
    vouchers = (
        other.voucher(),
        mine.voucher(agreement_id=foreign),
        mine.voucher(signer=place.market.vendor.signer),
        voucher_jwt(mine.payer, of_hold, now_us=mine.opened_us, jti="h", lifetime_s=60),
    )

    for voucher in vouchers:
        refused = await mine.refused(listed, voucher=voucher)
        assert refused == (Code.SIGNATURE_INVALID, "voucher")
    code, path = await mine.refused(listed, source=other.session.session_id)
    assert (code, path) == (Code.USAGE_INVALID, "batch.0.source")
    assert await mine.spent_pages() == await other.spent_pages() == 0


async def test_one_batch_that_races_itself_under_many_keys_is_billed_once(place: Place) -> None:
    session = await place.session()
    listed = session.events(1, 3, 4)

    told = await asyncio.gather(*(session.report(listed) for _ in range(AT_ONCE)))

    assert sorted(each.amount.units for each in told)[-2:] == [0, 7 * PAGE_UNITS]
    assert await session.spent_pages() == 7
    late = next(each for each in told if not each.charge_id)
    assert reasons(late) == [("1", "duplicate"), ("2", "duplicate")]
    assert len(await _charges(place, session)) == 1


async def test_neither_cap_nor_budget_is_passed_however_many_ask_at_once(place: Place) -> None:
    session = await place.session(cap=20)
    listed = [session.events(1 + place_, 1 + place_ % 3) for place_ in range(AT_ONCE)]

    told = await asyncio.gather(*(session.report(each) for each in listed))

    spent = sum(each.amount.units for each in told)
    assert 18 * PAGE_UNITS <= spent <= 20 * PAGE_UNITS
    assert (await session.view()).spent.units == spent
    assert {why for each in told for _, why in reasons(each)} == {"over_cap"}
    operator, agent = place.market.operator, place.market.buyer.connection.principal
    counted = (await place.market.buyer.authority()).grants[0].spent_today.units
    plenty = money(10**6 * 10**9, "USD")
    budget = money(counted + 10 * 100 * PAGE_UNITS, "USD")
    await operator.set_authority(agent, per_call_max=plenty, per_day_max=budget)
    try:
        asked = (place.session() for _ in range(AT_ONCE))
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
    finally:
        await operator.set_authority(agent, per_call_max=plenty, per_day_max=plenty)
    refused = [each.refusal.code for each in outcomes if isinstance(each, Refused)]
    assert refused == [Code.BUDGET_EXCEEDED] * (AT_ONCE - 10)


async def test_a_buyer_that_closes_cannot_keep_the_vendor_from_its_money(place: Place) -> None:
    session = await place.session()
    buyer = place.market.buyer.connection

    await place.close(session, buyer)
    before = await session.report(session.events(1, 3))
    # It cannot know of the close at once; what is signed for is owed.
    since = await session.report(session.events(2, 1, at_us=buyer.clock()))

    assert (before.amount.units, since.amount.units) == (3 * PAGE_UNITS, PAGE_UNITS)
    view = await session.view()
    assert (view.status, view.closes_at) == ("closing", since.closes_at)
    assert since.closes_at
    await place.close(session, session.vendor)
    assert await session.refused(session.events(3, 1)) == (Code.SESSION_CLOSED, "session_id")


async def test_a_freeze_stops_what_comes_after_it_and_nothing_before(place: Place) -> None:
    session = await place.session()
    operator, agent = place.market.operator, place.market.buyer.connection.principal
    await operator.freeze(agent, "enough")
    try:
        before = await session.report(session.events(1, 3))
        after = await session.report(session.events(2, 1, at_us=session.vendor.clock()))
        with pytest.raises(Refused) as refused:
            await place.session()
    finally:
        await operator.unfreeze(agent, "all is well")

    assert (before.amount.units, reasons(before)) == (3 * PAGE_UNITS, [])
    assert reasons(after) == [("2", "frozen")]
    assert refused.value.refusal.code is Code.FROZEN


# Vouchers


async def test_what_a_stale_voucher_does_not_cover_is_paid_under_the_next_one(
    place: Place,
) -> None:
    session = await place.session()
    listed = session.events(1, 2, 2, 2)

    short = await session.report(listed, voucher=session.voucher(seq=3, pages=4))
    low = await session.report(session.events(3, 2), voucher=session.voucher(seq=2, pages=90))
    rest = await session.report(session.events(3, 2), voucher=session.voucher(seq=4, pages=6))
    stale = await session.report(session.events(4, 2), voucher=session.voucher(seq=1, pages=1))

    assert (short.amount.units, reasons(short)) == (4 * PAGE_UNITS, [("3", "beyond_voucher")])
    # The highest number and the highest sum count each by itself, whatever comes later.
    assert (low.amount.units, low.max_cum.units) == (2 * PAGE_UNITS, 90 * PAGE_UNITS)
    assert reasons(rest) == [("3", "duplicate")]
    assert (stale.amount.units, stale.max_cum.units) == (2 * PAGE_UNITS, 90 * PAGE_UNITS)


async def test_a_voucher_for_more_than_is_set_aside_pays_no_more_than_that(place: Place) -> None:
    session = await place.session(cap=12)

    told = await session.report(session.events(1, 10, 3, 2), voucher=session.voucher(pages=10**6))

    assert (told.amount.units, reasons(told)) == (12 * PAGE_UNITS, [("2", "over_cap")])


# Numbers


async def test_calls_of_one_session_that_race_are_each_billed_once(place: Place) -> None:
    session = await place.session(cap=1_000)
    calls = [session.events(seq, 1)[0] for seq in range(1, 121)]
    shifted = [[*calls[first:], *calls[:first]] for first in range(0, 120, 10)]

    told = await asyncio.gather(
        *(session.report(each[part : part + 40]) for each in shifted for part in (0, 40, 80))
    )

    assert sum(each.billed for each in told) == 120
    assert {why for each in told for _, why in reasons(each)} == {"duplicate"}
    view = await session.view()
    assert (view.calls, view.top_seq, view.spent.units) == (120, 120, 120 * PAGE_UNITS)


async def test_a_replayed_batch_is_answered_as_before_or_bills_nothing(place: Place) -> None:
    session = await place.session()
    ask = session.ask(session.events(1, 3))

    first = await session.vendor.send(REPORT_USAGE, ask)
    again = await session.vendor.send(REPORT_USAGE, ask)
    anew = await session.vendor.call(
        REPORT_USAGE, replace(ask, idempotency_key=session.vendor.new_key())
    )

    assert (again.replayed, again.answer.charge_id) == (True, first.answer.charge_id)
    assert (anew.charge_id, reasons(anew)) == ("", [("1", "duplicate")])
    other = session.ask(session.events(2, 3), key=ask.idempotency_key)
    with pytest.raises(Refused) as refused:
        await session.vendor.call(REPORT_USAGE, other)
    assert refused.value.refusal.code is Code.IDEMPOTENCY_CONFLICT
    assert await session.spent_pages() == 3


async def test_numbers_far_behind_or_ahead_are_not_taken(place: Place) -> None:
    session = await place.session()

    ahead = await session.report(session.events(1_025, 1), voucher=session.voucher(seq=9_999))
    edge = await session.report(session.events(1_024, 1), voucher=session.voucher(seq=9_999))
    next_ = await session.report(session.events(2_048, 1), voucher=session.voucher(seq=9_999))
    behind = await session.report(session.events(1_024, 1))

    assert reasons(ahead) == [("1025", "out_of_window")]
    assert (edge.billed, next_.billed) == (1, 1)
    assert reasons(behind) == [("1024", "out_of_window")]


# Whose, and when


async def test_nobody_bills_another_tenants_agreement(place: Place) -> None:
    session = await place.session()
    listed = session.events(1, 1)
    stranger = await place.vendor("Vendor Two")
    thief = replace(session, vendor=stranger)

    assert await thief.refused(listed) == (Code.USAGE_INVALID, "session_id")
    forged = await session.refused(listed, signer=stranger.signer)
    assert forged == (Code.SIGNATURE_INVALID, "batch_signature")
    with pytest.raises(Refused) as refused:
        await thief.view()
    assert refused.value.refusal.code is Code.NOT_FOUND
    assert await session.spent_pages() == 0


async def test_events_out_of_their_time_are_not_billed(place: Place) -> None:
    session = await place.session(expires_in_s=3_600)
    skew_us = 5 * SECOND_US
    opened_us, end_us = session.opened_us, session.opened_us + 3_600 * SECOND_US
    times = {
        1: opened_us - skew_us - 1,
        2: opened_us - 24 * 3_600 * SECOND_US,
        3: end_us + 1,
        4: opened_us + 1_800 * SECOND_US,
        5: opened_us - skew_us,
    }
    listed = [session.events(seq, 1, at_us=at_us)[0] for seq, at_us in times.items()]

    told = await session.report(listed)

    late = [("1", "before_session"), ("2", "before_session"), ("3", "after_end")]
    assert reasons(told) == [*late, ("4", "in_future")]
    assert told.amount.units == PAGE_UNITS


async def test_a_vendor_whose_clock_is_wrong_is_told_and_bills_nothing(place: Place) -> None:
    session = await place.session()
    vendor = session.vendor
    for off_s in (600, -600):
        wrong = Connection(
            vendor.url,
            signer=vendor.signer,
            principal=vendor.principal,
            http=vendor.http,
            clock=lambda off_s=off_s: vendor.clock() + off_s * SECOND_US,  # type: ignore[misc]
        )
        code, _ = await replace(session, vendor=wrong).refused(session.events(1, 1))
        assert code in {Code.PROOF_INVALID, Code.PROOF_EXPIRED}
    assert await session.spent_pages() == 0


# Keys


async def test_a_key_that_nobody_or_another_holds_signs_no_usage(place: Place) -> None:
    session = await place.session()

    for name in ("Nobody", "Agent One", "Operator One"):
        refused = await session.refused(session.events(1, 1), signer=signing_key(name))
        assert refused == (Code.SIGNATURE_INVALID, "batch_signature")
    assert await session.spent_pages() == 0


async def test_a_key_that_was_rotated_away_signs_no_usage(place: Place) -> None:
    vendor, new = await place.vendor("Vendor Three"), signing_key("Vendor Three, later")
    market = replace(place.market, vendor=Vendor(vendor))
    session = await metered(market, await flat_agreement(market))
    await Member(vendor).rotate_key(new)
    later = Connection(vendor.url, signer=new, principal=vendor.principal, http=place.http)

    refused = await replace(session, vendor=later).refused(
        session.events(1, 1), signer=vendor.signer
    )
    told = await replace(session, vendor=later).report(session.events(1, 1))

    assert refused == (Code.SIGNATURE_INVALID, "batch_signature")
    assert told.billed == 1


async def _charges(place: Place, session: Metered) -> list[str]:
    charges = await place.market.vendor.connection.call(LIST_CHARGES, ListCharges(limit=100))
    return [
        each.charge_id for each in charges.charges if each.session_id == session.session.session_id
    ]
