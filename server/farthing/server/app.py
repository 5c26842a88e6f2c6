"""The composition root: everything a server is made of is put together here and nowhere else."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypedDict

from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from farthing.catalog.cards import CardShelf
from farthing.catalog.vocabulary import load
from farthing.identity.authentication import Authenticator
from farthing.identity.directory import Directory, Found
from farthing.identity.keyring import Keyring, Purpose, open_secret
from farthing.protocol.errors import Code, Refused, refuse
from farthing.protocol.keys import Signer
from farthing.server.adapters.manual import processors_of
from farthing.server.adapters.outbound import Outbound
from farthing.server.adapters.results import Results, Share
from farthing.server.adapters.vendors import Vendors
from farthing.server.doors.admission import Admission
from farthing.server.doors.http_api import api_routes
from farthing.server.doors.mcp import mcp_door
from farthing.server.doors.metrics import figures_of, operator_routes
from farthing.server.doors.streams import event_route
from farthing.server.doors.webhooks import webhook_routes
from farthing.server.doors.wellknown import no_such_page, refusing, routes
from farthing.server.engine import genesis_of, keyring_of, now_us, writer_of
from farthing.server.flights import Flights
from farthing.server.followers.feed import Feed
from farthing.server.followers.history import following_history
from farthing.server.market import Market
from farthing.server.metrics import Metrics
from farthing.server.ports import PaymentProcessor, VendorCaller
from farthing.server.settings import InvalidSetting, Settings
from farthing.server.siblings import Siblings
from farthing.server.velocity import Velocity
from farthing.settlement.engine.questions import FiguresNow, KeyOf
from farthing.settlement.engine.state import State
from farthing.settlement.journal.remote import RemoteEngine
from farthing.settlement.journal.writer import Writer
from farthing.settlement.port import Engine
from farthing.settlement.reports.reads import READER_WAIT_S, Reports, reading
from farthing.settlement.reports.trial_balance import Totals
from farthing.settlement.reports.turns import Turns

__all__ = ["Service", "build"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A server that is put together: `app` serves while `running` is entered.

    `stop_streams` ends what would otherwise never end by itself, before a graceful stop waits.
    """

    app: ASGIApp
    market: Market
    keyring: Keyring
    issuer: str
    running: Callable[[], AbstractAsyncContextManager[None]]
    stop_streams: Callable[[], None]


def build(
    settings: Settings,
    *,
    port: int,
    clock: Callable[[], int] = now_us,
    entropy: Callable[[int], bytes] = os.urandom,
    remote: RemoteEngine | None = None,
    siblings: Siblings | None = None,
    outbound: Outbound | None = None,
) -> Service:
    """Put a server together. Nothing is opened for writing until it runs.

    Args:
        settings: the configuration.
        port: the port that was really taken.
        clock: microseconds since 1970 UTC.
        entropy: random bytes of a length.
        remote: the engine in a process of its own; else it runs on a thread of this one.
        siblings: which front end this is, and the others; the first keeps the statement lines.
        outbound: the way to vendors; else the one that the settings say.
    """
    siblings = siblings or Siblings()
    issuer = settings.issuer(port)
    keyring = _held(keyring_of(settings, issuer, entropy), remote)
    engine = remote or writer_of(settings, keyring, clock)
    tables = reading(settings.database_path)
    reports = Reports(settings.reports_path, engine)
    market = Market(
        engine=engine,
        now_us=clock,
        entropy=entropy,
        issuer=issuer,
        directory=Directory(_finder(engine)),
        reads=_reads(tables),
        reports=reports,
        cards=CardShelf(),
        vocabulary=load(),
        processors=_processors(settings, issuer, keyring.origin),
        **_counts(settings, siblings),
        **_vendors(settings, port, outbound, _flights(settings, clock, entropy)),
        **_keys(keyring),
    )
    feed = Feed(engine)
    mcp = mcp_door(market, feed)
    doors = [mcp.route, event_route(market, feed), *_routes(market, keyring, engine, siblings)]

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for close in (tables.dispose, reports.dispose, engine.close, market.vendors.aclose):
                stack.push_async_callback(close)
            await engine.open()
            if remote is None:
                await _begin(market, keyring, settings)
            if siblings.number == 1:
                await stack.enter_async_context(following_history(engine, settings.reports_path))
            for each in (market.flights, mcp, feed):
                await stack.enter_async_context(each.running())
            told = partial(figures_of, market, lambda: engine.healthy)
            await stack.enter_async_context(siblings.telling(told))
            yield

    return Service(
        app=_admission(doors, market, engine, settings, port),
        market=market,
        keyring=keyring,
        issuer=issuer,
        running=running,
        stop_streams=feed.close,
    )


def _held(keyring: Keyring, remote: RemoteEngine | None) -> Keyring:
    """What a front end signs with, and no more, where the engine has a process of its own."""
    return keyring if remote is None else keyring.only(Purpose.PLATFORM, Purpose.PAYER)


def _routes(
    market: Market, keyring: Keyring, engine: RemoteEngine | Writer[State], siblings: Siblings
) -> list[BaseRoute]:
    """The doors that need nothing to be running but the engine."""

    def healthy() -> bool:
        return engine.healthy

    return [
        *webhook_routes(market),
        *routes(market, keyring.jwks(), healthy),
        *operator_routes(market, healthy, siblings),
        *api_routes(market),
    ]


