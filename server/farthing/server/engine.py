"""What the engine is made of, and the process that it runs in.

Boundary: no door, no HTTP, no asyncio: the engine's process loads what decides and what makes
durable, and nothing else. `app` puts front ends together. Source: spec/design/09-engine-process.md.
"""

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypedDict
from urllib.parse import urlsplit

from sqlalchemy import Table

from farthing.catalog import projection
from farthing.catalog.tables import TABLES
from farthing.identity.keyring import (
    Keyring,
    Purpose,
    UnusableKeys,
    check_unused,
    mark_used,
    open_keyring,
)
from farthing.protocol.errors import FarthingError, Unverified
from farthing.protocol.keys import PublicKey, Signer
from farthing.protocol.records import Record
from farthing.protocol.wire import Role
from farthing.server.settings import Settings
from farthing.server.storage import may_pass
from farthing.server.supervise import EXIT_FINAL
from farthing.server.upkeep import Upkeep, spare_the_collector
from farthing.settlement.audit.log import check_log
from farthing.settlement.audit.read_model import check_end
from farthing.settlement.engine.commands import Command, platform_command
from farthing.settlement.engine.genesis import GENESIS, Genesis, StaffKey
from farthing.settlement.engine.questions import Figures, FiguresNow
from farthing.settlement.engine.state import State
from farthing.settlement.journal.index import Index
from farthing.settlement.journal.service import EngineServer
from farthing.settlement.journal.sqlite import SqliteStore
from farthing.settlement.journal.stepper import Limits, RowsOf, Stepper
from farthing.settlement.journal.store import Batch, CommitRefused, CommitUnknown, DatabaseInUse
from farthing.settlement.journal.writer import Writer
from farthing.settlement.machine import MACHINE

__all__ = [
    "DRAIN_S",
    "genesis_of",
    "keyring_of",
    "now_us",
    "projected",
    "run_engine",
    "writer_of",
]

logger = logging.getLogger(__name__)

# Nothing that trying again would change.
_FINAL: Final = (DatabaseInUse, Unverified, UnusableKeys)
# Front ends answer what they have begun within 10 seconds; then nobody is left to serve.
DRAIN_S: Final = 15
# The loop shares the interpreter with the thread that reads old records for followers.
_SWITCH_INTERVAL_S: Final = 0.0005


def now_us() -> int:
    """The wall clock, in microseconds since 1970 UTC."""
    return time.time_ns() // 1000


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
    return projection.rows(record)


def writer_of(settings: Settings, keyring: Keyring, clock: Callable[[], int]) -> Writer[State]:
    """The engine on a thread of this process, for tests and tools."""
    return Writer(_store(settings), MACHINE, **_parts(settings, keyring, clock))


def genesis_of(figures: Figures, keyring: Keyring, settings: Settings) -> Command | None:
    """The first command of an empty journal: the staff and the platform's figures."""
    if figures.seq:
        if figures.fee_ppm != settings.fee_ppm:
            logger.warning("the fee is fixed at %d ppm", figures.fee_ppm)
        return None
    staff = tuple(
        StaffKey(role=role, thumbprint=key.thumbprint, jwk=key.jwk())
        for role, key in (
            (Role.ADMIN, keyring.public(Purpose.ADMIN)),
            (Role.TREASURER, keyring.public(Purpose.TREASURER)),
        )
    )
    body = Genesis(
        staff=staff, fee_ppm=settings.fee_ppm, open_enrolment=settings.enrolment == "open"
    )
    return platform_command(GENESIS, body)


def run_engine(
    settings: Settings, issuer: str, address: Path, *, ready: Callable[[str], None]
) -> int:
    """Run the engine in this process until SIGTERM.

    Args:
        settings: the configuration.
        issuer: the public URL, which names a journal that begins now.
        address: where the socket is to lie.
        ready: told "" once front ends can connect, or why they never will.

    Returns:
        The exit code: 0 as told, 1 for a fault, `EXIT_FINAL` where it could not even begin.

    Raises:
        FarthingError, OSError: what `may_pass`.
    """
    # Ctrl-C reaches every process of the terminal; the front ends end first, and then say so here.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    try:
        keyring = keyring_of(settings, issuer).only(Purpose.JOURNAL)
        stepper = _opened(settings, keyring)
    except (FarthingError, OSError) as error:
        if may_pass(error):
            raise
        ready(str(error))
        return EXIT_FINAL if isinstance(error, _FINAL) else 1
    upkeep = Upkeep(settings.database_path, settings.keys_dir, lambda: stepper.recent.last_seq)
    try:
        server = EngineServer(stepper, address, limits=_limits(settings), background=upkeep)
        server.listen()
        _obey(server)
        spare_the_collector()
        ready("")
        server.run()
    except (FarthingError, AssertionError) as error:
        logger.critical("the engine stops; nothing more is taken", exc_info=True)
        if may_pass(error):
            raise
        return 1
    finally:
        upkeep.close()
        stepper.close()
    return 0


def _opened(settings: Settings, keyring: Keyring) -> Stepper[State]:
    """The engine, recovered and begun."""
    check_log(settings.database_path)
    stepper = Stepper(_store(settings), MACHINE, **_parts(settings, keyring, now_us))
    stepper.open()
    with contextlib.ExitStack() as undo:
        undo.callback(stepper.close)
        figures = stepper.answer(FiguresNow())
        assert isinstance(figures, Figures)
        command = genesis_of(figures, keyring, settings)
        if command is None:
            check_end(settings.reports_path, figures.seq)
        else:
            # An empty file is no journal either.
            check_unused(settings.keys_dir)
            (outcome,) = stepper.step([command])
            if isinstance(outcome, FarthingError):
                raise outcome
        try:
            mark_used(settings.keys_dir)
        except OSError as error:
            # Keys may lie where nothing is written.
            logger.warning("that a journal has begun is not noted beside its keys: %s", error)
        undo.pop_all()
    return stepper


def _obey(server: EngineServer[State]) -> None:
    """Stop at SIGTERM, once the front ends are done."""
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)

    def terminated() -> None:
        os.read(told, 1)
        server.stop(drain_s=DRAIN_S)

    server.watch(told, terminated)


class _Parts(TypedDict):
    signer: Signer
    origin: str
    now_us: Callable[[], int]
    rows: RowsOf
    earlier_keys: Sequence[PublicKey]
    limits: Limits
    index: Index


def _parts(settings: Settings, keyring: Keyring, clock: Callable[[], int]) -> _Parts:
    """What an engine is made of beside its store and its law, on a thread or in a process."""
    return {
        "signer": keyring[Purpose.JOURNAL],
        "origin": keyring.origin,
        "now_us": clock,
        "rows": projected,
        "earlier_keys": keyring.retired[Purpose.JOURNAL],
        "limits": _limits(settings),
        "index": _index(settings),
    }


class _WatchedStore(SqliteStore):
    """Says once that storage takes no batches, and once that it does again."""

    _takes = True

    def commit(self, batch: Batch) -> None:
        try:
            super().commit(batch)
        except (CommitRefused, CommitUnknown) as error:
            if self._takes:
                self._takes = False
                logger.error("storage takes no batches: %s", error)  # noqa: TRY400  # no defect
            raise
        if not self._takes:
            self._takes = True
            logger.info("storage takes batches again")


def _store(settings: Settings) -> SqliteStore:
    return _WatchedStore(settings.database_path, tables=TABLES)


def _limits(settings: Settings) -> Limits:
    return Limits(queue_max=settings.queue_max)


def _index(settings: Settings) -> Index:
    database = settings.database_path
    return Index(database.with_name(f"{database.name}-index"))
