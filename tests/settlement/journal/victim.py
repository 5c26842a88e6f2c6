"""A writer at work, to be killed: says on standard output what it was told is durable."""

import asyncio
import sys
from pathlib import Path

from farthing.settlement.journal.sqlite import SqliteStore
from farthing.settlement.journal.writer import Writer
from tests.settlement.journal import bank
from tests.settlement.journal.bank import Bank, fund, hold

CALLERS = 16


async def main(path: Path, life: str) -> None:
    writer = bank.writer(SqliteStore(path))
    writer.start()
    await writer.submit(fund(10**9, f"{life}-fund"))
    await asyncio.gather(*(spend(writer, f"{life}-{caller}") for caller in range(CALLERS)))


async def spend(writer: Writer[Bank], caller: str) -> None:
    for number in range(10**6):
        key = f"{caller}-{number}"
        outcome = await writer.submit(hold(1, key))
        sys.stdout.write(f"{outcome.seq} {key}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
