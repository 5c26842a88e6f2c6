"""A vendor's machine sells with a metering key alone, and loses nothing when that key ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from farthing.clients.home import Home, Profile
from farthing.clients.keys import save_key
from farthing.clients.operators import Member
from farthing.clients.paid import Seller
from farthing.clients.services import ServiceFailed
from farthing.clients.sessions import SpendSession
from farthing.clients.vendors import Vendor
from farthing.protocol.canonical import Json
from farthing.protocol.errors import Code, Refused
from farthing.protocol.evidence import verify
from farthing.protocol.keys import PrivateKey
from farthing.protocol.messages.charges import GET_EVIDENCE, GetEvidence
from farthing.protocol.platform_keys import PlatformKeys
from farthing.protocol.records import parse_record
from farthing.server.auditing import audited
from farthing.server.settings import Settings
from tests.clients.trading import Trading, trading, usd
from tests.papers import card_document, signing_key
from tests.patience import patiently

MACHINE, NEXT = signing_key("machine one"), signing_key("machine two")
FLAT = card_document(({"amount": "0.002", "per_quantity": "1"},))
LIMITS: dict[str, Json] = {"limits": {"input_bytes_max": 10_000, "concurrency_max": 64}}
PDF = {"pdf": "one|two"}


@asynccontextmanager
async def selling(tmp_path: Path) -> AsyncIterator[Trading]:
    """A market whose vendor sells with a metering key."""
    async with trading(tmp_path, card=FLAT, listing=LIMITS, open_shop=False) as market:
        await market.vendor.add_metering_key(MACHINE)
        await market.open_shop(signer=MACHINE)
        yield market


async def opened(market: Trading) -> SpendSession:
    quote = await market.buyer.quote(market.listing_id, {"page": 1})
    agreement = await market.buyer.accept(quote)
    return await market.buyer.open_session(
        agreement.agreement_id, cap=usd("0.3"), per_call=usd("0.01")
    )


async def fault_of(market: Trading, charge_id: str, folder: Path) -> str:
    """What is wrong with a charge's evidence; empty when nothing is."""
    pack = folder / f"{charge_id}.pack"
    await market.buyer.save_evidence(charge_id, pack)
    return verify(pack.read_bytes()).bad


async def revoke(market: Trading, key: PrivateKey) -> None:
    main = Member(market.vendor.connection)
    assert (await main.revoke_key(market.vendor.vendor_id, key.thumbprint)).status == "revoked"


async def test_holds_and_sessions_are_served_with_a_metering_key_and_proven(tmp_path: Path) -> None:
    async with selling(tmp_path) as market:
        bought = await market.buyer.call_service(market.listing_id, PDF, {"page": 3})
        session = await opened(market)
        answers = await asyncio.gather(*(session.call(PDF) for _ in range(5)))
        await session.close()
        await session.aclose()
        await market.close_shop()
        view = await market.buyer.session_status(session.session_id)
        await revoke(market, MACHINE)
        charges = (await market.buyer.charges()).charges
        faults = [await fault_of(market, each.charge_id, tmp_path) for each in charges]
    holds, findings = audited(
        Settings(data_dir=tmp_path / "platform"), tmp_path / "platform" / "journal.sqlite", None
    )

    assert bought.charge.amount == usd("0.004")
    assert len(answers) == 5
    assert (view.calls, view.spent) == (5, usd("0.02"))
    assert faults == [""] * len(charges)
    assert holds, findings


async def test_what_waits_under_a_key_that_was_revoked_is_reported_under_the_next(
    tmp_path: Path,
) -> None:
    async with selling(tmp_path) as market:
        session = await opened(market)
        await session.call(PDF)
        await revoke(market, MACHINE)
        await session.call(PDF)
        await session.aclose()
        await market.close_shop()
        before = await market.buyer.session_status(session.session_id)
        await market.vendor.add_metering_key(NEXT)
        await market.open_shop(signer=NEXT)
        async with patiently():
            while (after := await market.buyer.session_status(session.session_id)).calls < 2:
                pass

    assert before.calls == 0
    assert (after.calls, after.spent, after.rejected) == (2, usd("0.008"), 0)


@pytest.mark.parametrize("end", ["revoked", "rotated away", "in force"])
async def test_a_delivery_that_was_not_captured_is_captured_under_the_next_key(
    tmp_path: Path, end: str
) -> None:
    async with selling(tmp_path) as market:
        market.vendors_routes.platform_is_down = True
        with pytest.raises(ServiceFailed):
            await market.buyer.call_service(market.listing_id, PDF, {"page": 3}, key="k" * 16)
        await market.close_shop()
        market.vendors_routes.platform_is_down = False
        if end == "rotated away":
            main = Member(market.vendor.connection)
            await main.rotate_key(NEXT, replaces=MACHINE.thumbprint)
        else:
            await market.vendor.add_metering_key(NEXT)
        if end == "revoked":
            await revoke(market, MACHINE)
        await market.open_shop(signer=NEXT)
        (charge,) = (await market.buyer.charges()).charges
        fault = await fault_of(market, charge.charge_id, tmp_path)

    assert charge.amount == usd("0.004")
    assert market.desk.runs == 1
    assert fault == ""


