"""The follower: it catches up, waits out what fails, and can be stopped at any moment."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from farthing.protocol.errors import Code, Refused, refuse
from farthing.server.followers.history import follow_history, following_history
from farthing.settlement.engine.commands import Committed
from farthing.settlement.engine.questions import RecordAt
from tests.patience import until
from tests.settlement.reports.trades import committed, traded

STEPS = [("deliver", 3), ("hold", 2), ("fund", 4), ("dispute", 0), ("wait", 40)] * 3


class Journal:
    """An engine that is away a few times and then tells its whole journal; it may go on or end."""

    def __init__(self, records: list[Committed], *, away: int = 0, ends: bool = True) -> None:
        self.records = records
        self.away = away
        self.ends = ends
        self.asked_after: list[int] = []

    async def ask(self, question: Any) -> bytes | None:
        assert isinstance(question, RecordAt)
        found = self.records[question.seq - 1 : question.seq]
        return found[0].data if found else None

    async def follow(self, after_seq: int) -> AsyncGenerator[Committed, None]:
        self.asked_after.append(after_seq)
        for number, each in enumerate(self.records[after_seq:]):
            if self.away and number == 4:
                self.away -= 1
                raise Refused(refuse(Code.UNAVAILABLE))
            yield each
        if not self.ends:
            await asyncio.Event().wait()


async def at_once(seconds: float) -> None:
    assert seconds > 0
    await asyncio.sleep(0)


def reached(path: Path) -> tuple[int, int]:
    with closing(sqlite3.connect(path)) as connection:
        (seq,) = connection.execute("SELECT seq FROM statement_cursor").fetchone()
        (lines,) = connection.execute("SELECT count(*) FROM statement_line").fetchone()
    return seq, lines


def sides_of(records: list[Committed]) -> int:
    return sum(2 * len(each.record.moved) for each in records)


async def test_it_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    records = committed(traded(STEPS))
    journal = Journal(records, away=3)
    path = tmp_path / "reports.sqlite"

    await follow_history(journal, path, batch_max=3, sleep=at_once)  # type: ignore[arg-type]

    assert reached(path) == (len(records), sides_of(records))
    assert journal.asked_after == [0, 4, 8, 12]


async def test_it_begins_anew_with_another_journal(tmp_path: Path) -> None:
    path = tmp_path / "reports.sqlite"
    first, second = committed(traded(STEPS)), committed(traded([("fund", 7), *STEPS]))
    await follow_history(Journal(first), path, sleep=at_once)  # type: ignore[arg-type]
    journal = Journal(second)

    await follow_history(journal, path, sleep=at_once)  # type: ignore[arg-type]

    assert journal.asked_after == [0]
    assert reached(path) == (len(second), sides_of(second))


async def test_it_waits_for_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    records = committed(traded(STEPS))
    path = tmp_path / "folder" / "reports.sqlite"
    pauses = 0

    async def mended(seconds: float) -> None:
        nonlocal pauses
        if not path.parent.exists():
            pauses += 1
            if pauses == 3:
                path.parent.mkdir()
        await at_once(seconds)

    await follow_history(Journal(records), path, sleep=mended)  # type: ignore[arg-type]

    assert pauses == 3
    assert reached(path) == (len(records), sides_of(records))


@pytest.mark.parametrize("damaged_from", [0, 4096])
async def test_it_makes_a_damaged_file_anew(tmp_path: Path, damaged_from: int) -> None:
    records = committed(traded(STEPS))
    path = tmp_path / "reports.sqlite"
    some = len(records) // 2
    await follow_history(Journal(records[:some]), path, sleep=at_once)  # type: ignore[arg-type]
    whole = path.read_bytes()
    path.write_bytes(whole[:damaged_from] + b"\xa5" * (len(whole) - damaged_from))

    await follow_history(Journal(records), path, sleep=at_once)  # type: ignore[arg-type]

    assert reached(path) == (len(records), sides_of(records))


async def test_a_file_that_is_gone_is_made_anew_though_nothing_happens(tmp_path: Path) -> None:
    records = committed(traded(STEPS))
    path = tmp_path / "reports.sqlite"
    whole = (len(records), sides_of(records))

    def is_whole() -> bool:
        with suppress(sqlite3.OperationalError, TypeError):  # not yet with its tables and cursor
            return path.exists() and reached(path) == whole
        return False

    async with following_history(Journal(records, ends=False), path):  # type: ignore[arg-type]
        await until(is_whole)
        path.unlink()
        await until(is_whole)


async def test_it_can_be_stopped_with_its_hands_full(tmp_path: Path) -> None:
    records = committed(traded(STEPS))
    path = tmp_path / "reports.sqlite"
    for turns in range(0, 60, 3):
        async with following_history(Journal(records, ends=False), path):  # type: ignore[arg-type]
            for _ in range(turns):
                await asyncio.sleep(0)

    await follow_history(Journal(records), path, sleep=at_once)  # type: ignore[arg-type]

    assert reached(path) == (len(records), sides_of(records))


async def test_it_stops_at_a_record_that_breaks_the_ledger(tmp_path: Path) -> None:
    records = committed(traded(STEPS))
    path = tmp_path / "reports.sqlite"
    broken = next(each for each in records if each.record.operation == "capture_hold")
    again = {**json.loads(broken.data), "seq": broken.seq + 1}
    twice = Committed(seq=broken.seq + 1, data=json.dumps(again).encode())
    told = [*records[: broken.seq], twice]

    await follow_history(Journal(told), path, batch_max=1, sleep=at_once)  # type: ignore[arg-type]

    assert reached(path) == (broken.seq, sides_of(records[: broken.seq]))
