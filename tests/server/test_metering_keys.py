"""A metering key at every door: what it may is done, all the rest is refused before it is read."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from farthing.clients.operators import Member, public_jwk
from farthing.clients.transport import Connection
from farthing.clients.vendors import Vendor
from farthing.protocol.canonical import canonical_bytes
from farthing.protocol.errors import Code, Refused
from farthing.protocol.keys import PrivateKey
from farthing.protocol.messages.agents import ADD_KEY, AddKey
from farthing.protocol.messages.operations import OPERATIONS
from farthing.protocol.messages.sessions import (
    GET_SESSION,
    REPORT_USAGE,
    GetSession,
    ReportUsage,
)
from farthing.protocol.messages.trails import GET_OUTCOME, GetOutcome
from farthing.protocol.purposes import may_call
from farthing.protocol.signatures import Typ, sign_detached
from farthing.server.operations import HANDLERS
from tests.papers import signing_key
from tests.server.listening import listening
from tests.server.test_sessions import opened
from tests.serving import Serving, Shop, serving
from tests.subscribing import asked

MACHINE = signing_key("machine")
DOORS: tuple[Literal["mcp", "http"], ...] = ("mcp", "http")
ABSENT = "org_00000000000000000000000000"


@asynccontextmanager
async def machines(tmp_path: Path) -> AsyncIterator[tuple[Serving, Shop, Connection]]:
    """A market, its shop, and a machine of the shop's vendor."""
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server)
        await shop.vendor.add_metering_key(MACHINE)
        yield server, shop, server.connect(MACHINE, shop.vendor.vendor_id)


async def test_who_lost_the_reply_to_an_added_key_is_told_what_became_of_it(
    tmp_path: Path,
) -> None:
    async with machines(tmp_path) as (_, shop, _):
        ask = GetOutcome(operation="add_key", key=f"metering-{MACHINE.thumbprint}")
        told = await shop.vendor.connection.call(GET_OUTCOME, ask)

    assert told.outcome == "done"
    assert (told.answer or {})["key_thumbprint"] == MACHINE.thumbprint


async def code_of(connection: Connection, operation: str) -> Code | None:
    raw = OPERATIONS[operation].raw
    try:
        await connection.send_raw(operation, {raw.name: ""} if raw else {}, repeatable=False)
    except Refused as refused:
        return refused.code
    return None


@pytest.mark.parametrize("door", DOORS)
async def test_each_operation_is_open_to_a_metering_key_or_refused_for_it(
    tmp_path: Path, door: Literal["mcp", "http"]
) -> None:
    async with machines(tmp_path) as (server, shop, _):
        through = replace(server, transport=door)
        machine = through.connect(MACHINE, shop.vendor.vendor_id)
        codes = {name: await code_of(machine, name) for name in OPERATIONS}

    refused = {name for name, code in codes.items() if code is Code.NOT_PERMITTED}
    assert refused == {name for name in OPERATIONS if not may_call("metering", name)}
    assert codes["get_registration"] is None
    assert codes["report_usage"] is Code.INVALID_ARGUMENT
    assert set(HANDLERS) == set(codes)


async def test_a_metering_key_is_shown_the_tools_that_it_can_call(tmp_path: Path) -> None:
    async with machines(tmp_path) as (_, shop, machine):
        listed = await asked(machine, "tools/list", {})
        whole = await asked(shop.vendor.connection, "tools/list", {})

    names = {tool["name"] for tool in listed["tools"]}
    assert names == {name for name in OPERATIONS if may_call("metering", name)}
    assert names < {tool["name"] for tool in whole["tools"]}


async def test_a_metering_key_reads_no_balance_by_any_way(tmp_path: Path) -> None:
    async with listening(tmp_path) as server:
        shop = await Shop.opened(server)
        await shop.vendor.add_metering_key(MACHINE)
        machine = server.connect(MACHINE, shop.vendor.vendor_id)
        uri = f"farthing://accounts/{shop.vendor.vendor_id}/vendor_pending/USD/balance"
        listed = await asked(machine, "resources/list", {})
        read = await asked(machine, "resources/read", {"uri": uri})
        heard = await asked(machine, "subscriptions/listen", {"notifications": {}})
        events = await server.http.request("GET", f"{machine.url}/v1/events", auth=machine.auth)

    assert listed["resources"] == []
    assert read["data"]["code"] == heard["data"]["code"] == "not_permitted"
    assert (events.status_code, events.json()["code"]) == (403, "not_permitted")


