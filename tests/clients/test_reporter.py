"""Usage on its way to settlement: made once, kept, sent until it is answered, billed once."""

import asyncio
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from farthing.clients.counter import Sold, Unpaid
from farthing.clients.documents import arguments_sha256
from farthing.clients.reporter import Metered, Signed, UsageQueue
from farthing.protocol.batches import verify_batch
from farthing.protocol.errors import Code, Unverified, refuse
from farthing.protocol.keys import PrivateKey
from farthing.protocol.messages.sessions import UsageReport
from farthing.protocol.proofs import Voucher
from farthing.protocol.times import SECOND_US
from farthing.protocol.usage import UsageEvent, UsageOutcome
from tests.clients.settling import MAC_KEY, PAGE_UNITS, Payer, Shop, shop
from tests.patience import patiently, until

PDF = {"pdf": "one|two"}
ALL = {1: 2 * PAGE_UNITS, 2: 2 * PAGE_UNITS, 3: 2 * PAGE_UNITS}


def billed(market: Shop) -> dict[int, int]:
    return {seq: units for (_, seq), units in sorted(market.settlement.billed.items())}


def numbers(market: Shop) -> list[list[int]]:
    return [[int(event["id"]) for event in json.loads(sent[0])] for sent in market.settlement.sent]


async def called(market: Shop, times: int) -> str:
    payer = market.payer()
    for _ in range(times):
        assert isinstance(await market.call(payer, PDF), Sold)
    return payer.book.session_id


async def test_a_batch_whose_answer_is_lost_is_sent_again_as_it_was_and_billed_once(
    tmp_path: Path,
) -> None:
    async with shop(tmp_path) as market:
        market.settlement.lose_answers = 3
        await called(market, 1)
        await market.settled(1)
        async with patiently():
            await market.settlement.reported.wait()

        assert len(market.settlement.sent) == 4
        assert len(set(market.settlement.sent)) == 1
        assert billed(market) == {1: 2 * PAGE_UNITS}


async def test_what_waits_when_the_process_is_killed_is_reported_by_the_next_one(
    tmp_path: Path,
) -> None:
    async with shop(tmp_path) as market:
        market.settlement.is_down = True
        await called(market, 3)
        await market.crash()
        market.settlement.is_down = False
        await market.open()
        await market.settled(3)

        assert billed(market) == ALL
        assert sorted(chain(*numbers(market))) == [1, 2, 3]


async def test_a_batch_that_was_sent_before_the_kill_is_the_same_batch_after_it(
    tmp_path: Path,
) -> None:
    async with shop(tmp_path) as market:
        market.settlement.lose_answers = 10**9
        await called(market, 1)
        async with patiently():
            await market.settlement.was_asked.wait()
        await market.crash()
        market.settlement.lose_answers = 0
        await market.open()
        async with patiently():
            await market.settlement.reported.wait()

        assert len(set(market.settlement.sent)) == 1
        assert billed(market) == {1: 2 * PAGE_UNITS}


async def test_a_platform_that_is_away_is_asked_more_and_more_rarely_but_never_given_up(
    tmp_path: Path,
) -> None:
    async with shop(tmp_path) as market:
        refusal = refuse(Code.OVERLOADED, retry_after_s=7)
        market.settlement.refusals = [refusal, *[refuse(Code.UNAVAILABLE)] * 11]
        await called(market, 1)
        await market.settled(1)

        assert len(market.settlement.sent) == 13
        backoff = market.waited_s[1:13]
        assert backoff[:3] == [7, 0.5, 1]
        assert max(backoff) == backoff[-1] == 60


async def test_an_event_that_settlement_does_not_take_is_kept_with_its_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with shop(tmp_path) as market:
        market.settlement.reject = {2: "over_allowance"}
        await called(market, 3)
        await market.settled(2)
        await market.counter.close()
        await market.open()

        (rejected,) = await market.counter.sessions.rejected(10)
        assert (rejected.seq, rejected.rejected) == (2, "over_allowance")
        assert rejected.result == b'{"pages":["one","two"]}'
        assert billed(market) == {1: 2 * PAGE_UNITS, 3: 2 * PAGE_UNITS}
        assert "over_allowance" in caplog.text


