"""What a vendor must not forget of sessions: each call with its result, and the batches made of it.

Boundary: tables beside the holds' in one SQLite file. Every method blocks until what it says is on
disk; many calls share one `write`. What a number means is the law's `VoucherDesk`.
Source: spec/payments-mcp.md, spec/metering.md.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, cast

import msgspec
import orjson

from farthing.clients.sqlite_file import SqliteFile, Value
from farthing.protocol.canonical import Json
from farthing.protocol.money import INT64_MAX
from farthing.protocol.sequences import WINDOW
from farthing.protocol.usage import UsageEvent, UsageOutcome

__all__ = [
    "BatchState",
    "KeptBatch",
    "KeptCall",
    "KeptSession",
    "PutBack",
    "Rejected",
    "Row",
    "Settled",
    "UsageSpool",
]

# A batch takes the events of its session from one place to another: no call is written again for
# it, and none of the indexes has an entry that moves.
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS session (
    session_id TEXT PRIMARY KEY, payer TEXT NOT NULL, ends_at_us INTEGER NOT NULL,
    at_us INTEGER NOT NULL, document BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS by_payer ON session (payer, at_us);
CREATE INDEX IF NOT EXISTS by_end ON session (ends_at_us);
CREATE TABLE IF NOT EXISTS call (
    session_id TEXT NOT NULL, seq INTEGER NOT NULL, args_sha256 TEXT NOT NULL,
    at_us INTEGER NOT NULL, place INTEGER NOT NULL, outcome TEXT NOT NULL, usage BLOB NOT NULL,
    amount_units INTEGER NOT NULL, spent_units INTEGER NOT NULL, result_sha256 TEXT NOT NULL,
    result BLOB NOT NULL, content BLOB NOT NULL, refusal BLOB NOT NULL,
    rejected TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (session_id, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_place ON call (session_id, place);
CREATE INDEX IF NOT EXISTS unfinished ON call (at_us) WHERE place = 0;
CREATE INDEX IF NOT EXISTS by_rejection ON call (at_us) WHERE rejected <> '';
CREATE TABLE IF NOT EXISTS batch (
    number INTEGER PRIMARY KEY, session_id TEXT NOT NULL, text TEXT NOT NULL,
    signature TEXT NOT NULL, voucher TEXT NOT NULL, key TEXT NOT NULL,
    first INTEGER NOT NULL, place INTEGER NOT NULL,
    at_us INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '',
    charge_id TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX IF NOT EXISTS by_state ON batch (state, session_id, number);
CREATE INDEX IF NOT EXISTS by_session ON batch (session_id, place);
CREATE INDEX IF NOT EXISTS settled ON batch (at_us, session_id, first, place, state)
    WHERE state <> 'waiting';
CREATE TEMP TABLE IF NOT EXISTS parked (
    session_id TEXT PRIMARY KEY, due_us INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS temp.by_due ON parked (due_us);
"""
# A file of before, whose calls named their batch: one that had none could have a place before it.
_IS_OLDER: Final = "SELECT 1 FROM pragma_table_info('call') WHERE name = 'batch'"
_SET_ASIDE: Final = """
BEGIN IMMEDIATE;
DROP INDEX unreported; DROP INDEX by_batch; DROP INDEX by_rejection; DROP INDEX by_state;
ALTER TABLE call RENAME TO older_call;
ALTER TABLE batch RENAME TO older_batch;
UPDATE older_call SET place = place + (SELECT coalesce(max(place), 0) FROM older_batch
    WHERE older_batch.session_id = older_call.session_id) WHERE batch = 0 AND place > 0;
"""
_TAKE_OVER: Final = """
INSERT INTO call SELECT session_id, seq, args_sha256, at_us, place, outcome, usage, amount_units,
    spent_units, result_sha256, result, content, refusal, rejected FROM older_call;
INSERT INTO batch SELECT number, session_id, text, signature, voucher, key,
    coalesce((SELECT min(place) FROM older_call WHERE batch = number), place), place,
    at_us, state, reason, charge_id FROM older_batch;
DROP TABLE older_call; DROP TABLE older_batch;
COMMIT;
"""
# Whose a session is and when it ends stays, and with it two of three entries in indexes.
_PUT_SESSION: Final = """
INSERT INTO session VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (session_id) DO UPDATE SET at_us = excluded.at_us, document = excluded.document
"""
# A call that is put again has ended: no batch has taken it before.
_PUT_CALL: Final = "INSERT OR REPLACE INTO call VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '')"
_PUT_BATCH: Final = (
    "INSERT OR REPLACE INTO batch"
    " (number, session_id, text, signature, voucher, key, first, place, at_us, state)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_SETTLE: Final = "UPDATE batch SET state = ?, reason = ?, charge_id = ?, at_us = ? WHERE number = ?"
_REJECT_ALL: Final = """
UPDATE call SET rejected = ? FROM batch WHERE batch.number = ?
    AND call.session_id = batch.session_id AND call.place BETWEEN batch.first AND batch.place
"""
_REJECT: Final = "UPDATE call SET rejected = ? WHERE session_id = ? AND seq = ?"
_PUT_BACK: Final = "UPDATE call SET place = ? WHERE session_id = ? AND seq = ?"
_REPORTED: Final = """
SELECT call.* FROM batch JOIN call ON call.session_id = batch.session_id
    AND call.place BETWEEN batch.first AND batch.place
WHERE batch.number = ? ORDER BY call.place
"""
_PARK_ALL: Final = """
INSERT OR REPLACE INTO parked SELECT session_id, 0 FROM session WHERE
    (SELECT max(place) FROM call WHERE call.session_id = session.session_id)
    > (SELECT coalesce(max(place), 0) FROM batch WHERE batch.session_id = session.session_id)
UNION SELECT session_id, 0 FROM call WHERE place = 0
UNION SELECT session_id, 0 FROM batch WHERE state = ?
"""
# Without what was delivered: nothing of that is reported but its digest.
_UNREPORTED: Final = """
SELECT session_id, seq, args_sha256, at_us, place, outcome, usage, amount_units, spent_units,
    result_sha256, x'' AS result, x'' AS content, x'7b7d' AS refusal, rejected
FROM call WHERE session_id = ?1
    AND place > (SELECT coalesce(max(place), 0) FROM batch WHERE session_id = ?1)
ORDER BY place
"""
# In this order: a batch goes after its calls, a session after its last call. Those settled first go
# first, so what is looked at is what goes.
_FORGET_CALLS: Final = """
DELETE FROM call WHERE (session_id, seq) IN (
    SELECT call.session_id, call.seq FROM batch CROSS JOIN call
        ON call.session_id = batch.session_id AND call.place BETWEEN batch.first AND batch.place
    WHERE batch.state <> 'waiting' AND batch.at_us < ? ORDER BY batch.at_us LIMIT ?)
RETURNING 1
"""
_FORGET_UNFINISHED: Final = """
DELETE FROM call WHERE (session_id, seq) IN
    (SELECT session_id, seq FROM call WHERE place = 0 AND at_us < ? LIMIT ?)
RETURNING 1
"""
_FORGET_BATCHES: Final = """
DELETE FROM batch WHERE number IN (
    SELECT number FROM
        (SELECT number, session_id, first, place FROM batch
            WHERE state <> 'waiting' AND at_us < ? ORDER BY at_us LIMIT ?) AS oldest
    WHERE NOT EXISTS (SELECT 1 FROM call WHERE call.session_id = oldest.session_id
        AND call.place BETWEEN oldest.first AND oldest.place))
RETURNING 1
"""
_FORGET_SESSIONS: Final = """
DELETE FROM session WHERE session_id IN (
    SELECT session_id FROM session WHERE ends_at_us < ? AND NOT EXISTS
        (SELECT 1 FROM call WHERE call.session_id = session.session_id)
    LIMIT ?)
RETURNING 1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptSession:
    """A session as its desk was when it was last written.

    Args:
        session_id, payer: which, and whose.
        ends_at_us: when its entitlement ends.
        at_us: when it last changed.
        document: the desk's own, with the voucher that settles it.
    """

    session_id: str
    payer: str
    ends_at_us: int
    at_us: int
    document: Mapping[str, Json]


class KeptCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a session.

    Args:
        session_id, seq, args_sha256: which call.
        at_us: when it was taken.
        place: its place among the session's events, from 1; 0 while it is being worked for.
        outcome: how it ended; None while it is being worked for.
        usage, amount_units: what it used, and what that costs.
        spent_units: what the session's calls cost so far, this one included.
        result_sha256, result, content: what was delivered, where something was.
        refusal: why nothing was, where nothing was.
        rejected: why settlement did not take its event; empty where it did, or was not asked yet.
    """

    session_id: str
    seq: int
    args_sha256: str
    at_us: int
    place: int = 0
    outcome: UsageOutcome | None = None
    usage: Mapping[str, int] = {}
    amount_units: int = 0
    spent_units: int = 0
    result_sha256: str = ""
    result: bytes = b""
    content: bytes = b""
    refusal: Mapping[str, object] = {}
    rejected: str = ""

    @property
    def event(self) -> UsageEvent:
        """What is reported of it."""
        assert self.outcome is not None, "an event is of a call that has ended"
        return UsageEvent(
            seq=self.seq,
            at_us=self.at_us,
            usage=self.usage,
            outcome=self.outcome,
            args_sha256=self.args_sha256,
            result_sha256=self.result_sha256,
        )


class BatchState(StrEnum):
    """How far a batch has come."""

    WAITING = "waiting"
    """It is sent until the platform has answered."""
    TAKEN = "taken"
    REFUSED = "refused"
    """The platform took none of it, and never will."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptBatch:
    """A batch as it was made, once: sent again it is the same, byte for byte.

    Only where its vendor's key was replaced before it arrived is it signed again.

    Args:
        number: Its own; batches of a session are sent in this order.
        session_id: Whose events.
        text, signature: The batch, and the vendor's signature of it.
        voucher: The payer's signature that covers it.
        key: The idempotency key under which it is reported.
        first, place: The places of its first and its last event; all between are in it.
        at_us: When it was made.
    """

    number: int
    session_id: str
    text: str
    signature: str
    voucher: str
    key: str
    first: int
    place: int
    at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What became of a batch: `reason` where it was refused, `charge_id` where it was billed."""

    number: int
    state: BatchState
    at_us: int
    reason: str = ""
    charge_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """The event of one call that settlement did not take."""

    session_id: str
    seq: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PutBack:
    """A call whose event is reported once more, in another place."""

    session_id: str
    seq: int
    place: int


Row = KeptSession | KeptCall | KeptBatch | Settled | Rejected | PutBack


class UsageSpool:
    """The tables.

    Args:
        file: Open, and closed by somebody else.
    """

    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        is_older = bool(file.do(_IS_OLDER))
        file.make(f"{_SET_ASIDE}{_TABLES}{_TAKE_OVER}" if is_older else _TABLES)

    def write(self, rows: Sequence[Row]) -> None:
        """Write what many callers noted, all or nothing; of a session the last of several."""
        sessions = {row.session_id: row for row in rows if isinstance(row, KeptSession)}
        calls = [row for row in rows if isinstance(row, KeptCall)]
        batches = [row for row in rows if isinstance(row, KeptBatch)]
        settled = [row for row in rows if isinstance(row, Settled)]
        rejected = [row for row in rows if isinstance(row, Rejected)]
        put_back = [row for row in rows if isinstance(row, PutBack)]
        self._file.write((
            (_PUT_SESSION, [_session_values(each) for each in sessions.values()]),
            (_PUT_CALL, [_call_values(each) for each in calls]),
            (_PUT_BATCH, [_batch_values(each) for each in batches]),
            (_SETTLE, [_settled_values(each) for each in settled]),
            (_REJECT_ALL, [(each.reason, each.number) for each in settled if each.reason]),
            (_REJECT, [(each.reason, each.session_id, each.seq) for each in rejected]),
            (_PUT_BACK, [(each.place, each.session_id, each.seq) for each in put_back]),
        ))  # fmt: skip

    def session(self, session_id: str) -> KeptSession | None:
        """A session's desk as last written."""
        rows = self._file.do("SELECT * FROM session WHERE session_id = ?", session_id)
        return _session(rows[0]) if rows else None

    def sessions_of(self, payer: str, before_us: int, limit: int) -> list[KeptSession]:
        """A payer's sessions that nothing has changed since an instant, newest first."""
        rows = self._file.do(
            "SELECT * FROM session WHERE payer = ? AND at_us <= ? ORDER BY at_us DESC LIMIT ?",
            payer,
            before_us,
            limit,
        )
        return [_session(row) for row in rows]

    def call(self, session_id: str, seq: int) -> KeptCall | None:
        """A call by its number."""
        rows = self._file.do("SELECT * FROM call WHERE session_id = ? AND seq = ?", session_id, seq)
        return _call(rows[0]) if rows else None

    def numbers(self, session_id: str) -> dict[int, int]:
        """The highest numbers of a session that were taken, a window's worth, with their price."""
        rows = self._file.do(
            "SELECT seq, amount_units FROM call WHERE session_id = ? ORDER BY seq DESC LIMIT ?",
            session_id,
            WINDOW,
        )
        return {row["seq"]: row["amount_units"] for row in rows}

    def unfinished(self, session_id: str) -> list[KeptCall]:
        """The calls of a session that were being worked for when the process ended."""
        rows = self._file.do("SELECT * FROM call WHERE session_id = ? AND place = 0", session_id)
        return [_call(row) for row in rows]

    def unreported(self, session_id: str) -> list[KeptCall]:
        """The calls of a session that no batch has taken, in their order, without their results."""
        return [_call(row) for row in self._file.do(_UNREPORTED, session_id)]

    def reported(self, number: int) -> list[KeptCall]:
        """The calls that a batch reports, in its order."""
        return [_call(row) for row in self._file.do(_REPORTED, number)]

    def park_all(self) -> None:
        """Park every session of which something is still to be reported, as due at once.

        What is parked is known to this process alone: the next one parks anew.
        """
        self._file.do(_PARK_ALL, BatchState.WAITING.value)

    def park(self, session_id: str, due_us: int) -> None:
        """Park a session of which something is to be reported from an instant on."""
        self._file.do("INSERT OR REPLACE INTO parked VALUES (?, ?)", session_id, due_us)

    def unpark(self, session_id: str) -> None:
        """Park a session no longer."""
        self._file.do("DELETE FROM parked WHERE session_id = ?", session_id)

    def due(self, now_us: int, limit: int) -> list[str]:
        """The sessions that are parked and due, so many at most."""
        rows = self._file.do(
            "SELECT session_id FROM parked WHERE due_us <= ? ORDER BY due_us LIMIT ?", now_us, limit
        )
        return [row["session_id"] for row in rows]

    def next_due_us(self) -> int:
        """When the first of those that are parked is due; never, where there is none."""
        (row,) = self._file.do("SELECT coalesce(min(due_us), ?) AS due_us FROM parked", INT64_MAX)
        return int(row["due_us"])

    def waiting(self, session_id: str) -> list[KeptBatch]:
        """The batches of a session that the platform has not answered, in their order."""
        rows = self._file.do(
            "SELECT number, session_id, text, signature, voucher, key, first, place, at_us"
            " FROM batch"
            " WHERE state = ? AND session_id = ? ORDER BY number",
            BatchState.WAITING.value,
            session_id,
        )
        return [KeptBatch(**dict(row)) for row in rows]

    def last_place(self, session_id: str) -> int:
        """The highest place of a session that a batch has taken; 0 where none has."""
        (row,) = self._file.do(
            "SELECT coalesce(max(place), 0) AS place FROM batch WHERE session_id = ?", session_id
        )
        return int(row["place"])

    def last_batch(self) -> int:
        """The highest number that a batch has."""
        (row,) = self._file.do("SELECT coalesce(max(number), 0) AS number FROM batch")
        return int(row["number"])

    def rejected(self, limit: int) -> list[KeptCall]:
        """The calls whose events settlement did not take, newest first."""
        rows = self._file.do(
            "SELECT * FROM call WHERE rejected <> '' ORDER BY at_us DESC LIMIT ?", limit
        )
        return [_call(row) for row in rows]

    def forget(self, before_us: int, limit: int) -> int:
        """Forget what was reported and answered before an instant, and sessions long over.

        Args:
            before_us: The instant.
            limit: Of each kind no more rows at once.

        Returns:
            How many rows are forgotten; 0 where nothing is left to forget.
        """
        forgotten = (
            self._file.do(_FORGET_CALLS, before_us, limit),
            self._file.do(_FORGET_UNFINISHED, before_us, limit),
            self._file.do(_FORGET_BATCHES, before_us, limit),
        )
        # Sessions last, or each step would look again at all whose calls are still to go.
        return sum(map(len, forgotten)) or len(self._file.do(_FORGET_SESSIONS, before_us, limit))


def _session_values(row: KeptSession) -> tuple[Value, ...]:
    return (row.session_id, row.payer, row.ends_at_us, row.at_us, orjson.dumps(row.document))


def _call_values(row: KeptCall) -> tuple[Value, ...]:
    return (
        row.session_id,
        row.seq,
        row.args_sha256,
        row.at_us,
        row.place,
        row.outcome.value if row.outcome else "",
        orjson.dumps({meter: str(quantity) for meter, quantity in row.usage.items()}),
        row.amount_units,
        row.spent_units,
        row.result_sha256,
        row.result,
        row.content,
        orjson.dumps(row.refusal),
    )


def _batch_values(row: KeptBatch) -> tuple[Value, ...]:
    return (
        row.number,
        row.session_id,
        row.text,
        row.signature,
        row.voucher,
        row.key,
        row.first,
        row.place,
        row.at_us,
        BatchState.WAITING.value,
    )


def _settled_values(row: Settled) -> tuple[Value, ...]:
    return (row.state.value, row.reason, row.charge_id, row.at_us, row.number)


def _session(row: sqlite3.Row) -> KeptSession:
    members = dict(row)
    members["document"] = orjson.loads(members["document"])
    return KeptSession(**members)


def _call(row: sqlite3.Row) -> KeptCall:
    members = dict(row)
    members["outcome"] = UsageOutcome(members["outcome"]) if members["outcome"] else None
    usage = cast("dict[str, str]", orjson.loads(members["usage"]))
    members["usage"] = {meter: int(quantity) for meter, quantity in usage.items()}
    members["refusal"] = orjson.loads(members["refusal"])
    return KeptCall(**members)
