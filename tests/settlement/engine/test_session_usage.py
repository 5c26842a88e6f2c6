"""Reported usage: what is billed, what is rejected and why, and that nothing passes its bounds."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from farthing.protocol.canonical import sha256_hex
from farthing.protocol.errors import Code, Refusal, refuse
from farthing.protocol.messages.agents import (
    FREEZE,
    REVOKE_KEY,
    UNFREEZE,
    Freeze,
    RevokeKey,
    Unfreeze,
)
from farthing.protocol.messages.sessions import RejectedEvent
from farthing.protocol.rating import rate
from farthing.protocol.records import Record
from farthing.protocol.times import SECOND_US
from farthing.protocol.usage import UsageEvent, UsageOutcome
from farthing.protocol.wire import money
from farthing.settlement.engine import usage
from farthing.settlement.engine.commands import Seen
from farthing.settlement.engine.usage import report_answer
from tests.construction import Trade
from tests.protocol.replay.metered import PAGE_UNITS as PAGE
from tests.protocol.replay.metered import Metered, events
from tests.settlement.engine.test_sessions import close, freeze, market, pending, session_of

CAP = 40 * PAGE


@dataclass(slots=True)
class Case:
    """A session, and one event that is about to be reported with everything that can be wrong."""

    metered: Metered
    event: UsageEvent
    voucher: dict[str, int] = field(default_factory=lambda: {"seq": 2000, "max_cum": 10**9})


def rejected(record: Record) -> list[tuple[str, str]]:
    return [(each.id, each.reason) for each in report_answer(record).rejected]


def taken(case: Case) -> None:
    case.metered.report(events(case.event.seq, 1, at_us=case.event.at_us), seq=case.event.seq)


def out_of_window(case: Case) -> None:
    case.event = replace(case.event, seq=session_of(case.metered).top + 1025)


def long_ago(case: Case) -> None:
    opened_at_us = session_of(case.metered).opened_at_us
    case.event = replace(case.event, at_us=opened_at_us - 5 * SECOND_US - 1)


def ended(case: Case) -> None:
    case.event = replace(case.event, at_us=session_of(case.metered).expires_at_us + 1)


def in_future(case: Case) -> None:
    now_us = case.metered.trade.room.now_us
    case.event = replace(case.event, at_us=now_us + 5 * SECOND_US + 1)


def frozen(case: Case) -> None:
    freeze(case.metered.trade)
    case.event = replace(case.event, at_us=case.event.at_us + 1)


def unknown_meter(case: Case) -> None:
    case.event = replace(case.event, usage={"minute": 1})


def over_per_call(case: Case) -> None:
    case.event = replace(case.event, usage={"page": 11})


def too_many(case: Case) -> None:
    case.event = replace(case.event, usage={"page": 10**15})


def too_many_and_unknown(case: Case) -> None:
    case.event = replace(case.event, usage={"page": 10**15, "zone": 1})


def spent(case: Case) -> None:
    case.metered.report(events(1, 10, 10, 10, 9, at_us=case.metered.trade.room.now_us))


def unnumbered(case: Case) -> None:
    case.voucher["seq"] = case.event.seq - 1


def unsigned(case: Case) -> None:
    case.voucher["max_cum"] = 2 * PAGE - 1


Wrong = Callable[[Case], None]

# What is wrong, in the order in which it is brought about, and the one reason.
TABLE: tuple[tuple[tuple[Wrong, ...], str], ...] = (
    ((taken,), "duplicate"),
    ((taken, unknown_meter, in_future), "duplicate"),
    ((out_of_window,), "out_of_window"),
    ((out_of_window, long_ago), "out_of_window"),
    ((long_ago,), "before_session"),
    ((long_ago, unknown_meter), "before_session"),
    ((ended,), "after_end"),
    ((frozen, in_future, ended), "after_end"),
    ((in_future,), "in_future"),
    ((frozen, in_future), "in_future"),
    ((frozen,), "frozen"),
    ((frozen, unknown_meter), "frozen"),
    ((unknown_meter,), "unknown_meter"),
    ((unknown_meter, unnumbered), "unknown_meter"),
    ((too_many_and_unknown,), "unknown_meter"),
    ((over_per_call,), "over_per_call"),
    ((too_many,), "over_per_call"),
    ((spent, over_per_call), "over_per_call"),
    ((spent,), "over_cap"),
    ((unnumbered,), "beyond_voucher"),
    ((unsigned,), "beyond_voucher"),
    ((over_per_call, unsigned), "over_per_call"),
)


@pytest.mark.parametrize(
    ("wrongs", "reason"),
    TABLE,
    ids=[" ".join(wrong.__name__ for wrong in wrongs) for wrongs, _ in TABLE],
)
def test_a_rejected_event_has_one_reason_and_moves_nothing(
    wrongs: tuple[Wrong, ...], reason: str
) -> None:
    metered = Metered.opened(trade := market())
    case = Case(metered, events(7, 2, at_us=trade.room.now_us)[0])
    for wrong in wrongs:
        wrong(case)
    before = session_of(metered)
    record = metered.report([case.event], **case.voucher)
    after = session_of(metered)
    assert rejected(record) == [(str(case.event.seq), reason)]
    assert not record.moved
    assert not record.counted
    assert [each.noun for each in record.changed] == ["session"]
    assert after.rejected == before.rejected + 1
    assert after == replace(
        before,
        rejected=after.rejected,
        voucher_seq=max(before.voucher_seq, case.voucher["seq"]),
        max_cum_units=max(before.max_cum_units, case.voucher["max_cum"]),
    )


def test_each_event_is_judged_after_all_before_it() -> None:
    metered = Metered.opened(trade := market())
    listed = events(1, 10, 10, 11, 10, 5, 10, at_us=trade.room.now_us)
    record = metered.report([*listed, *events(7, 5, at_us=trade.room.now_us), listed[0]])
    answer = report_answer(record)
    assert rejected(record) == [("3", "over_per_call"), ("6", "over_cap"), ("1", "duplicate")]
    assert (answer.accepted, answer.billed) == (5, 5)
    assert answer.amount == answer.spent == money(CAP, "USD")
    assert answer.low
    assert pending(trade) == (0, 0)


def test_what_did_not_succeed_costs_nothing_and_takes_its_number() -> None:
    metered = Metered.opened(trade := market())
    for place, outcome in enumerate(UsageOutcome):
        listed = events(1 + place, 2, at_us=trade.room.now_us, outcome=outcome)
        metered.report([replace(listed[0], usage={"page": 2, "minute": 1})] if place else listed)
    session = session_of(metered)
    assert (session.spent_units, session.calls, session.top) == (2 * PAGE, 1, 5)
    assert session.rejected == 0
    assert len(trade.room.state.charges) == 1


def test_a_report_that_bills_nothing_makes_no_charge() -> None:
    metered = Metered.opened(trade := market())
    record = metered.report(events(1, 0, 0, at_us=trade.room.now_us))
    answer = report_answer(record)
    assert (answer.charge_id, answer.amount, answer.billed) == ("", money(0, "USD"), 2)
    assert [each.noun for each in record.changed] == ["session"]


def test_a_stale_voucher_lowers_nothing() -> None:
    metered = Metered.opened(trade := market())
    metered.report(events(1, 1, at_us=trade.room.now_us), seq=9, max_cum=9 * PAGE)
    record = metered.report(events(2, 8, 1, at_us=trade.room.now_us), seq=1, max_cum=PAGE)
    assert rejected(record) == [("3", "beyond_voucher")]
    assert report_answer(record).max_cum == money(9 * PAGE, "USD")


def test_what_no_voucher_covers_yet_is_billed_once_one_does() -> None:
    metered = Metered.opened(trade := market())
    listed = events(1, 3, at_us=trade.room.now_us)
    assert rejected(metered.report(listed, max_cum=PAGE)) == [("1", "beyond_voucher")]
    assert rejected(metered.report(listed, max_cum=3 * PAGE)) == []
    assert session_of(metered).spent_units == 3 * PAGE


def test_a_replayed_batch_is_answered_again_and_bills_nothing() -> None:
    metered = Metered.opened(trade := market())
    listed = events(1, 3, at_us=trade.room.now_us)
    first = metered.send(listed, key="batch-0000000000000001")
    assert metered.send(listed, key="batch-0000000000000001") == Seen(seq=first.seq)
    again = metered.report(listed)
    assert rejected(again) == [("1", "duplicate")]
    assert session_of(metered).spent_units == 3 * PAGE


def test_a_freeze_stops_what_comes_after_it_and_pays_for_what_was_before() -> None:
    metered = Metered.opened(trade := market())
    room = trade.room
    before_us = room.now_us
    room.advance(10)
    freeze(trade, "operator")
    room.advance(10)
    again = Freeze(principal_id=trade.operator.principal_id, reason="", idempotency_key=room.key())
    room.done(trade.operator, FREEZE, again)
    listed = [*events(1, 1, at_us=before_us), *events(2, 1, at_us=before_us + 10 * SECOND_US + 1)]
    assert rejected(metered.report(listed)) == [("2", "frozen")]
    thaw = Unfreeze(principal_id=trade.operator.principal_id, reason="", idempotency_key=room.key())
    room.done(trade.operator, UNFREEZE, thaw)
    assert rejected(metered.report(listed)) == [("1", "duplicate")]


def test_a_frozen_vendor_is_billed_for_as_it_captures() -> None:
    metered = Metered.opened(trade := market())
    freeze(trade, "vendor")
    assert rejected(metered.report(events(1, 1, at_us=trade.room.now_us))) == []


def test_a_key_that_was_taken_away_signs_no_usage() -> None:
    metered = Metered.opened(trade := market())
    stranger = trade.room.organisation("vendor", "Vendor Two")
    listed = events(1, 1, at_us=trade.room.now_us)
    for thumbprint in (stranger.key_thumbprint, "x" * 43):
        record = metered.send(listed, key_thumbprint=thumbprint)
        assert (record.code, record.refusal.path) == (Code.SIGNATURE_INVALID, "batch_signature")
    revoke = RevokeKey(
        principal_id=trade.vendor.principal_id,
        key_thumbprint=trade.vendor.key_thumbprint,
        idempotency_key=trade.room.key(),
    )
    trade.room.done(trade.vendor, REVOKE_KEY, revoke)
    assert metered.send(listed).code is Code.KEY_REVOKED


UNREADABLE = refuse(Code.USAGE_INVALID, path="batch.0.data")
UNSIGNED = refuse(Code.SIGNATURE_INVALID, path="voucher")


@pytest.mark.parametrize(
    ("found", "status", "code"),
    [
        ({"fault": UNREADABLE, "columns": None}, "open", Code.USAGE_INVALID),
        ({"fault": UNREADABLE, "columns": None}, "closed", Code.SESSION_CLOSED),
        ({"fault": UNSIGNED, "columns": None}, "closed", Code.SIGNATURE_INVALID),
        ({"session_id": f"ses_{'0' * 26}"}, "open", Code.USAGE_INVALID),
    ],
)
def test_a_refused_batch_is_remembered_without_its_text(
    found: dict[str, Any], status: str, code: Code
) -> None:
    metered = Metered.opened(trade := market())
    if status == "closed":
        close(metered, trade.vendor)
    record = metered.send(events(1, 1, at_us=trade.room.now_us), **found)
    assert isinstance(record, Record)
    assert record.code is code
    assert record.facts is None
    assert sorted(record.asked) == ["batch_sha256", "events", "session_id"]
    assert record.asked["events"] == 1
    assert b"specversion" not in trade.room.journal[-1]


def test_another_vendors_report_is_nobodys() -> None:
    metered = Metered.opened(trade := market())
    stranger = trade.room.organisation("vendor", "Vendor Two")
    record = metered.send(events(1, 1, at_us=trade.room.now_us), by=stranger)
    assert not isinstance(record, Refusal)
    assert (record.code, record.refusal.path) == (Code.USAGE_INVALID, "session_id")
    assert session_of(metered).spent_units == 0


def test_the_answer_names_rejected_events_by_their_ids() -> None:
    metered = Metered.opened(trade := market())
    record = metered.report(events(40, 1, 11, at_us=trade.room.now_us))
    answer = report_answer(record)
    assert answer.rejected == (RejectedEvent(id="41", reason="over_per_call"),)
    assert (answer.accepted, answer.billed, answer.seq) == (1, 1, record.seq)
    assert answer.remaining == money(CAP - PAGE, "USD")


def test_low_is_told_at_the_low_water_mark() -> None:
    metered = Metered.opened(trade := market(), low_water=money(30 * PAGE, "USD"))
    at_us = trade.room.now_us
    low = [report_answer(metered.report(events(1 + n, 5, at_us=at_us))).low for n in range(3)]
    assert low == [False, True, True]


def test_a_batch_is_kept_as_it_came() -> None:
    metered = Metered.opened(trade := market())
    record = metered.report(events(1, 1, at_us=trade.room.now_us))
    assert record.facts is not None
    assert sha256_hex(record.facts["usage"].encode()) == record.asked["batch_sha256"]


def graduated() -> Metered:
    """A session under a card of two tiers and a sum that has to be rounded."""
    trade = Trade.opened(funds=10**9, per_call=10**9)
    return Metered.opened(trade, cap=8 * 10**8, per_call=30 * PAGE)


CALLS = st.lists(st.integers(0, 7), min_size=1, max_size=12)


@settings(max_examples=30)
@given(batches=st.lists(CALLS, min_size=1, max_size=4), data=st.data())
def test_however_usage_is_split_and_ordered_it_costs_what_its_sum_costs(
    batches: list[list[int]], data: st.DataObject
) -> None:
    metered = graduated()
    room = metered.trade.room
    count = 0
    for pages in batches:
        listed = events(count + 1, *pages, at_us=room.now_us)
        metered.report(data.draw(st.permutations(listed)))
        count += len(pages)
    session = session_of(metered)
    card = room.state.cards[session.rate_card_sha256]
    total = sum(map(sum, batches))
    expected = rate(card, {}, {"page": total}).total_units if total else 0
    assert (
        session.spent_units
        == expected
        == sum(each.amount_units for each in room.state.charges.values())
    )
    assert pending(metered.trade)[0] == session.cap_units - expected


@settings(max_examples=30)
@given(pages=CALLS, seqs=st.permutations(range(1, 13)))
def test_a_batch_of_which_all_is_taken_comes_to_the_same_event_by_event(
    pages: list[int], seqs: list[int]
) -> None:
    answers = []
    for one_by_one in (False, True):
        metered = graduated()
        listed = [
            replace(each, seq=seq)
            for each, seq in zip(
                events(1, *pages, at_us=metered.trade.room.now_us), seqs, strict=False
            )
        ]
        with pytest.MonkeyPatch.context() as patch:
            if one_by_one:
                patch.setattr(usage._Desk, "all_at_once", lambda *_: None)  # noqa: SLF001
            record = metered.report(listed)
        answers.append((record.decided, record.moved, record.changed))
    assert answers[0] == answers[1]
