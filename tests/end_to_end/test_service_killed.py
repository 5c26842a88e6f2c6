"""The platform killed in the middle of a call that it makes: done once, paid once, told truly.

Platform and vendor are real processes, killed -9 exactly where it hurts, and started again on what
their files kept.
"""

import asyncio
import os
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import pytest

from farthing.clients.tools import Endpoint
from farthing.protocol.canonical import LooseJson
from farthing.protocol.errors import Unreachable
from farthing.protocol.messages.agreements import Agreement
from farthing.protocol.messages.services import CALL_SERVICE
from tests.patience import until
from tests.processes import ServerProcess
from tests.remote import Market
from tests.vendor import VendorProcess, selling

RESULT = {"pages": ["one", "two"]}
PRICE_UNITS = 4_000_000
ASKS_MAX = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    platform: ServerProcess
    market: Market
    vendor: VendorProcess
    agreements: dict[str, Agreement] = field(default_factory=dict)

    async def charged(self) -> list[int]:
        """Every charge there is, in units."""
        return [each.amount.units for each in (await self.market.vendor.charges()).charges]

    async def held(self) -> int:
        """What is set aside and not charged, in units."""
        accounts = (await self.market.operator.balance()).accounts
        return sum(each.held.units for each in accounts)

    async def ask(self, tool: str, *, within_s: int = 0) -> dict[str, LooseJson]:
        """One `call_service`, not repeated; a refusal is an answer too."""
        connection = self.market.buyer.connection
        endpoint = Endpoint(
            connection.http, f"{connection.url}/mcp", timeout_s=60, auth=connection.auth
        )
        asked = {
            "agreement_id": self.agreements[tool].agreement_id,
            "workload": [{"meter": "page", "quantity": "3"}],
            "arguments": {"pdf": "one|two"},
            "deliver_within_s": within_s,
            "idempotency_key": f"the-call-of-{tool}",
        }
        result = await endpoint.call_tool(CALL_SERVICE.name, asked)
        assert isinstance(result.structured, dict)
        return result.structured

    async def ended(self, tool: str, *, within_s: int = 0) -> dict[str, LooseJson]:
        """The same call, asked for until it has an end."""
        for _ in range(ASKS_MAX):
            try:
                answer = await self.ask(tool, within_s=within_s)
            except Unreachable:
                answer = {"code": "unavailable"}
            if answer.get("code") not in {"unavailable", "internal_error"}:
                return answer
            await asyncio.sleep(0.2)
        raise AssertionError("the call has no end")

    async def killed_at(self, place: str, tool: str, *, within_s: int = 0) -> None:
        """Ask, and kill the platform, then the vendor, when the vendor has come to a place."""
        await self.vendor.start(stand_still_at=place)
        asking = asyncio.create_task(self.ask(tool, within_s=within_s))
        await self.vendor.says(place)
        self.platform.kill()
        await self.vendor.kill()
        with pytest.raises(Unreachable):
            await asking
        await self.platform.start()
        await self.vendor.start()

    async def platform_killed_at(self, place: str, tool: str) -> None:
        """Ask, and kill the platform when it has come to a place; the vendor goes on."""
        stands = self.platform.data_dir / "stands"
        self.platform.stop()
        itself = self.platform.runs
        self.platform.runs = ("tests.standing", place, str(stands))
        await self.platform.start()
        await self.vendor.start()
        asking = asyncio.create_task(self.ask(tool))
        await until(stands.exists)
        self.platform.kill()
        with pytest.raises(Unreachable):
            await asking
        self.platform.runs = itself
        await self.platform.start()

    async def spooled(self, state: str) -> None:
        """Wait until all that the vendor worked for has come to this."""
        file = Path(self.vendor.settings["folder"]) / "spool.sqlite"
        await until(lambda: states(file) == {state})


@asynccontextmanager
async def scene(tmp_path: Path, *, workers: int = 1) -> AsyncIterator[Scene]:
    async with selling(tmp_path, workers=workers) as place:
        agreements: dict[str, Agreement] = {}
        for tool, offer in place.offers.items():
            quote = await place.market.buyer.quote(str(offer.listing["listing_id"]), {"page": 1})
            agreements[tool] = await place.market.buyer.accept(quote)
        yield Scene(
            platform=place.platform,
            market=place.market,
            vendor=place.vendor,
            agreements=agreements,
        )


