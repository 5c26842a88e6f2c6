"""What a reading costs: it grows with what is asked for, and not with all that there is."""

from dataclasses import asdict
from pathlib import Path

import pytest

from farthing.settlement.reports.statements import Order, Period, Place, balances_at, page_of
from tests.construction import Trade
from tests.settlement.reports.books import balances, sides
from tests.settlement.reports.plans import plans_of, steps_of
from tests.settlement.reports.test_reports import NOTHING, extend, viewed
from tests.settlement.reports.trades import committed


@pytest.mark.parametrize(
    ("under", "status", "columns"),
    [
        ("", "", "noun=? AND seq<?"),
        ("agr_1", "", "noun=? AND under=? AND seq<?"),
        ("", "requested", "noun=? AND status=? AND seq<?"),
    ],
)
async def test_a_page_of_a_partys_things_is_read_by_seeking_what_it_is_asked_for_under(
    tmp_path: Path, under: str, status: str, columns: str
) -> None:
    path = tmp_path / "reports.sqlite"
    trade = Trade.opened()
    extend(path, committed(trade), batch=7)
    async with viewed(path, committed(trade)) as view:
        (plan,) = await plans_of(
            view,
            lambda: view.newest(
                "vnd_1", "payout", before_seq=9, under=under, status=status, limit=2
            ),
        )

    assert columns in plan
    assert "TEMP B-TREE" not in plan


def delivered_late(path: Path, between: int) -> tuple[Trade, int, int]:
    """A delivery told late, and how much is recorded before it is.

    Returns:
        The trade; when it was delivered; the last record before what is between.
    """
    trade = Trade.opened(funds=400_000_000)
    hold_id, delivered_us = trade.held(1), trade.room.now_us
    seq = len(committed(trade))
    trade.room.advance(1)
    for _ in range(between):
        trade.room.fund(trade.operator, 1)
    trade.room.advance(1)
    trade.room.capture(trade.vendor, hold_id, 1, delivered_at_us=delivered_us)
    trade.room.fund(trade.operator, 1)
    extend(path, committed(trade), batch=100)
    return trade, delivered_us, seq


@pytest.mark.parametrize("order", ["recorded", "effective"])
async def test_what_is_booked_under_a_reference_is_read_whatever_else_is_booked(
    tmp_path: Path, order: Order
) -> None:
    async def steps(others: int) -> int:
        path = tmp_path / f"{others}.sqlite"
        trade = Trade.opened()
        trade.room.fund(trade.operator, 1, reference="wire-42")
        for _ in range(others):
            trade.room.fund(trade.operator, 1)
        trade.room.fund(trade.operator, 1, reference="wire-42")
        extend(path, committed(trade), batch=100)
        period = Period(order=order, reference="wire-42")
        async with viewed(path, committed(trade)) as view:
            accounts = await view.accounts_of(trade.operator.principal_id)
            place = Place(as_of_seq=view.as_of_seq)
            page = await page_of(view, accounts, period, place, 9)
            assert len(page.lines) == 2
            return await steps_of(view, lambda: page_of(view, accounts, period, place, 9))

    assert await steps(90) == await steps(9)


async def test_what_is_in_effect_by_a_time_costs_no_more_for_one_late_delivery_before_it(
    tmp_path: Path,
) -> None:
    async def steps(between: int) -> int:
        path = tmp_path / f"{between}.sqlite"
        trade, _, _ = delivered_late(path, between)
        async with viewed(path, committed(trade)) as view:
            accounts = await view.accounts_of(trade.operator.principal_id)
            seq, at_us = view.as_of_seq, trade.room.now_us
            return await steps_of(
                view, lambda: balances_at(view, accounts, seq=seq, effective_at_us=at_us)
            )

    assert await steps(50) == await steps(5)


async def test_the_last_page_of_an_older_moment_costs_no_more_for_what_came_after_it(
    tmp_path: Path,
) -> None:
    async def steps(between: int) -> int:
        path = tmp_path / f"{between}.sqlite"
        trade, at_us, seq = delivered_late(path, between)
        place = Place(as_of_seq=seq, key=(at_us, seq, 99))
        async with viewed(path, committed(trade)) as view:
            accounts = await view.accounts_of(trade.operator.principal_id)
            return await steps_of(
                view, lambda: page_of(view, accounts, Period(order="effective"), place, 9)
            )

    assert await steps(50) == await steps(5)


async def test_at_every_moment_what_is_late_and_what_is_hardly_late_is_in_effect_once(
    tmp_path: Path,
) -> None:
    trade = Trade.opened(funds=400_000_000)
    hardly, late = trade.held(1), trade.held(1)
    trade.room.advance(1)
    told_us = trade.room.now_us - 400_000
    trade.room.capture(trade.vendor, hardly, 1, delivered_at_us=told_us)
    delivered_us = trade.room.now_us
    trade.room.advance(20)
    trade.room.capture(trade.vendor, late, 1, delivered_at_us=delivered_us)
    trade.room.fund(trade.operator, 1)
    records = committed(trade)
    extend(tmp_path / "reports.sqlite", records, batch=7)
    owner = trade.vendor.organisation_id
    own = [each for each in sides([r.data for r in records]) if each.account.startswith(owner)]
    period = Period(order="effective")
    async with viewed(tmp_path / "reports.sqlite", records) as view:
        accounts = await view.accounts_of(owner)
        for seq in range(1, len(records) + 1):
            known = [each for each in own if each.seq <= seq]
            page = await page_of(view, accounts, period, Place(as_of_seq=seq), 99)
            keys = [line.effective_key for line in page.lines]
            assert keys == sorted(each.effective_key for each in known)
            for after_us in (-700_000, 0, 300_000, 19_000_000, 20_000_000):
                at_us = delivered_us + after_us
                found = await balances_at(view, accounts, seq=seq, effective_at_us=at_us)
                expected = balances(each for each in known if each.effective_at_us <= at_us)
                assert {name: asdict(each) for name, each in found.items()} == {
                    each.name: expected.get(each.name, NOTHING) for each in accounts
                }