async def test_of_many_machines_a_charge_is_proven_by_the_one_that_sold_it(tmp_path: Path) -> None:
    async with trading(tmp_path, open_shop=False) as market:
        main = Member(market.vendor.connection)
        for name in ("an earlier", "a later"):
            await market.vendor.add_metering_key(signing_key(f"{name} machine"))
        await market.vendor.add_metering_key(MACHINE)
        await main.rotate_key(NEXT, replaces=MACHINE.thumbprint)
        await market.open_shop(signer=NEXT)
        bought = await market.buyer.call_service(market.listing_id, PDF, {"page": 3})
        ask = GetEvidence(charge_id=bought.charge.charge_id)
        evidence = await market.buyer.connection.call(GET_EVIDENCE, ask)
        fault = await fault_of(market, bought.charge.charge_id, tmp_path)

    told = [parse_record(each.record.encode())[0] for each in evidence.receipts]
    begun = [each.changed[-1].id for each in told if each.operation in {"add_key", "rotate_key"}]
    assert begun == [MACHINE.thumbprint, NEXT.thumbprint]
    assert fault == ""


async def test_a_machine_needs_its_metering_key_alone(tmp_path: Path) -> None:
    async with trading(tmp_path, open_shop=False) as market:
        await market.vendor.add_metering_key(MACHINE)
        home = Home(tmp_path / "machine")
        keys = await market.vendor.connection.platform_keys()
        home.save_profile(
            Profile(
                url=market.vendor.connection.url,
                platform_keys=keys.jwks(),
                principal_id=market.vendor.vendor_id,
                role="vendor",
            )
        )
        save_key(home.metering_key_path, MACHINE)
        seller = Seller.from_home(home)
        await seller.close()

        assert seller.vendor.signer.thumbprint == MACHINE.thumbprint
        assert seller.vendor.vendor_id == market.vendor.vendor_id
        assert seller.vendor.connection.transport == "http"
        assert not home.key_path.exists()


async def test_a_vendors_own_bounds_are_given_beside_its_directory(tmp_path: Path) -> None:
    home = Home(tmp_path / "machine")
    keys = PlatformKeys.of(platform=[signing_key("platform").public])
    url = "http://127.0.0.1:8321"
    home.save_profile(Profile(url=url, platform_keys=keys.jwks(), principal_id="org_machine"))
    save_key(home.metering_key_path, MACHINE)
    environment = {"FARTHING_HOME": str(home.path)}

    seller = Seller.from_env(environment, unsigned_calls_max=0, desks_max=7)
    await seller.close()

    assert (seller.unsigned_calls_max, seller.desks_max) == (0, 7)


async def test_a_metering_key_moves_no_money_back_or_out(tmp_path: Path) -> None:
    async with selling(tmp_path) as market:
        bought = await market.buyer.call_service(market.listing_id, PDF, {"page": 3})
        machine = Vendor(market.connect(MACHINE, market.vendor.vendor_id, market.vendors_routes))
        codes = []
        for call in (
            machine.refund(bought.charge.charge_id, usd("0.001")),
            machine.request_payout(usd("0.001")),
            machine.publish(market.offer),
            machine.add_metering_key(NEXT),
            machine.charges(),
            machine.balance(),
            Member(machine.connection).rotate_key(NEXT),
            Member(machine.connection).keys(),
        ):
            with pytest.raises(Refused) as refused:
                await call
            codes.append(refused.value.code)
        told = await Member(machine.connection).registration()

    assert codes == [Code.NOT_PERMITTED] * 8
    assert (told.principal_id, told.key_thumbprint) == (
        market.vendor.vendor_id,
        MACHINE.thumbprint,
    )


async def test_the_main_key_sees_every_key_and_what_it_is_for(tmp_path: Path) -> None:
    async with trading(tmp_path, open_shop=False) as market:
        main = Member(market.vendor.connection)
        added = await market.vendor.add_metering_key(MACHINE)
        again = await market.vendor.add_metering_key(MACHINE)
        await main.rotate_key(NEXT, replaces=MACHINE.thumbprint)
        keys = (await main.keys()).keys

    assert added == again
    assert (added.status, added.purpose) == ("active", "metering")
    assert [(each.key_thumbprint, each.purpose, each.status) for each in keys] == [
        (NEXT.thumbprint, "metering", "active"),
        (market.vendor.signer.thumbprint, "", "active"),
        (MACHINE.thumbprint, "metering", "retired"),
    ]
    assert [bool(each.until) for each in keys] == [False, False, True]
