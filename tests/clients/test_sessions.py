"""A spend session from its buyer's side, against the law alone: a vendor's desk and no platform."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from farthing.clients.callbooks import CallState, SessionInUse
from farthing.clients.session_answers import AnswerFault, CallFailed, CallLost, WrongAnswer
from farthing.clients.tools import ToolResult
from farthing.protocol.errors import (
    Code,
    NextAction,
    Refused,
    Unverified,
    refuse,
)
from farthing.protocol.messages.sessions import Session
from farthing.protocol.times import SECOND_US
from farthing.protocol.vouchers import ack_after
from tests.clients.spending import AGREEMENT_ID, FLAT, PAGE_UNITS, StandInBuyer, pdf, usd
from tests.papers import GRADUATED
from tests.patience import until


@pytest.fixture
def buyer(tmp_path: Path) -> StandInBuyer:
    return StandInBuyer(tmp_path, FLAT)


async def test_many_calls_run_at_once_and_each_costs_what_the_card_gives(
    buyer: StandInBuyer,
) -> None:
    async with buyer.session(AGREEMENT_ID, cap=usd("0.64"), per_call=usd("0.01")) as session:
        buyer.vendor.hold_back = asyncio.Event()
        calls = [asyncio.create_task(session.call(pdf(1 + n % 3))) for n in range(64)]
        buyer.vendor.full_house = 64
        await buyer.vendor.working.wait()
        buyer.vendor.hold_back.set()
        answers = await asyncio.gather(*calls)

    assert [each.amount.units for each in answers] == [(1 + n % 3) * PAGE_UNITS for n in range(64)]
    assert sorted(each.seq for each in answers) == list(range(1, 65))
    assert max(each.spent.units for each in answers) == sum(each.amount.units for each in answers)
    assert buyer.platform.asked == ["open_session", "close_session"]


async def test_no_more_calls_are_out_than_the_vendor_takes(buyer: StandInBuyer) -> None:
    async with buyer.session(AGREEMENT_ID, cap=usd("1"), per_call=usd("0.01")) as session:
        await asyncio.gather(*(session.call(pdf(1)) for _ in range(100)))

    assert buyer.vendor.runs == 100
    assert buyer.vendor.working_max == 64


async def test_what_cannot_be_covered_waits_for_what_may_leave_room(buyer: StandInBuyer) -> None:
    async with buyer.session(AGREEMENT_ID, cap=usd("0.03"), per_call=usd("0.01")) as session:
        await asyncio.gather(*(session.call(pdf(1)) for _ in range(10)))

        assert session.left.spent == usd("0.02")


@pytest.mark.parametrize(
    ("final_action", "way_on"),
    [
        ("refuse", NextAction.REDUCE),
        ("top_up", NextAction.TOP_UP),
        ("request_approval", NextAction.REQUEST_APPROVAL),
    ],
)
async def test_a_cap_that_is_reached_says_what_its_opener_wanted_then(
    buyer: StandInBuyer, final_action: Any, way_on: NextAction
) -> None:
    session = await buyer.opened(
        cap=usd("0.012"), per_call=usd("0.006"), low_water=usd("0.006"), final_action=final_action
    )
    assert not session.left.low
    await session.call(pdf(3))
    assert session.left.low
    assert session.left.final_action == final_action
    await session.call(pdf(2))

    with pytest.raises(Refused) as caught:
        await session.call(pdf(1))

    assert caught.value.code is Code.LOCAL_LIMIT_EXCEEDED
    assert caught.value.refusal.next_action is way_on
    assert buyer.vendor.runs == 2
    await session.aclose()


async def test_after_a_top_up_calls_go_on_with_the_new_entitlement(buyer: StandInBuyer) -> None:
    session = await buyer.opened(cap=usd("0.006"), per_call=usd("0.006"))
    await session.call(pdf(3))
    with pytest.raises(Refused):
        await session.call(pdf(3))

    await session.top_up(usd("0.006"))
    answer = await session.call(pdf(3))

    assert answer.spent == usd("0.012")
    assert buyer.vendor.vouchers[-1].max_cum_units == 12_000_000
    await session.aclose()


async def test_a_top_up_whose_answer_was_overtaken_takes_nothing_back(
    buyer: StandInBuyer, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await buyer.opened(cap=usd("0.006"), per_call=usd("0.006"))
    answer, overtaken = buyer.platform.call, asyncio.Event()

    async def late_the_first_time(operation: Any, ask: Any) -> Session:
        answered, is_first = await answer(operation, ask), not buyer.platform.asked[1:]
        if is_first:
            await overtaken.wait()
        return answered

    buyer.platform.asked.clear()
    monkeypatch.setattr(buyer.platform, "call", late_the_first_time)
    first = asyncio.create_task(session.top_up(usd("0.006")))
    await until(lambda: bool(buyer.platform.asked))
    await session.top_up(usd("0.006"))
    overtaken.set()
    await first

    assert session.left.remaining == usd("0.018")
    await session.aclose()


async def test_an_answer_that_was_lost_is_asked_for_again_and_done_once(
    buyer: StandInBuyer,
) -> None:
    session = await buyer.opened()
    await session.call(pdf(1))
    buyer.vendor.lose_answers = 1
    with pytest.raises(CallLost) as lost:
        await session.call(pdf(2))
    assert session.left.reserved == usd("0.01")
    other = await session.call(pdf(3))

    with pytest.raises(Refused) as caught:
        await session.call(pdf(3), again=lost.value.seq)
    answer = await session.call(pdf(2), again=lost.value.seq)
    once_more = await session.call(pdf(2), again=lost.value.seq)

    assert caught.value.refusal.path == "arguments"
    assert (lost.value.seq, other.seq, answer.seq) == (2, 3, 2)
    assert answer == replace(once_more, spent=answer.spent)
    assert buyer.vendor.runs == 3
    assert session.left.spent == usd("0.012")
    assert session.left.reserved == usd("0")
    await session.aclose()


async def test_a_restart_goes_on_and_never_gives_a_number_twice(buyer: StandInBuyer) -> None:
    session = await buyer.opened()
    await session.call(pdf(1))
    buyer.vendor.lose_answers = 1
    with pytest.raises(CallLost):
        await session.call(pdf(2))
    # As a process that is killed: nothing is closed but the file's lock.
    session._file.close()  # noqa: SLF001 - nobody else lets go of it without writing

    resumed = await buyer.resume_session(session.session_id)
    cut_off = await resumed.calls(CallState.ASKED)
    again = await resumed.call(pdf(2), again=cut_off[0].seq)
    new = await resumed.call(pdf(3))

    assert [each.seq for each in cut_off] == [2]
    assert (again.seq, new.seq) == (2, 3)
    assert new.spent == usd("0.012")
    await resumed.aclose()


async def test_a_call_whose_answer_is_disputed_is_not_lost(buyer: StandInBuyer) -> None:
    session = await buyer.opened()
    buyer.vendor.lie = {"seq": 9}
    with pytest.raises(WrongAnswer):
        await session.call(pdf(1))
    buyer.vendor.lie, buyer.vendor.lose_answers = {}, 1
    with pytest.raises(CallLost):
        await session.call(pdf(2))
    before = session.left.lost
    await session.aclose()

    resumed = await buyer.resume_session(session.session_id)

    assert before == resumed.left.lost == (2,)
    await resumed.aclose()


async def test_the_same_key_opens_the_same_session_with_its_book(buyer: StandInBuyer) -> None:
    session = await buyer.opened()
    await session.call(pdf(1))
    with pytest.raises(SessionInUse):
        await buyer.opened()
    await session.aclose()

    again = await buyer.opened()

    assert (await again.call(pdf(1))).seq == 2
    await again.aclose()


async def test_a_session_that_was_topped_up_is_opened_again_with_all_that_it_has(
    buyer: StandInBuyer,
) -> None:
    session = await buyer.opened(cap=usd("0.002"), per_call=usd("0.002"))
    await session.call(pdf(1))
    await session.top_up(usd("0.002"))
    await session.aclose()

    again = await buyer.opened(cap=usd("0.002"), per_call=usd("0.002"))

    assert (await again.call(pdf(1))).spent == usd("0.004")
    await again.aclose()


@pytest.mark.parametrize(
    "other",
    [
        {"cap": usd("0.2")},
        {"per_call": usd("0.02")},
        {"agreement_id": "agr_00000000000000000000000000"},
        {"rate_card_sha256": "d" * 64},
    ],
)
async def test_nothing_is_signed_for_a_session_that_was_not_asked_for(
    buyer: StandInBuyer, monkeypatch: pytest.MonkeyPatch, other: dict[str, Any]
) -> None:
    opened = buyer.platform.opened
    monkeypatch.setattr(buyer.platform, "opened", lambda ask: replace(opened(ask), **other))

    with pytest.raises(Unverified, match="not the session that was asked for"):
        await buyer.opened()


async def test_another_session_is_not_gone_on_with(buyer: StandInBuyer) -> None:
    await (await buyer.opened()).aclose()

    with pytest.raises(Unverified, match="is not ses_00000000000000000000000000"):
        await buyer.resume_session("ses_00000000000000000000000000")


async def test_calls_of_which_there_is_no_book_here_are_not_gone_on_with(
    buyer: StandInBuyer, tmp_path: Path
) -> None:
    session = await buyer.opened()
    await session.aclose()
    buyer.platform.session = replace(buyer.platform.now, top_seq=7, voucher_seq=7)
    buyer.folder = tmp_path / "elsewhere"

    with pytest.raises(Unverified, match="not from here"):
        await buyer.resume_session(session.session_id)


async def test_a_book_that_was_restored_from_before_its_last_calls_is_not_gone_on_with(
    buyer: StandInBuyer,
) -> None:
    session = await buyer.opened()
    await session.call(pdf(1))
    await session.aclose()

    buyer.platform.session = replace(buyer.platform.now, top_seq=1, voucher_seq=2)
    with pytest.raises(Unverified, match="later calls were made"):
        await buyer.resume_session(session.session_id)
    buyer.platform.session = replace(buyer.platform.now, top_seq=1, voucher_seq=1)
    await (await buyer.resume_session(session.session_id)).aclose()


async def test_the_acknowledgements_are_the_chain_of_the_last_voucher(buyer: StandInBuyer) -> None:
    session = await buyer.opened()
    await asyncio.gather(*(session.call(pdf(1 + n)) for n in range(3)))
    answered = sorted(await session.calls(CallState.ANSWERED), key=lambda each: each.place)
    await session.call(pdf(1))

    ack = ""
    for each in answered:
        ack = ack_after(ack, each.seq, each.units, each.result_sha256)

    assert [each.place for each in answered] == [1, 2, 3]
    assert buyer.vendor.vouchers[-1].ack == ack
    await session.aclose()


async def test_a_vendor_that_fails_is_not_paid_and_leaves_the_money_free(
    buyer: StandInBuyer,
) -> None:
    session = await buyer.opened()
    buyer.vendor.refusal = refuse(Code.VENDOR_FAILED)
    with pytest.raises(CallFailed) as failed:
        await session.call(pdf(1))
    buyer.vendor.refusal = None

    with pytest.raises(Refused) as caught:
        await session.call(pdf(1), again=failed.value.seq)
    answer = await session.call(pdf(1))

    assert failed.value.code is Code.VENDOR_FAILED
    assert caught.value.refusal.path == "again"
    assert (answer.seq, answer.spent) == (2, usd("0.002"))
    await session.aclose()


async def test_an_address_that_takes_no_payment_leaves_the_money_free(
    buyer: StandInBuyer, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await buyer.opened()

    async def unpayable(*_: object) -> ToolResult:
        raise Refused(refuse(Code.VENDOR_FAILED, path="interface.url"))

    monkeypatch.setattr(buyer.vendor, "exchange", unpayable)
    with pytest.raises(CallFailed):
        await session.call(pdf(1))

    assert session.left.reserved == usd("0")
    await session.aclose()


async def test_words_of_a_vendor_that_no_file_takes_end_no_other_call(buyer: StandInBuyer) -> None:
    session = await buyer.opened()
    buyer.vendor.lie = {"usage": {"\u00e9": 1}}
    with pytest.raises(WrongAnswer):
        await session.call(pdf(1))
    buyer.vendor.lie = {}

    answer = await session.call(pdf(1))

    assert answer.seq == 2
    await session.aclose()


@pytest.mark.parametrize(
    ("lie", "fault", "spent"),
    [
        ({"amount_units": PAGE_UNITS + 1}, AnswerFault.AMOUNT, "0.002"),
        ({"amount_units": 0}, AnswerFault.AMOUNT, "0.002"),
        ({"amount_units": 20_000_000, "usage": {"page": 10}}, AnswerFault.AMOUNT, "0"),
        ({"usage": {"word": 1}}, AnswerFault.USAGE, "0"),
        ({"result_sha256": "f" * 64}, AnswerFault.DIGEST, "0"),
        ({"seq": 9}, AnswerFault.NOT_STATED, "0"),
        ({"session_id": "ses_x"}, AnswerFault.NOT_STATED, "0"),
    ],
)
async def test_what_does_not_hold_is_an_error_and_is_kept(
    buyer: StandInBuyer, lie: dict[str, Any], fault: AnswerFault, spent: str
) -> None:
    session = await buyer.opened()
    buyer.vendor.lie = lie

    with pytest.raises(WrongAnswer) as wrong:
        await session.call(pdf(1))

    assert wrong.value.fault is fault
    (kept,) = await session.calls()
    assert (kept.seq, kept.fault) == (1, fault.value)
    assert session.left.spent == usd(spent)
    # What may still be billed stays reserved.
    assert session.left.reserved == usd("0" if spent != "0" else "0.01")
    await session.aclose()


async def test_a_wrong_amount_comes_with_what_was_delivered(buyer: StandInBuyer) -> None:
    session = await buyer.opened()
    buyer.vendor.lie = {"amount_units": PAGE_UNITS + 1}

    with pytest.raises(WrongAnswer, match=r"0\.002000001 USD, the card gives 0\.002") as wrong:
        await session.call(pdf(1))

    assert wrong.value.answer is not None
    assert wrong.value.answer.result == {"pages": [""]}
    (kept,) = await session.calls(CallState.ANSWERED)
    assert (kept.units, kept.said_units) == (PAGE_UNITS, PAGE_UNITS + 1)
    await session.aclose()


async def test_a_result_that_is_not_as_sold_is_not_acknowledged(buyer: StandInBuyer) -> None:
    session = await buyer.opened()
    buyer.vendor.result = {"pages": 3}

    with pytest.raises(WrongAnswer) as wrong:
        await session.call(pdf(1))

    assert wrong.value.fault is AnswerFault.SCHEMA
    buyer.vendor.result = None
    await session.call(pdf(1))
    assert buyer.vendor.vouchers[-1].ack == ""
    await session.aclose()


async def test_tiers_are_crossed_in_the_vendor_s_order_and_the_sum_is_judged(
    tmp_path: Path,
) -> None:
    buyer = StandInBuyer(tmp_path, GRADUATED)
    session = await buyer.opened(cap=usd("1"), per_call=usd("0.04"))
    # The answer that was worked off first comes last.
    buyer.vendor.late[1] = asyncio.Event()
    first = asyncio.create_task(session.call(pdf(8)))
    await buyer.vendor.worked_off.wait()
    second = await session.call(pdf(8))
    buyer.vendor.late[1].set()
    first_answer = await first

    assert (second.amount.units, first_answer.amount.units) == (16_000_000, 13_000_000)
    assert await session.calls() == await session.calls(CallState.ANSWERED)
    assert not any(each.fault for each in await session.calls())

    buyer.vendor.lie = {"amount_units": 1}
    with pytest.raises(WrongAnswer) as wrong:
        await session.call(pdf(1))
    assert wrong.value.fault is AnswerFault.AMOUNT
    await session.aclose()


async def test_arguments_that_do_not_fit_take_no_number(buyer: StandInBuyer) -> None:
    session = await buyer.opened()
    with pytest.raises(Refused) as caught:
        await session.call({"pdf": 7})

    assert caught.value.refusal.path == "arguments.pdf"
    assert await session.calls() == ()
    await session.aclose()


async def test_no_call_is_made_after_the_session_s_time(buyer: StandInBuyer) -> None:
    session = await buyer.opened(expires_in_s=60)
    await session.call(pdf(1))
    buyer.clock.now_us += 60 * SECOND_US

    with pytest.raises(Refused) as caught:
        await session.call(pdf(1))

    assert caught.value.code is Code.SESSION_CLOSED
    assert buyer.vendor.runs == 1
    await session.aclose()


async def test_a_lost_answer_can_be_had_when_the_session_is_over(buyer: StandInBuyer) -> None:
    session = await buyer.opened()
    buyer.vendor.lose_answers = 1
    with pytest.raises(CallLost) as lost:
        await session.call(pdf(1))
    closed = await session.close()

    answer = await session.call(pdf(1), again=lost.value.seq)

    assert closed.status == "closing"
    assert answer.result == {"pages": [""]}
    await session.aclose()


async def test_what_breaks_the_block_off_is_heard_and_the_session_is_closed(
    buyer: StandInBuyer,
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with buyer.session(AGREEMENT_ID, cap=usd("0.1"), per_call=usd("0.01")):
            raise ZeroDivisionError

    assert buyer.platform.asked[-1] == "close_session"


async def test_one_signature_covers_many_calls_by_mac_up_to_the_bound(buyer: StandInBuyer) -> None:
    async with buyer.session(
        AGREEMENT_ID, cap=usd("0.5"), per_call=usd("0.002"), unsigned=usd("0.02")
    ) as session:
        for _ in range(21):
            await session.call(pdf(1))
            assert buyer.vendor.desk is not None
            assert buyer.vendor.desk.exposed_units <= 20_000_000

        assert buyer.vendor.runs == 21
        assert len(buyer.vendor.vouchers) <= 3
        assert buyer.vendor.macs >= 18
    # At the end everything is signed for, with no work done for it.
    assert buyer.vendor.runs == 21
    desk = buyer.vendor.desk
    assert desk is not None
    assert desk.covers(21)


async def test_a_vendor_that_forgot_the_key_is_given_a_signature(buyer: StandInBuyer) -> None:
    session = await buyer.opened(unsigned=usd("0.05"))
    await session.call(pdf(1))
    await session.call(pdf(1))
    assert buyer.vendor.macs == 1
    buyer.vendor.key = b""

    answer = await session.call(pdf(1))

    assert answer.spent == usd("0.006")
    assert len(buyer.vendor.vouchers) == 2
    await session.call(pdf(1))
    assert buyer.vendor.macs == 2
    await session.aclose()
