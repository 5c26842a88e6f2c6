"""Real processes: a server, a vendor that is killed at the worst moments, a bridge on its stdio."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import orjson

from farthing.clients.buyers import Buyer
from farthing.clients.documents import Offer
from farthing.clients.home import Home, Profile
from farthing.clients.keys import load_key
from farthing.clients.operators import Admin, Newcomer, Operator
from farthing.clients.services import ServiceLost
from farthing.clients.transport import Connection
from farthing.clients.treasurers import Treasurer
from farthing.clients.vendors import Vendor
from farthing.protocol.messages.agents import Registration
from tests.clients.trading import usd
from tests.papers import card_document, listing_document, terms_document
from tests.patience import patiently, until
from tests.processes import free_port

S = TypeVar("S", Admin, Treasurer)

SHOP = Path(__file__).with_name("shop.py")
ENVIRONMENT = {name: each for name, each in os.environ.items() if not name.startswith("FARTHING_")}


@asynccontextmanager
async def running(
    *command: str, env: Mapping[str, str] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**ENVIRONMENT, **(env or {})},
        limit=2**24,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def heard(process: asyncio.subprocess.Process, word: bytes) -> None:
    assert process.stdout is not None
    async with patiently():
        while word not in (line := await process.stdout.readline()):
            assert line, "the process ended"


@dataclass(slots=True, kw_only=True)
class World:
    """A server in a process of its own, with a funded operator and its agent."""

    url: str
    folder: Path
    http: httpx2.AsyncClient
    operator: Operator = field(init=False)
    buyer: Buyer = field(init=False)

    async def vendor(self, port: int) -> Home:
        """A vendor's home, with a published offer."""
        home = Home(self.folder / "vendor")
        profile = await home.meet(self.url)
        connection, registration = await self.enrolled(home, "vendor")
        home.save_profile(
            Profile(
                url=self.url,
                platform_keys=profile.platform_keys,
                principal_id=registration.principal_id,
                organisation_id=registration.organisation_id,
                role=registration.role,
            )
        )
        card, terms = card_document(), terms_document()
        listing = listing_document(
            registration.principal_id, card, terms, url=f"http://127.0.0.1:{port}/mcp"
        )
        offer = Offer.bind(listing, card, terms)
        await Vendor(connection).publish(offer)
        home.save_offer("pdf-text", offer)
        return home

    async def enrolled(self, home: Home, kind: Any) -> tuple[Connection, Registration]:
        newcomer = Newcomer(Connection(self.url, signer=home.key(), http=self.http))
        registration = await newcomer.enrol(kind, kind)
        await self.staff(Admin, "admin").approve(registration.principal_id)
        return newcomer.member(registration), registration

    def staff(self, role: type[S], name: str) -> S:
        """The admin or the treasurer."""
        key = load_key(self.folder / "data" / "keys" / f"{name}.jwk")
        return role(Connection(self.url, signer=key, http=self.http))


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    ready = folder / "ready.json"
    serve = ("-m", "farthing.clients.cli", "serve", "--data-dir", str(folder / "data"))
    async with (
        httpx2.AsyncClient() as http,
        running(*serve, "--port", "0", "--ready-file", str(ready)) as server,
    ):
        await heard(server, b"Journal key")
        await until(ready.exists)
        url = orjson.loads(ready.read_bytes())["issuer"]
        agents_key = Home(folder / "agent").key()
        newcomer = Newcomer(Connection(url, signer=agents_key, http=http, sleep=no_wait))
        market = World(url=url, folder=folder, http=http)
        connection, registration = await market.enrolled(Home(folder / "operator"), "operator")
        market.operator = Operator(connection)
        await market.staff(Treasurer, "treasurer").fund(registration.principal_id, usd("1"), "test")
        agent = await newcomer.register(registration.principal_id, "Reader")
        await market.operator.approve(agent.principal_id)
        await market.operator.set_authority(
            agent.principal_id, per_call_max=usd("0.5"), per_day_max=usd("1")
        )
        market.buyer = Buyer(newcomer.member(agent))
        yield market


async def no_wait(_: float) -> None:
    await asyncio.sleep(0)


