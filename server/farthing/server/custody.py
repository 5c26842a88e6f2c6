"""Keeping a journal beside the server that writes it: put a backup back, retire a key.

Boundary: files and what a person reads about them; nothing here serves.
"""

import os
from pathlib import Path
from typing import Final

from farthing.identity.keyring import Keyring, Purpose, UnusableKeys, open_keyring, retire
from farthing.protocol.errors import Unverified
from farthing.server.engine import now_us
from farthing.server.files import new_file
from farthing.server.settings import Settings
from farthing.settlement.audit.log import hidden_in_log, log_beside
from farthing.settlement.audit.read_model import check_end
from farthing.settlement.journal.backup import restore
from farthing.settlement.journal.lock import FileLock
from farthing.settlement.machine import MACHINE
from farthing.settlement.reports.projection import remove

__all__ = ["key_retired", "restored"]


_SIGNING: Final = (Purpose.PLATFORM.value, Purpose.JOURNAL.value)


def restored(settings: Settings, source: Path) -> list[str]:
    """Put a backup in place of the settings' database, and say what became of it.

    Raises:
        FarthingError, OSError: as `settlement.journal.backup.restore`.
    """
    keyring = _keyring(settings)
    lines = _log_kept(settings.database_path)
    done = restore(
        source,
        settings.database_path,
        MACHINE,
        origin=keyring.origin,
        keys=keyring.verifying(Purpose.JOURNAL),
        now_us=now_us(),
    )
    try:
        check_end(settings.reports_path, done.last_seq)
    except Unverified:
        # What was lost is said below; the next server asks for it no more.
        remove(settings.reports_path)
    lines += [
        f"Restored {done.last_seq} records; the journal goes on in epoch {done.epoch}.",
        "Proofs signed before this moment are refused from now on.",
    ]
    if done.lost:
        first, last = done.lost
        lines.append(f"Lost: records {first} to {last}, which only the replaced database has.")
    if done.unread:
        lines.append(f"What was lost is not known: {done.unread}")
    if done.replaced:
        lines.append(f"The replaced database is kept at {done.replaced}.")
    return lines


def _log_kept(database: Path) -> list[str]:
    """Keep a log that hides something as it is: the restore folds it, and compares what it reads.

    Raises:
        DatabaseInUse: a server runs.
        FileExistsError: another is kept there already.
    """
    lock = FileLock(database)
    lock.acquire()
    try:
        hidden = hidden_in_log(database)
        if not hidden:
            return []
        log = log_beside(database)
        kept = log.with_name(f"{log.name}.damaged")
        data = log.read_bytes()
        # A restore that failed has kept it before.
        if not kept.exists() or kept.read_bytes() != data:
            with new_file(kept) as file:
                file.write(data)
    finally:
        lock.release()
    found = f"The log of the replaced database is damaged: it hides {hidden} acknowledged batches"
    return [f"{found}, not counted below.", f"That log is kept as it was at {kept}."]


def key_retired(settings: Settings, name: str) -> list[str]:
    """Put a new key in the place of the platform's key of a name, and say what follows.

    Raises:
        DatabaseInUse: a server runs; its front ends would go on with the old key.
        UnusableKeys, OSError: as `identity.keyring.retire`.
    """
    if name not in _SIGNING:
        text = f"{name} is not a key to retire: {' and '.join(_SIGNING)} are"
        raise UnusableKeys(f"{text}; admin and treasurer replace their own (farthing keys rotate)")
    purpose = Purpose(name)
    if not settings.database_path.exists():
        where = f"there is no database at {settings.database_path}"
        raise UnusableKeys(f"{where}; name its folder with --data-dir")
    lock = FileLock(settings.database_path)
    lock.acquire()
    try:
        old = _keyring(settings).public(purpose)
        new = retire(settings.keys_dir, purpose, os.urandom)
    finally:
        lock.release()
    return [
        f"Retired {old.thumbprint}: what it signed verifies for ever, and it signs nothing more.",
        f"From the next start the {name} key is {new.thumbprint}.",
        f"Keep a copy of {settings.keys_dir}: no server goes on without the new key.",
        "Whoever pinned the old key learns the new one from its last signature.",
    ]


def _keyring(settings: Settings) -> Keyring:
    return open_keyring(settings.keys_dir, os.urandom, origin="", begun=True)
