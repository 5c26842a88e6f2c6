"""A bridge killed in the middle of a purchase: asked again under its key, it is bought once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from farthing.protocol.wire import document_of
from tests.clients.test_bridge import WORKLOAD, left_today
from tests.clients.test_processes import (
    SHOP,
    World,
    asked,
    called,
    heard,
    running,
    told,
    world,
)
from tests.clients.trading import usd
from tests.patience import until
from tests.processes import free_port

# Of one cent each, once one of them was answered for less.
ROOM_FOR_TWO = document_of(usd("0.021"))


@asynccontextmanager
async def bridge(market: World) -> AsyncIterator[asyncio.subprocess.Process]:
    """A bridge of the one home, spoken to as any client does; killed at the end of the block."""
    connect = ("-m", "farthing.clients.cli", "connect", market.url)
    client = {"name": "any", "version": "1"}
    start = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
    async with running(*connect, env={"FARTHING_HOME": str(market.folder / "home")}) as process:
        await asked(process, "initialize", start)
        await told(process, {"jsonrpc": "2.0", "method": "notifications/initialized"})
        yield process


async def registered(market: World) -> None:
    operator_id = market.operator.connection.principal
    async with bridge(market) as process:
        ask = {"operator_id": operator_id, "name": "Reader 2"}
        agent_id = (await called(process, "register", ask))["principal_id"]
    await market.operator.approve(agent_id)
    await market.operator.set_authority(agent_id, per_call_max=usd("0.5"), per_day_max=usd("1"))


def has(path: Path, word: str) -> Callable[[], bool]:
    return lambda: path.exists() and word in path.read_text()


async def test_a_bridge_killed_in_a_purchase_buys_once_when_it_is_asked_again(
    tmp_path: Path,
) -> None:
    port = free_port()
    async with world(tmp_path) as market:
        vendor = await market.vendor(port)
        listing_id = str(vendor.offer("pdf-text").listing["listing_id"])
        await registered(market)
        shop, runs = (str(SHOP), str(port), str(tmp_path)), tmp_path / "runs"
        (ceiling,) = (tmp_path / "home").rglob("ceiling.json")
        bought: list[Any] = []
        async with running(*shop, env={"FARTHING_HOME": str(vendor.path)}) as selling:
            await heard(selling, b"serving")
            # When it is counted and nothing is agreed on; and when the vendor is at work.
            for number, reached in enumerate((has(ceiling, "number-0"), has(runs, "run\nrun"))):
                buy = {
                    "listing_id": listing_id,
                    "arguments": {"pdf": "one|two"},
                    "workload": WORKLOAD,
                    "idempotency_key": f"the-purchase-number-{number}",
                }
                call = {"name": "call_service", "arguments": buy}
                async with bridge(market) as process:
                    ask = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
                    await told(process, ask)
                    await until(reached)
                async with bridge(market) as process:
                    bought.append(await called(process, "call_service", buy))
                    left = left_today(await called(process, "get_bridge_status", {}))
        (account,) = (await market.operator.balance()).accounts

    assert [each["untrusted_result"] for each in bought] == [{"pages": ["one", "two"]}] * 2
    assert runs.read_text().count("run") == 2
    # All that was charged, by the platform and by the ceiling.
    assert (account.available, left) == (usd("0.992"), "9.992")


async def test_a_bridge_killed_in_a_call_of_a_session_tells_which_calls_to_ask_for_again(
    tmp_path: Path,
) -> None:
    port = free_port()
    async with world(tmp_path) as market:
        vendor = await market.vendor(port)
        await registered(market)
        shop, runs = (str(SHOP), str(port), str(tmp_path)), tmp_path / "runs"
        env = {"FARTHING_HOME": str(vendor.path)}
        terms = {
            "listing_id": str(vendor.offer("pdf-text").listing["listing_id"]),
            "workload": WORKLOAD,
        }
        (tmp_path / "kill_at").write_text("working")
        async with running(*shop, env=env) as selling, bridge(market) as process:
            await heard(selling, b"serving")
            agreed = (await called(process, "accept_terms", terms))["agreement"]
            amounts = {"cap": ROOM_FOR_TWO, "per_call": document_of(usd("0.01"))}
            ask = {"agreement_id": agreed["agreement_id"], **amounts}
            session_id = (await called(process, "open_session", ask))["session_id"]
            call = {"session_id": session_id, "arguments": {"pdf": "one|two"}}
            params = {"name": "call_in_session", "arguments": call}
            request = {"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": params}
            await told(process, request)
            await until(has(runs, "run"))
        async with running(*shop, env=env) as selling, bridge(market) as process:
            await heard(selling, b"serving")
            other = await called(process, "call_in_session", call | {"arguments": {"pdf": "one"}})
            full = await asked(process, "tools/call", params)
            again = await called(process, "call_in_session", call | {"again": 1})
            more = await called(process, "call_in_session", call)

    assert (other["seq"], other["lost"]) == (2, [1])
    refusal = full["structuredContent"]
    assert (refusal["code"], refusal["path"]) == ("local_limit_exceeded", "cap")
    assert refusal["message"].endswith("are calls 1.")
    assert (again["seq"], again["lost"]) == (1, [])
    assert again["untrusted_result"] == {"pages": ["one", "two"]}
    assert (more["seq"], more["spent"]) == (3, document_of(usd("0.01")))
