"""Both sides of an agreement compare all its sessions, in as many asks as it takes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from farthing.clients import gathering
from farthing.clients.buyers import Buyer
from farthing.clients.countings import booked, spooled
from farthing.clients.gathering import signed_count
from farthing.clients.operators import Member
from farthing.protocol.canonical import Json
from farthing.protocol.errors import Code, Refused
from farthing.protocol.gateways import GatewayReport
from farthing.protocol.ids import derive_id
from farthing.protocol.messages.agreements import GET_LEGAL_CONTEXT, GetLegalContext
from farthing.protocol.messages.reconciliation import (
    RECONCILE_USAGE,
    AcknowledgedSession,
    ReconcileUsage,
    UsageReconciliation,
)
from farthing.protocol.reconciliation import GatewayCount
from farthing.protocol.wire import Usage
from farthing.server.operations import reconciliation
from tests.clients.trading import Trading, trading, usd
from tests.papers import card_document, signing_key

FLAT = card_document(({"amount": "0.002", "per_quantity": "1"},))
LIMITS: dict[str, Json] = {"limits": {"input_bytes_max": 10_000, "concurrency_max": 64}}
CALLS = (3, 1, 4)
SPENT = usd("0.016")


@dataclass(slots=True, kw_only=True)
class Traded:
    """An agreement after some sessions, which are closed and reported."""

    market: Trading
    agreement_id: str
    sessions: list[str] = field(default_factory=list)

    @property
    def lists(self) -> tuple[AcknowledgedSession, ...]:
        """The buyer's, by its books."""
        return booked(self.market.buyer.books, self.agreement_id)

    async def compared(
        self,
        lists: tuple[AcknowledgedSession, ...] | None = None,
        *,
        since: str = "",
        until: str = "",
    ) -> UsageReconciliation:
        """What the buyer is told."""
        return await self.market.buyer.reconcile_agreement(
            self.agreement_id, self.lists if lists is None else lists, since=since, until=until
        )

    async def refused(self, **ask: object) -> tuple[Code, str]:
        """Why the buyer is told nothing."""
        asked = ReconcileUsage(**{"agreement_id": self.agreement_id} | ask)  # type: ignore[arg-type]
        with pytest.raises(Refused) as caught:
            await self.market.buyer.connection.call(RECONCILE_USAGE, asked)
        return caught.value.code, caught.value.refusal.path


@asynccontextmanager
async def traded(
    tmp_path: Path, *, calls: tuple[int, ...] = CALLS, tolerance_ppm: int = 0
) -> AsyncIterator[Traded]:
    """Sessions of so many calls of one page each."""
    async with trading(
        tmp_path, card=FLAT, listing=LIMITS, usage_tolerance_ppm=tolerance_ppm
    ) as market:
        agreement_id = (
            await market.buyer.accept(await market.buyer.quote(market.listing_id, {"page": 1}))
        ).agreement_id
        done = Traded(market=market, agreement_id=agreement_id)
        for count in calls:
            session = await market.buyer.open_session(
                agreement_id, cap=usd("0.1"), per_call=usd("0.01")
            )
            await asyncio.gather(*(session.call({"pdf": "one"}) for _ in range(count)))
            done.sessions.append(session.session_id)
            await session.aclose()
        await market.close_shop()
        yield done


def counted(session_id: str, calls: int) -> dict[str, GatewayCount]:
    return {session_id: GatewayCount(calls=calls, usage={"page": calls})}


async def test_all_sessions_of_an_agreement_are_compared_in_one_ask(tmp_path: Path) -> None:
    async with traded(tmp_path) as done:
        found = await done.compared()
        assert await done.market.buyer.reconcile_agreement(done.agreement_id) == found
        own = spooled(done.market.spool)
        sold = await done.market.vendor.reconcile_agreement(done.agreement_id, own)

    assert found.within
    assert found.billed == found.acknowledged == SPENT
    assert [each.session_id for each in found.sessions] == done.sessions
    assert [each.billed_calls for each in found.sessions] == [*CALLS]
    assert [each.counted_calls for each in found.sessions] == [*CALLS]
    (page,) = found.meters
    assert (page.meter, page.count.billed, page.count.acknowledged) == ("page", "8", "8")
    # What the vendor's spool delivered is what was billed.
    assert sold.within
    assert (sold.calls, sold.meters, sold.passed.asked) == (found.calls, found.meters, 0)


