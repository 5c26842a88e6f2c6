"""A read model that is damaged or gone: nobody is answered of it, and it is made anew."""

import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Final

import pytest

from farthing.protocol.errors import Code, Refused
from farthing.settlement.journal.store import Unreadable
from farthing.settlement.reports.projection import Followed
from farthing.settlement.reports.reads import Reports
from farthing.settlement.reports.statements import Period, balances_at
from tests.settlement.reports.test_reports import (
    Journal,
    dump,
    everything,
    extend,
    followed,
    kept,
)
from tests.settlement.reports.trades import committed, traded

PAGE_BYTES: Final = 4096
# Its first byte says of a page that it holds rows.
ROWS: Final = 0x0D


def folded(path: Path) -> bytes:
    """The bytes of a database that nobody has open, its log in it."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path.read_bytes()


def with_a_spoilt_page(data: bytes, holding: bytes) -> bytes:
    """The bytes of a database without the first page that has these among its rows."""
    pages = [data[at : at + PAGE_BYTES] for at in range(0, len(data), PAGE_BYTES)]
    place = next(n for n, page in enumerate(pages) if page[0] == ROWS and holding in page)
    pages[place] = b"\xa5" * PAGE_BYTES
    return b"".join(pages)


def is_open_though_gone(path: Path) -> bool:
    """Whether this process has a file open that had this name."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found.append(str(descriptor.readlink()))
    return f"{path} (deleted)" in found


DAMAGES: Final[dict[str, Callable[[bytes], bytes]]] = {
    "a page": lambda data: with_a_spoilt_page(data, b"place_hold"),
    "a word": lambda data: data.replace(b"creditpost", b"creditp\xafst"),
    "a movement": lambda data: data.replace(b"creditpost", b"creditpast"),
    "a counter": lambda data: data.replace(b"prepaid0400000006", b"prepaid04000O0006"),
}


async def test_a_damaged_file_is_unavailable_to_read_until_it_is_made_anew() -> None:
    records = committed(traded([("deliver", 3), ("hold", 2)]))
    with followed(records) as path:
        path.write_bytes(b"\xa5" * len(path.read_bytes()))
        reports = Reports(path, Journal(records))  # type: ignore[arg-type]

        with pytest.raises(Refused) as refused:
            async with reports.view("org"):
                pass
        assert not path.exists()
        extend(path, records, 7)

        assert refused.value.code is Code.UNAVAILABLE
        async with reports.view("org") as view:
            assert view.as_of_seq == len(records)
        await reports.dispose()


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_file_that_who_reads_finds_damaged_is_gone_and_who_follows_makes_it_anew(
    damage: str,
) -> None:
    trade = traded([("fund", 4), ("hold", 2), ("deliver", 3)])
    records = committed(trade)
    with followed(records[:-1]) as path:
        data = folded(path)
        spoilt = DAMAGES[damage](data)
        path.write_bytes(spoilt)
        reports = Reports(path, Journal(records))  # type: ignore[arg-type]
        with closing(Followed(path)) as follower:
            assert follower.open()[0] == len(records) - 1
            with pytest.raises(Refused) as refused:
                async with reports.view("org") as view:
                    await everything(view, await kept(view, trade), Period(), 5)
            with pytest.raises(Unreadable, match="is gone, and is made anew"):
                follower.extend(records[-1:])
        extend(path, records, 7)
        async with reports.view("org") as view:
            assert view.stored_seq == len(records)
            found = await balances_at(view, await kept(view, trade), seq=view.as_of_seq)
        await reports.dispose()

    assert spoilt != data
    assert refused.value.code is Code.UNAVAILABLE
    assert found == trade.room.state.accounts


async def test_who_reads_takes_up_a_file_that_was_made_anew() -> None:
    trade = traded([("deliver", 3), ("hold", 2)])
    records = committed(trade)
    with followed(records[:5]) as path:
        reports = Reports(path, Journal(records), tail_max=1)  # type: ignore[arg-type]
        async with reports.view("org") as view:
            assert (view.as_of_seq, view.behind) == (6, True)
            path.unlink()
            extend(path, records, 7)
        async with reports.view("org") as view:
            assert (view.as_of_seq, view.behind) == (len(records), False)
        await reports.dispose()


async def test_who_still_reads_a_file_that_is_gone_leaves_it_open_no_longer_than_that() -> None:
    records = committed(traded([("deliver", 3), ("hold", 2)]))
    with followed(records) as path:
        reports = Reports(path, Journal(records))  # type: ignore[arg-type]
        async with reports.view("org"):
            path.unlink()
            extend(path, records, 7)
            async with reports.view("org") as view:
                assert view.as_of_seq == len(records)
            assert is_open_though_gone(path)
        assert not is_open_though_gone(path)
        await reports.dispose()


def test_a_file_that_has_lost_a_table_is_made_anew(tmp_path: Path) -> None:
    records, path = committed(traded([("deliver", 3)])), tmp_path / "reports.sqlite"
    extend(path, records, 7)
    whole = dump(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE statement_line")

    extend(path, records, 7)

    assert dump(path) == whole


READER = """
import sqlite3, sys
connection = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
connection.execute("SELECT count(*) FROM statement_line").fetchone()
print("reads", flush=True)
sys.stdin.read()
"""


def test_the_log_of_a_file_that_another_process_still_reads_is_not_that_of_the_next(
    tmp_path: Path,
) -> None:
    records, path = committed(traded([("deliver", 3)])), tmp_path / "reports.sqlite"
    with closing(Followed(path)) as gone:
        gone.open()
        gone.extend(records)
        whole = dump(path)
        command = [sys.executable, "-c", READER, str(path)]
        with Popen(command, stdin=PIPE, stdout=PIPE) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == b"reads\n"
            path.unlink()
            extend(path, records, 7)
            other.communicate()

    assert dump(path) == whole
