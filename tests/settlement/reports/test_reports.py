"""The followed read model against brute force, at every moment, in either order of time."""

import json
import random
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.protocol.ledger import Account
from farthing.settlement.engine.commands import Committed
from farthing.settlement.engine.questions import Figures, FiguresNow, RecordAt
from farthing.settlement.journal.store import Unreadable
from farthing.settlement.reports.lines import Line, fold_lines
from farthing.settlement.reports.projection import Followed
from farthing.settlement.reports.reads import Kept, Reports, View
from farthing.settlement.reports.statements import (
    Order,
    Page,
    Period,
    Place,
    balances_at,
    page_of,
    records_of,
)
from tests.construction import Trade
from tests.protocol.replay.correcting import charge_of, corrected
from tests.protocol.replay.metered import Metered, events
from tests.settlement.reports.books import Side, balances, sides
from tests.settlement.reports.trades import STEPS, Steps, committed, traded

SLOW = settings(max_examples=30, deadline=None)
NOTHING = asdict(Account())
ORDERS: tuple[Order, ...] = ("recorded", "effective")


class Journal:
    """The part of an engine that a reading asks."""

    def __init__(self, records: list[Committed]) -> None:
        self.records = records

    async def ask(self, question: Any) -> Any:
        if isinstance(question, FiguresNow):
            return Figures(fee_ppm=0, seq=len(self.records), at_us=0)
        assert isinstance(question, RecordAt)
        found = self.records[question.seq - 1 : question.seq]
        return found[0].data if found else None

    async def follow(self, after_seq: int) -> AsyncIterator[Committed]:
        for each in self.records[after_seq:]:
            yield each


@contextmanager
def followed(records: list[Committed], batch: int = 7) -> Iterator[Path]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "reports.sqlite"
        extend(path, records, batch)
        yield path


def extend(path: Path, records: list[Committed], batch: int) -> None:
    with closing(Followed(path)) as model:
        seq, _ = model.open()
        for start in range(seq, len(records), batch):
            model.extend(records[start : start + batch])


@asynccontextmanager
async def viewed(
    path: Path, records: list[Committed], *, tail_max: int = 1000
) -> AsyncIterator[View]:
    reports = Reports(path, Journal(records), tail_max=tail_max)  # type: ignore[arg-type]
    try:
        async with reports.view("org") as view:
            yield view
    finally:
        await reports.dispose()


def reached(path: Path) -> int:
    model = Followed(path)
    seq, _ = model.open()
    model.close()
    return seq