async def test_a_vendor_killed_anywhere_is_paid_once_for_work_that_is_handed_over(
    tmp_path: Path,
) -> None:
    port = free_port()
    async with world(tmp_path) as market:
        home = await market.vendor(port)
        listing_id = str(home.offer("pdf-text").listing["listing_id"])
        shop = (str(SHOP), str(port), str(tmp_path))
        env = {"FARTHING_HOME": str(home.path)}
        charges: set[str] = set()
        # Killed in mid-work it has nothing to show: the work is done again. Killed later it has.
        for place, runs in (("working", 2), ("before_capture", 3), ("after_capture", 4)):
            key = f"purchase-{place}"
            buying: Any = {"arguments": {"pdf": "one|two"}, "workload": {"page": 3}, "key": key}
            (tmp_path / "kill_at").write_text(place)
            async with running(*shop, env=env) as vendor:
                await heard(vendor, b"serving")
                outcome = await asyncio.gather(
                    market.buyer.call_service(listing_id, **buying), return_exceptions=True
                )
                assert await vendor.wait() == -9
            held = (await market.buyer.outcome("place_hold", f"{key}-hold")).answer
            assert held is not None
            is_captured = place == "after_capture"
            assert isinstance(outcome[0], ServiceLost) is not is_captured
            async with running(*shop, env=env) as vendor:
                await heard(vendor, b"serving")
                status = (await market.buyer.hold_status(str(held["hold_id"]))).status
                assert status == ("open" if place == "working" else "captured")
                purchase = await market.buyer.call_service(listing_id, **buying)
            assert purchase.result == {"pages": ["one", "two"]}
            assert purchase.hold_id == held["hold_id"]
            assert (tmp_path / "runs").read_text().count("run") == runs
            charges.add(purchase.charge.charge_id)
        assert len(charges) == 3
        assert (await market.buyer.balance()).accounts[0].available == usd("0.988")


async def test_the_bridge_speaks_plain_json_lines_to_any_client(tmp_path: Path) -> None:
    async with world(tmp_path) as market:
        home = {"FARTHING_HOME": str(tmp_path / "home")}
        connect = ("-m", "farthing.clients.cli", "connect", market.url)
        async with running(*connect, env=home) as bridge:
            start = {
                "protocolVersion": "2025-11-25",
                "capabilities": {},
                "clientInfo": {"name": "any", "version": "1"},
            }
            opened = await asked(bridge, "initialize", start)
            await told(bridge, {"jsonrpc": "2.0", "method": "notifications/initialized"})
            names = {tool["name"] for tool in (await asked(bridge, "tools/list", {}))["tools"]}
            status = await called(bridge, "get_bridge_status", {})
            operator_id = market.operator.connection.principal
            registered = await called(
                bridge, "register", {"operator_id": operator_id, "name": "Reader 2"}
            )
            await market.operator.approve(registered["principal_id"])
            ready = await called(bridge, "get_bridge_status", {})

        assert opened["serverInfo"]["name"] == "farthing-bridge"
        assert {"register", "call_service", "search_catalog", "get_receipt"} <= names
        assert (status["status"], ready["status"]) == ("unregistered", "active")
        assert ready["principal_id"] == registered["principal_id"]
        key = Path(ready["key_file"])
        assert key.is_relative_to(tmp_path / "home")
        assert key.stat().st_mode & 0o077 == 0


async def told(bridge: asyncio.subprocess.Process, message: dict[str, Any]) -> None:
    assert bridge.stdin is not None
    bridge.stdin.write(orjson.dumps(message) + b"\n")
    await bridge.stdin.drain()


async def asked(bridge: asyncio.subprocess.Process, method: str, params: dict[str, Any]) -> Any:
    await told(bridge, {"jsonrpc": "2.0", "id": method, "method": method, "params": params})
    assert bridge.stdout is not None
    async with patiently():
        reply = orjson.loads(await bridge.stdout.readline())
    return reply["result"]


async def called(bridge: asyncio.subprocess.Process, name: str, arguments: dict[str, Any]) -> Any:
    result = await asked(bridge, "tools/call", {"name": name, "arguments": arguments})
    assert not result.get("isError"), result
    return result["structuredContent"]
