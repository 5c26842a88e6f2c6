"""Statements of a whole trade, opened down to the proof; and streams of a real server process."""

import asyncio
import json
import os
import signal
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import httpx2
import pytest

from farthing.clients.buyers import Buyer
from farthing.clients.keys import load_key
from farthing.clients.operators import Admin, Newcomer, Operator
from farthing.clients.statements import AccountHolder
from farthing.clients.transport import Connection
from farthing.clients.treasurers import Treasurer
from farthing.identity.keyring import Purpose
from farthing.protocol import base64url
from farthing.protocol.canonical import canonical_bytes
from farthing.protocol.errors import Code, Refused, Unverified
from farthing.protocol.ids import derive_id
from farthing.protocol.messages.statements import StatementLine
from farthing.protocol.platform_keys import PlatformKeys
from farthing.protocol.receipts import verify_receipt
from farthing.protocol.times import DAY_US, format_time, parse_time
from farthing.protocol.wire import Money
from farthing.settlement.reports.statements import Order
from tests.papers import signing_key
from tests.patience import patiently
from tests.processes import ServerProcess, free_port
from tests.serving import Serving, Shop, serving
from tests.subscribing import subscribed

ENOUGH = httpx2.Limits(max_connections=20)
ABSENT = 10**9


def usd(amount: str) -> Money:
    return Money(amount=amount, asset="USD")


async def traded(server: Serving, suffix: str = "One") -> Shop:
    """A shop that has sold once, given a part of it back, and holds money for a second sale."""
    shop = await Shop.opened(server, suffix=suffix)
    agreement = await shop.buyer.accept(await shop.buyer.quote(shop.listing_id, {"page": 4}))
    hold = await shop.buyer.hold(agreement.agreement_id, {"page": 4}, {"call": "one"})
    charge_id = await shop.captured(agreement, hold.answer.hold_id, {"page": 3}, "b" * 64)
    await shop.vendor.refund(charge_id, usd("0.001"), "kindness")
    await shop.buyer.hold(agreement.agreement_id, {"page": 2}, {"call": "two"})
    return shop


async def lines_of(holder: AccountHolder, **which: Any) -> list[StatementLine]:
    return [line async for line in holder.lines(**which)]


async def refused(awaitable: Any) -> tuple[Code, str]:
    with pytest.raises(Refused) as raised:
        await awaitable
    return raised.value.code, raised.value.refusal.path


