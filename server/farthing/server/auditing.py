"""Auditing a database or a bundle, and taking the books out: what the commands do.

Boundary: files, and what a person reads about them; nothing here serves, and nothing is written but
the export. Source: spec/audit.md.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import IO, Final

import orjson

from farthing.catalog.tables import TABLES
from farthing.identity.keyring import Purpose, UnusableKeys, open_keyring
from farthing.protocol.audit import AuditFindings, verify_journal
from farthing.protocol.bundles import BundleFindings, bundle_lines, described, verify_bundle
from farthing.protocol.checkpoints import origin_of
from farthing.protocol.errors import Broken, Unverified
from farthing.protocol.faults import FaultKind
from farthing.protocol.keys import PublicKey
from farthing.protocol.platform_keys import PlatformKeys
from farthing.protocol.succession import successions_in
from farthing.server.engine import projected
from farthing.server.files import new_file
from farthing.server.settings import Settings
from farthing.settlement.audit.database import DatabaseFindings, audit_database
from farthing.settlement.audit.exports import Form, export
from farthing.settlement.audit.log import check_log
from farthing.settlement.audit.media import readable
from farthing.settlement.audit.postings import entries
from farthing.settlement.journal.sqlite import SqliteStore

__all__ = ["BUNDLE", "audited", "exported", "verifier"]

BUNDLE: Final = "bundle"

_DATABASE_MARK: Final = b"SQLite format 3\x00"
# A bundle is lines in canonical form, and so begins with the first of its keys.
_BUNDLE_MARK: Final = b'{"bundle":'


@dataclass(frozen=True, slots=True, kw_only=True)
class _Keys:
    """Which log it is, and the keys that its heads and its quotes are signed with."""

    origin: str
    journal: tuple[PublicKey, ...]
    quotes: tuple[PublicKey, ...]


def audited(
    settings: Settings, path: Path, keys: Path | None, trust: Sequence[str] = ()
) -> tuple[bool, list[str]]:
    """Whether a journal holds, and the findings in lines.

    Args:
        settings: whose keys folder to use for a database where no key set is given.
        path: a database, a backup or a bundle.
        keys: a key set as the platform publishes it.
        trust: thumbprints of the journal's key, for a bundle; of the key set then count the keys
            that these lead to.

    Raises:
        FarthingError, OSError: something cannot be read.
    """
    mark = _mark(path)
    if mark == _DATABASE_MARK:
        if trust:
            raise Unverified("--trust is for a bundle; a database is judged by --keys")
        own = path.absolute() == settings.database_path.absolute()
        reports = settings.reports_path if own else path.with_name(settings.reports_path.name)
        with readable(path) as database, readable(reports) as followed:
            return _database(database, followed, _keys_of(settings, SqliteStore(database), keys))
    if not mark.startswith(_BUNDLE_MARK):
        raise Unverified(
            f"{path} is no journal: neither a database nor a backup nor a bundle"
            " (farthing audit export --bundle). A receipt is for the one-file verifier"
            " (farthing audit verifier), an evidence pack for farthing verify"
        )
    trusted = frozenset(trust)
    successions: Sequence[object] = ()
    if keys is not None:
        published, successions = _key_set(keys)
        # Beside a pin a set is nobody's word: it only leads on from what is pinned.
        trusted = trusted or frozenset(published.journal)
    with path.open("rb") as file:
        return _bundle(verify_bundle(file, trusted or None, successions))


def exported(
    settings: Settings, database: Path, form: str, out: Path, keys: Path | None
) -> list[str]:
    """Write a database's books to a new file, and say what was written.

    Args:
        settings: whose keys folder to use where no key set is given.
        database: the file; it is only read.
        form: one of `Form`, or `BUNDLE`.
        out: the file to write; it must not exist.
        keys: a key set as the platform publishes it.

    Raises:
        Unverified: the journal was changed; the text names the first bad record, or the log.
        FarthingError, OSError: something cannot be read or written. Nothing is left at `out`.
    """
    if _mark(database) != _DATABASE_MARK:
        raise Unverified(f"{database} is neither a database nor a backup: nothing else is exported")
    check_log(database)
    with readable(database) as read:
        store = SqliteStore(read)
        known = _keys_of(settings, store, keys)
        with new_file(out) as file:
            try:
                said = _write(store, known, form, file)
            except (Unverified, Broken) as error:
                raise Unverified(f"not exported: {_first_bad(store, known) or error}") from error
    return [said, f"Written to {out}."]


def verifier() -> str:
    """The one-file verifier, as it ships."""
    return (files("farthing.spec") / "farthing_verify.py").read_text(encoding="utf-8")


def _mark(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(_DATABASE_MARK))


def _write(store: SqliteStore, keys: _Keys, form: str, file: IO[bytes]) -> str:
    if form != BUNDLE:
        books = export(entries(store), Form(form), keys.origin, file)
        return f"{books.seq} records, {len(books.accounts)} accounts."
    count = 0

    def batches() -> Iterator[tuple[Sequence[bytes], str]]:
        nonlocal count
        for batch in store.batches():
            count = batch.last_seq
            yield batch.records, batch.note

    lines = bundle_lines(
        batches(), origin=keys.origin, journal_keys=keys.journal, quote_keys=keys.quotes
    )
    file.writelines(lines)
    return f"A bundle of {count} records of {keys.origin}."


def _first_bad(store: SqliteStore, keys: _Keys) -> str:
    """The first bad record of a journal that could not be exported: the auditor looks ahead."""
    records = (data for batch in store.batches() for data in batch.records)
    notes = (batch.note for batch in store.batches())
    fault = verify_journal(records, notes=notes, origin=keys.origin, keys=keys.journal).fault
    return "" if fault is None else described(fault)


def _database(path: Path, reports: Path, keys: _Keys) -> tuple[bool, list[str]]:
    findings = audit_database(
        path,
        origin=keys.origin,
        keys=keys.journal,
        quote_keys=keys.quotes,
        tables=TABLES,
        rows=projected,
        reports=reports,
    )
    lines = [*_journal(findings.journal, keys.origin), *_tables(findings)]
    if findings.journal is not None and not findings.journal.heads:
        lines.append("no head is by these keys: see that they are this platform's, and no other's")
    lines += [f"Fault ({described(fault)})" for fault in findings.faults]
    return findings.ok, lines


def _bundle(findings: BundleFindings) -> tuple[bool, list[str]]:
    lines = list(_journal(findings.journal, findings.origin))
    if findings.verified:
        lines.append(f"{findings.trust.value}: the newest head is signed by {findings.journal_key}")
        lines.append("Not provable from a bundle:")
        lines += [f"  - {saying}" for saying in findings.not_provable]
    else:
        lines.append(f"Fault ({findings.bad})")
    return findings.verified, lines


def _journal(journal: AuditFindings | None, origin: str) -> Iterator[str]:
    if journal is None:
        return
    balance = "do not equal" if journal.imbalances else "equal"
    yield f"{journal.records} records verify; root {journal.root_sha256}"
    yield f"{journal.heads} signed heads of {origin} fit; {journal.proven_records} records proven"
    yield f"{len(journal.accounts)} accounts; debits {balance} credits"


def _tables(findings: DatabaseFindings) -> Iterator[str]:
    wrong = sum(fault.kind in {FaultKind.BATCH, FaultKind.TABLE} for fault in findings.faults)
    agree = "do not all agree" if wrong else "agree"
    yield f"{findings.batches} batches and {findings.tables} tables {agree} with the journal"


def _keys_of(settings: Settings, store: SqliteStore, keys: Path | None) -> _Keys:
    first = next(store.batches(), None)
    if first is None:
        raise Unverified(f"{store.path} holds no record")
    if keys is not None:
        # The first note's: where that was changed, nothing is proven from the first record on.
        published, _ = _key_set(keys)
        return _Keys(
            origin=origin_of(first.note),
            journal=tuple(published.journal.values()),
            quotes=tuple(published.platform.values()),
        )
    try:
        keyring = open_keyring(settings.keys_dir, os.urandom, origin="", begun=True)
    except (UnusableKeys, OSError) as error:
        raise Unverified(
            "to judge a database name with --keys the key set that its platform publishes at"
            f" /.well-known/jwks.json, or with --data-dir the folder of its server: {error}"
        ) from error
    return _Keys(
        origin=keyring.origin,
        journal=keyring.verifying(Purpose.JOURNAL),
        quotes=keyring.verifying(Purpose.PLATFORM),
    )


def _key_set(path: Path) -> tuple[PlatformKeys, Sequence[object]]:
    """The keys that a published set holds, and what is said there of their successors."""
    try:
        published = orjson.loads(path.read_bytes())
        keys = PlatformKeys.read(published["keys"])
    except (orjson.JSONDecodeError, LookupError, TypeError):
        raise Unverified(
            f"{path} is no key set: a platform publishes it at /.well-known/jwks.json"
        ) from None
    # Without a key for them quotes would pass unjudged.
    if not (keys.platform and keys.journal):
        raise Unverified(f"{path} is no key set of a platform: not one key for each purpose")
    return keys, successions_in(published)
