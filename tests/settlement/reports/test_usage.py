"""Reported usage in the read model: the same from tables, from the tail and from both."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from farthing.protocol.canonical import INTEGER_MAX
from farthing.protocol.errors import Code, refuse
from farthing.protocol.messages.holds import PlaceHold
from farthing.protocol.messages.services import CALL_SERVICE, CallService
from farthing.protocol.usage import UsageOutcome
from farthing.protocol.wire import Usage
from farthing.settlement.engine.services import ServiceCall
from farthing.settlement.reports.metered import (
    Rejected,
    Span,
    begun_of,
    events_of,
    last_rejected_of,
    reasons_of,
    rejected_of,
    reports_of,
    reports_within,
)
from farthing.settlement.reports.reads import View
from farthing.settlement.reports.usage import Rejection
from tests.construction import Trade
from tests.protocol.replay.metered import Metered, events
from tests.settlement.reports.plans import plans_of
from tests.settlement.reports.test_reports import extend, viewed
from tests.settlement.reports.trades import committed

NEWEST = (INTEGER_MAX, 0)


def reported() -> tuple[Trade, Metered]:
    """Three reports, two of them with rejected events, and a batch that was refused whole."""
    trade = Trade.opened()
    session = Metered.opened(trade)
    now_us = trade.room.now_us
    session.report(events(1, 1, 2, 3, at_us=now_us))
    session.report([*events(2, 1, at_us=now_us), *events(4, 1, 1, at_us=now_us)])
    refusal = refuse(Code.SIGNATURE_INVALID, path="batch_signature")
    session.send(events(9, 1, 1, at_us=now_us), fault=refusal, columns=None)
    late = events(6, 1, at_us=now_us, outcome=UsageOutcome.TIMED_OUT)
    session.report([*late, *events(3000, 1, at_us=now_us)])
    return trade, session


def passed(trade: Trade) -> str:
    """A call that the platform is asked to make; its hold."""
    place = PlaceHold(
        agreement_id=trade.agreement_id,
        workload=(Usage(meter="page", quantity="1"),),
        args_sha256="a" * 64,
        expires_in_s=60,
        idempotency_key=trade.room.key(),
    )
    ask = CallService(
        agreement_id=place.agreement_id,
        arguments={},
        workload=place.workload,
        idempotency_key=place.idempotency_key,
    )
    record = trade.room.done(trade.agent, CALL_SERVICE, ask, body=ServiceCall(place=place))
    return record.changed[0].id


def begun() -> tuple[Trade, list[str]]:
    """Sessions, some opened at one instant, and a call by the platform between them."""
    trade = Trade.opened()
    ids = [Metered.opened(trade).session_id, Metered.opened(trade).session_id]
    trade.room.advance(10)
    ids.append(passed(trade))
    trade.room.advance(10)
    ids += [Metered.opened(trade).session_id for _ in range(3)]
    return trade, ids


async def everything(view: View, trade: Trade, session_id: str) -> list[Any]:
    found: list[Any] = list(await reports_of(view, session_id))
    for party in (trade.agent, trade.operator, trade.vendor):
        wanted = Rejected(principal_id=party.principal_id)
        found.append(await rejected_of(view, wanted, NEWEST, 10))
        found.append(await reasons_of(view, wanted))
        for narrowed in (
            replace(wanted, session_id=session_id),
            replace(wanted, agreement_id=trade.agreement_id),
            replace(wanted, session_id=session_id, agreement_id=trade.agreement_id),
            replace(wanted, session_id=session_id, agreement_id="agr_other"),
            replace(wanted, reason="duplicate"),
            replace(
                wanted,
                session_id=session_id,
                agreement_id=trade.agreement_id,
                reason="unattributed",
            ),
            replace(wanted, seq_max=found[1].seq),
        ):
            rejected = await rejected_of(view, narrowed, NEWEST, 10)
            counts = await reasons_of(view, narrowed)
            assert Counter(counts) == _events_of(rejected)
            found += [rejected, counts]
    found += [await last_rejected_of(view, session_id, call) for call in (1, 3000)]
    found += [await reports_of(view, session_id, call) for call in range(1, 8)]
    return found


def _events_of(rejected: list[Rejection]) -> Counter[str]:
    events = Counter[str]()
    for each in rejected:
        events[each.reason] += each.events
    return events


async def test_what_is_read_is_the_same_however_far_the_follower_is(tmp_path: Path) -> None:
    trade, session = reported()
    records = committed(trade)
    path = tmp_path / "reports.sqlite"
    extend(path, records[:1], batch=7)
    async with viewed(path, records) as view:
        from_the_tail = await everything(view, trade, session.session_id)
    readings = []
    for stored in range(len(records) - 4, len(records) + 1):
        extend(path, records[:stored], batch=7)
        async with viewed(path, records) as view:
            readings.append(await everything(view, trade, session.session_id))

    assert readings == [from_the_tail] * 5


async def test_each_party_has_the_rejections_of_its_sessions_and_the_sender_its_batches(
    tmp_path: Path,
) -> None:
    trade, _ = reported()
    extend(tmp_path / "reports.sqlite", committed(trade), batch=7)
    async with viewed(tmp_path / "reports.sqlite", committed(trade)) as view:
        of_buyer = await reasons_of(view, Rejected(principal_id=trade.agent.principal_id))
        of_vendor = await reasons_of(view, Rejected(principal_id=trade.vendor.principal_id))
        of_other = await reasons_of(view, Rejected(principal_id="agt_other"))
        pages = [NEWEST]
        while found := await rejected_of(
            view, Rejected(principal_id=trade.vendor.principal_id), pages[-1], 1
        ):
            pages.append(found[0].key)

    assert of_buyer == {"duplicate": 1, "out_of_window": 1}
    assert of_vendor == {"duplicate": 1, "out_of_window": 1, "unattributed": 2}
    assert of_other == {}
    assert len(pages) == 4
    assert pages == sorted(pages, reverse=True)


@pytest.mark.parametrize("name", ["", "session_id", "agreement_id", "reason"])
async def test_rejections_are_read_and_counted_by_seeking_what_is_asked_for_and_no_further(
    tmp_path: Path, name: str
) -> None:
    trade, session = reported()
    extend(tmp_path / "reports.sqlite", committed(trade), batch=7)
    values = {"session_id": session.session_id, "agreement_id": trade.agreement_id}
    narrowed: dict[str, Any] = {name: values.get(name, "duplicate")} if name else {}
    wanted = Rejected(principal_id=trade.vendor.principal_id, **narrowed)
    async with viewed(tmp_path / "reports.sqlite", committed(trade)) as view:
        page = await plans_of(view, lambda: rejected_of(view, wanted, NEWEST, 2))
        counts = await plans_of(view, lambda: reasons_of(view, wanted))

    for plan in (*page, *counts):
        assert "party=? AND under=? AND reason=? AND seq<?" in plan
        assert "TEMP B-TREE" not in plan
        assert "SCAN" not in plan.replace("SCAN CONSTANT ROW", "")
    assert (len(page), len(counts)) == (1, 1)


async def test_a_rejected_call_is_looked_up_by_its_number(tmp_path: Path) -> None:
    trade, session = reported()
    extend(tmp_path / "reports.sqlite", committed(trade), batch=7)
    async with viewed(tmp_path / "reports.sqlite", committed(trade)) as view:
        (plan,) = await plans_of(view, lambda: last_rejected_of(view, session.session_id, 3000))

    assert "session_id=? AND call=?" in plan
    assert "TEMP B-TREE" not in plan


async def test_what_began_under_an_agreement_is_read_in_its_order_however_far_the_follower_is(
    tmp_path: Path,
) -> None:
    trade, ids = begun()
    records = committed(trade)
    span = Span(agreement_id=trade.agreement_id)
    readings = []
    for stored in (1, len(records) - 4, len(records) - 2, len(records)):
        extend(tmp_path / "reports.sqlite", records[:stored], batch=7)
        async with viewed(tmp_path / "reports.sqlite", records) as view:
            whole = await begun_of(view, span, 10)
            pages, after = [], span
            while page := await begun_of(view, after, 2):
                pages += page
                after = replace(after, after=page[-1].key)
            middle = await begun_of(
                view, replace(span, since_us=whole[2].at_us, last=whole[3].key), 9
            )
            other = await begun_of(view, replace(span, agreement_id="agr_other"), 9)
        readings.append(whole)

        assert sorted(each.id for each in whole) == sorted(ids)
        assert [each.key for each in whole] == sorted(each.key for each in whole)
        assert [each.noun for each in whole].index("hold") == 2
        assert pages == whole
        assert (middle, other) == (whole[2:4], [])

    assert readings == [readings[0]] * 4


async def test_reports_and_events_of_sessions_are_read_at_once(tmp_path: Path) -> None:
    trade, session = reported()
    records = committed(trade)
    readings = []
    for stored in (1, len(records) - 1, len(records)):
        extend(tmp_path / "reports.sqlite", records[:stored], batch=7)
        async with viewed(tmp_path / "reports.sqlite", records) as view:
            ids = [session.session_id, "ses_other"]
            readings.append((await events_of(view, ids), await reports_within(view, ids)))
            alone = await reports_of(view, session.session_id)

    events_found, reports_found = readings[0]
    assert readings == [readings[0]] * 3
    assert reports_found == {session.session_id: alone, "ses_other": []}
    assert (events_found[session.session_id], events_found["ses_other"]) == (8, 0)


@pytest.mark.parametrize(("call", "reports"), [(1, 1), (4, 1), (6, 1), (9, 0), (3000, 0)])
async def test_a_call_is_looked_for_where_it_may_have_been_taken(
    tmp_path: Path, call: int, reports: int
) -> None:
    trade, session = reported()
    extend(tmp_path / "reports.sqlite", committed(trade), batch=7)
    async with viewed(tmp_path / "reports.sqlite", committed(trade)) as view:
        found = await reports_of(view, session.session_id, call)

    assert len(found) == reports
