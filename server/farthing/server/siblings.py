"""The front ends of one server, as one of them knows the others: figures of all on one page.

Boundary: pages of figures, over sockets beside the engine's; what is counted, `metrics` knows.
Source: spec/transport-http.md#metrics.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from farthing.settlement.journal.sockets import owners_socket

__all__ = ["Siblings", "on_one_page"]

# Above what a front end takes that waits for the engine's word in vain.
_ANSWER_S_MAX: Final = 3
_LENGTH_BYTES: Final = 4
# Far above a page with every code of every operation.
_PAGE_BYTES_MAX: Final = 16 * 1024 * 1024
_FAMILY: Final = b"\n# HELP "

Page = Callable[[], Awaitable[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Siblings:
    """Which front end this is, and where the others are.

    Args:
        number: its own, from 1; another process in its place has the same.
        count: how many there are.
        address: where the engine's socket lies; theirs lie beside it. None where there is no other.
    """

    number: int = 1
    count: int = 1
    address: Path | None = None

    @asynccontextmanager
    async def telling(self, page: Page) -> AsyncIterator[None]:
        """Tell the others this one's page whenever they ask, until the block ends."""
        if self.address is None or self.count == 1:
            yield
            return

        async def tell(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            told = await page()
            writer.write(len(told).to_bytes(_LENGTH_BYTES, "big") + told)
            writer.close()

        own = _beside(self.address, self.number)
        server = await asyncio.start_unix_server(tell, sock=owners_socket(own))
        try:
            yield
        finally:
            server.close()
            own.unlink(missing_ok=True)

    async def pages(self) -> list[bytes]:
        """The others' pages; one that ends or is being replaced has none."""
        if self.address is None:
            return []
        others = [number for number in range(1, self.count + 1) if number != self.number]
        found = await asyncio.gather(*(_asked(_beside(self.address, each)) for each in others))
        return [page for page in found if page is not None]


def on_one_page(pages: Iterable[bytes]) -> bytes:
    """Pages of figures as one: each metric once, with the samples of all.

    Samples are told apart by a label that names the front end; no label holds a line feed.
    """
    found: dict[bytes, list[bytes]] = {}
    for page in pages:
        for family in (b"\n" + page.rstrip(b"\n")).split(_FAMILY)[1:]:
            says, kind, *samples = family.split(b"\n")
            found.setdefault(says + b"\n" + kind, []).extend(samples)
    families = (_FAMILY[1:] + b"\n".join((says, *found[says])) for says in found)
    return b"\n".join(families) + b"\n"


async def _asked(address: Path) -> bytes | None:
    try:
        async with asyncio.timeout(_ANSWER_S_MAX):
            reader, writer = await asyncio.open_unix_connection(address)
            try:
                length = int.from_bytes(await reader.readexactly(_LENGTH_BYTES), "big")
                return await reader.readexactly(length) if length <= _PAGE_BYTES_MAX else None
            finally:
                writer.close()
    except (OSError, EOFError, TimeoutError):
        return None


def _beside(address: Path, number: int) -> Path:
    return address.with_name(f"{address.name}.{number}")