async def test_a_line_opens_down_to_its_proof(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        shop = await traded(server)
        journal = server.service.keyring.public(Purpose.JOURNAL)
        lines = await lines_of(shop.vendor)
        for line in lines:
            opened = await shop.vendor.record(line.seq)
            proven = verify_receipt(opened.receipt, journal)
            moved = proven.record.moved[line.line // 2]
            side = moved.credit if line.side == "credit" else moved.debit
            assert side.split(":")[:2] == [shop.vendor.vendor_id, line.account]
            assert opened.postings[line.line // 2] == moved.document()
            assert (opened.recorded_at, opened.effective_at) == (
                line.recorded_at,
                line.effective_at,
            )
            assert opened.ids == line.ids

        assert [line.operation for line in lines] == [
            *("place_hold", "capture_hold", "capture_hold", "refund_charge", "place_hold")
        ]
        assert set(lines[1].ids) == {"agreement", "charge", "hold"}


async def test_a_record_is_believed_only_as_far_as_its_receipt_proves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as server:
        shop = await traded(server)
        connection = shop.buyer.connection
        pinned = await connection.platform_keys()
        stranger = signing_key("Stranger").public
        seq = (await lines_of(shop.buyer))[-1].seq
        buyer = Buyer(connection, platform_keys=pinned)
        view = await buyer.record(seq)
        lies = [
            replace(view, postings=()),
            replace(view, ids={}),
            replace(view, effective_at=format_time(server.clock() + 60_000_000)),
            replace(view, receipt=replace(view.receipt, record=view.receipt.record + " ")),
            await shop.buyer.record(seq - 1),
        ]

        assert view.seq == seq
        with pytest.raises(Unverified):
            await Buyer(connection, platform_keys=PlatformKeys.of(journal=[stranger])).record(seq)
        for lie in lies:
            monkeypatch.setattr(connection, "call", AsyncMock(return_value=lie))
            with pytest.raises(Unverified):
                await buyer.record(seq)


async def test_a_caller_reads_its_own_writes_and_the_last_line_is_the_balance(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as server:
        shop = await traded(server)
        for holder in (shop.operator, shop.vendor, shop.buyer):
            now, page = await holder.balance(), await holder.statement(limit=200)
            assert page.as_of_seq == now.as_of_seq
            assert tuple(each.closing for each in page.accounts) == now.accounts
            for balance in now.accounts:
                last = [line for line in page.lines if line.account == balance.account][-1]
                assert last.after == balance


async def test_pages_are_of_one_moment_whatever_happens_between_them(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        shop = await traded(server)
        whole = await shop.operator.statement(limit=200)
        pages = [await shop.operator.statement(limit=2)]
        while pages[-1].cursor:
            await server.treasurer.fund(shop.operator.connection.principal, usd("1"), "more")
            pages.append(await shop.operator.statement(limit=2, cursor=pages[-1].cursor))

        assert [line for page in pages for line in page.lines] == list(whole.lines)
        assert {page.as_of_seq for page in pages} == {whole.as_of_seq}
        assert {page.accounts for page in pages} == {whole.accounts}


async def test_balances_can_be_asked_for_at_any_moment_of_either_time(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        shop = await traded(server)
        prepaid = await lines_of(shop.operator, account="prepaid")
        for line in prepaid:
            later = [each for each in prepaid if each.seq == line.seq][-1]
            (then,) = (await shop.operator.balance(at_seq=line.seq)).accounts
            assert then == later.after
            (at,) = (await shop.operator.balance(at=line.recorded_at)).accounts
            assert at == later.after
        before = format_time(parse_time(prepaid[0].recorded_at) - 1)
        (nothing,) = (await shop.operator.balance(at=before)).accounts
        assert nothing.posted == usd("0")

        captured = next(each for each in prepaid if each.operation == "capture_hold")
        assert captured.effective_at < captured.recorded_at
        (known,) = (await shop.operator.balance(effective_at=captured.effective_at)).accounts
        (recorded,) = (await shop.operator.balance(at=captured.effective_at)).accounts
        assert known.posted.units < recorded.posted.units


async def test_a_period_takes_its_begin_in_and_leaves_its_end_out(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        shop = await traded(server)
        every = await lines_of(shop.operator)
        since, until = every[1].recorded_at, every[-1].recorded_at
        some = await lines_of(shop.operator, since=since, until=until)
        page = await shop.operator.statement(since=since, until=until)

        assert some == [each for each in every if since <= each.recorded_at < until]
        assert page.accounts[0].opening == every[0].after
        assert page.accounts[0].closing == some[-1].after


async def test_an_agent_sees_its_operators_lines_and_the_ids_of_its_own_trades(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as server:
        shop = await traded(server)
        sibling = await server.agent(shop.operator.connection, "Agent Two")
        own, other = await lines_of(shop.buyer), await lines_of(Treasurer(sibling))

        assert [line.seq for line in own] == [line.seq for line in other]
        assert [bool(line.ids) for line in own] == [
            line.operation != "fund_account" for line in own
        ]
        assert not any(line.ids for line in other)
        await shop.buyer.record(own[1].seq)
        assert await refused(Treasurer(sibling).record(own[1].seq)) == (Code.NOT_FOUND, "seq")
        assert await refused(shop.buyer.record(own[0].seq)) == (Code.NOT_FOUND, "seq")


async def test_a_record_of_others_is_as_absent_as_one_that_never_was(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        mine, theirs = await traded(server), await traded(server, "Two")
        foreign = {line.seq for line in await lines_of(theirs.operator)}
        own = {line.seq for line in await lines_of(mine.operator)}
        assert not foreign & own
        for seq in (*foreign, ABSENT, 1):
            for holder in (mine.operator, mine.vendor, mine.buyer):
                assert await refused(holder.record(seq)) == (Code.NOT_FOUND, "seq")
        funded = (await lines_of(mine.operator))[0]
        assert (await mine.operator.record(funded.seq)).operation == "fund_account"
        assert await refused(mine.vendor.record(funded.seq)) == (Code.NOT_FOUND, "seq")


async def test_the_treasurer_reads_the_platforms_own_accounts(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await traded(server)
        lines = await lines_of(server.treasurer)

        assert [(line.account, line.side, line.operation) for line in lines] == [
            ("external_clearing", "debit", "fund_account"),
            ("platform_fee", "credit", "capture_hold"),
            ("platform_fee", "debit", "refund_charge"),
        ]
        assert (await server.treasurer.record(lines[1].seq)).operation == "capture_hold"


async def test_what_is_booked_outside_is_found_by_its_reference_by_those_whom_it_concerns(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as server:
        shop = await traded(server)
        operator_id = shop.operator.connection.principal
        first = await server.treasurer.fund(operator_id, usd("2"), "wire 42")
        top_up = await shop.operator.create_top_up(usd("3"))
        await server.treasurer.confirm_top_up(top_up.top_up_id, "wire-43")
        again = await server.treasurer.fund(operator_id, usd("2"), "wire 42")

        twice = await lines_of(server.treasurer, account="external_clearing", reference="wire 42")
        assert [line.ids["funding"] for line in twice] == [first.funding_id, again.funding_id]
        assert {line.reference for line in twice} == {"wire 42"}
        orders: tuple[Order, ...] = ("recorded", "effective")
        for order in orders:
            (void, post) = await lines_of(shop.operator, reference="wire-43", by=order)
            assert (void.movement, post.movement) == ("void", "post")
        assert await lines_of(shop.vendor, reference="wire 42") == []
        assert await lines_of(shop.operator, reference="wire 4") == []
        assert not any(line.reference for line in await lines_of(shop.buyer))
        asked = shop.buyer.statement(reference="wire 42")
        assert await refused(asked) == (Code.NOT_PERMITTED, "reference")


async def test_the_treasurer_reads_the_accounts_of_any_organisation_and_nobody_else_does(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as server:
        shop = await traded(server)
        treasurer, vendor, its = server.treasurer, shop.vendor, shop.vendor.vendor_id

        now = await vendor.balance()
        assert await treasurer.balance(organisation_id=its) == now
        then = await treasurer.balance(organisation_id=its, at_seq=now.as_of_seq - 1)
        assert then == await vendor.balance(at_seq=now.as_of_seq - 1)
        assert await lines_of(treasurer, organisation_id=its) == await lines_of(vendor)
        for holder in (shop.operator, shop.buyer, AccountHolder(server.admin.connection)):
            for asked in (
                holder.balance(organisation_id=its),
                holder.statement(organisation_id=its),
            ):
                assert await refused(asked) == (Code.NOT_FOUND, "organisation_id")
        nobody = treasurer.balance(organisation_id=derive_id("org", "nobody"))
        assert await refused(nobody) == (Code.NOT_FOUND, "organisation_id")
        own = await treasurer.balance()
        assert {each.account for each in own.accounts} == {"external_clearing", "platform_fee"}


@pytest.mark.parametrize(
    ("ask", "path"),
    [
        ({"account": "no_such_kind"}, "account"),
        ({"since": "2026-01-02T00:00:00.000000Z", "until": "2026-01-01T00:00:00.000000Z"}, "until"),
        ({"cursor": "e30"}, "cursor"),
        ({"cursor": "AAAA"}, "cursor"),
        ({"limit": 201}, "limit"),
        ({"limit": 0}, "limit"),
    ],
)
async def test_what_is_no_question_is_refused(
    tmp_path: Path, ask: dict[str, Any], path: str
) -> None:
    async with serving(tmp_path) as server:
        operator = Operator(await server.organisation("operator", "Operator One"))

        assert await refused(operator.statement(**ask)) == (Code.INVALID_ARGUMENT, path)


async def test_a_cursor_answers_only_the_question_it_is_of(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        shop = await traded(server)
        cursor = (await shop.operator.statement(limit=1)).cursor

        assert (await shop.operator.statement(limit=5, cursor=cursor)).lines
        for other in (
            shop.operator.statement(by="effective", cursor=cursor),
            shop.operator.statement(account="prepaid", cursor=cursor),
            shop.vendor.statement(cursor=cursor),
        ):
            assert await refused(other) == (Code.INVALID_ARGUMENT, "cursor")


@pytest.mark.parametrize(
    "change", [{"as_of": True}, {"key": [True, 0, 0]}, {"key": [-1, 0, 0]}, {"key": [0, 0]}]
)
async def test_a_cursor_that_was_made_up_is_no_place(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    async with serving(tmp_path) as server:
        shop = await traded(server)
        cursor = (await shop.operator.statement(limit=1)).cursor
        made_up = canonical_bytes({**json.loads(base64url.decode(cursor)), **change})
        asked = shop.operator.statement(limit=1, cursor=base64url.encode(made_up))

        assert await refused(asked) == (Code.INVALID_ARGUMENT, "cursor")


async def test_a_moment_that_has_not_been_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        shop = await traded(server)
        both = shop.operator.balance(at_seq=3, at=format_time(server.clock()))

        with pytest.raises(Refused, match=f"no record {ABSENT}; the last is [0-9]+") as absent:
            await shop.operator.balance(at_seq=ABSENT)
        assert (absent.value.code, absent.value.refusal.path) == (Code.INVALID_ARGUMENT, "at_seq")
        assert await refused(both) == (Code.INVALID_ARGUMENT, "at")
        tomorrow = format_time(server.clock() + DAY_US)
        later = shop.operator.balance(at=tomorrow)
        assert await refused(later) == (Code.INVALID_ARGUMENT, "at")
        later = shop.operator.balance(effective_at=tomorrow)
        assert await refused(later) == (Code.INVALID_ARGUMENT, "effective_at")


async def test_the_read_model_is_made_anew_when_it_is_gone_or_of_another_journal(
    tmp_path: Path,
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    async with serving(one) as server:
        before = await lines_of((await traded(server)).operator)
    async with serving(two) as server:
        await traded(server, "Two")
        await server.treasurer.fund(
            (await server.organisation("operator", "Operator Three")).principal, usd("1"), "more"
        )
    for path in one.glob("reports.sqlite*"):
        path.unlink()
    (two / "reports.sqlite").rename(one / "reports.sqlite")
    async with serving(one) as server:
        key = signing_key("Operator One")
        operator = Operator(server.connect(key, derive_id("org", key.thumbprint)))
        assert await lines_of(operator) == before


async def test_streams_of_real_processes_go_on_over_kills(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, free_port(), workers=2)
    facts = await server.start()
    try:
        async with httpx2.AsyncClient(limits=ENOUGH) as http:
            operator, treasurer = await enrolled(facts, http)
            fund = partial(treasurer.fund, operator.connection.principal)
            uri = f"farthing://accounts/{operator.connection.principal}/prepaid/USD/balance"
            wanted = {"notifications": {"resourceSubscriptions": [uri]}}
            async with (
                aclosing(operator.balance_events()) as events,
                subscribed(operator.connection, wanted) as messages,
            ):
                assert (await told(events)).accounts == ()
                assert (await told(messages))["params"]["notifications"]
                await fund(usd("1"), "first")
                assert (await told(events)).accounts[0].posted == usd("1")
                assert (await told(messages))["params"]["uri"] == uri

                engine = server.engine_pid
                os.kill(engine, signal.SIGKILL)
                await asyncio.to_thread(server.replaced, engine)
                await fund(usd("2"), "second")
                seen = await told(events)
                assert seen.accounts[0].posted == usd("3")
                assert (await told(messages))["params"]["uri"] == uri
            server.kill()
            await server.start()
            await fund(usd("4"), "third")
            async with aclosing(operator.balance_events(seen.seq)) as events:
                assert (await told(events)).accounts[0].posted == usd("7")
            lines = await lines_of(operator)
        assert [line.amount for line in lines] == [usd("1"), usd("2"), usd("4")]
    finally:
        server.stop()


async def enrolled(facts: dict[str, Any], http: httpx2.AsyncClient) -> tuple[Operator, Treasurer]:
    """An operator that may act, and the treasurer."""
    admin, treasurer = (
        Connection(
            facts["issuer"], signer=key, principal=derive_id("stf", key.thumbprint), http=http
        )
        for key in (load_key(Path(facts[name])) for name in ("admin_key", "treasurer_key"))
    )
    newcomer = Newcomer(Connection(facts["issuer"], signer=signing_key("Operator One"), http=http))
    registered = await newcomer.enrol("operator", "Operator One")
    await Admin(admin).approve(registered.principal_id)
    return Operator(newcomer.member(registered)), Treasurer(treasurer)


async def told(events: Any) -> Any:
    async with patiently():
        return await anext(events)
