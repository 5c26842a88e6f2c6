"""The shelf of rate cards: parsed, compiled, and found by hash.

Boundary: reads the `rate_card` table. A card never changes, so what is on the shelf is true for
ever; the shelf is bounded and forgets the oldest.
"""

from collections.abc import Iterable
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from farthing.catalog.tables import RATE_CARD
from farthing.protocol.canonical import parse_json
from farthing.protocol.rating import CompiledCard, compile_card, parse_card

__all__ = ["CardShelf"]

_SHELF_MAX: Final = 8192


class CardShelf:
    """Compiled cards by hash, one shelf a process: `load` first, then look up without waiting."""

    def __init__(self) -> None:
        self._cards: dict[str, CompiledCard] = {}

    def __getitem__(self, card_sha256: str) -> CompiledCard:
        return self._cards[card_sha256]

    async def load(self, conn: AsyncConnection, hashes: Iterable[str]) -> None:
        """Put the cards of these hashes on the shelf.

        Raises:
            KeyError: A listing names a card that was never published; the tables contradict
                themselves.
        """
        wanted = set(hashes)
        missing = wanted - self._cards.keys()
        if missing:
            query = select(RATE_CARD.c.sha256, RATE_CARD.c.body).where(
                RATE_CARD.c.sha256.in_(missing)
            )
            for card_sha256, body in await conn.execute(query):
                self._cards[card_sha256] = compile_card(parse_card(parse_json(body)))
            for card_sha256 in missing:
                _ = self._cards[card_sha256]
        if len(self._cards) > _SHELF_MAX:
            for card_sha256 in list(self._cards)[: len(self._cards) - _SHELF_MAX]:
                if card_sha256 not in wanted:
                    del self._cards[card_sha256]
