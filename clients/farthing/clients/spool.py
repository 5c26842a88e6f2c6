"""What a vendor must not forget: which hold was worked for, with what result, captured or not.

Boundary: one SQLite file of one process, committed to disk before a call returns. A restart finds
every hold as it was left; what was being worked for then is marked as interrupted.
"""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, cast

from farthing.clients.sqlite_file import SqliteFile
from farthing.protocol.canonical import Json, canonical_bytes, parse_json

__all__ = ["SPOOL_VERSION", "Entry", "Spool", "SpoolInUse", "State"]

SPOOL_VERSION: Final = 2
"""That of the file's tables, those of `usage_spool` among them."""

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS work (
    hold_id TEXT PRIMARY KEY, args_sha256 TEXT NOT NULL, state TEXT NOT NULL,
    agreement_id TEXT NOT NULL, payer TEXT NOT NULL, deadline_us INTEGER NOT NULL,
    at_us INTEGER NOT NULL, result BLOB NOT NULL DEFAULT x'',
    content BLOB NOT NULL DEFAULT x'', delivery BLOB NOT NULL DEFAULT x'7b7d',
    signature TEXT NOT NULL DEFAULT '', charge_id TEXT NOT NULL DEFAULT '',
    amount_units INTEGER NOT NULL DEFAULT 0, refusal BLOB NOT NULL DEFAULT x'7b7d'
) STRICT;
CREATE INDEX IF NOT EXISTS done ON work (at_us) WHERE state IN ('captured', 'dropped');
"""


class SpoolInUse(RuntimeError):
    """Another process has this spool open. Each process of a vendor needs a home of its own."""


class State(StrEnum):
    """How far the work for a hold has come."""

    WORKING = "working"
    INTERRUPTED = "interrupted"
    """The process ended in the middle of the work."""
    DELIVERED = "delivered"
    """The result and its signed record are kept; the money is not captured yet."""
    CAPTURED = "captured"
    DROPPED = "dropped"
    """Nothing is or will be charged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The work for one hold.

    Args:
        hold_id, args_sha256: what is paid for.
        state: how far it has come.
        agreement_id, payer: under what, and by whom.
        deadline_us: when the hold's entitlement ends.
        at_us: when the state was last changed.
        result: the canonical bytes of the structured result, once delivered.
        content: the content blocks beside it, as JSON.
        delivery, signature: the delivery record and its signature, once delivered.
        charge_id, amount_units: once captured.
        refusal: why nothing is charged, once dropped.
    """

    hold_id: str
    args_sha256: str
    state: State
    agreement_id: str
    payer: str
    deadline_us: int
    at_us: int
    result: bytes = b""
    content: bytes = b""
    delivery: Mapping[str, object]
    signature: str = ""
    charge_id: str = ""
    amount_units: int = 0
    refusal: Mapping[str, object]

    @property
    def done_at_us(self) -> int | None:
        """When the work was done, None where it was not."""
        return self.at_us if self.state in {State.DELIVERED, State.CAPTURED} else None


class Spool:
    """The file. Every method blocks until what it says is on disk; call it from a thread.

    `file` is shared with `UsageSpool`.

    Args:
        path: The file, made if it is not there.

    Raises:
        SpoolInUse: Another process has it open.
    """

    def __init__(self, path: Path) -> None:
        in_use = SpoolInUse(
            f"{path} is in use by another process: each server of a vendor has a home of its own"
        )
        self.file = SqliteFile(path, in_use=in_use, version=SPOOL_VERSION)
        self.file.make(_TABLES)
        self.file.do(
            "UPDATE work SET state = ? WHERE state = ?",
            State.INTERRUPTED.value,
            State.WORKING.value,
        )

    def find(self, hold_id: str) -> Entry | None:
        """The work for a hold."""
        rows = self.file.do("SELECT * FROM work WHERE hold_id = ?", hold_id)
        return _entry(rows[0]) if rows else None

    def uncaptured(self) -> list[Entry]:
        """Everything that is delivered and not captured yet, oldest first."""
        rows = self.file.do(
            "SELECT * FROM work WHERE state = ? ORDER BY at_us", State.DELIVERED.value
        )
        return [_entry(row) for row in rows]

    def of_charge(self, charge_id: str) -> Entry | None:
        """The work that a charge is for."""
        rows = self.file.do("SELECT * FROM work WHERE charge_id = ?", charge_id)
        return _entry(rows[0]) if rows else None

    def begin(
        self,
        hold_id: str,
        args_sha256: str,
        *,
        agreement_id: str,
        payer: str,
        deadline_us: int,
        now_us: int,
    ) -> None:
        """The work for a hold begins, for the first time or again after an interruption."""
        self.file.do(
            "INSERT INTO work"
            " (hold_id, args_sha256, state, agreement_id, payer, deadline_us, at_us)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (hold_id) DO UPDATE SET state = excluded.state, at_us = excluded.at_us",
            hold_id,
            args_sha256,
            State.WORKING.value,
            agreement_id,
            payer,
            deadline_us,
            now_us,
        )

    def deliver(
        self,
        hold_id: str,
        *,
        result: bytes,
        content: bytes,
        delivery: Mapping[str, object],
        signature: str,
        now_us: int,
    ) -> None:
        """The work is done: result and signed record are kept from now on."""
        self.file.do(
            "UPDATE work SET state = ?, result = ?, content = ?, delivery = ?, signature = ?,"
            " at_us = ? WHERE hold_id = ?",
            State.DELIVERED.value,
            result,
            content,
            _bytes(delivery),
            signature,
            now_us,
            hold_id,
        )

    def capture(self, hold_id: str, *, charge_id: str, amount_units: int) -> None:
        """The money is captured."""
        self.file.do(
            "UPDATE work SET state = ?, charge_id = ?, amount_units = ? WHERE hold_id = ?",
            State.CAPTURED.value,
            charge_id,
            amount_units,
            hold_id,
        )

    def drop(self, hold_id: str, refusal: Mapping[str, object], now_us: int) -> None:
        """Nothing will be charged for a hold; its result, if there was one, is forgotten."""
        self.file.do(
            "UPDATE work SET state = ?, refusal = ?, result = x'', content = x'', at_us = ?"
            " WHERE hold_id = ?",
            State.DROPPED.value,
            _bytes(refusal),
            now_us,
            hold_id,
        )

    def forget(self, before_us: int, limit: int) -> int:
        """Forget what is settled and was done before an instant, some at once; gives how many."""
        rows = self.file.do(
            "DELETE FROM work WHERE rowid IN"
            " (SELECT rowid FROM work WHERE at_us < ? AND state IN ('captured', 'dropped') LIMIT ?)"
            " RETURNING 1",
            before_us,
            limit,
        )
        return len(rows)

    def close(self) -> None:
        """Close the file and let another process have it."""
        self.file.close()


def _entry(row: sqlite3.Row) -> Entry:
    members: dict[str, object] = {name: row[name] for name in row.keys()}  # noqa: SIM118
    members["state"] = State(str(members["state"]))
    for name in ("delivery", "refusal"):
        members[name] = parse_json(cast("bytes", members[name]))
    return Entry(**members)  # type: ignore[arg-type] # the table is STRICT


def _bytes(document: Mapping[str, object]) -> bytes:
    return canonical_bytes(cast("dict[str, Json]", dict(document)))
