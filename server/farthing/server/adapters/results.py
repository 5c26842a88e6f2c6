"""The file of calls that the platform makes: one flight for each, and its result, encrypted.

Boundary: rows and sealed bytes; every front end of a server has the file open. It is no journal:
what a call came to is the hold's to say. Source: spec/services.md.
"""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import (
    URL,
    Connection,
    StaticPool,
    create_engine,
    delete,
    event,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError

from farthing.protocol.errors import Code, Refused, refuse
from farthing.protocol.times import SECOND_US
from farthing.server.tables import (
    BEGIN,
    COLUMNS,
    DURABLE,
    LOGGED,
    MIGRATIONS,
    PRAGMAS,
    SERVICE_CALL,
    SET_VERSION,
    SIZE,
    UNTIL_POWER_FAILS,
    VERSION,
)
from farthing.settlement.journal.store import Unreadable

__all__ = ["Claim", "Kept", "Results", "Share"]

log = logging.getLogger(__name__)

T = TypeVar("T")

_NONCE_BYTES: Final = 12
_FORGET_MAX: Final = 500
_RETRY_S: Final = 1
_OPENING_S: Final = 5
_LOOK_S: Final = 0.01
# Rows are erased within as much of their time.
_SHARE_RETRY_S: Final = 60
# Room is kept for as long as a call may need to be written down, whatever becomes of who asked.
_ROOM_US: Final = 60 * SECOND_US
_PURPOSE: Final = b"farthing-result\n"
_CALL: Final = SERVICE_CALL.c


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a call came to, empty where that is no longer kept, and until when it is."""

    ending: bytes
    until_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What becomes of an attempt to make a call.

    `ended` is what it came to before. Else it is `mine` to
    make, after `flights` others that set out for it, or another's that is on its way.
    """

    mine: bool = False
    flights: int = 0
    ended: Kept | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How many calls are remembered for somebody, and for how many bytes they count."""

    calls: int
    size: int


class Results:
    """Calls by the id of their hold.

    Args:
        path: the file; made where it is missing.
        secret: 256 bits that everything in it is encrypted with (AES-GCM).
        entropy: random bytes of a length.
        bytes_max: how large the file may become before no new call is begun.
        answer_bytes_max: how large the end of a call may be, and what one counts for until then.

    Whatever goes wrong with the file is `unavailable`.
    """

    def __init__(
        self,
        path: Path,
        *,
        secret: bytes,
        entropy: Callable[[int], bytes],
        bytes_max: int,
        answer_bytes_max: int,
    ) -> None:
        self._path = path
        self._cipher = AESGCM(secret)
        self._entropy = entropy
        self._bytes_max = bytes_max
        self.answer_bytes_max = answer_bytes_max
        self._lock = Lock()
        self._closed = False
        # One connection that stays: SQLite folds its log whenever the last one closes.
        self._engine = create_engine(
            URL.create("sqlite", database=str(path)),
            poolclass=StaticPool,
            connect_args={"check_same_thread": False},
        )
        event.listen(self._engine, "connect", _prepare)

    async def open(self) -> None:
        """Make the table where it is missing, or of its older version this one.

        Raises:
            Unreadable: The file is damaged, or of a newer version of this program.
        """
        # Front ends that start together do so one after the other.
        try:
            await self._write(_migrate)
        except Refused as refused:
            why = str(refused.__cause__).partition("\n")[0]
            raise Unreadable(
                f"the file of calls, {self._path}, cannot be used: {why}. Put it back; or move it"
                " away: then results that were not fetched are lost, and a call that runs may be"
                " charged and not answered"
            ) from refused

    async def keep_room(
        self, hold_id: str, *, owner: str, asking: str, share: Share, now_us: int
    ) -> bool:
        """Keep room for a call that is about to be begun, whatever it comes to.

        Args:
            hold_id: whose call.
            owner: whose money it is.
            asking: names who keeps it, for `leave_room`.
            share: the most that may be kept for an owner, this call included.
            now_us: the clock.

        Returns:
            False where somebody set out for it before: no room is needed.

        Raises:
            Refused: `overloaded`: there is none.
        """
        found = select(_CALL.flights).where(_CALL.hold_id == hold_id)

        def run(conn: Connection) -> bool:
            flights = conn.execute(found).scalar()
            if flights:
                return False
            if flights == 0:
                # Another has asked for it too; the last one who does keeps the room.
                conn.execute(delete(SERVICE_CALL).where(_CALL.hold_id == hold_id))
            if conn.execute(SIZE).scalar_one() >= self._bytes_max:
                raise Refused(refuse(Code.OVERLOADED, retry_after_s=_RETRY_S))
            self._check_share(conn, owner, share)
            row = self._row(hold_id, owner, asking, expires_at_us=now_us + _ROOM_US)
            conn.execute(insert(SERVICE_CALL).values(row))
            return True

        return await self._write(run, UNTIL_POWER_FAILS)

    async def leave_room(self, hold_id: str, asking: str) -> None:
        """Keep no more room for a call that nobody has set out for."""
        left = delete(SERVICE_CALL).where(
            _CALL.hold_id == hold_id, _CALL.holder == asking, _CALL.flights == 0
        )
        await self._write(lambda conn: conn.execute(left), UNTIL_POWER_FAILS)

    async def claim(
        self,
        hold_id: str,
        *,
        owner: str,
        holder: str,
        share: Share,
        now_us: int,
        held_until_us: int,
        expires_at_us: int,
    ) -> Claim:
        """Set out to make a call, unless it has ended or another is making it.

        Args:
            hold_id: whose call.
            owner: whose money it is.
            holder: who sets out.
            share: the most that may be kept for an owner, where no room is kept for this call.
            now_us: the clock.
            held_until_us: until when it stays this one's without being held anew.
            expires_at_us: when the row may be forgotten, though the call never ends.

        Raises:
            Refused: `overloaded`: the owner has its share, and no room is kept.
        """
        flight = {
            "holder": holder,
            "held_until_us": held_until_us,
            "expires_at_us": expires_at_us,
        }
        found = select(_CALL.sealed, _CALL.expires_at_us, _CALL.held_until_us, _CALL.flights).where(
            _CALL.hold_id == hold_id
        )

        def run(conn: Connection) -> Claim:
            kept = conn.execute(found).one_or_none()
            if kept is None:
                self._check_share(conn, owner, share)
                row = self._row(hold_id, owner, holder, expires_at_us=expires_at_us)
                conn.execute(insert(SERVICE_CALL).values({**row, **flight, "flights": 1}))
                return Claim(mine=True)
            if kept.sealed:
                is_past = kept.expires_at_us <= now_us
                ending = b"" if is_past else self._unsealed(hold_id, kept.sealed)
                return Claim(ended=Kept(ending=ending, until_us=kept.expires_at_us))
            if kept.held_until_us > now_us:
                return Claim()
            taken = update(SERVICE_CALL).where(_CALL.hold_id == hold_id)
            conn.execute(taken.values({**flight, "flights": kept.flights + 1}))
            return Claim(mine=True, flights=kept.flights)

        return await self._write(run)

    async def hold_on(self, hold_id: str, holder: str, held_until_us: int) -> None:
        """Keep a call that is on its way; until a time that has passed, to let it go."""
        held = (
            update(SERVICE_CALL)
            .where(_CALL.hold_id == hold_id, _CALL.holder == holder, _CALL.sealed == b"")
            .values(held_until_us=held_until_us)
        )
        await self._write(lambda conn: conn.execute(held))

    async def kept(self, hold_id: str, now_us: int) -> bytes:
        """What a call came to; empty where it has not ended, or that is no longer kept."""
        found = select(_CALL.sealed).where(_CALL.hold_id == hold_id, _CALL.expires_at_us > now_us)

        def run(conn: Connection) -> bytes:
            sealed = conn.execute(found).scalar()
            return self._unsealed(hold_id, sealed) if sealed else b""

        return await self._run(run)

    async def end(self, hold_id: str, ending: bytes, expires_at_us: int) -> Kept:
        """Keep what a call came to; what was kept first stays, and is given."""
        assert len(ending) <= self.answer_bytes_max, "what room was kept for"
        nonce = self._entropy(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, ending, _named(hold_id))
        ended = (
            update(SERVICE_CALL)
            .where(_CALL.hold_id == hold_id, _CALL.sealed == b"")
            .values(sealed=sealed, size=len(ending), expires_at_us=expires_at_us)
        )
        found = select(_CALL.sealed, _CALL.expires_at_us).where(_CALL.hold_id == hold_id)

        def run(conn: Connection) -> Kept:
            if conn.execute(ended).rowcount:
                return Kept(ending=ending, until_us=expires_at_us)
            first = conn.execute(found).one()
            before = self._unsealed(hold_id, first.sealed)
            return Kept(ending=before, until_us=first.expires_at_us)

        return await self._write(run)

    async def forget(self, now_us: int) -> int:
        """Erase what is past its time, some at once; gives how many."""
        past = select(_CALL.hold_id).where(_CALL.expires_at_us <= now_us).limit(_FORGET_MAX)
        erased = delete(SERVICE_CALL).where(_CALL.hold_id.in_(past))
        return await self._write(lambda conn: conn.execute(erased).rowcount)

    async def close(self) -> None:
        """Close the file."""

        def dispose() -> None:
            # Whoever was cancelled may have left a thread at work.
            with self._lock:
                self._closed = True
                self._engine.dispose()

        await asyncio.to_thread(dispose)

    async def _run(self, work: Callable[[Connection], T]) -> T:
        def run() -> T:
            with self._lock:
                if self._closed:
                    raise Refused(refuse(Code.UNAVAILABLE, retry_after_s=_RETRY_S))
                with self._engine.begin() as conn:
                    return work(conn)

        try:
            return await asyncio.to_thread(run)
        # The last two: a row that another hand has written holds what none of these columns holds.
        except (SQLAlchemyError, TypeError, ValueError) as error:
            log.warning("the file of calls: %s", type(error).__name__)
            raise Refused(refuse(Code.UNAVAILABLE, retry_after_s=_RETRY_S)) from error

    async def _write(self, work: Callable[[Connection], T], lasting: str = DURABLE) -> T:
        """What is read and what is written is one transaction: no other front end's is between."""

        def run(conn: Connection) -> T:
            conn.exec_driver_sql(lasting)
            conn.exec_driver_sql(BEGIN)
            return work(conn)

        return await self._run(run)

    def _row(
        self, hold_id: str, owner: str, holder: str, *, expires_at_us: int
    ) -> dict[str, object]:
        """Room for a call, that counts for the most that the call may come to."""
        return {
            "hold_id": hold_id,
            "owner": owner,
            "size": self.answer_bytes_max,
            "holder": holder,
            "held_until_us": 0,
            "flights": 0,
            "expires_at_us": expires_at_us,
            "sealed": b"",
        }

    def _check_share(self, conn: Connection, owner: str, share: Share) -> None:
        """Raise `overloaded` where one call more is more than may be kept for its owner."""
        found = select(func.count(), func.coalesce(func.sum(_CALL.size), 0)).where(
            _CALL.owner == owner
        )
        calls, size = conn.execute(found).one()
        if calls + 1 > share.calls or size + self.answer_bytes_max > share.size:
            text = "Too much is kept of what this organisation has called: it is erased in time."
            raise Refused(refuse(Code.OVERLOADED, message=text, retry_after_s=_SHARE_RETRY_S))

    def _unsealed(self, hold_id: str, sealed: bytes) -> bytes:
        """What was sealed; nothing, where it or the secret is another since."""
        nonce, text = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            return self._cipher.decrypt(nonce, text, _named(hold_id))
        except InvalidTag:
            log.warning("the file of calls: what hold %s came to does not open", hold_id)
            return b""


def _named(hold_id: str) -> bytes:
    return _PURPOSE + hold_id.encode()


def _migrate(conn: Connection) -> None:
    version = stated = int(conn.exec_driver_sql(VERSION).scalar_one())
    if version > len(MIGRATIONS):
        raise Unreadable(f"the file of calls is of a newer version: {version}")
    if version == 0:
        # The first two did not say which they are.
        columns = {row.name for row in conn.exec_driver_sql(COLUMNS)}
        version = 0 if not columns else 1 if "owner" not in columns else 2
    for step in MIGRATIONS[version:]:
        for statement in step:
            conn.exec_driver_sql(statement)
    # A front end that starts while the disk is full writes nothing, and can read.
    if stated != len(MIGRATIONS):
        conn.exec_driver_sql(SET_VERSION.format(version=len(MIGRATIONS)))


def _prepare(connection: sqlite3.Connection, record: object) -> None:
    del record
    with ExitStack() as undo:
        # SQLAlchemy leaves a connection open that cannot be prepared.
        undo.callback(connection.close)
        for pragma in PRAGMAS:
            connection.execute(pragma).close()
        _have_a_log(connection)
        undo.pop_all()


def _have_a_log(connection: sqlite3.Connection) -> None:
    """Give the file a log, for a while where others do: SQLite itself waits for nobody here."""
    until_s = time.monotonic() + _OPENING_S
    while True:
        try:
            connection.execute(LOGGED).close()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until_s:
                raise
            time.sleep(_LOOK_S)
        else:
            return
