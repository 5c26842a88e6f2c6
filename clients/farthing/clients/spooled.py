"""What a vendor's spool holds, for somebody who looks in from outside.

Boundary: reads only, while the vendor's process has the file open too. Source: spec/sessions.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from farthing.clients.spool import SPOOL_VERSION
from farthing.clients.sqlite_file import looked_into
from farthing.clients.usage_spool import BatchState
from farthing.protocol.canonical import parse_json
from farthing.protocol.usage import BILLED, UsageOutcome

__all__ = ["Delivered", "NotTaken", "Spooled", "read_body", "read_delivered", "read_spool"]

_WAITING: Final = BatchState.WAITING.value
# Batches are answered in their order: from the first one that waits on, all of a session's wait.
_SESSIONS: Final = """
SELECT call.session_id, count(*), sum(call.place > coalesce(sent.place, 0)),
    sum(coalesce(call.place BETWEEN sent.waiting AND sent.place, 0)),
    sum(call.rejected <> ''), sum(call.amount_units)
FROM call LEFT JOIN (
    SELECT session_id, max(place) AS place, min(first) FILTER (WHERE state = ?) AS waiting
    FROM batch GROUP BY session_id
) AS sent ON sent.session_id = call.session_id
WHERE call.place > 0 GROUP BY call.session_id ORDER BY min(call.at_us)
"""
_NOT_TAKEN: Final = """
SELECT session_id, seq, rejected, outcome, usage, amount_units FROM call
WHERE rejected <> '' ORDER BY at_us DESC LIMIT ?
"""
# A session that began before its asset was kept has none.
_ASSETS: Final = """
SELECT session_id, coalesce(json_extract(CAST(document AS TEXT), '$.asset'), '') FROM session
"""
_DELIVERED: Final = """
SELECT session_id, seq, amount_units, result_sha256, usage, outcome FROM call
WHERE place > 0 ORDER BY session_id, place
"""
_BODY: Final = "SELECT result FROM work WHERE charge_id = ?"
_HAS_CALLS: Final = "SELECT 1 FROM sqlite_master WHERE name = 'call'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spooled:
    """One session in the spool: its calls that have ended, by how far their events have come.

    Args:
        session_id: Which.
        ended: All of them.
        unsent: Those that no batch has taken.
        unanswered: Those whose batch the platform has not answered.
        rejected: Those that settlement did not take.
        amount_units: What they cost by the vendor's own count, in units of `asset`.
    """

    session_id: str
    ended: int
    unsent: int
    unanswered: int
    rejected: int
    amount_units: int
    asset: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotTaken:
    """A call whose event settlement did not take, and why."""

    session_id: str
    seq: int
    reason: str
    outcome: str
    usage: Mapping[str, int]
    amount_units: int
    asset: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """A call that was delivered, by the vendor's own count."""

    session_id: str
    seq: int
    units: int
    result_sha256: str
    usage: Mapping[str, int]


def read_spool(path: Path, limit: int) -> tuple[tuple[Spooled, ...], tuple[NotTaken, ...]]:
    """What is in a vendor's spool: its sessions, oldest first, and the newest rejected calls.

    Raises:
        FileNotFoundError, Unverified: As `looked_into`.
    """
    with looked_into(path, SPOOL_VERSION) as db:
        if not db.execute(_HAS_CALLS).fetchone():
            return (), ()
        sessions = db.execute(_SESSIONS, (_WAITING,)).fetchall()
        not_taken = db.execute(_NOT_TAKEN, (limit,)).fetchall()
        assets: dict[str, str] = dict(db.execute(_ASSETS).fetchall())
    return (
        tuple(
            Spooled(
                session_id=session_id,
                ended=ended,
                unsent=unsent,
                unanswered=unanswered,
                rejected=rejected,
                amount_units=units,
                asset=assets.get(session_id, ""),
            )
            for session_id, ended, unsent, unanswered, rejected, units in sessions
        ),
        tuple(
            NotTaken(
                session_id=session_id,
                seq=seq,
                reason=reason,
                outcome=outcome,
                usage=_quantities(usage),
                amount_units=units,
                asset=assets.get(session_id, ""),
            )
            for session_id, seq, reason, outcome, usage, units in not_taken
        ),
    )


def read_delivered(path: Path) -> tuple[Delivered, ...]:
    """The calls that a vendor's spool says were delivered, by session, in the order of their ends.

    Raises:
        FileNotFoundError, Unverified: As `looked_into`.
    """
    with looked_into(path, SPOOL_VERSION) as db:
        rows = db.execute(_DELIVERED).fetchall() if db.execute(_HAS_CALLS).fetchone() else []
    return tuple(
        Delivered(
            session_id=session_id,
            seq=seq,
            units=units,
            result_sha256=result_sha256,
            usage=_quantities(usage),
        )
        for session_id, seq, units, result_sha256, usage, outcome in rows
        if UsageOutcome(outcome) in BILLED
    )


def read_body(path: Path, charge_id: str) -> bytes | None:
    """The body that was delivered for a charge, None where the spool has none.

    Raises:
        FileNotFoundError, Unverified: As `looked_into`.
    """
    with looked_into(path, SPOOL_VERSION) as db:
        row = db.execute(_BODY, (charge_id,)).fetchone()
    return None if row is None else bytes(row[0])


def _quantities(usage: bytes) -> dict[str, int]:
    read = cast("dict[str, str]", parse_json(usage))
    return {meter: int(quantity) for meter, quantity in read.items()}
