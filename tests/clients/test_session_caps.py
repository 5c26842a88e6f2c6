"""What a session may come to is what its buyer asked for, whatever the platform answers."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from farthing.clients.callbooks import SessionInUse, note_top_up
from farthing.clients.sessions import SpendSession
from farthing.clients.spenders import book_path
from farthing.protocol.errors import Code, Refused, Unverified, refuse
from farthing.protocol.messages.sessions import TOP_UP_SESSION, Session, TopUpSession
from farthing.protocol.wire import Money
from tests.clients.spending import FLAT, StandInBuyer, pdf, usd


@pytest.fixture
def buyer(tmp_path: Path) -> StandInBuyer:
    return StandInBuyer(tmp_path, FLAT)


def capped(buyer: StandInBuyer, monkeypatch: pytest.MonkeyPatch, cap: str) -> None:
    """Have the platform say of every session from here on that so much is set aside."""
    call, platform = buyer.platform.call, buyer.platform

    async def lies(operation: Any, ask: Any) -> Session:
        await call(operation, ask)
        more = replace(platform.now, cap=usd(cap), remaining=usd(cap))
        platform.session = platform.entitled(more)
        return platform.now

    monkeypatch.setattr(platform, "call", lies)


async def until_refused(session: SpendSession) -> None:
    calls = (session.call(pdf(3)) for _ in range(10))
    *_, last = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(last, Refused)
    assert last.code is Code.LOCAL_LIMIT_EXCEEDED


async def test_no_voucher_is_signed_beyond_what_was_asked_for_whatever_is_answered(
    buyer: StandInBuyer, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await buyer.opened(cap=usd("0.006"), per_call=usd("0.006"))
    capped(buyer, monkeypatch, "9")
    await session.refresh()
    await until_refused(session)
    for _ in range(2):
        await session.top_up(usd("0.006"), key="the-one-top-up-key")
    await until_refused(session)
    await session.aclose()
    again = await buyer.resume_session(session.session_id)
    await until_refused(again)

    assert buyer.vendor.vouchers[-1].max_cum_units == 12_000_000
    assert again.left.remaining == usd("0")
    await again.aclose()


async def test_a_top_up_that_is_refused_was_not_asked_for(
    buyer: StandInBuyer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuses(*_: object) -> Session:
        raise Refused(refuse(Code.BUDGET_EXCEEDED))

    session = await buyer.opened(cap=usd("0.006"), per_call=usd("0.006"))
    with monkeypatch.context() as patched:
        patched.setattr(buyer.platform, "call", refuses)
        with pytest.raises(Refused):
            await session.top_up(usd("0.006"), key="the-one-top-up-key")
    with pytest.raises(Refused, match="asset_mismatch"):
        await session.top_up(Money(amount="100", asset="JPY"))

    assert session.asked == usd("0.006")
    assert (await session.top_up(usd("0.006"), key="the-one-top-up-key")).cap == usd("0.012")
    assert session.asked == usd("0.012")
    await session.aclose()


async def test_a_top_up_that_another_process_made_is_spent_once_the_book_is_told(
    buyer: StandInBuyer,
) -> None:
    session = await buyer.opened(cap=usd("0.006"), per_call=usd("0.006"))
    ask = TopUpSession(
        session_id=session.session_id, amount=usd("0.006"), idempotency_key="the-one-top-up-key"
    )
    topped = await buyer.platform.call(TOP_UP_SESSION, ask)
    path = book_path(buyer.books, session.session_id)
    with pytest.raises(SessionInUse):
        note_top_up(path, ask.amount.units, topped.cap.units)
    await session.aclose()
    note_top_up(path, ask.amount.units, topped.cap.units)

    again = await buyer.resume_session(session.session_id)

    assert again.left.remaining == usd("0.012")
    await again.aclose()


@pytest.mark.parametrize(
    "other",
    [
        {"per_call": usd("0.02")},
        {"cap": Money(amount="9", asset="EUR")},
        {"agreement_id": "agr_00000000000000000000000000"},
        {"rate_card_sha256": "d" * 64},
    ],
)
async def test_a_session_keeps_the_terms_that_it_was_opened_with(
    buyer: StandInBuyer, other: dict[str, Any]
) -> None:
    session = await buyer.opened()
    buyer.platform.session = replace(buyer.platform.now, **other)
    with pytest.raises(Unverified, match="other terms than it was opened with"):
        await session.refresh()
    await session.aclose()
    if {"agreement_id", "rate_card_sha256"} & other.keys():
        with pytest.raises(Unverified, match="not under the terms of the book"):
            await buyer.resume_session(session.session_id)


async def test_of_a_session_that_is_closed_no_more_is_spent_whoever_says_it_is_open(
    buyer: StandInBuyer, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await buyer.opened()
    await session.call(pdf(3))
    opened = buyer.platform.now
    with monkeypatch.context() as patched:
        patched.setattr(buyer.platform, "call", still(opened))
        with pytest.raises(Unverified, match="was to be closed and is not"):
            await session.close()
    await session.close()
    await session.aclose()
    buyer.platform.session = opened
    again = await buyer.resume_session(session.session_id)
    await until_refused(again)

    assert again.session.status == "open"
    assert (buyer.vendor.runs, session.asked) == (1, usd("0.006"))
    await again.aclose()


def still(session: Session) -> Any:
    async def answer(*_: object) -> Session:
        return session

    return answer
