"""A real file system that runs full under a real server, and an old backup that is put back.

The file system is a tmpfs of a few megabytes. Where it cannot be mounted, as without the right to,
the test says so and is left out.
"""

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from farthing.clients.operators import Operator
from farthing.clients.transport import Connection
from farthing.protocol.errors import Code, Refused, Unreachable
from farthing.protocol.messages.accounts import FUND_ACCOUNT, FundAccount
from farthing.protocol.wire import Money
from tests.patience import patiently, until
from tests.processes import ServerProcess, free_port, not_served
from tests.remote import Market, opened
from tests.settlement.oracle import Oracle

SIZE = "48m"
TRIES = 200


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of its own, small enough to fill."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None:
        pytest.skip("there is no mount command")
    command = [mount, "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a tmpfs may not be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S607


async def test_a_full_disk_stops_writes_alone_and_they_go_on_when_there_is_room(
    small: Path, tmp_path: Path
) -> None:
    server = ServerProcess(small, free_port())
    ballast = small / "ballast"
    log = _log_elsewhere(small, tmp_path)
    try:
        facts = await server.start()
        async with httpx2.AsyncClient() as http:
            market = await opened(facts, http)
            told = [await _funded(market, f"before-{number:016d}") for number in range(20)]
            pid = server.engine_pid

            _fill(ballast)
            more, refused = await _fund_until(market, "filling", refused=True)
            told += more
            assert refused is not None
            assert refused.code is Code.UNAVAILABLE
            assert refused.refusal.retry_after_s > 0
            _, refused = await _fund_until(market, "full", refused=True)
            assert refused is not None
            # Reads and health go on.
            health = await http.get(f"{facts['issuer']}/healthz")
            assert health.status_code == 200
            for key in (told[0], told[-1]):
                outcome = await Operator(market.treasurer).outcome("fund_account", key)
                assert outcome.outcome == "done"

            ballast.unlink()
            more, refused = await _fund_until(market, "room", refused=False)
            told += more
            # Without a restart.
            assert server.engine_pid == pid
            for key in told:
                outcome = await Operator(market.treasurer).outcome("fund_account", key)
                assert outcome.outcome == "done"
    finally:
        server.stop()
    lines = _lines(small / "journal.sqlite")
    Oracle().read(lines)
    journal = b"\n".join(lines)
    assert all(key.encode() in journal for key in told)
    # Once each, and not of every call.
    assert log.read_text().count("storage takes no batches") == 1
    assert log.read_text().count("storage takes batches again") == 1


async def test_an_engine_that_is_killed_while_the_disk_is_full_is_back_when_there_is_room(
    small: Path, tmp_path: Path
) -> None:
    server = ServerProcess(small, free_port())
    ballast = small / "ballast"
    log = _log_elsewhere(small, tmp_path)
    try:
        facts = await server.start()
        async with httpx2.AsyncClient() as http:
            market = await opened(facts, http)
            await _funded(market, "before-00000000000000001")
            pids = server.pid, server.front_end_pids
            _fill(ballast)
            os.kill(server.engine_pid, signal.SIGKILL)
            await until(lambda: "until storage is well" in log.read_text())
            ready = await http.get(f"{facts['issuer']}/readyz")
            health = await http.get(f"{facts['issuer']}/healthz")
            _, refused = await _fund_until(market, "full", refused=True)

            ballast.unlink()
            await _fund_patiently(market, "after-000000000000000001")
            assert (server.pid, server.front_end_pids) == pids
    finally:
        server.stop()
    assert (ready.status_code, health.status_code) == (503, 503)
    assert refused is not None
    assert refused.code is Code.UNAVAILABLE
    assert log.read_text().count("until storage is well") == 1


async def test_a_front_end_that_is_killed_while_the_disk_is_full_is_replaced_and_reads(
    small: Path, tmp_path: Path
) -> None:
    server = ServerProcess(small, free_port())
    log = _log_elsewhere(small, tmp_path)
    try:
        facts = await server.start()
        async with httpx2.AsyncClient() as http:
            market = await opened(facts, http)
            told = await _funded(market, "before-00000000000000001")
            (killed,) = server.front_end_pids
            ballast = small / "ballast"
            _fill(ballast)
            os.kill(killed, signal.SIGKILL)
            await until(lambda: log.read_text().count("the front end is ready") > 1)
            outcome = await Operator(market.treasurer).outcome("fund_account", told)
            assert outcome.outcome == "done"
            ballast.unlink()
            # The ready file says so once it can be written.
            await asyncio.to_thread(server.replaced, killed)
    finally:
        server.stop()


async def test_an_old_backup_that_is_put_back_says_what_is_lost_and_takes_no_older_proof(
    tmp_path: Path,
) -> None:
    data_dir, copy = tmp_path / "data", tmp_path / "copy.sqlite"
    data_dir.mkdir()
    server = ServerProcess(data_dir, free_port())
    try:
        facts = await server.start()
        async with httpx2.AsyncClient() as http:
            market = await opened(facts, http)
            kept = await _funded(market, "kept-00000000000000001")
            _farthing("backup", str(copy), "--data-dir", str(data_dir))
            before = len(_lines(data_dir / "journal.sqlite"))
            lost = [await _funded(market, f"lost-{number:017d}") for number in range(3)]
            # Every proof that was made until now is older than what is put back.
            stale = market.treasurer.clock()
            server.stop()
            newest = (data_dir / "journal.sqlite").read_bytes()
            (data_dir / "journal.sqlite").write_bytes(copy.read_bytes())
            by_hand = not_served(data_dir)
            assert by_hand.returncode == 1
            assert f"the journal ends at record {before}" in by_hand.stderr
            (data_dir / "journal.sqlite").write_bytes(newest)

            told = _farthing("restore", str(copy), "--data-dir", str(data_dir))
            assert f"{before + 1}" in told
            assert f"{before + len(lost)}" in told

            await server.start()
            known = [await Operator(market.treasurer).outcome("fund_account", k) for k in lost]
            assert {each.outcome for each in known} == {"unknown"}
            outcome = await Operator(market.treasurer).outcome("fund_account", kept)
            assert outcome.outcome == "done"
            with pytest.raises(Refused) as refused:
                await _funded(market, "old-000000000000000001", _backdated(market, stale))
            assert refused.value.code in {Code.PROOF_INVALID, Code.PROOF_EXPIRED}
            await _funded(market, "after-0000000000000001")
    finally:
        server.stop()
    journal = b"\n".join(_lines(data_dir / "journal.sqlite"))
    assert b"after-0000000000000001" in journal
    assert b"old-000000000000000001" not in journal


def _backdated(market: Market, now_us: int) -> Connection:
    """The treasurer with a clock that stands still."""
    connection = market.treasurer
    return Connection(
        connection.url,
        signer=connection.signer,
        principal=connection.principal,
        http=connection.http,
        clock=lambda: now_us,
    )


async def _funded(market: Market, key: str, by: Connection | None = None) -> str:
    ask = FundAccount(
        organisation_id=market.operator.connection.principal,
        amount=Money(amount="0.001", asset="USD"),
        reference="x" * 100,
        idempotency_key=key,
    )
    await (by or market.treasurer).send(FUND_ACCOUNT, ask)
    return key


async def _fund_until(
    market: Market, name: str, *, refused: bool
) -> tuple[list[str], Refused | None]:
    """Fund until it is refused, or until it is done; what was done meanwhile, and the refusal."""
    done: list[str] = []
    for number in range(TRIES):
        try:
            done.append(await _funded(market, f"{name}-{number:016d}"))
        except (Refused, Unreachable) as error:
            if refused and isinstance(error, Refused):
                return done, error
        else:
            if not refused:
                return done, None
    raise AssertionError(f"still not {'refused' if refused else 'done'} after {TRIES} tries")


async def _fund_patiently(market: Market, key: str) -> None:
    """Fund once the engine is there again."""
    async with patiently():
        while True:
            try:
                await _funded(market, key)
            except (Refused, Unreachable):
                await asyncio.sleep(0.01)
            else:
                return


def _log_elsewhere(data_dir: Path, folder: Path) -> Path:
    """Have the log where there is room; gives its file."""
    log = folder / "server.log"
    (data_dir / "server.log").symlink_to(log)
    return log


def _fill(path: Path) -> None:
    """Write until there is no room left."""
    size = 1 << 20
    with path.open("wb", buffering=0) as file:
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2


def _farthing(*arguments: str) -> str:
    command = [sys.executable, "-m", "farthing.clients.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _lines(path: Path) -> list[bytes]:
    query = "SELECT records FROM journal_batch ORDER BY first_seq"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return [line for (records,) in database.execute(query) for line in records.split(b"\n")]
