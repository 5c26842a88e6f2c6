"""The file of calls that the platform makes: one flight for each, and its result, encrypted.

Boundary: rows and sealed bytes; every front end of a server has the file open. It is no journal:
what a call came to is the hold's to say. Source: spec/services.md.
"""

import asyncio
import logging
from collections.abc import Callable
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
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import CreateIndex, CreateTable

from farthing.protocol.errors import Code, Refused, refuse
from farthing.server.tables import PRAGMAS, SERVICE_CALL, SIZE

__all__ = ["Claim", "Kept", "Results", "Share"]

log = logging.getLogger(__name__)

T = TypeVar("T")

_NONCE_BYTES: Final = 12
_FORGET_MAX: Final = 500
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
        answer_bytes_max: what a call counts for until it has ended.

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
        """Make the table where it is missing."""

        def make(conn: Connection) -> None:
            # Front ends that start together may all find nothing.
            conn.execute(CreateTable(SERVICE_CALL, if_not_exists=True))
            for index in SERVICE_CALL.indexes:
                conn.execute(CreateIndex(index, if_not_exists=True))

        await self._run(make)

    async def claim(
        self,
        hold_id: str,
        *,
        owner: str,
        holder: str,
        now_us: int,
        held_until_us: int,
        expires_at_us: int,
    ) -> Claim:
        """Set out to make a call, unless it has ended or another is making it.

        Args:
            hold_id: whose call.
            owner: whose money it is.
            holder: who sets out.
            now_us: the clock.
            held_until_us: until when it stays this one's without being held anew.
            expires_at_us: when the row may be forgotten, though the call never ends.
        """
        row = {
            "hold_id": hold_id,
            "owner": owner,
            "size": self.answer_bytes_max,
            "holder": holder,
            "held_until_us": held_until_us,
            "flights": 1,
            "expires_at_us": expires_at_us,
            "sealed": b"",
        }
        taken = (
            insert(SERVICE_CALL)
            .values(row)
            .on_conflict_do_update(
                index_elements=[_CALL.hold_id],
                set_={
                    "holder": holder,
                    "held_until_us": held_until_us,
                    "flights": _CALL.flights + 1,
                },
                where=(_CALL.sealed == b"") & (_CALL.held_until_us <= now_us),
            )
            .returning(_CALL.flights)
        )

        found = select(_CALL.sealed, _CALL.expires_at_us).where(_CALL.hold_id == hold_id)

        def run(conn: Connection) -> Claim:
            if (flights := conn.execute(taken).scalar()) is not None:
                return Claim(mine=True, flights=flights - 1)
            kept = conn.execute(found).one()
            if not kept.sealed:
                return Claim()
            is_past = kept.expires_at_us <= now_us
            ending = b"" if is_past else self._unsealed(hold_id, kept.sealed)
            return Claim(ended=Kept(ending=ending, until_us=kept.expires_at_us))

        return await self._run(run)

    async def is_known(self, hold_id: str) -> bool:
        """Whether anybody set out to make a call, as far as is remembered."""
        found = select(_CALL.hold_id).where(_CALL.hold_id == hold_id)
        return await self._run(lambda conn: conn.execute(found).first() is not None)

    async def hold_on(self, hold_id: str, holder: str, held_until_us: int) -> None:
        """Keep a call that is on its way; until a time that has passed, to let it go."""
        held = (
            update(SERVICE_CALL)
            .where(_CALL.hold_id == hold_id, _CALL.holder == holder, _CALL.sealed == b"")
            .values(held_until_us=held_until_us)
        )
        await self._run(lambda conn: conn.execute(held))

    async def kept(self, hold_id: str, now_us: int) -> bytes:
        """What a call came to; empty where it has not ended, or that is no longer kept."""
        found = select(_CALL.sealed).where(_CALL.hold_id == hold_id, _CALL.expires_at_us > now_us)
        sealed = await self._run(lambda conn: conn.execute(found).scalar())
        return self._unsealed(hold_id, sealed) if sealed else b""

    async def end(self, hold_id: str, ending: bytes, expires_at_us: int) -> Kept:
        """Keep what a call came to; what was kept first stays, and is given."""
        nonce = self._entropy(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, ending, _named(hold_id))
        ended = (
            update(SERVICE_CALL)
            .where(_CALL.hold_id == hold_id, _CALL.sealed == b"")
            .values(sealed=sealed, size=len(sealed), expires_at_us=expires_at_us)
        )
        found = select(_CALL.sealed, _CALL.expires_at_us).where(_CALL.hold_id == hold_id)

        def run(conn: Connection) -> Kept:
            if conn.execute(ended).rowcount:
                return Kept(ending=ending, until_us=expires_at_us)
            first = conn.execute(found).one()
            before = self._unsealed(hold_id, first.sealed)
            return Kept(ending=before, until_us=first.expires_at_us)

        return await self._run(run)

    async def forget(self, now_us: int) -> int:
        """Erase what is past its time, some at once; gives how many."""
        past = select(_CALL.hold_id).where(_CALL.expires_at_us <= now_us).limit(_FORGET_MAX)
        erased = delete(SERVICE_CALL).where(_CALL.hold_id.in_(past))
        return await self._run(lambda conn: conn.execute(erased).rowcount)

    async def share(self, owner: str) -> Share:
        """What of the file is an owner's."""
        found = select(func.count(), func.sum(_CALL.size)).where(_CALL.owner == owner)
        calls, size = await self._run(lambda conn: conn.execute(found).one())
        return Share(calls=calls, size=size or 0)

    async def is_full(self) -> bool:
        """Whether the file is as large as it may become."""
        size = await self._run(lambda conn: conn.execute(SIZE).scalar_one())
        return int(size) >= self._bytes_max

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
                    raise Refused(refuse(Code.UNAVAILABLE, retry_after_s=1))
                with self._engine.begin() as conn:
                    return work(conn)

        try:
            return await asyncio.to_thread(run)
        except SQLAlchemyError as error:
            log.warning("the file of calls: %s", type(error).__name__)
            raise Refused(refuse(Code.UNAVAILABLE, retry_after_s=1)) from error

    def _unsealed(self, hold_id: str, sealed: bytes) -> bytes:
        """What was sealed; nothing, where the secret has been made anew since."""
        nonce, text = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            return self._cipher.decrypt(nonce, text, _named(hold_id))
        except InvalidTag:
            return b""


def _named(hold_id: str) -> bytes:
    return _PURPOSE + hold_id.encode()


def _prepare(connection: object, record: object) -> None:
    del record
    cursor = connection.cursor()  # type: ignore[attr-defined] # the driver's own
    for pragma in PRAGMAS:
        cursor.execute(pragma)
    cursor.close()
