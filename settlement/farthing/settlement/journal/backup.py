"""Copy a journal while it is written, and put a copy back in its place.

Boundary: SQLite files. A backup is an ordinary database in one file; a restore checks it by
recovery before anything is touched, and keeps what it replaces. Source: spec/journal.md.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

from farthing.protocol.keys import PublicKey
from farthing.settlement.journal.lock import FileLock
from farthing.settlement.journal.machine import Machine
from farthing.settlement.journal.recovery import recover
from farthing.settlement.journal.sqlite import (
    SqliteStore,
    copy_database,
    epoch_of,
    fold_log,
    mark_restored,
)
from farthing.settlement.journal.store import Unreadable

__all__ = ["Backup", "Restored", "backup", "restore"]

State = TypeVar("State")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """A copy that was made: its last record and the signed head over all of them."""

    path: Path
    last_seq: int
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A copy that was put back.

    Args:
        last_seq: last record of the copy, where the journal goes on.
        epoch: the epoch it stands at, above every one before.
        lost: first and last record that only the replaced file has; None when nothing is known to
            be lost.
        replaced: where the replaced file lies now, if there was one.
        unread: why the replaced file could not be compared; "" where it could.
    """

    last_seq: int
    epoch: int
    lost: tuple[int, int] | None = None
    replaced: Path | None = None
    unread: str = ""


def backup(path: Path, target: Path) -> Backup:
    """Copy the database at `path` as of one moment, while its writer goes on.

    Raises:
        FileExistsError: there is something at `target`.
        Unreadable: the database cannot be read, or the copy cannot be written.
    """
    if target.exists():
        raise FileExistsError(target)
    partial = _copy(path, target)
    last = SqliteStore(partial).last()
    partial.replace(target)
    _sync_folder(target)
    return Backup(
        path=target,
        last_seq=last.last_seq if last else 0,
        note=last.note if last else "",
    )


def restore(
    copy: Path,
    target: Path,
    machine: Machine[State],
    *,
    origin: str,
    keys: Sequence[PublicKey],
    now_us: int,
) -> Restored:
    """Put a backup in the place of the database at `target`, which no engine may have open.

    Proofs that were used after the backup are forgotten by it; `now_us` is kept as the time before
    which none is to be taken any more (`Store.restored_at_us`).

    Raises:
        DatabaseInUse: an engine has the database.
        Unverified: the backup's journal does not verify; nothing has been touched.
        Unreadable: the backup cannot be read, or the copy cannot be written.
    """
    target = target.resolve()
    lock = FileLock(target)
    lock.acquire()
    try:
        recovered = recover(SqliteStore(copy), machine, origin=origin, keys=keys)
        lost, old_epoch, unread, replaced = None, 0, "", None
        if target.exists():
            try:
                fold_log(target)
                old_epoch = epoch_of(target)
                lost = _only_in(target, copy)
            except Unreadable as error:
                unread = str(error)
        epoch = 1 + max(epoch_of(copy), old_epoch)
        partial = _copy(copy, target)
        mark_restored(partial, epoch=epoch, now_us=now_us)
        if target.exists():
            replaced = _set_aside(target, epoch)
        partial.replace(target)
        _sync_folder(target)
    finally:
        lock.release()
    return Restored(
        last_seq=recovered.chain.seq, epoch=epoch, lost=lost, replaced=replaced, unread=unread
    )


def _copy(path: Path, target: Path) -> Path:
    """A copy beside `target`, not yet in its place, durable and at no moment anybody else's.

    What keeps others from a database is its folder, which a copy leaves.
    """
    partial = target.with_name(target.name + ".partial")
    partial.unlink(missing_ok=True)
    try:
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise Unreadable(f"{target}: {error.strerror}") from error
    copy_database(path, partial)
    return partial


def _only_in(old: Path, copy: Path) -> tuple[int, int] | None:
    """First and last record of `old` from where the two part."""
    pairs = zip_longest(_records(old), _records(copy))
    parted = next((seq for seq, (ours, theirs) in enumerate(pairs, 1) if ours != theirs), None)
    last = SqliteStore(old).last()
    if parted is None or last is None or last.last_seq < parted:
        return None
    return parted, last.last_seq


def _records(path: Path) -> Iterator[bytes]:
    return (data for batch in SqliteStore(path).batches() for data in batch.records)


def _set_aside(target: Path, epoch: int) -> Path:
    """A second name for the old file, so that `target` is at no moment without a database."""
    aside = target.with_name(f"{target.name}.before-epoch-{epoch}")
    aside.unlink(missing_ok=True)
    aside.hardlink_to(target)
    # A log that is left belongs to the old file and must not be applied to the new one.
    for suffix in ("-wal", "-shm"):
        log = target.with_name(target.name + suffix)
        if log.exists():
            log.replace(aside.with_name(aside.name + suffix))
    return aside


def _sync_folder(path: Path) -> None:
    """Make the new name durable, as `replace` alone does not."""
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