async def test_however_many_asks_it_takes_they_come_to_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with traded(tmp_path) as done:
        short = tuple(replace(each, calls=each.calls[1:]) for each in done.lists)
        whole = await done.compared(short)
        readings = []
        for limits in (
            {(reconciliation, "BEGUN_MAX"): 1},
            {(reconciliation, "BEGUN_MAX"): 2, (gathering, "SESSIONS_MAX"): 1},
            {(reconciliation, "REPORTED_MAX"): 4},
            {(gathering, "ACKNOWLEDGED_MAX"): 3},
        ):
            with monkeypatch.context() as bounded:
                for (module, name), most in limits.items():
                    bounded.setattr(module, name, most)
                readings.append(await done.compared(short))

    assert readings == [whole] * 4
    assert [each.session_id for each in whole.differences] == done.sessions
    assert {(each.kind, each.direction) for each in whole.differences} == {
        ("unacknowledged", "over")
    }
    assert whole.over == usd("0.006")


async def test_periods_that_adjoin_count_every_session_once(tmp_path: Path) -> None:
    async with traded(tmp_path) as done:
        whole = await done.compared()
        first, second, _ = whole.sessions
        assert first.opened_at < second.opened_at
        before = await done.compared(until=second.opened_at)
        after = await done.compared(since=second.opened_at)
        outside = await done.refused(until=second.opened_at, acknowledged=done.lists)

    assert before.sessions == (first,)
    assert before.sessions + after.sessions == whole.sessions
    assert outside[0] is Code.INVALID_ARGUMENT


async def test_a_difference_is_named_by_session_and_call_and_judged_by_the_terms(
    tmp_path: Path,
) -> None:
    async with traded(tmp_path, calls=(9, 2), tolerance_ppm=100_000) as done:
        first, second = sorted(done.lists, key=lambda each: done.sessions.index(each.session_id))
        context = await done.market.buyer.connection.call(
            GET_LEGAL_CONTEXT, GetLegalContext(listing_id=done.market.listing_id)
        )
        lost, more = first.calls[4], replace(second.calls[0], call=77)
        one = await done.compared(
            (replace(first, calls=(*first.calls[:4], *first.calls[5:])), second)
        )
        two = await done.compared((first, replace(second, calls=(*second.calls, more))))
        both = await done.compared(
            (replace(first, calls=first.calls[:3]), replace(second, calls=(*second.calls, more)))
        )

    assert [(each.session_id, each.call, each.direction) for each in one.differences] == [
        (first.session_id, lost.call, "over")
    ]
    assert [(each.session_id, each.call, each.direction) for each in two.differences] == [
        (second.session_id, 77, "under")
    ]
    # One of eleven is less than a tenth, six are more.
    assert (one.within, two.within, both.within) == (True, True, False)
    assert one.tolerance_ppm == context.usage_tolerance_ppm == 100_000
    assert one.terms_sha256 == done.market.offer.listing["terms_sha256"]


async def test_a_session_that_is_too_long_is_named_and_the_others_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with traded(tmp_path) as done:
        monkeypatch.setattr(reconciliation, "REPORTED_MAX", 3)
        found = await done.compared()

    assert [each.compared for each in found.sessions] == [True, True, False]
    assert found.sessions[2].counted_calls == 4
    assert (found.calls.billed, found.differences, found.within) == ("4", (), False)


async def test_a_gateway_s_signed_count_is_set_beside_the_vendor_s(tmp_path: Path) -> None:
    async with traded(tmp_path) as done:
        proxy = signing_key("proxy")
        await done.market.vendor.add_metering_key(proxy)
        readings = []
        for session, calls in ((0, 3), (0, 2), (2, 6)):
            report = GatewayReport(
                agreement_id=done.agreement_id, sessions=counted(done.sessions[session], calls)
            )
            readings.append(
                await done.market.buyer.reconcile_agreement(
                    done.agreement_id, done.lists, gateway=signed_count(proxy, report)
                )
            )

        await Member(done.market.vendor.connection).revoke_key(
            done.market.vendor.vendor_id, proxy.thumbprint
        )
        revoked = signed_count(proxy, report)
        refusal = await done.refused(
            gateway=dict(revoked.document), gateway_signature=revoked.signature
        )

    assert refusal == (Code.SIGNATURE_INVALID, "gateway_signature")
    same, fewer, more = readings
    assert (same.calls.gateway, same.within) == ("3", True)
    assert [each.gateway_calls for each in same.sessions] == [3, None, None]
    assert (fewer.calls.gateway_over, fewer.calls.gateway_under, fewer.within) == ("1", "0", False)
    assert (more.calls.gateway_over, more.meters[0].count.gateway_under) == ("0", "2")
    assert not more.within


