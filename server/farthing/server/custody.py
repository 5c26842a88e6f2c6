"""Keeping a journal beside the server that writes it: put a backup back, audit a database.

Boundary: files and what a person reads about them; nothing here serves.
"""

import os
from pathlib import Path
from typing import Final

import orjson

from farthing.identity.keyring import Keyring, Purpose, open_keyring
from farthing.protocol.audit import verify_journal
from farthing.protocol.errors import Unverified
from farthing.protocol.keys import InvalidKey, PublicKey
from farthing.server.engine import now_us
from farthing.server.settings import Settings
from farthing.settlement.journal.backup import restore
from farthing.settlement.journal.sqlite import SqliteStore
from farthing.settlement.machine import MACHINE

__all__ = ["audited", "restored"]

_PUBLISHED: Final = ("kty", "crv", "x", "y", "kid", "alg")


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


def audited(settings: Settings, database: Path, keys: Path | None) -> tuple[bool, list[str]]:
    """Whether a journal holds, and the findings in lines.

    Args:
        settings: whose keys folder to use where no key set is given.
        database: the file.
        keys: a key set as the platform publishes it.

    Raises:
        FarthingError, OSError: something cannot be read.
    """
    store = SqliteStore(database)
    last = store.last()
    if last is None:
        raise Unverified(f"{database} holds no record")
    if keys is None:
        keyring = _keyring(settings)
        origin, trusted = keyring.origin, _journal_keys(keyring)
    else:
        # The first line of a signed note is its log's name; the signature covers it.
        origin, trusted = last.note.partition("\n")[0], _key_set(keys)
    findings = verify_journal(
        (data for batch in store.batches() for data in batch.records),
        notes=(batch.note for batch in store.batches()),
        origin=origin,
        keys=trusted,
    )
    balance = "do not equal" if findings.imbalances else "equal"
    lines = [
        f"{findings.records} records verify; root {findings.root_sha256}",
        f"{findings.heads} signed heads of {origin} fit; {findings.proven_records} records proven",
        f"{len(findings.accounts)} accounts; debits {balance} credits",
    ]
    if findings.fault:
        fault = findings.fault
        lines.append(f"Fault ({fault.kind.value}) at record {fault.seq}: {fault.why}")
    return findings.ok, lines


def _keyring(settings: Settings) -> Keyring:
    return open_keyring(settings.keys_dir, os.urandom, origin="", begun=True)


def _journal_keys(keyring: Keyring) -> tuple[PublicKey, ...]:
    return (keyring[Purpose.JOURNAL].public, *keyring.retired[Purpose.JOURNAL])


def _key_set(path: Path) -> tuple[PublicKey, ...]:
    try:
        members = orjson.loads(path.read_bytes())["keys"]
        return tuple(
            PublicKey.from_jwk({name: jwk[name] for name in _PUBLISHED if name in jwk})
            for jwk in members
        )
    except (orjson.JSONDecodeError, InvalidKey, KeyError, TypeError) as error:
        raise Unverified(f"{path} is no key set: {error}") from None