async def test_a_batch_that_is_refused_for_good_is_kept_and_the_next_one_goes_on(
    tmp_path: Path,
) -> None:
    async with shop(tmp_path) as market:
        market.settlement.refusals = [refuse(Code.SESSION_CLOSED)]
        payer = market.payer()
        await market.call(payer, PDF)
        async with patiently():
            await market.settlement.was_asked.wait()
        other = market.payer("other")
        await market.call(other, PDF)
        await market.settled(1)

        (rejected,) = await market.counter.sessions.rejected(10)
        assert (rejected.seq, rejected.rejected) == (1, "session_closed")
        assert market.settlement.billed == {(other.book.session_id, 1): 2 * PAGE_UNITS}


async def test_a_batch_under_a_key_that_was_replaced_is_signed_with_the_new_one(
    tmp_path: Path,
) -> None:
    async with shop(tmp_path) as market:
        market.settlement.is_down = True
        session_id = await called(market, 1)
        async with patiently():
            await market.settlement.was_asked.wait()
        await market.crash()
        newer = PrivateKey.from_seed(b"n" * 32)
        market.settlement.connection.signer = newer
        market.settlement.is_down = False
        market.settlement.refusals = [refuse(Code.SIGNATURE_INVALID)]
        await market.open()
        await market.settled(1)

        (old, _, _, old_key), (text, signature, _, key) = market.settlement.sent
        assert (old, old_key == key) == (text, False)
        keys = {newer.thumbprint: newer.public}
        signed = verify_batch(signature, session_id, text.encode(), keys.get)
        assert signed.key == newer.public


async def test_what_no_signature_covers_is_reported_when_the_session_is_over_and_not_billed(
    tmp_path: Path,
) -> None:
    async with shop(tmp_path) as market:
        payer = market.payer(per_call=1, unsigned=2)
        one = {"pdf": "one"}
        for presented in (
            payer.signed(payer.voucher(one), mac_key=MAC_KEY),
            payer.maced(payer.voucher(one)),
        ):
            assert isinstance(await market.sell(presented, one), Sold)
        await market.settled(1)
        assert numbers(market) == [[1]]
        market.clock.now_us += 600 * SECOND_US
        await market.counter.close()
        await market.open()

        (rejected,) = await market.counter.sessions.rejected(10)
        assert (rejected.seq, rejected.rejected) == (2, "beyond_voucher")
        assert billed(market) == {1: PAGE_UNITS}


def metered() -> Iterator[Metered]:
    for place in range(1, 1202):
        event = UsageEvent(
            seq=place,
            at_us=1,
            usage={},
            outcome=UsageOutcome.SUCCEEDED,
            args_sha256="a" * 64,
            result_sha256="b" * 64,
        )
        yield Metered(place, event, 2)


def test_a_batch_is_bounded_and_holds_what_the_voucher_covers_until_the_end() -> None:
    queue = UsageQueue("ses_x", ends_at_us=100, voucher=Signed("v", 1201, 2400))
    for each in metered():
        queue.add(each)
    sizes: list[Any] = []
    for now_us in (1, 1, 1, 99, 100):
        due = queue.due(now_us)
        sizes.append((len(due), queue.is_full.is_set()))
        queue.take(due)

    # What is more than a batch waits for no second to pass.
    assert sizes == [(500, True), (500, True), (200, False), (0, False), (1, False)]
    assert queue.reported_units == 2402


def test_a_number_above_the_vouchers_waits_for_a_later_one() -> None:
    queue = UsageQueue("ses_x", ends_at_us=100, voucher=Signed("v", 2, 100))
    first, second, third, *_ = metered()
    for each in (first, third._replace(place=2), second._replace(place=3)):
        queue.add(each)

    queue.take(queue.due(1)[:1])
    assert [each.event.seq for each in queue.due(1)] == [2]
    queue.voucher = Signed("w", 3, 100)
    assert [each.event.seq for each in queue.due(1)] == [3, 2]
    queue.voucher = Signed("v", 2, 100)
    assert queue.take(queue.due(1)) == [third._replace(place=1)]
    assert queue.due(1) == []