def _admission(
    doors: Sequence[BaseRoute],
    market: Market,
    engine: RemoteEngine | Writer[State],
    settings: Settings,
    port: int,
) -> Admission:
    """The outer door, with all others behind it."""
    said = {HTTPException: no_such_page, Refused: refusing(market.issuer)}
    app = Starlette(routes=doors, exception_handlers=said)
    # A redirect would have a signed body sent again, and as plain HTTP where a proxy ends TLS.
    app.router.redirect_slashes = False
    return Admission(
        app,
        authenticator=lambda: Authenticator(
            directory=market.directory,
            audience=market.issuer,
            not_before_us=engine.restored_at_us,
        ),
        hosts=settings.hosts(port),
        now_us=market.now_us,
        entropy=market.entropy,
        anonymous_per_minute=settings.anonymous_per_minute,
        velocity=market.velocity,
        on_refused=market.metrics.refused_at_the_door,
    )


def _flights(
    settings: Settings, clock: Callable[[], int], entropy: Callable[[int], bytes]
) -> Flights:
    """The calls that the platform makes, in the file that all front ends share."""
    results = Results(
        settings.results_path,
        secret=open_secret(settings.keys_dir, "results", entropy),
        entropy=entropy,
        bytes_max=settings.results_bytes_max,
        answer_bytes_max=settings.vendor_answer_bytes_max,
    )
    return Flights(
        results,
        holder=entropy(16).hex(),
        now_us=clock,
        wait_s=settings.service_wait_s,
        kept_s=settings.results_kept_s,
        flights_max=settings.service_calls_max,
        share=Share(calls=settings.results_share_calls_max, size=settings.results_share_bytes_max),
    )


def _processors(settings: Settings, issuer: str, origin: str) -> Mapping[str, PaymentProcessor]:
    """Who brings money in and takes it out; raises `InvalidSetting` where Stripe cannot."""
    names = (settings.stripe_key_file, settings.stripe_webhook_secret_file)
    if not any(names):
        return processors_of()
    if not all(names):
        raise InvalidSetting("stripe_key_file and stripe_webhook_secret_file: both or none")
    try:
        # Loaded only where it is used: it is an extra of its own.
        from farthing.server.adapters.stripe import (  # noqa: PLC0415
            STRIPE,
            StripeProcessor,
            read_secret,
        )
    except ModuleNotFoundError as error:
        text = f"stripe_key_file: {error.name} is not installed: pip install 'farthing[stripe]'"
        raise InvalidSetting(text) from error

    try:
        key, secret = (read_secret(Path(name).expanduser()) for name in names)
    except (OSError, ValueError):
        raise InvalidSetting(
            "stripe_key_file, stripe_webhook_secret_file: files with one secret each"
        ) from None
    processor = StripeProcessor(
        key=key,
        webhook_secret=secret,
        return_url=settings.stripe_return_url or issuer,
        platform=origin,
        api_url=settings.stripe_api_url,
    )
    return processors_of((STRIPE, processor))


class _Vendors(TypedDict):
    flights: Flights
    vendors: VendorCaller
    vendor_timeout_s: int


def _vendors(
    settings: Settings, port: int, outbound: Outbound | None, flights: Flights
) -> _Vendors:
    """Who calls vendors' tools, and for how long at once."""
    outbound = outbound or Outbound(local=settings.is_local(port))
    return {
        "flights": flights,
        "vendors": Vendors(outbound, answer_bytes_max=settings.vendor_answer_bytes_max),
        "vendor_timeout_s": settings.vendor_timeout_s,
    }


class _Counts(TypedDict):
    metrics: Metrics
    velocity: Velocity
    totals: Totals
    comparing: Turns


def _counts(settings: Settings, siblings: Siblings) -> _Counts:
    """What this process counts: what it does, how fast each caller calls, what the ledger holds."""
    return {
        "metrics": Metrics(siblings.number),
        "velocity": Velocity(settings.calls_per_second, settings.refusals_per_second),
        "totals": Totals(),
        "comparing": Turns(in_all=1, of_one=1, wait_s=READER_WAIT_S),
    }


class _Keys(TypedDict):
    signer: Signer
    payer: Signer
    quote_keys: tuple[Mapping[str, str], ...]
    origin: str
    journal_jwk: Mapping[str, str]


def _keys(keyring: Keyring) -> _Keys:
    """What operations sign with and name of the platform's keys."""
    quoting = (*keyring.retired[Purpose.PLATFORM], keyring.public(Purpose.PLATFORM))
    return {
        "signer": keyring[Purpose.PLATFORM],
        "payer": keyring[Purpose.PAYER],
        "quote_keys": tuple(key.jwk() for key in quoting),
        "origin": keyring.origin,
        "journal_jwk": keyring.public(Purpose.JOURNAL).jwk(),
    }


async def _begin(market: Market, keyring: Keyring, settings: Settings) -> None:
    """Write the first record of an empty journal; the engine's own process does it by itself."""
    command = genesis_of(await market.ask(FiguresNow()), keyring, settings)
    if command is not None:
        await market.engine.submit(command)


def _reads(tables: AsyncEngine) -> Callable[[], AbstractAsyncContextManager[AsyncConnection]]:
    """A turn at reading. Raises `Refused`: `overloaded` where none comes in time."""

    @asynccontextmanager
    async def turn() -> AsyncIterator[AsyncConnection]:
        try:
            connection = await tables.connect()
        except PoolTimeout:
            raise Refused(refuse(Code.OVERLOADED, retry_after_s=1)) from None
        try:
            yield connection
        finally:
            await connection.close()

    return turn


def _finder(engine: Engine) -> Callable[[str], Awaitable[Found | None]]:
    async def find(thumbprint: str) -> Found | None:
        facts = await engine.ask(KeyOf(thumbprint=thumbprint))
        if facts is None:
            return None
        return facts.principal_id, facts.organisation_id, facts.role, facts.jwk, facts.purpose

    return find
