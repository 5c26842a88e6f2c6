"""One of several processes that begin calls of one owner at the same time."""

import asyncio
import sys
from pathlib import Path

from farthing.server.adapters.results import Share
from tests.server.flying import ANSWER_BYTES, Server, has_room

SHARE = Share(calls=100, size=25 * ANSWER_BYTES)


async def main(folder: Path, name: str) -> None:
    """Print how many of forty calls there was room for."""
    results = Server(folder).results()
    await results.open()
    asked = [f"{name} {number}" for number in range(40)]
    begun = [await has_room(results, each, SHARE) for each in asked]
    await results.close()
    sys.stdout.write(str(sum(begun)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
