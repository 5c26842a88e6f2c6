"""An engine behind its socket for tests: the real loop on a thread, over a journal in memory."""

import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

from farthing.protocol.chain import Chain
from farthing.protocol.errors import FarthingError
from farthing.protocol.messages.holds import PLACE_HOLD, PlaceHold
from farthing.protocol.records import parse_record
from farthing.protocol.times import SECOND_US
from farthing.protocol.wire import Usage
from farthing.server.market import command_of
from farthing.settlement.engine.commands import Command
from farthing.settlement.engine.state import State
from farthing.settlement.journal.frames import PROTOCOL, Hello, Splitter, bytes_of, frames
from farthing.settlement.journal.memory import MemoryStore
from farthing.settlement.journal.remote import RemoteEngine
from farthing.settlement.journal.sealing import Draft
from farthing.settlement.journal.service import EngineServer
from farthing.settlement.journal.stepper import Limits, Stepper, no_rows
from farthing.settlement.machine import MACHINE
from tests.construction import Trade
from tests.papers import signing_key
from tests.patience import PATIENCE_S, patiently

__all__ = ["Raw", "Served", "connected", "raw", "served"]

ORIGIN = "served.example/journal"


@dataclass(slots=True)
class Served:
    """A market's engine: what it stands on, and how it ended."""

    address: Path
    trade: Trade = field(default_factory=lambda: Trade.opened(per_day=10**9))
    store: MemoryStore = field(default_factory=MemoryStore)
    ahead_us: int = 0
    holds: int = 0
    drain_s: int = 0
    ended: FarthingError | None = None
    stepper: "Stepper[State] | None" = None
    _stop: int = -1

    def now_us(self) -> int:
        """The market's time."""
        return self.trade.room.now_us + self.ahead_us

    def hold(self, key: str = "") -> Command:
        """The next hold, or one under a key of its own."""
        self.holds += 1
        caller = replace(
            self.trade.agent,
            proof_jti=f"served-{self.holds}",
            proof_expires_at_us=self.now_us() + 30 * SECOND_US,
        )
        ask = PlaceHold(
            agreement_id=self.trade.agreement_id,
            workload=(Usage(meter="page", quantity="1"),),
            args_sha256="a" * 64,
            idempotency_key=key or f"served-{self.holds:016d}",
        )
        return command_of(caller, PLACE_HOLD, ask)

    def begin(self) -> None:
        """Write the records that made the market."""
        epoch = self.store.acquire()
        draft = Draft(Chain())
        for data in self.trade.room.journal:
            draft.add(parse_record(data)[0], data, ())
        self.store.commit(draft.seal(epoch=epoch, signer=signing_key("journal"), origin=ORIGIN))
        self.store.close()

    @contextmanager
    def running(self, *, limits: Limits | None = None, uid: int | None = None) -> Iterator[None]:
        """The engine, from its recovery to its end."""
        limits = Limits() if limits is None else limits
        self.stepper = stepper = Stepper(
            self.store,
            MACHINE,
            signer=signing_key("journal"),
            origin=ORIGIN,
            now_us=self.now_us,
            rows=no_rows,
            earlier_keys=(),
            limits=limits,
        )
        stepper.open()
        server = EngineServer(stepper, self.address, limits=limits, uid=uid)
        server.listen()
        told, self._stop = os.pipe()

        def stopped() -> None:
            os.read(told, 1)
            server.stop(drain_s=self.drain_s)

        def run() -> None:
            try:
                server.run()
            except FarthingError as error:
                self.ended = error
            finally:
                stepper.close()

        server.watch(told, stopped)
        thread = Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            self.stop()
            thread.join()
            os.close(told)
            os.close(self._stop)

    def stop(self) -> None:
        """Tell it to end."""
        os.write(self._stop, b"\0")


@contextmanager
def served(**running: Any) -> Iterator[Served]:
    """An engine that serves until the block ends; sockets need a short path."""
    with TemporaryDirectory() as folder:
        engine = Served(Path(folder) / "engine.sock")
        engine.begin()
        with engine.running(**running):
            yield engine


@asynccontextmanager
async def connected(address: Path, *, in_flight_max: int = 10_000) -> AsyncIterator[RemoteEngine]:
    """The port to an engine, open."""
    remote = RemoteEngine(address, in_flight_max=in_flight_max)
    async with patiently():
        await remote.open()
    try:
        yield remote
    finally:
        await remote.close()


@dataclass(slots=True)
class Raw:
    """A connection that sends what a front end would not."""

    sock: socket.socket
    splitter: Splitter = field(default_factory=Splitter)

    def send(self, *messages: bytes) -> None:
        """Send messages as one frame."""
        for frame in frames(messages):
            self.sock.sendall(frame)

    def frames(self) -> Iterator[bytes]:
        """What comes, until the engine ends the connection."""
        while data := self._received():
            yield from self.splitter.feed(data)

    @property
    def has_ended(self) -> bool:
        """Whether the engine ends the connection, whatever it says before."""
        while self._received():
            pass
        return True

    def _received(self) -> bytes:
        try:
            return self.sock.recv(65_536)
        except ConnectionResetError:
            return b""


@contextmanager
def raw(address: Path, *, protocol: int = PROTOCOL) -> Iterator[Raw]:
    """A connection to an engine without the port."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(PATIENCE_S)
        sock.connect(str(address))
        connection = Raw(sock)
        # An engine that serves nobody of this kind may have ended it before.
        with suppress(BrokenPipeError):
            connection.send(bytes_of(Hello(protocol=protocol)))
        yield connection
