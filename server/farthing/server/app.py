"""The composition root: everything a server is made of is put together here and nowhere else."""

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import structlog
from sqlalchemy import URL, Table
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from farthing.catalog import projection
from farthing.catalog.cards import CardShelf
from farthing.catalog.tables import METADATA as CATALOG
from farthing.catalog.vocabulary import load
from farthing.identity.authentication import Authenticator
from farthing.identity.directory import Directory, Found
from farthing.identity.keyring import Keyring, Purpose, open_keyring
from farthing.protocol.records import Record
from farthing.protocol.wire import Role
from farthing.server.doors.admission import Admission
from farthing.server.doors.mcp import mcp_door
from farthing.server.doors.wellknown import no_such_page, routes
from farthing.server.market import Market
from farthing.server.settings import Settings
from farthing.settlement.engine.commands import platform_command
from farthing.settlement.engine.decide import decide
from farthing.settlement.engine.due import due, next_due_us
from farthing.settlement.engine.genesis import GENESIS, Genesis, StaffKey
from farthing.settlement.engine.memory import connect, entries, forget, settled
from farthing.settlement.engine.packing import pack, unpack
from farthing.settlement.engine.questions import FiguresNow, KeyOf
from farthing.settlement.engine.standing import answer
from farthing.settlement.engine.state import State, evolve
from farthing.settlement.journal.machine import Machine, Memory
from farthing.settlement.journal.sqlite import SqliteStore
from farthing.settlement.journal.writer import Limits, Writer
from farthing.settlement.port import Engine

__all__ = ["MACHINE", "Service", "build", "keyring_of", "now_us", "projected"]

log = structlog.get_logger(__name__)

MACHINE: Machine[State] = Machine(
    new_state=State,
    decide=decide,
    evolve=evolve,
    answer=answer,
    due=due,
    next_due_us=next_due_us,
    memory=Memory(
        connect=connect,
        settled=settled,
        forget=forget,
        entries=entries,
        pack=pack,
        unpack=unpack,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A server that is put together: `app` serves while `running` is entered."""

    app: ASGIApp
    market: Market
    keyring: Keyring
    issuer: str
    running: Callable[[], AbstractAsyncContextManager[None]]


def now_us() -> int:
    """The wall clock, in microseconds since 1970 UTC."""
    return time.time_ns() // 1000


def build(
    settings: Settings,
    *,
    port: int,
    clock: Callable[[], int] = now_us,
    entropy: Callable[[int], bytes] = os.urandom,
) -> Service:
    """Put a server together. Nothing is opened for writing until it runs.

    Args:
        settings: the configuration.
        port: the port that was really taken.
        clock: microseconds since 1970 UTC.
        entropy: random bytes of a length.
    """
    issuer = settings.issuer(port)
    keyring = keyring_of(settings, issuer, entropy)
    writer = _writer(settings, keyring, clock)
    reading = _reading(settings)
    directory = Directory(_finder(writer))
    market = Market(
        engine=writer,
        now_us=clock,
        entropy=entropy,
        signer=keyring[Purpose.PLATFORM],
        issuer=issuer,
        quote_keys=tuple(
            key.jwk()
            for key in (*keyring.retired[Purpose.PLATFORM], keyring[Purpose.PLATFORM].public)
        ),
        origin=keyring.origin,
        journal_jwk=keyring[Purpose.JOURNAL].public.jwk(),
        directory=directory,
        reads=reading.connect,
        cards=CardShelf(),
        vocabulary=load(),
    )
    mcp = mcp_door(market)
    doors = Starlette(
        routes=[mcp.route, *routes(market, keyring.jwks(), lambda: writer.healthy)],
        exception_handlers={HTTPException: no_such_page},
    )

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        writer.start()
        try:
            await _begin(market, keyring, settings)
            async with mcp.running():
                yield
        finally:
            await writer.close()
            await reading.dispose()

    return Service(
        app=Admission(
            doors,
            authenticator=lambda: Authenticator(
                directory=directory, audience=issuer, not_before_us=writer.restored_at_us
            ),
            hosts=settings.hosts(port),
            now_us=clock,
            entropy=entropy,
            anonymous_per_minute=settings.anonymous_per_minute,
        ),
        market=market,
        keyring=keyring,
        issuer=issuer,
        running=running,
    )


def keyring_of(
    settings: Settings, issuer: str, entropy: Callable[[int], bytes] = os.urandom
) -> Keyring:
    """The platform's keys; a journal that begins now is named after the URL it begins at.

    Raises:
        UnusableKeys, OSError: as `open_keyring`.
    """
    # The journal is nobody else's to read either.
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    return open_keyring(
        settings.keys_dir,
        entropy,
        origin=f"{urlsplit(issuer).netloc}/journal",
        begun=settings.database_path.exists(),
    )


def projected(record: Record) -> Iterable[tuple[Table, Mapping[str, str | int | bytes]]]:
    """The rows that a record makes in the tables of the rooms."""
    return projection.rows(record.seq, record)


def _writer(settings: Settings, keyring: Keyring, clock: Callable[[], int]) -> Writer[State]:
    return Writer(
        SqliteStore(settings.database_path, tables=tuple(CATALOG.sorted_tables)),
        MACHINE,
        signer=keyring[Purpose.JOURNAL],
        origin=keyring.origin,
        now_us=clock,
        rows=projected,
        earlier_keys=keyring.retired[Purpose.JOURNAL],
        limits=Limits(queue_max=settings.queue_max),
    )


async def _begin(market: Market, keyring: Keyring, settings: Settings) -> None:
    """Write the first record of an empty journal: the staff and the platform's figures."""
    figures = await market.ask(FiguresNow())
    if figures.seq:
        if figures.fee_ppm != settings.fee_ppm:
            log.warning("fee_is_fixed", fee_ppm=figures.fee_ppm, ignored_ppm=settings.fee_ppm)
        return
    staff = tuple(
        StaffKey(role=role, thumbprint=key.thumbprint, jwk=key.public.jwk())
        for role, key in (
            (Role.ADMIN, keyring[Purpose.ADMIN]),
            (Role.TREASURER, keyring[Purpose.TREASURER]),
        )
    )
    await market.engine.submit(
        platform_command(
            GENESIS,
            Genesis(
                staff=staff,
                fee_ppm=settings.fee_ppm,
                open_enrolment=settings.enrolment == "open",
            ),
        )
    )


def _reading(settings: Settings) -> AsyncEngine:
    """Connections that cannot write: the file is opened read-only."""
    file = settings.database_path.absolute().as_uri()
    query = {"mode": "ro", "uri": "true"}
    return create_async_engine(URL.create("sqlite+aiosqlite", database=file, query=query))


def _finder(engine: Engine) -> Callable[[str], Awaitable[Found | None]]:
    async def find(thumbprint: str) -> Found | None:
        facts = await engine.ask(KeyOf(thumbprint=thumbprint))
        if facts is None:
            return None
        return facts.principal_id, facts.organisation_id, facts.role, facts.jwk

    return find
