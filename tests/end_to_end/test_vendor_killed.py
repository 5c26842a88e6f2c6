"""A vendor killed between work and capture: the buyer pays once or not at all, and can ask which.

The platform and the vendor are real processes; the vendor is killed -9 exactly where it hurts, and
started again on what its spool kept.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from farthing.clients.buyers import Buyer
from farthing.clients.services import NotDelivered, ServiceFailed, ServiceLost
from tests.remote import Market
from tests.vendor import VendorProcess, selling

PDF = {"pdf": "one|two"}
PRICE_UNITS = 4_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    market: Market
    vendor: VendorProcess
    listings: dict[str, str]

    @property
    def buyer(self) -> Buyer:
        return self.market.buyer

    async def captured_units(self) -> int:
        """All that was ever charged."""
        charges = await self.market.vendor.charges()
        return sum(each.amount.units for each in charges.charges)

    async def killed_at(self, place: str, tool: str) -> str:
        """Buy, and kill the vendor at a place; gives the hold that the buyer is left with."""
        await self.vendor.start(stand_still_at=place)
        listing_id = self.listings[tool]
        call = asyncio.create_task(
            self.buyer.call_service(listing_id, PDF, {"page": 3}, key=f"killed-when-{place}-{tool}")
        )
        await self.vendor.says(place)
        await self.vendor.kill()
        (lost,) = await asyncio.gather(call, return_exceptions=True)
        assert isinstance(lost, ServiceLost | NotDelivered), lost
        made = await self.buyer.outcome("place_hold", f"killed-when-{place}-{tool}-hold")
        assert made.outcome == "done"
        assert made.answer is not None
        return str(made.answer["hold_id"])

    async def buy_again(self, place: str, tool: str) -> object:
        """The same purchase under the same key, whatever comes of it."""
        key = f"killed-when-{place}-{tool}"
        purchase = self.buyer.call_service(self.listings[tool], PDF, {"page": 3}, key=key)
        (outcome,) = await asyncio.gather(purchase, return_exceptions=True)
        if isinstance(outcome, ServiceFailed):
            return "failed"
        assert not isinstance(outcome, BaseException), outcome
        return outcome.result


@asynccontextmanager
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with selling(tmp_path) as place:
        yield Scene(
            market=place.market,
            vendor=place.vendor,
            listings={tool: str(each.listing["listing_id"]) for tool, each in place.offers.items()},
        )


async def test_a_vendor_killed_before_it_captured_is_paid_once_or_not_at_all(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as market:
        # The work was done and not kept. It does no harm twice, so it is done again, and paid once.
        hold_id = await market.killed_at("worked", "extract_text")
        assert (await market.buyer.hold_status(hold_id)).status == "open"
        assert await market.captured_units() == 0
        await market.vendor.start()
        assert await market.buy_again("worked", "extract_text") == {"pages": ["one", "two"]}
        assert (await market.buyer.hold_status(hold_id)).status == "captured"
        assert (market.vendor.runs, await market.captured_units()) == (2, PRICE_UNITS)
        await market.vendor.kill()

        # The work was done and not kept, and must not be done twice: the money comes back.
        hold_id = await market.killed_at("worked", "extract_once")
        await market.vendor.start()
        assert await market.buy_again("worked", "extract_once") == "failed"
        assert (await market.buyer.hold_status(hold_id)).status == "released"
        assert (market.vendor.runs, await market.captured_units()) == (3, PRICE_UNITS)
        await market.vendor.kill()

        # The work was kept and not captured: it is captured at the start, asked for or not.
        hold_id = await market.killed_at("kept", "extract_text")
        assert (await market.buyer.hold_status(hold_id)).status == "open"
        await market.vendor.start()
        assert (await market.buyer.hold_status(hold_id)).status == "captured"
        assert await market.buy_again("kept", "extract_text") == {"pages": ["one", "two"]}
        assert (market.vendor.runs, await market.captured_units()) == (4, 2 * PRICE_UNITS)
        await market.vendor.kill()

        # It was captured and the vendor never heard: it hears now, and nothing is captured twice.
        hold_id = await market.killed_at("captured", "extract_text")
        view = await market.buyer.hold_status(hold_id)
        assert (view.status, bool(view.charge_id)) == ("captured", True)
        await market.vendor.start()
        assert await market.buy_again("captured", "extract_text") == {"pages": ["one", "two"]}
        assert (market.vendor.runs, await market.captured_units()) == (5, 3 * PRICE_UNITS)
