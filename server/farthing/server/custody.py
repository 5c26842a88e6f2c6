"""Keeping a journal beside the server that writes it: put a backup back.

Boundary: files and what a person reads about them; nothing here serves.
"""

import os
from pathlib import Path

from farthing.identity.keyring import Keyring, Purpose, open_keyring
from farthing.protocol.keys import PublicKey
from farthing.server.engine import now_us
from farthing.server.settings import Settings
from farthing.settlement.journal.backup import restore
from farthing.settlement.machine import MACHINE

__all__ = ["restored"]


def restored(settings: Settings, source: Path) -> list[str]:
    """Put a backup in place of the settings' database, and say what became of it.

    Raises:
        FarthingError, OSError: as `settlement.journal.backup.restore`.
    """
    keyring = _keyring(settings)
    done = restore(
        source,
        settings.database_path,
        MACHINE,
        origin=keyring.origin,
        keys=_journal_keys(keyring),
        now_us=now_us(),
    )
    lines = [
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


def _keyring(settings: Settings) -> Keyring:
    return open_keyring(settings.keys_dir, os.urandom, origin="", begun=True)


def _journal_keys(keyring: Keyring) -> tuple[PublicKey, ...]:
    return (keyring[Purpose.JOURNAL].public, *keyring.retired[Purpose.JOURNAL])
