import sqlite3
import stat
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from farthing.protocol.errors import Unverified
from farthing.protocol.keys import PublicKey
from farthing.settlement.engine.commands import Command
from farthing.settlement.engine.questions import TreeHeadNow
from farthing.settlement.journal import backup as backups
from farthing.settlement.journal.backup import Restored, backup, restore
from farthing.settlement.journal.recovery import recover
from farthing.settlement.journal.sealing import sign_head
from farthing.settlement.journal.sqlite import SqliteStore, copy_database
from farthing.settlement.journal.stepper import Stepper
from farthing.settlement.journal.store import DatabaseInUse, Unreadable
from tests.settlement.journal import bank
from tests.settlement.journal.bank import BANK, ORIGIN, SIGNER, START_US, STRANGER, Bank, fund, hold
from tests.settlement.journal.storage import Disk, spoil_record


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return tmp_path / "copy.db"


def opened(path: Path) -> Stepper[Bank]:
    stepper = bank.stepper(SqliteStore(path))
    stepper.open()
    return stepper


def write(path: Path, *commands: Command) -> None:
    stepper = opened(path)
    stepper.step(commands)
    stepper.close()


def put_back(
    copy: Path, path: Path, keys: Sequence[PublicKey] = (SIGNER.public,), now_us: int = START_US
) -> Restored:
    return restore(copy, path, BANK, origin=ORIGIN, keys=keys, now_us=now_us)


def records(path: Path) -> list[bytes]:
    return [data for batch in SqliteStore(path).batches() for data in batch.records]


def test_a_backup_is_its_owners_alone_while_it_is_written_too(
    path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(path, fund(10))
    path.chmod(0o644)
    modes: list[int] = []

    def watched(source: Path, target: Path) -> None:
        modes.append(stat.S_IMODE(target.stat().st_mode))
        copy_database(source, target)

    monkeypatch.setattr(backups, "copy_database", watched)
    made = backup(path, copy)

    assert modes == [0o600]
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600


def test_a_backup_is_taken_while_the_writer_goes_on(path: Path, copy: Path) -> None:
    stepper = opened(path)
    stepper.step([fund(10), hold(1, "a")])

    made = backup(path, copy)
    stepper.step([hold(2, "b")])

    assert (made.path, made.last_seq) == (copy, 2)
    assert records(copy) == records(path)[:2]
    recovered = recover(SqliteStore(copy), BANK, origin=ORIGIN, keys=[SIGNER.public])
    assert sign_head(recovered.chain, SIGNER, ORIGIN) == made.note
    assert made.note != stepper.answer(TreeHeadNow())


def test_a_backup_is_one_file(path: Path, copy: Path) -> None:
    write(path, fund(10))

    backup(path, copy)

    assert sorted(each.name for each in copy.parent.glob("copy*")) == ["copy.db"]


def test_a_backup_of_an_empty_journal_is_one_too(path: Path, copy: Path) -> None:
    opened(path).close()

    assert backup(path, copy).last_seq == 0
    assert put_back(copy, path).last_seq == 0


def test_a_backup_replaces_nothing(path: Path, copy: Path) -> None:
    write(path, fund(10))
    copy.write_text("mine")

    with pytest.raises(FileExistsError):
        backup(path, copy)

    assert copy.read_text() == "mine"


def test_what_is_not_there_cannot_be_backed_up(path: Path, copy: Path) -> None:
    with pytest.raises(Unreadable):
        backup(path, copy)

    assert not copy.exists()


def test_a_restore_goes_on_from_the_copy_and_says_what_is_lost(path: Path, copy: Path) -> None:
    write(path, fund(10), hold(1, "a"))
    backup(path, copy)
    write(path, hold(2, "b"), hold(3, "c"))
    old = records(path)

    restored = put_back(copy, path, now_us=START_US + 7)

    assert (restored.last_seq, restored.lost, restored.unread) == (2, (3, 4), "")
    assert records(path) == old[:2]
    assert restored.replaced is not None
    assert records(restored.replaced) == old
    store = SqliteStore(path)
    assert store.restored_at_us() == START_US + 7
    assert store.acquire() > restored.epoch > 2
    store.close()


def test_a_restore_to_an_empty_place_loses_nothing_that_is_known(path: Path, copy: Path) -> None:
    write(path, fund(10))
    backup(path, copy)
    elsewhere = path.with_name("elsewhere.db")

    restored = put_back(copy, elsewhere)

    assert (restored.last_seq, restored.lost, restored.replaced) == (1, None, None)
    assert records(elsewhere) == records(path)


def test_a_file_that_went_another_way_is_lost_from_where_they_part(path: Path, copy: Path) -> None:
    write(path, fund(10))
    backup(path, copy)
    write(path, hold(1, "a"), hold(1, "b"))
    later = copy.with_name("later.db")
    backup(path, later)
    put_back(copy, path)
    write(path, hold(9, "other"))

    restored = put_back(later, path)

    assert (restored.last_seq, restored.lost) == (3, (2, 2))


def test_a_file_that_cannot_be_read_is_replaced_and_kept(path: Path, copy: Path) -> None:
    write(path, fund(10))
    backup(path, copy)
    path.write_bytes(b"broken" * 1_000)
    path.with_name("journal.db-wal").write_bytes(b"stale")

    restored = put_back(copy, path)

    assert (restored.last_seq, restored.lost) == (1, None)
    assert restored.unread
    assert restored.replaced is not None
    assert restored.replaced.read_bytes().startswith(b"broken")
    assert len(records(path)) == 1


def test_what_is_restored_to_a_link_stands_where_the_link_points(path: Path, copy: Path) -> None:
    write(path, fund(10))
    backup(path, copy)
    write(path, hold(1, "a"))
    link = path.with_name("link.db")
    link.symlink_to(path)

    restored = put_back(copy, link)

    assert (link.readlink(), len(records(path))) == (path, 1)
    assert restored.replaced is not None
    assert len(records(restored.replaced)) == 2


def test_nothing_is_restored_under_a_running_engine(path: Path, copy: Path) -> None:
    stepper = opened(path)
    stepper.step([fund(10)])
    backup(path, copy)
    stepper.step([hold(1, "a")])

    with pytest.raises(DatabaseInUse):
        put_back(copy, path)

    assert len(records(path)) == 2


@pytest.mark.parametrize("fault", ["changed", "signed by a stranger", "no database"])
def test_a_backup_that_does_not_verify_changes_nothing(path: Path, copy: Path, fault: str) -> None:
    write(path, fund(10))
    backup(path, copy)
    write(path, hold(1, "a"))
    if fault == "changed":
        Disk(copy).spoil(lambda batch: spoil_record(batch, 1))
    elif fault == "no database":
        copy.write_bytes(b"broken" * 1_000)
    keys = [STRANGER.public] if fault == "signed by a stranger" else [SIGNER.public]

    with pytest.raises((Unverified, Unreadable)):
        put_back(copy, path, keys)

    assert len(records(path)) == 2
    assert sorted(each.name for each in path.parent.glob("journal.db.b*")) == []


def test_restoring_again_is_the_same_again(path: Path, copy: Path) -> None:
    write(path, fund(10))
    backup(path, copy)
    first = put_back(copy, path)
    second = put_back(copy, path)

    assert second.lost is None
    assert second.epoch == first.epoch + 1
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