async def test_killed_while_the_vendor_works_the_call_is_done_and_paid_once(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as market:
        await market.killed_at("worked", "extract_text")
        # Nothing was kept of the work, and it may be repeated.
        answer = await market.ended("extract_text")

        assert answer["untrusted_result"] == RESULT
        assert market.vendor.runs == 2
        assert await market.charged() == [PRICE_UNITS]
        assert await market.held() == 0


async def test_killed_before_it_has_the_answer_that_is_asked_for_and_not_made_again(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as market:
        await market.platform_killed_at("accepted", "extract_text")
        answer = await market.ended("extract_text")
        again = await market.ended("extract_text")

        assert answer["untrusted_result"] == again["untrusted_result"] == RESULT
        assert market.vendor.runs == 1
        assert await market.charged() == [PRICE_UNITS]
        await market.spooled("captured")


async def test_killed_before_it_has_an_answer_that_is_not_asked_for_again_it_charges_nothing(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as market:
        await market.platform_killed_at("accepted", "extract_once")
        answer = await market.ended("extract_once")

        assert answer["code"] == "vendor_failed"
        assert market.vendor.runs == 1
        assert await market.charged() == []
        assert await market.held() == 0
        await market.spooled("dropped")


@pytest.mark.parametrize("is_asked", [True, False])
async def test_killed_between_keeping_and_paying_the_answer_is_paid_by_whoever_comes_first(
    tmp_path: Path, *, is_asked: bool
) -> None:
    async with scene(tmp_path) as market:
        await market.platform_killed_at("kept", "extract_once")
        if is_asked:
            assert (await market.ended("extract_once"))["untrusted_result"] == RESULT
        # The vendor captures until it is told something final: here, its charge.
        await market.spooled("captured")

        assert market.vendor.runs == 1
        assert await market.charged() == [PRICE_UNITS]
        assert await market.held() == 0
        assert (await market.ended("extract_once"))["untrusted_result"] == RESULT


async def test_a_vendor_killed_before_it_learns_that_it_was_paid_learns_it_when_it_starts(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as market:
        await market.vendor.start(stand_still_at="kept")
        # It has answered, and is about to capture.
        answer = await market.ended("extract_once")
        await market.vendor.says("kept")
        await market.vendor.kill()
        await market.vendor.start()

        await market.spooled("captured")

        assert answer["untrusted_result"] == RESULT
        assert market.vendor.runs == 1
        assert await market.charged() == [PRICE_UNITS]


def states(spool: Path) -> set[str]:
    with closing(sqlite3.connect(f"{spool.as_uri()}?mode=ro", uri=True)) as db:
        return {state for (state,) in db.execute("SELECT state FROM work")}


async def test_what_may_not_be_repeated_and_was_not_captured_costs_nothing(tmp_path: Path) -> None:
    async with scene(tmp_path) as market:
        await market.killed_at("worked", "extract_once", within_s=4)
        answer = await market.ended("extract_once", within_s=4)

        assert answer["code"] == "vendor_failed"
        assert market.vendor.runs == 1
        assert await market.charged() == []
        assert await market.held() == 0


async def test_a_front_end_killed_in_the_middle_leaves_the_call_to_the_others(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path, workers=2) as market:
        await market.vendor.start(stand_still_at="worked")
        asking = asyncio.create_task(market.ask("extract_text"))
        await market.vendor.says("worked")
        for pid in market.platform.front_end_pids:
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(Unreachable):
            await asking
        await market.vendor.kill()
        await market.vendor.start()

        answer = await market.ended("extract_text")

        assert answer["untrusted_result"] == RESULT
        assert market.vendor.runs == 2
        assert await market.charged() == [PRICE_UNITS]


async def test_asked_at_two_front_ends_at_once_it_is_one_call(tmp_path: Path) -> None:
    async with scene(tmp_path, workers=2) as market:
        await market.vendor.start()
        answers = await asyncio.gather(*(market.ended("extract_once") for _ in range(8)))

        assert (
            len({orjson.dumps(each["charge"], option=orjson.OPT_SORT_KEYS) for each in answers})
            == 1
        )
        assert all(each["untrusted_result"] == RESULT for each in answers)
        assert market.vendor.runs == 1
        assert await market.charged() == [PRICE_UNITS]
