"""kill -9 of a front end or of the engine under load: the rest goes on, nothing told is lost."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from farthing.clients.transport import Connection
from farthing.protocol.errors import Refused, Unreachable
from farthing.protocol.messages.accounts import FUND_ACCOUNT, FundAccount
from farthing.protocol.wire import Money
from tests.end_to_end.test_kill_server import IN_FLIGHT, Log, Worker
from tests.end_to_end.test_kill_server import _check_journal as check_journal
from tests.end_to_end.test_kill_server import _check_told as check_told
from tests.end_to_end.test_kill_server import _records as records_in
from tests.patience import patiently, until
from tests.processes import ServerProcess, free_port
from tests.remote import Market, opened

KILLS = 10
WORKERS = 2


def one_front_end(server: ServerProcess) -> int:
    return random.Random(server.pid).choice(server.front_end_pids)


def the_engine(server: ServerProcess) -> int:
    return server.engine_pid


class Enduring(Worker):
    """A caller that goes on when a call found nobody, until it is told to end."""

    async def run(self) -> None:
        """Call until cancelled."""
        while True:
            try:
                await self._once()
            except (Refused, Unreachable):
                # What was killed is there again at once; a turn of the loop is pause enough.
                await asyncio.sleep(0)


@pytest.mark.parametrize("victim", [one_front_end, the_engine])
async def test_what_is_killed_is_replaced_and_nothing_told_is_lost(
    tmp_path: Path, victim: Callable[[ServerProcess], int]
) -> None:
    server = ServerProcess(tmp_path, free_port(), workers=WORKERS)
    moments = random.Random(20_261_122)
    log = Log()
    try:
        facts = await server.start()
        first_pids = {server.pid, server.engine_pid, *server.front_end_pids}
        async with httpx2.AsyncClient() as http:
            market = await opened(facts, http)
            setup = {
                record.request.key for record in records_in(tmp_path) if record.request is not None
            }
            async with _calling(market, log) as running:
                for _ in range(KILLS):
                    await _acknowledged(log, running, moments.randint(30, 60))
                    killed = victim(server)
                    os.kill(killed, signal.SIGKILL)
                    await asyncio.to_thread(server.replaced, killed)
                await _acknowledged(log, running, 30)
            await check_told(market, log.told)
            spared = server.pid in first_pids and server.process is not None
            still_running = server.process is not None and server.process.poll() is None
    finally:
        server.stop()
    check_journal(tmp_path, log, setup)
    assert spared
    assert still_running


@asynccontextmanager
async def _calling(market: Market, log: Log) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Callers at work until the block ends."""
    running = [asyncio.create_task(Enduring(market, log, seed).run()) for seed in range(IN_FLIGHT)]
    try:
        yield running
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _acknowledged(log: Log, running: list[asyncio.Task[None]], more: int) -> None:
    """Wait for so many acknowledgements more."""
    target = log.acknowledged + more
    async with patiently():
        while log.acknowledged < target:
            done, _ = await asyncio.wait(running, timeout=0.001)
            for task in done:
                task.result()


async def test_when_the_keeper_is_killed_nothing_is_left_and_the_next_one_starts(
    tmp_path: Path,
) -> None:
    server = ServerProcess(tmp_path, free_port(), workers=WORKERS)
    try:
        facts = await server.start()
        async with httpx2.AsyncClient() as http:
            market = await opened(facts, http)
            funded = await _fund(market.treasurer, market.operator.connection.principal)
            # Waits until the engine and the front ends have ended too.
            server.kill()
            await server.start()
            again = await _fund(market.treasurer, market.operator.connection.principal)
    finally:
        server.stop()

    assert again == funded


async def _fund(treasurer: Connection, organisation_id: str) -> str:
    ask = FundAccount(
        organisation_id=organisation_id,
        amount=Money(amount="0.001", asset="USD"),
        reference="once",
        idempotency_key="funded-once-00000000",
    )
    return (await treasurer.send(FUND_ACCOUNT, ask)).answer.funding_id


async def test_an_engine_that_cannot_go_on_ends_the_server_with_its_reason(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, free_port())
    try:
        await server.start()
        (tmp_path / "keys" / "journal.jwk").unlink()
        os.kill(server.engine_pid, signal.SIGKILL)
        assert server.process is not None
        code = await asyncio.to_thread(server.process.wait, 30)
    finally:
        server.stop()

    log = (tmp_path / "server.log").read_text()
    assert code == 1
    assert "put back the keys of this journal" in log.splitlines()[-1]


async def test_a_journal_that_is_gone_is_waited_for_and_no_other_begins_in_its_place(
    tmp_path: Path,
) -> None:
    folder, moved, log = tmp_path / "data", tmp_path / "moved", tmp_path / "server.log"
    folder.mkdir()
    (folder / "server.log").symlink_to(log)
    server = ServerProcess(folder, free_port())
    try:
        facts = await server.start()
        killed, front_ends = server.engine_pid, server.front_end_pids
        # As where a volume is not mounted any more.
        folder.rename(moved)
        folder.mkdir()
        for pid in (killed, *front_ends):
            os.kill(pid, signal.SIGKILL)
        await until(lambda: log.read_text().count("the journal is not there any more") == 2)
        made = list(folder.iterdir())
        folder.rmdir()
        moved.rename(folder)
        await asyncio.to_thread(server.replaced, killed)
        async with httpx2.AsyncClient() as http:
            market = await opened(facts, http)
            await _fund(market.treasurer, market.operator.connection.principal)
    finally:
        server.stop()

    assert made == []


async def test_an_engine_that_hangs_is_said_once_and_once_when_it_answers_again(
    tmp_path: Path,
) -> None:
    server = ServerProcess(tmp_path, free_port(), workers=WORKERS)

    def said(text: str) -> int:
        return (tmp_path / "server.log").read_text().count(text)

    try:
        facts = await server.start()
        os.kill(server.engine_pid, signal.SIGSTOP)
        await until(lambda: said("the engine does not answer") > 0)
        async with httpx2.AsyncClient() as http:
            # By then it has been asked again.
            hung = [(await http.get(f"{facts['issuer']}/readyz")).status_code for _ in range(2)]
        os.kill(server.engine_pid, signal.SIGCONT)
        await until(lambda: said("the engine answers again") > 0)
    finally:
        server.stop()

    assert hung == [503, 503]
    assert said("the engine does not answer") == said("the engine answers again") == 1