async def test_a_metering_key_is_refused_from_the_call_after_its_end(tmp_path: Path) -> None:
    async with machines(tmp_path) as (server, shop, machine):
        main = shop.vendor.connection
        before = await code_of(machine, "get_registration")
        await server.admin.revoke_key(shop.vendor.vendor_id, MACHINE.thumbprint)
        after = await code_of(machine, "get_registration")

        assert (before, after) == (None, Code.KEY_REVOKED)
        assert await code_of(main, "get_registration") is None


async def test_a_batch_is_signed_by_a_key_of_its_vendors_that_is_in_force_or_bills_nothing(
    tmp_path: Path,
) -> None:
    names = ("in force", "never registered", "revoked", "rotated away", "another vendor's")
    keys = {name: signing_key(f"machine {name}") for name in names}
    async with machines(tmp_path) as (server, shop, machine):
        main = Member(shop.vendor.connection)
        for name in ("in force", "revoked", "rotated away"):
            await shop.vendor.add_metering_key(keys[name])
        await main.revoke_key(shop.vendor.vendor_id, keys["revoked"].thumbprint)
        await main.rotate_key(signing_key("next"), replaces=keys["rotated away"].thumbprint)
        other = Vendor(await server.organisation("vendor", "Vendor Two"))
        await other.add_metering_key(keys["another vendor's"])
        made = await opened(shop)
        told = {}
        for first, name in enumerate((*names, "forged"), 1):
            batch = made.batch(first, 2)
            signature = made.signature(batch, keys.get(name) or signing_key("forger"))
            if name == "forged":
                signature = as_by(MACHINE, signature)
            ask = made.ask(batch, batch_signature=signature)
            told[name] = [await billed(each, ask) for each in (machine, shop.vendor.connection)]
        shown = await machine.call(GET_SESSION, GetSession(session_id=made.session.session_id))

    refused = (Code.SIGNATURE_INVALID, "batch_signature")
    assert told.pop("in force") == [1, 1]
    assert set(map(tuple, told.values())) == {(refused, refused)}
    assert (len(told), shown.calls) == (5, 1)


async def billed(by: Connection, ask: ReportUsage) -> int | tuple[Code, str]:
    """How many calls a report bills, or why none."""
    try:
        return (await by.call(REPORT_USAGE, ask)).billed
    except Refused as refused:
        return refused.code, refused.refusal.path


def as_by(key: PrivateKey, signature: str) -> str:
    """A signature under the name of a key that did not make it."""
    header = sign_detached(key, Typ.USAGE, b"{}").partition(".")[0]
    return f"{header}..{signature.rpartition('.')[2]}"


@pytest.mark.parametrize(
    "lie", ["another key", "another principal", "another purpose", "a rotation"]
)
async def test_a_metering_key_is_shown_to_be_held_by_whoever_registers_it(
    tmp_path: Path, lie: str
) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server)
        shown = {
            "new": MACHINE.thumbprint,
            "principal": ABSENT if lie == "another principal" else shop.vendor.vendor_id,
            "purpose": "everything" if lie == "another purpose" else "metering",
        }
        signer = signing_key("stranger") if lie == "another key" else MACHINE
        typ = Typ.ROTATION if lie == "a rotation" else Typ.NEW_KEY
        ask = AddKey(
            key=public_jwk(MACHINE.public),
            purpose="metering",
            possession=sign_detached(signer, typ, canonical_bytes(dict(shown))),
            idempotency_key="k" * 16,
        )

        with pytest.raises(Refused) as refused:
            await shop.vendor.connection.call(ADD_KEY, ask)

        assert (refused.value.code, refused.value.refusal.path) == (
            Code.SIGNATURE_INVALID,
            "possession",
        )


@pytest.mark.parametrize("purpose", ["", "everything", "Metering"])
async def test_a_key_has_no_purpose_that_nobody_knows(tmp_path: Path, purpose: str) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server)
        ask = {"key": MACHINE.public.jwk(), "purpose": purpose, "possession": "x..x"}

        with pytest.raises(Refused) as refused:
            await shop.vendor.connection.send_raw(
                "add_key", {**ask, "idempotency_key": "k" * 16}, repeatable=False
            )

        assert (refused.value.code, refused.value.refusal.path) == (
            Code.INVALID_ARGUMENT,
            "purpose",
        )


@pytest.mark.parametrize("who", ["operator", "buyer"])
async def test_only_a_vendor_has_metering_keys(tmp_path: Path, who: str) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server)
        connection = shop.operator.connection if who == "operator" else shop.buyer.connection

        assert await code_of(connection, "add_key") is Code.NOT_PERMITTED
        assert await code_of(connection, "list_keys") is None