@pytest.mark.parametrize("table", ["call", "batch"])
async def test_what_a_full_disk_did_not_take_is_reported_when_it_has_room_though_no_call_follows(
    tmp_path: Path, table: str
) -> None:
    async with shop(tmp_path) as market:
        write, failures = market.file.file.write, [OSError(28, "No space left on device")] * 3

        def full(steps: Iterable[tuple[str, Any]]) -> None:
            steps = list(steps)
            if failures and any(rows for each, rows in steps if f"INTO {table}" in each):
                raise failures.pop()
            write(steps)

        market.file.file.write = full  # type: ignore[method-assign]
        payer = market.payer()
        await market.sell(payer.signed(payer.voucher(PDF)), PDF)
        await market.settled(1)

        assert not failures
        assert billed(market) == {1: 2 * PAGE_UNITS}


async def test_an_answer_of_another_form_is_asked_for_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with shop(tmp_path) as market:
        report, odd = market.settlement.report_usage, [Unverified("charge_id: missing")] * 2

        async def answer(
            session_id: str, batch: str, signature: str, voucher: str, *, key: str
        ) -> UsageReport:
            if odd:
                raise odd.pop()
            return await report(session_id, batch, signature, voucher, key=key)

        market.settlement.report_usage = answer  # type: ignore[method-assign]
        await called(market, 1)
        await market.settled(1)

        assert billed(market) == {1: 2 * PAGE_UNITS}
        assert caplog.text.count("charge_id: missing") == 2


async def test_sessions_wait_for_nobody_but_themselves(tmp_path: Path) -> None:
    async with shop(tmp_path) as market:
        market.settlement.refusals = [refuse(Code.UNAVAILABLE)]
        first, second = market.payer("one"), market.payer("two")
        await asyncio.gather(market.call(first, PDF), market.call(second, PDF))
        await market.settled(2)

        sessions = {session_id for session_id, _ in market.settlement.billed}
        assert sessions == {first.book.session_id, second.book.session_id}


async def test_a_crash_in_the_middle_of_many_calls_bills_each_that_was_answered_once(
    tmp_path: Path,
) -> None:
    async with shop(tmp_path) as market:
        payer = market.payer()
        market.desk.full_house, market.desk.go = 8, asyncio.Event()
        payments = [payer.signed(payer.voucher(PDF)) for _ in range(8)]
        calls = [asyncio.create_task(market.sell(each, PDF)) for each in payments]
        async with patiently():
            await market.desk.is_full.wait()
        market.desk.go.set()
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        await market.crash()
        answered = [call for call in calls if call.done() and not call.cancelled()]
        market.desk.go = None
        await market.open()
        again = [await market.sell(replace(each), PDF) for each in payments]
        await market.settled(8)

        assert answered
        assert all(isinstance(each, Sold) for each in again)
        assert billed(market) == dict.fromkeys(range(1, 9), 2 * PAGE_UNITS)
        assert sorted(set(chain(*numbers(market)))) == list(range(1, 9))


async def test_what_settlement_cannot_take_yet_is_reported_again_later(tmp_path: Path) -> None:
    async with shop(tmp_path) as market:
        market.settlement.reject = {1: "in_future", 2: "beyond_voucher"}
        await called(market, 3)
        await market.settled(1)
        await market.crash()
        market.settlement.reject = {}
        await market.open()
        await market.settled(3)

        assert billed(market) == ALL
        assert await market.counter.sessions.rejected(10) == []


async def test_a_clock_that_is_ahead_costs_a_vendor_no_call_at_the_session_s_end(
    tmp_path: Path,
) -> None:
    async with shop(tmp_path) as market:
        payer = market.payer()
        market.clock.now_us = payer.entitlement.expires_at_us - 1
        market.settlement.reject = {1: "in_future"}
        assert isinstance(await market.call(payer, PDF), Sold)
        async with patiently():
            await market.settlement.reported.wait()
        market.clock.now_us += 30 * SECOND_US
        sent = len(market.settlement.sent)
        await until(lambda: len(market.settlement.sent) > sent)
        market.settlement.reject = {}
        await market.settled(1)

        assert billed(market) == {1: 2 * PAGE_UNITS}