def dump(path: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        names = [
            row[0]
            for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        return [
            (name, *row)
            for name in sorted(names)
            for row in sorted(connection.execute(f"SELECT * FROM {name}"), key=repr)  # noqa: S608
        ]


async def everything(view: View, accounts: list[Kept], period: Period, limit: int) -> list[Page]:
    pages = [await page_of(view, accounts, period, Place(as_of_seq=view.as_of_seq), limit)]
    while (more := pages[-1].more) is not None:
        pages.append(await page_of(view, accounts, period, more, limit))
    return pages


async def kept(view: View, trade: Trade) -> list[Kept]:
    owners = ("platform", trade.operator.principal_id, trade.vendor.principal_id)
    return [each for owner in owners for each in await view.accounts_of(owner)]


def moments(every: list[Side]) -> list[int]:
    times = {each.at_us for each in every} | {each.effective_at_us for each in every}
    return sorted({at_us + step for at_us in times for step in (-1, 0, 1)})


def counters(found: dict[str, Account]) -> dict[str, dict[str, int]]:
    """Accounts as the oracle has them; those that nothing has touched are not there."""
    return {name: asdict(each) for name, each in found.items() if asdict(each) != NOTHING}


def expected(some: list[Side]) -> dict[str, dict[str, int]]:
    return {name: each for name, each in balances(some).items() if each != NOTHING}


@SLOW
@given(steps=STEPS)
def test_lines_fold_to_the_balances_at_every_record(steps: Steps) -> None:
    trade = traded(steps)
    every = sides(trade.room.journal)
    accounts: dict[str, Account] = {}
    lines = [
        line
        for _, some in fold_lines([each.record for each in committed(trade)], accounts, {})
        for line in some
    ]

    assert [line.key for line in lines] == [side.key for side in every]
    for line in lines:
        so_far = [each for each in every if each.key <= line.key]
        assert asdict(line.after) == balances(so_far)[line.account]
        assert line.entry.effective_at_us <= line.entry.at_us
    assert accounts == trade.room.state.accounts


@SLOW
@given(steps=STEPS, data=st.data())
async def test_balances_agree_with_brute_force_at_any_moment_of_either_time(
    steps: Steps, data: st.DataObject
) -> None:
    trade = traded(steps)
    every, records = sides(trade.room.journal), committed(trade)
    stored = data.draw(st.integers(min_value=0, max_value=len(records)))
    times = data.draw(st.lists(st.sampled_from(moments(every)), min_size=1, max_size=6))
    with followed(records[:stored]) as path:
        async with viewed(path, records) as view:
            accounts = await kept(view, trade)
            for at_us in times:
                seq = await view.seq_at(at_us)
                found = await balances_at(view, accounts, seq=seq)
                assert counters(found) == expected([s for s in every if s.at_us <= at_us])
                known = data.draw(st.integers(min_value=1, max_value=len(records)))
                found = await balances_at(view, accounts, seq=known, effective_at_us=at_us)
                then = [s for s in every if s.seq <= known and s.effective_at_us <= at_us]
                assert counters(found) == expected(then)
            for seq in range(len(records) + 1):
                found = await balances_at(view, accounts, seq=seq)
                assert counters(found) == expected([s for s in every if s.seq <= seq])


@SLOW
@given(steps=STEPS, data=st.data())
async def test_opening_and_lines_make_the_closing_balance_in_pages_of_any_size(
    steps: Steps, data: st.DataObject
) -> None:
    trade = traded(steps)
    every, records = sides(trade.room.journal), committed(trade)
    stored = data.draw(st.integers(min_value=0, max_value=len(records)))
    order = data.draw(st.sampled_from(ORDERS))
    times = st.sampled_from([0, *moments(every), 2**53 - 1])
    since_us, until_us = sorted((data.draw(times), data.draw(times)))
    period = Period(order=order, since_us=since_us, until_us=until_us)
    with followed(records[:stored]) as path:
        async with viewed(path, records) as view:
            accounts = await kept(view, trade)
            pages = await everything(view, accounts, period, data.draw(st.integers(1, 30)))

    def time_of(side: Side) -> int:
        return side.at_us if order == "recorded" else side.effective_at_us

    ordered = sorted(every, key=lambda s: s.key if order == "recorded" else s.effective_key)
    wanted = [side for side in ordered if since_us <= time_of(side) < until_us]
    before = [side for side in ordered if time_of(side) < since_us]
    lines: list[Line] = [line for page in pages for line in page.lines]
    assert [(line.account, *line.key) for line in lines] == [(s.account, *s.key) for s in wanted]
    for page in pages:
        assert counters(dict(page.opening)) == expected(before)
        assert counters(dict(page.closing)) == expected([*before, *wanted])
    for count, line in enumerate(lines, start=1):
        assert asdict(line.after) == balances([*before, *wanted[:count]])[line.account]


@SLOW
@given(steps=STEPS, data=st.data())
async def test_what_happened_after_a_record_is_told_record_by_record(
    steps: Steps, data: st.DataObject
) -> None:
    trade = traded(steps)
    every, records = sides(trade.room.journal), committed(trade)
    seq = data.draw(st.integers(min_value=0, max_value=len(records)))
    limit = data.draw(st.integers(min_value=12, max_value=40))
    told: list[tuple[int, int]] = []
    with followed(records[: len(records) - 2]) as path:
        async with viewed(path, records) as view:
            accounts = await kept(view, trade)
            after = seq
            while after < view.as_of_seq:
                some, until = await records_of(view, accounts, after, limit)
                told += [line.key for lines in some for line in lines]
                assert all(len({line.seq for line in lines}) == 1 for lines in some)
                assert all(after < lines[0].seq <= until for lines in some)
                after = until

    start = len(every) - len(told)
    assert told == [side.key for side in every[start:]]
    assert start == 0 or every[start - 1].seq <= seq


@SLOW
@given(steps=STEPS, batches=st.tuples(st.integers(1, 30), st.integers(1, 30)))
def test_a_read_model_made_anew_is_the_same_whatever_the_batches(
    steps: Steps, batches: tuple[int, int]
) -> None:
    trade = traded(steps)
    records = committed(trade)

    with followed(records, batches[0]) as one, followed(records, batches[1]) as other:
        assert dump(one) == dump(other)


@SLOW
@given(steps=STEPS, seed=st.integers())
def test_a_kill_between_batches_loses_nothing_and_doubles_nothing(steps: Steps, seed: int) -> None:
    trade = traded(steps)
    records, chance = committed(trade), random.Random(seed)

    with TemporaryDirectory() as folder:
        path = Path(folder) / "reports.sqlite"
        reached = 0
        while reached < len(records):
            # A new follower each time, that reads on from what the last one had made durable.
            model = Followed(path)
            reached, _ = model.open()
            some = records[reached : reached + chance.randint(1, 9)]
            if some:
                model.extend(some)
            model.close()
            reached += len(some)
        with followed(records) as whole:
            assert dump(path) == dump(whole)


def test_a_batch_that_fails_leaves_neither_rows_nor_cursor(tmp_path: Path) -> None:
    records = committed(traded([("hold", 3), ("capture", 29), ("hold", 2)]))
    path = tmp_path / "reports.sqlite"
    extend(path, records[:5], 5)
    before = dump(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "CREATE TRIGGER full BEFORE INSERT ON statement_account"
            " BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        )

    model = Followed(path)
    model.open()
    with pytest.raises(Unreadable):
        model.extend(records[5:])
    model.close()

    assert dump(path) == before


def test_two_followers_of_one_file_do_not_both_go_on(tmp_path: Path) -> None:
    records = committed(traded([("hold", 3)]))
    one, other = Followed(tmp_path / "reports.sqlite"), Followed(tmp_path / "reports.sqlite")
    one.open()
    other.open()
    one.extend(records[:4])

    with pytest.raises(Unreadable):
        other.extend(records[:4])
    other.extend(records[4:])
    one.close()
    other.close()

    assert reached(tmp_path / "reports.sqlite") == len(records)


async def test_a_reading_has_what_the_follower_has_not_yet_and_says_how_far_it_goes(
    tmp_path: Path,
) -> None:
    trade = traded([("hold", 3), ("capture", 29)])
    records = committed(trade)
    path = tmp_path / "reports.sqlite"

    async with viewed(path, records) as view:
        assert view.as_of_seq == len(records)
        assert not view.behind
        assert await view.accounts_of(trade.vendor.principal_id)
    async with viewed(path, records, tail_max=3) as view:
        assert view.as_of_seq == 3
        assert view.behind
    extend(path, records[:5], 5)
    async with viewed(path, records, tail_max=3) as view:
        assert view.as_of_seq == 8


class Racing(Journal):
    """An engine whose follower takes everything in just when a reading asks for the tail."""

    def __init__(self, records: list[Committed], path: Path) -> None:
        super().__init__(records)
        self.path = path

    async def follow(self, after_seq: int) -> AsyncIterator[Committed]:
        extend(self.path, self.records, 50)
        async for each in super().follow(after_seq):
            yield each


async def test_a_reading_is_of_one_moment_while_the_follower_writes(tmp_path: Path) -> None:
    trade = traded([("deliver", 3), ("hold", 2), ("deliver", 9)])
    records, path = committed(trade), tmp_path / "reports.sqlite"
    extend(path, records[:-6], 50)
    reports = Reports(path, Racing(records, path))  # type: ignore[arg-type]
    async with reports.view("org") as view:
        found = await balances_at(view, await kept(view, trade), seq=view.as_of_seq)
    await reports.dispose()

    assert reached(path) == len(records)
    assert found == trade.room.state.accounts


async def test_a_file_of_another_journal_is_not_read(tmp_path: Path) -> None:
    ours = committed(traded([("fund", 3), ("wait", 2)]))
    theirs = committed(traded([("fund", 4), ("deliver", 2)]))
    extend(tmp_path / "longer.sqlite", theirs, 5)
    extend(tmp_path / "as_long.sqlite", theirs[: len(ours)], 5)

    for name in ("longer.sqlite", "as_long.sqlite"):
        async with viewed(tmp_path / name, ours) as view:
            assert view.stored_seq == 0
            assert view.as_of_seq == len(ours)


def test_rows_are_text_and_int64_alone(tmp_path: Path) -> None:
    path = tmp_path / "reports.sqlite"
    extend(path, committed(traded([("hold", 3), ("capture", 29), ("dispute", 0)])), 4)

    rows = dump(path)

    assert len({name for name, *_ in rows}) == 6
    assert {type(value) for row in rows for value in row} == {str, int}
    assert all(-(2**63) <= v < 2**63 for row in rows for v in row if isinstance(v, int))


def test_rows_of_another_version_are_dropped(tmp_path: Path) -> None:
    records = committed(traded([("hold", 3)]))
    path = tmp_path / "reports.sqlite"
    extend(path, records, 9)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE statement_cursor SET version = 0")
        connection.commit()

    model = Followed(path)
    assert model.open() == (0, "")
    model.close()
    assert [row for row in dump(path) if row[0] != "statement_cursor"] == []


def test_what_is_forgotten_with_another_journal_is_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "reports.sqlite"
    with closing(Followed(path)) as model:
        model.open()
        nothing = dump(path)
        # Told late, so that lines stand among the late ones too.
        model.extend(committed(traded([("deliver", 0)])))
        assert "statement_late" in {name for name, *_ in dump(path)}
        model.clear()
        assert dump(path) == nothing


def test_the_things_behind_a_line_are_named() -> None:
    trade = traded([("hold", 3), ("capture", 29), ("refund", 2), ("dispute", 0)])
    found = dict.fromkeys(
        (entry.operation, tuple(entry.ids))
        for entry, _ in fold_lines([each.record for each in committed(trade)], {}, {})
    )

    assert list(found) == [
        ("fund_account", ("funding",)),
        ("place_hold", ("agreement", "hold")),
        ("capture_hold", ("agreement", "charge", "hold")),
        ("refund_charge", ("agreement", "charge", "hold", "refund")),
        ("initiate_dispute", ("agreement", "charge", "dispute", "hold")),
    ]
    ids = [json.dumps(dict(entry.ids)) for entry, _ in fold_lines(
        [each.record for each in committed(trade)], {}, {}
    )]  # fmt: skip
    assert all("rfd_" in each for each in ids[3:4])


def test_a_correction_is_named_behind_its_lines() -> None:
    trade = Trade.opened(funds=10**9)
    session = Metered.opened(trade)
    charge_id = charge_of(session.report(events(1, 3, at_us=trade.room.now_us)))
    corrected(trade, charge_id, {1: 1})
    *_, (entry, lines) = fold_lines([each.record for each in committed(trade)], {}, {})

    assert entry.operation == "correct_usage"
    assert list(entry.ids) == ["agreement", "charge", "correction", "session"]
    assert entry.ids["correction"].startswith("cor_")
    assert entry.buyer_id == trade.agent.principal_id
    assert {(each.side, each.counterpart) for each in lines if ":prepaid:" in each.account} == {
        ("credit", "vendor_pending"),
        ("credit", "platform_fee"),
    }
