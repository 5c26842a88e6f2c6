"""Sessions under load from many processes, and under kill -9 of the platform.

The oracle is what the vendor's processes were told, and the journal's file alone.
"""

import asyncio
import json
import random
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import httpx2

from farthing.protocol.errors import Unreachable
from farthing.protocol.messages.sessions import REPORT_USAGE, ReportUsage, UsageReport
from farthing.protocol.records import entries_in
from tests.entries import document_in
from tests.metering import PAGE_UNITS, Metered, flat_agreement, metered
from tests.patience import PATIENCE_S
from tests.processes import ServerProcess, free_port
from tests.remote import opened
from tests.settlement.oracle import Oracle

PROCESSES = 10
BATCHES = 10
CALLS = 5
CAP = 137
KILLS = 4


async def test_ten_processes_at_one_session_never_pass_its_cap(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, free_port(), workers=2)
    try:
        facts = await server.start()
        async with httpx2.AsyncClient() as http:
            market = await opened(facts, http)
            session = await metered(market, await flat_agreement(market), cap=CAP)
            units = await asyncio.to_thread(_hammered, session, facts["issuer"])
            view = await session.view()
    finally:
        server.stop()

    assert sum(units) == view.spent.units == CAP * PAGE_UNITS
    assert (view.remaining.units, view.calls) == (0, CAP)
    _judged(tmp_path, session)


def _hammered(session: Metered, url: str) -> list[int]:
    """What all reports billed. Every batch is sent by two processes, under keys of their own."""
    batches = [
        session.events(1 + place * CALLS, *[1] * CALLS) for place in range(PROCESSES * BATCHES // 2)
    ]
    told = {"url": url, "vendor_key": "Vendor One", "vendor_id": session.vendor.principal}
    processes = []
    for number in range(PROCESSES):
        first = number // 2 * BATCHES
        asks = [session.ask(each) for each in batches[first : first + BATCHES]]
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.end_to_end.hammer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        _say(process, json.dumps({**told, "asks": [asdict(each) for each in asks]}))
        processes.append(process)
    assert all(_heard(each) == "ready" for each in processes)
    for process in processes:
        _say(process, "go")
    units = [unit for process in processes for unit in json.loads(_heard(process))]
    for process in processes:
        process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
    return units


async def test_killed_in_mid_session_it_has_lost_nothing_and_bills_nothing_twice(
    tmp_path: Path,
) -> None:
    server = ServerProcess(tmp_path, free_port())
    moments = random.Random(20_261_121)
    asks: list[ReportUsage] = []
    told: dict[str, UsageReport] = {}
    try:
        facts = await server.start()
        async with httpx2.AsyncClient() as http:
            market = await opened(facts, http)
            session = await metered(market, await flat_agreement(market), cap=10_000)
            for _ in range(KILLS):
                before = len(asks)
                await _report_until_killed(server, session, asks, told, moments.randint(5, 40))
                await server.start()
                await _nothing_is_lost(session, asks[before:], told)
            view = await session.view()
    finally:
        server.stop()

    assert view.calls == len(asks) * CALLS
    assert view.spent.units == view.calls * PAGE_UNITS
    assert sum(each.amount.units for each in told.values()) == view.spent.units
    assert len(told) > KILLS * 5
    _judged(tmp_path, session)


async def _report_until_killed(
    server: ServerProcess,
    session: Metered,
    asks: list[ReportUsage],
    told: dict[str, UsageReport],
    acknowledgements: int,
) -> None:
    """Eight reporters at once, each with the next calls, until nobody answers."""
    target = len(told) + acknowledgements

    async def reporter() -> None:
        while True:
            calls = session.events(1 + len(asks) * CALLS, *[1] * CALLS)
            ask = session.ask(calls, voucher=session.voucher(seq=10**6, pages=10_000))
            asks.append(ask)
            try:
                told[ask.idempotency_key] = await session.vendor.call(REPORT_USAGE, ask)
            except Unreachable:
                return

    running = [asyncio.create_task(reporter()) for _ in range(8)]
    while len(told) < target:
        done, _ = await asyncio.wait(running, timeout=0.001)
        assert not done, "a reporter ended before the server did"
    server.kill()
    await asyncio.gather(*running)


async def _nothing_is_lost(
    session: Metered, asks: list[ReportUsage], told: dict[str, UsageReport]
) -> None:
    """Everything is sent again as it was: what was told is told again, the rest is done now."""
    for ask in asks:
        again = await session.vendor.send(REPORT_USAGE, ask)
        before = told.setdefault(ask.idempotency_key, again.answer)
        assert (again.answer.charge_id, again.answer.seq) == (before.charge_id, before.seq)
        assert again.answer.billed == CALLS


def _judged(data_dir: Path, session: Metered) -> None:
    """The file alone: the books balance, and every call was billed once."""
    query = "SELECT records FROM journal_batch ORDER BY first_seq"
    with closing(sqlite3.connect(f"file:{data_dir}/journal.sqlite?mode=ro", uri=True)) as database:
        entries = [each for (page,) in database.execute(query) for each in entries_in(page)]
    Oracle().read(entries)
    records = [document_in(each) for each in entries]
    billed: Counter[str] = Counter()
    for record in records:
        if record["operation"] == "report_usage" and "refused" not in record:
            for event, units in zip(
                json.loads(record["facts"]["usage"]), record["decided"]["amounts"], strict=True
            ):
                billed[event["id"]] += units != "0"
    (last,) = [
        changed["after"]
        for record in records
        for changed in record.get("changed", ())
        if changed["id"] == session.session.session_id
    ][-1:]
    assert max(billed.values()) == 1
    assert sum(billed.values()) == last["calls"]
    assert int(last["spent_units"]) == last["calls"] * PAGE_UNITS <= int(last["cap_units"])


def _say(process: "subprocess.Popen[str]", line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def _heard(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()