async def test_a_call_behind_one_that_was_put_back_is_not_lost_to_two_restarts(
    tmp_path: Path,
) -> None:
    async with shop(tmp_path) as market:
        payer = market.payer()
        market.settlement.reject = {1: "in_future"}
        await market.call(payer, PDF)
        await until(lambda: len(market.settlement.sent) >= 3)
        market.settlement.reject = {}
        await market.settled(1)
        await market.counter.close()
        await market.open()
        market.settlement.is_down = True
        assert isinstance(await market.call(payer, PDF), Sold)
        await market.crash()
        market.settlement.is_down = False
        await market.open()
        await market.settled(2)

        assert billed(market) == {1: ALL[1], 2: ALL[2]}


@pytest.mark.parametrize(
    ("reason", "code", "lasts"),
    [
        ("after_end", Code.SESSION_CLOSED, True),
        ("frozen", Code.FROZEN, False),
        ("over_allowance", Code.ALLOWANCE_EXCEEDED, False),
        ("over_per_call", Code.CAPTURE_EXCEEDS_HOLD, False),
        ("beyond_voucher", Code.CAPTURE_EXCEEDS_HOLD, False),
        ("before_session", None, False),
    ],
)
async def test_no_more_work_is_done_for_what_settlement_does_not_take(
    tmp_path: Path, reason: str, code: Code | None, *, lasts: bool
) -> None:
    async with shop(tmp_path) as market:
        payer = market.payer()
        market.settlement.reject = {1: reason}
        await market.call(payer, PDF)
        async with patiently():
            await market.settlement.reported.wait()

        outcome = await market.sell(payer.signed(payer.voucher(PDF)), PDF)
        market.clock.now_us += 30 * SECOND_US
        later = await market.sell(payer.signed(payer.book.again(2, arguments_sha256(PDF))), PDF)

        assert (outcome.refusal.code if isinstance(outcome, Unpaid) else None) is code
        assert isinstance(later, Unpaid) is lasts


async def test_a_vendor_that_learns_of_the_buyers_close_takes_no_more_calls(tmp_path: Path) -> None:
    async with shop(tmp_path) as market:
        payer = market.payer()
        market.settlement.closes_at = "2026-11-21T12:00:00.000000Z"
        await market.call(payer, PDF)
        async with patiently():
            await market.settlement.reported.wait()

        outcome = await market.sell(payer.signed(payer.voucher(PDF)), PDF)

        assert isinstance(outcome, Unpaid)
        assert outcome.refusal.code is Code.SESSION_CLOSED
        assert billed(market) == {1: ALL[1]}


def numbered(payer: Payer, seq: int) -> Voucher:
    """The voucher of a buyer that leaves numbers out."""
    payer.book.seq = seq - 1
    return payer.voucher(PDF)


async def test_a_buyer_that_leaves_numbers_out_gets_no_call_for_nothing(tmp_path: Path) -> None:
    async with shop(tmp_path) as market:
        payer = market.payer(unsigned=100)
        market.settlement.is_down = True
        signed = payer.signed(numbered(payer, 1), mac_key=MAC_KEY)
        assert isinstance(await market.sell(signed, PDF), Sold)
        await market.settlement.was_asked.wait()
        # Each is within the window of the one that ended before it; the third is signed for first.
        for seq in (985, 5, 2000, 2001):
            voucher = numbered(payer, seq)
            paid = payer.signed(voucher) if seq == 5 else payer.maced(voucher)
            assert isinstance(await market.sell(paid, PDF), Sold)
        market.settlement.is_down = False
        await market.settled(2)
        assert isinstance(await market.sell(payer.signed(numbered(payer, 2002)), PDF), Sold)
        await market.settled(6)

        assert [seq for _, seq in market.settlement.billed] == [1, 5, 985, 2000, 2001, 2002]


async def test_a_call_that_is_reported_again_has_those_behind_it_wait_for_it(
    tmp_path: Path,
) -> None:
    async with shop(tmp_path) as market:
        payer = market.payer()
        market.settlement.is_down, market.settlement.reject = True, {985: "in_future"}
        for seq in (985, 2000):
            assert isinstance(await market.sell(payer.signed(numbered(payer, seq)), PDF), Sold)
        await market.settlement.was_asked.wait()
        market.settlement.is_down = False
        await until(lambda: len(market.settlement.answers) > 2)
        market.settlement.reject = {}
        await market.settled(2)

        assert [seq for _, seq in market.settlement.billed] == [985, 2000]
