"""A session's numbers and acknowledgements are on disk before anybody hears of them, and stay."""

import asyncio
from pathlib import Path

import pytest

from farthing.clients.callbooks import CallBook, Called, Keeper, SessionInUse, Stage, read_book
from farthing.protocol.canonical import Json

ARGS = "a" * 64


def asked(seq: int) -> Called:
    return Called(seq=seq, args_sha256=ARGS, stage=Stage.ASKED)


def answered(seq: int, fault: str = "") -> Called:
    return Called(
        seq=seq,
        args_sha256=ARGS,
        stage=Stage.ANSWERED,
        place=seq,
        usage={"page": 3},
        units=7,
        said_units=8,
        result_sha256="b" * 64,
        fault=fault,
    )


class Disk(CallBook):
    """A file that counts its commits, and fails where a test wants it to."""

    commits = 0
    full = False

    def write(self, calls: list[Called], document: dict[str, Json]) -> None:  # type: ignore[override]
        if self.full:
            raise OSError("no space left on device")
        self.commits += 1
        super().write(calls, document)


def test_what_was_written_is_there_when_the_file_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "sessions" / "ses_x.sqlite"
    book = CallBook(path)
    assert book.document() is None
    book.write([asked(1), asked(2)], {"top": "2"})
    book.write([answered(1, "amount")], {"top": "2", "spent": "7"})
    book.close()

    again = CallBook(path)

    assert again.document() == {"top": "2", "spent": "7"}
    assert again.calls(Stage.ASKED) == (asked(2),)
    assert again.find(1) == answered(1, "amount")
    assert again.find(3) is None
    again.close()
    assert path.stat().st_mode & 0o077 == 0


def test_two_processes_do_not_call_through_one_session(tmp_path: Path) -> None:
    path = tmp_path / "ses_x.sqlite"
    first = CallBook(path)
    with pytest.raises(SessionInUse, match="ses_x"):
        CallBook(path)

    first.write([asked(1)], {})
    assert read_book(path) == ({}, (asked(1),))

    first.close()
    CallBook(path).close()


async def test_many_calls_share_few_commits_and_each_waits_for_its_own(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "ses_x.sqlite")
    top = 0
    keeper = Keeper(disk, lambda: {"top": str(top)})

    async def call(seq: int) -> None:
        nonlocal top
        top = max(top, seq)
        keeper.note(asked(seq))
        await keeper.kept()
        assert disk.find(seq) == asked(seq)
        document = disk.document()
        assert document is not None
        assert int(str(document["top"])) >= seq

    await asyncio.gather(*(call(seq) for seq in range(1, 65)))

    assert len(disk.calls(Stage.ASKED)) == 64
    assert disk.commits <= 3
    disk.close()


async def test_what_could_not_be_written_is_written_with_the_next(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "ses_x.sqlite")
    keeper = Keeper(disk, dict)
    keeper.note(asked(1))
    disk.full = True
    with pytest.raises(OSError, match="no space"):
        await keeper.kept()

    disk.full = False
    keeper.note(asked(2))
    await keeper.kept()

    assert [each.seq for each in disk.calls(Stage.ASKED)] == [1, 2]
    disk.close()


async def test_a_caller_that_goes_away_takes_nobody_s_commit_with_it(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "ses_x.sqlite")
    keeper = Keeper(disk, dict)
    keeper.note(asked(1), asked(2))
    gone, stays = asyncio.create_task(keeper.kept()), asyncio.create_task(keeper.kept())
    await asyncio.sleep(0)
    gone.cancel()

    await stays

    assert gone.cancelled() or gone.done()
    assert len(disk.calls(Stage.ASKED)) == 2
    disk.close()