async def test_only_a_party_s_key_signs_what_a_gateway_saw_and_only_of_this_agreement(
    tmp_path: Path,
) -> None:
    async with traded(tmp_path, calls=(1,)) as done:
        report = GatewayReport(
            agreement_id=done.agreement_id, sessions=counted(done.sessions[0], 1)
        )
        vendor = done.market.vendor.signer
        right = signed_count(vendor, report)
        stranger = signed_count(signing_key("admin"), report)
        other = signed_count(vendor, replace(report, agreement_id=derive_id("agr", "other")))
        changed = {**right.document, "sessions": stranger.document["sessions"] * 2}  # type: ignore[operator]
        refusals = [
            await done.refused(gateway=dict(document), gateway_signature=signature)
            for document, signature in (
                (stranger.document, stranger.signature),
                (other.document, right.signature),
                (changed, right.signature),
                ({**right.document, "sessions": []}, right.signature),
            )
        ]

    assert refusals == [
        (Code.SIGNATURE_INVALID, "gateway_signature"),
        (Code.NOT_FOUND, "gateway.agreement_id"),
        (Code.INVALID_ARGUMENT, "gateway.sessions.1.session_id"),
        (Code.INVALID_ARGUMENT, "gateway.sessions"),
    ]


async def test_an_ask_names_one_thing_and_lists_of_it(tmp_path: Path) -> None:
    async with traded(tmp_path, calls=(1, 1)) as done:
        first, second = done.lists
        twice = replace(first.calls[0], usage=(Usage(meter="page", quantity="1"),) * 2)
        long_ago = "2020-01-01T00:00:00.000000Z"
        refusals = [
            await done.refused(session_id=first.session_id),
            await done.refused(agreement_id=""),
            await done.refused(acknowledged=(first, first)),
            await done.refused(
                agreement_id="", session_id=first.session_id, acknowledged=(second,)
            ),
            await done.refused(agreement_id="", session_id=first.session_id, since=long_ago),
            await done.refused(
                agreement_id="",
                session_id=first.session_id,
                acknowledged=(replace(first, calls=(twice,)),),
            ),
            await done.refused(
                through=done.sessions[0],
                cursor=f"{done.market.serving.clock()}-{done.sessions[0]}",
            ),
        ]
        operator = await done.market.serving.organisation("operator", "Operator Two")
        other = Buyer(await done.market.serving.agent(operator, "Agent Two"))
        with pytest.raises(Refused) as foreign:
            await other.reconcile_agreement(done.agreement_id)

    assert refusals == [
        (Code.INVALID_ARGUMENT, "session_id"),
        (Code.INVALID_ARGUMENT, "session_id"),
        (Code.INVALID_ARGUMENT, "acknowledged.1.session_id"),
        (Code.NOT_FOUND, "acknowledged.0.session_id"),
        (Code.INVALID_ARGUMENT, "since"),
        (Code.INVALID_ARGUMENT, "acknowledged.0.calls.0.usage"),
        (Code.INVALID_ARGUMENT, "through"),
    ]
    assert (foreign.value.code, foreign.value.refusal.path) == (Code.NOT_FOUND, "agreement_id")


async def test_a_list_that_no_ask_holds_is_said_to_be_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with traded(tmp_path, calls=(3,)) as done:
        monkeypatch.setattr(gathering, "ACKNOWLEDGED_MAX", 2)
        with pytest.raises(ValueError, match=done.sessions[0]):
            await done.compared()
        with pytest.raises(ValueError, match=done.sessions[0]):
            await done.market.buyer.reconcile(done.sessions[0], done.lists[0].calls)


async def test_a_long_list_is_compared_without_what_the_calls_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with traded(tmp_path, calls=(3,)) as done:
        session_id, told = done.sessions[0], done.lists[0].calls
        wrong = replace(told[0], usage=(Usage(meter="page", quantity="9"),))
        short = await done.market.buyer.reconcile(session_id, (wrong, *told[1:]))
        monkeypatch.setattr(gathering, "_LISTS_BYTES_MAX", 500)
        long = await done.market.buyer.reconcile(session_id, (wrong, *told[1:]))

    assert [each.kind for each in short.differences] == ["usage_differs"]
    assert (long.differences, long.within, long.calls.acknowledged) == ((), True, "3")


async def test_what_the_vendor_took_back_is_not_counted(tmp_path: Path) -> None:
    async with traded(tmp_path) as done:
        vendor = done.market.vendor
        proven = (await vendor.call_receipt(done.sessions[2], 2))[0]
        first, second, third = sorted(
            done.lists, key=lambda each: done.sessions.index(each.session_id)
        )
        kept = tuple(each for each in third.calls if each.call != 2)
        lists = (first, second, replace(third, calls=kept))
        before = await done.compared(lists)
        await vendor.correct_usage(proven.charge_id, {2: {"page": 1}})
        after = await done.compared(lists)
        whole = await done.compared()

    assert [(each.call, each.kind) for each in before.differences] == [(2, "unacknowledged")]
    assert (after.differences, after.within) == ((), True)
    assert after.billed == after.acknowledged == usd("0.014")
    assert [(each.call, each.kind, each.fault) for each in whole.differences] == [
        (2, "not_billed", "taken_back")
    ]
    assert whole.under == usd("0.002")
