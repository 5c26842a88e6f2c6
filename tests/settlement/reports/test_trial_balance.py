"""The trial balance of any record in pages of any size, against brute force."""

import sqlite3
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.protocol.ledger import COUNTER_MAX, Account
from farthing.settlement.reports.reads import View
from farthing.settlement.reports.trial_balance import Totals, accounts_at, totals_at
from tests.settlement.reports.books import balances, sides
from tests.settlement.reports.test_reports import extend, followed, viewed
from tests.settlement.reports.trades import STEPS, Steps, committed, traded

SLOW = settings(max_examples=30, deadline=None)


async def paged(view: View, seq: int, limit: int) -> list[dict[str, Account]]:
    pages, after = [], ""
    while True:
        page, after = await accounts_at(view, seq, after, limit)
        pages.append(page)
        if not after:
            return pages


@SLOW
@given(steps=STEPS, data=st.data())
async def test_pages_of_any_size_are_every_account_of_any_record_and_add_up(
    steps: Steps, data: st.DataObject
) -> None:
    trade = traded(steps)
    every, records = sides(trade.room.journal), committed(trade)
    stored = data.draw(st.integers(min_value=0, max_value=len(records)))
    limit = data.draw(st.integers(min_value=1, max_value=8))
    with followed(records[:stored]) as path:
        async with viewed(path, records) as view:
            for seq in range(len(records) + 1):
                pages = await paged(view, seq, limit)
                totals = await totals_at(view, seq)
                then = balances(each for each in every if each.seq <= seq)

                assert all(len(page) <= limit for page in pages)
                shown = [each for page in pages for each in page.items()]
                assert [(name, asdict(each)) for name, each in shown] == sorted(then.items())
                sums = {
                    name: sum(each[name] for each in then.values()) for name in asdict(Account())
                }
                assert {asset: asdict(each) for asset, each in totals.items()} == (
                    {"USD": sums} if then else {}
                )


async def test_counters_of_a_lifetime_add_up_to_the_last_digit(tmp_path: Path) -> None:
    records, path = committed(traded([("deliver", 1)])), tmp_path / "reports.sqlite"
    extend(path, records, 50)
    with closing(sqlite3.connect(path)) as connection:
        for table in ("statement_account", "statement_line"):
            connection.execute(f"UPDATE {table} SET debits_posted = ?", (str(COUNTER_MAX),))  # noqa: S608
        connection.commit()

    async with viewed(path, records) as view:
        for seq in (len(records), len(records) - 1):
            [accounts] = await paged(view, seq, 20)
            total = (await totals_at(view, seq))["USD"]
            assert total.debits_posted == len(accounts) * COUNTER_MAX


async def test_the_totals_of_a_record_are_added_up_once(tmp_path: Path) -> None:
    records, path = committed(traded([("deliver", 1)])), tmp_path / "reports.sqlite"
    extend(path, records, 50)
    totals = Totals()

    async with viewed(path, records) as view:
        first = await totals.at(view, 5)
        for seq in range(1, 30):
            await totals.at(view, seq)
            assert await totals.at(view, 5) is first
        assert await totals.at(view, 1) == {}
