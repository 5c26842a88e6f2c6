"""Every role holds what the platform proves against the keys it has pinned, by the same piece."""

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest

from farthing.clients.buyers import Buyer
from farthing.clients.charges import ChargeParty
from farthing.clients.counter import Unpaid
from farthing.clients.home import Home, Profile
from farthing.clients.keys import keep_key
from farthing.clients.operators import Admin, Operator
from farthing.clients.pins import Pinning
from farthing.clients.services import ServiceFailed
from farthing.clients.statements import AccountHolder
from farthing.clients.transport import Reply
from farthing.clients.treasurers import Treasurer
from farthing.clients.vendors import Vendor
from farthing.identity.keyring import Purpose, retire
from farthing.protocol.canonical import Json, canonical_bytes
from farthing.protocol.errors import Code, Unverified
from farthing.protocol.messages.agreements import Quote
from farthing.protocol.messages.charges import Explanation
from farthing.protocol.messages.holds import Hold
from farthing.protocol.platform_keys import PlatformKeys
from farthing.protocol.signatures import Typ, sign_detached
from farthing.protocol.wire import Money, Operation
from tests.clients import settling
from tests.clients.forging import answering, proven_by
from tests.clients.trading import trading, usd
from tests.papers import signing_key
from tests.serving import Serving, Shop, serving

STRANGER = signing_key("stranger").public
HOLDERS = (Buyer, Vendor, Operator, Treasurer)
PARTIES = (Buyer, Vendor, Operator)
# Who asks, and for what that carries a proof.
ROWS: tuple[tuple[type[Pinning], str], ...] = (
    *((holder, "record") for holder in HOLDERS),
    *((party, "receipt") for party in PARTIES),
    *((party, "evidence") for party in PARTIES),
)
Answers = Callable[[Any], Any]
CALL = {"pdf": "one"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sold:
    """A market in which something was sold, and what can be asked about it."""

    holders: Mapping[type[Pinning], Pinning]
    seqs: Mapping[type[Pinning], int]
    charge_id: str

    @classmethod
    async def once(cls, server: Serving) -> "Sold":
        shop = await Shop.opened(server)
        agreement = await shop.buyer.accept(await shop.buyer.quote(shop.listing_id, {"page": 4}))
        hold = await shop.buyer.hold(agreement.agreement_id, {"page": 4}, {"call": "one"})
        charge_id = await shop.captured(agreement, hold.answer.hold_id, {"page": 3}, "b" * 64)
        everybody = (shop.buyer, shop.vendor, shop.operator, server.treasurer)
        lines = {type(each): (await each.statement(limit=200)).lines for each in everybody}
        return cls(
            holders={type(each): each for each in everybody},
            seqs={role: found[-1].seq for role, found in lines.items()},
            charge_id=charge_id,
        )

    async def told(
        self, pins: PlatformKeys, *, server: Serving | None = None
    ) -> dict[tuple[type[Pinning], str], str]:
        """By row `proven`, or why it was not believed, each by somebody with these pins."""
        told = {}
        for role, what in ROWS:
            mine = self.holders[role].connection
            if server is not None:
                mine = server.connect(mine.signer, mine.principal)
            try:
                await self.asked(role(mine, platform_keys=pins), what)
                told[role, what] = "proven"
            except Unverified as error:
                told[role, what] = str(error)
        return told

    def asked(self, holder: Pinning, what: str) -> Awaitable[object]:
        if what == "record":
            assert isinstance(holder, AccountHolder)
            return holder.record(self.seqs[type(holder)])
        assert isinstance(holder, ChargeParty)
        return getattr(holder, what)(self.charge_id)  # type: ignore[no-any-return] # of two


def all_proven() -> dict[tuple[type[Pinning], str], str]:
    return dict.fromkeys(ROWS, "proven")


async def test_what_the_pinned_keys_signed_is_believed(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        sold = await Sold.once(server)
        journal = server.service.keyring.public(Purpose.JOURNAL)

        assert await sold.told(PlatformKeys.of(journal=[journal])) == all_proven()


async def test_a_head_that_another_key_signed_is_not_believed(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        sold = await Sold.once(server)
        told = await sold.told(PlatformKeys.of(journal=[STRANGER]))

    assert set(told) == set(ROWS)
    assert "proven" not in told.values()


async def test_a_head_that_a_platform_key_signed_is_believed_by_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as server:
        sold = await Sold.once(server)
        keyring, pins = server.service.keyring, await server.connect().platform_keys()
        thief = keyring[Purpose.PLATFORM]
        forge = proven_by(thief, keyring.public(Purpose.JOURNAL))
        for holder in sold.holders.values():
            call = answering(holder.connection.call, forge)
            monkeypatch.setattr(holder.connection, "call", call)
        told = await sold.told(pins)
        # All else about the forgeries is right.
        misled = await sold.told(PlatformKeys.of(journal=[thief.public]))

    assert thief.thumbprint in pins.platform
    assert set(told) == set(ROWS)
    assert "proven" not in told.values()
    assert misled == all_proven()


async def test_a_quote_that_a_key_of_the_journal_signed_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server)
        thief = server.service.keyring[Purpose.JOURNAL]
        pins = await server.connect().platform_keys()
        connection = shop.buyer.connection

        def forge(answer: Any) -> Any:
            if not isinstance(answer, Quote):
                return answer
            signature = sign_detached(
                thief, Typ.QUOTE, canonical_bytes(cast("Json", answer.document))
            )
            return replace(answer, signature=signature)

        good = await Buyer(connection, platform_keys=pins).quote(shop.listing_id, {"page": 1})
        monkeypatch.setattr(connection, "call", answering(connection.call, forge))
        for ask in (
            Buyer(connection, platform_keys=pins).quote(shop.listing_id, {"page": 1}),
            Buyer(connection, platform_keys=pins).accept(forge(good)),
        ):
            with pytest.raises(Unverified, match="the quote: "):
                await ask
        misled = PlatformKeys.of(platform=[thief.public])
        forged = await Buyer(connection, platform_keys=misled).quote(shop.listing_id, {"page": 1})

    assert forged.total == good.total


async def test_an_entitlement_that_a_key_of_the_journal_signed_pays_for_nothing(
    tmp_path: Path,
) -> None:
    async with settling.shop(tmp_path) as market:
        thief = replace(market.payer(), platform_key=settling.JOURNAL_KEY)

        outcome = await market.sell(thief.signed(thief.voucher(CALL)), CALL)

        assert isinstance(outcome, Unpaid)
        assert outcome.refusal.code is Code.PROOF_INVALID
        assert outcome.refusal.path.endswith(".entitlement")
        assert market.desk.runs == 0


async def test_a_forged_record_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as server:
        sold = await Sold.once(server)
        for holder in sold.holders.values():
            monkeypatch.setattr(holder.connection, "call", forging(holder.connection.call))
        told = await sold.told(await server.connect().platform_keys())

    assert set(told) == set(ROWS)
    assert "proven" not in told.values()


def forging(call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Calls whose answers carry records that were changed in one figure."""

    def forged(receipt: Any) -> Any:
        changed = receipt.record.replace('"units":"', '"units":"9')
        assert changed != receipt.record
        return replace(receipt, record=changed)

    async def forge(operation: Operation[Any, Any], ask: object) -> Any:
        answer = await call(operation, ask)
        if hasattr(answer, "receipts"):
            *kept, last = answer.receipts
            return replace(answer, receipts=(*kept, forged(last)))
        if hasattr(answer, "receipt"):
            return replace(answer, receipt=forged(answer.receipt))
        return forged(answer)

    return forge


async def test_who_pinned_a_key_that_is_retired_follows_its_successor(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        sold = await Sold.once(server)
        old = server.service.keyring.public(Purpose.JOURNAL)
    new = retire(tmp_path / "keys", Purpose.JOURNAL, os.urandom)
    # The new key signs a head over what is there at the start, before anything else is written.
    async with serving(tmp_path) as server:
        followed = await sold.told(PlatformKeys.of(journal=[old]), server=server)
        pinned = await sold.told(PlatformKeys.of(journal=[new]), server=server)
        strange = await sold.told(PlatformKeys.of(journal=[STRANGER]), server=server)

    assert followed == pinned == all_proven()
    assert "proven" not in strange.values()


async def test_without_pins_the_keys_that_are_published_first_are_believed(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        sold = await Sold.once(server)
        for role, what in ROWS:
            holder = role(sold.holders[role].connection)
            await sold.asked(holder, what)
            believed, published = (
                await holder.platform_keys(),
                await server.connect().platform_keys(),
            )
            assert (believed.platform, believed.journal) == (published.platform, published.journal)


async def test_a_document_under_another_s_hash_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server)
        quote = await shop.buyer.quote(shop.listing_id, {"page": 1})
        card, terms = (str(quote.document[f"{name}_sha256"]) for name in ("rate_card", "terms"))
        call = shop.vendor.connection.call

        async def swapped(operation: Operation[Any, Any], ask: Any) -> Any:
            return await call(operation, replace(ask, sha256=terms))

        assert (await shop.vendor.document(card))["card_id"] == "pages"
        monkeypatch.setattr(shop.vendor.connection, "call", swapped)
        with pytest.raises(Unverified, match="is another"):
            await shop.vendor.document(card)


@pytest.mark.parametrize("role", [*HOLDERS, Admin])
async def test_a_home_gives_its_own_role_the_keys_that_are_pinned_there(
    tmp_path: Path, role: type[Pinning]
) -> None:
    home = home_of(role, tmp_path)

    async with role.from_env({"FARTHING_HOME": str(tmp_path)}) as opened:
        assert (await opened.platform_keys()).journal == {STRANGER.thumbprint: STRANGER}
        assert (await opened.platform_keys()).platform == {}
        assert opened.connection.principal == "org_1"
        assert opened.connection.signer is not None
        assert opened.connection.signer.thumbprint == home.key().thumbprint
    for other in (*HOLDERS, Admin):
        if other is role:
            continue
        with pytest.raises(Unverified, match="FARTHING_HOME names one"):
            async with other.from_home(home):
                pass


async def test_a_vendor_acts_by_its_metering_key_only_where_no_other_lies(tmp_path: Path) -> None:
    home = home_of(Vendor, tmp_path)
    metering = keep_key(home.metering_key_path).thumbprint

    async with Vendor.from_home(home) as serving_machine:
        assert serving_machine.signer.thumbprint == metering
    assert not home.key_path.exists()
    main = home.key().thumbprint
    async with Vendor.from_home(home) as vendor:
        assert vendor.signer.thumbprint == main


def home_of(role: type[Pinning], path: Path) -> Home:
    """A directory of a role, in which the stranger's key is pinned."""
    assert role.role is not None
    home = Home(path)
    home.save_profile(
        Profile(
            url="http://127.0.0.1:1",
            platform_keys=PlatformKeys.of(journal=[STRANGER]).jwks(),
            principal_id="org_1",
            organisation_id="org_1",
            role=role.role.value,
        )
    )
    return home


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"amount": usd("0.007")}, "above the max_total"),
        ({"amount": Money(amount="1", asset="EUR")}, "not the hold"),
        ({"agreement_id": "agr_00000000000000000000000000"}, "not the hold"),
    ],
)
async def test_no_vendor_is_called_with_a_hold_that_was_not_to_be_placed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    other: dict[str, Any],
    says: str,
) -> None:
    hold = Buyer.hold

    async def dearer(*args: Any, **named: Any) -> Reply[Hold]:
        placed = await hold(*args, **named)
        return replace(placed, answer=replace(placed.answer, **other))

    monkeypatch.setattr(Buyer, "hold", dearer)
    async with trading(tmp_path) as market:
        with pytest.raises((ServiceFailed, Unverified), match=says):
            await market.buyer.call_service(
                market.listing_id, {"pdf": "one|two"}, {"page": 3}, max_total=usd("0.006")
            )

    assert market.desk.runs == 0


@pytest.mark.parametrize("other", [{"amount": usd("0.002")}, {"result_sha256": "f" * 64}])
async def test_a_charge_that_is_shown_otherwise_than_its_record_proves_is_not_believed(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    def change(answer: Any) -> Any:
        if isinstance(answer, Explanation):
            return replace(answer, charge=replace(answer.charge, **other))
        return answer

    async with trading(tmp_path) as market:
        connection = market.buyer.connection
        vars(connection)["call"] = answering(connection.call, change)
        with pytest.raises(Unverified, match=r"is not shown as record \d+ proves it"):
            await market.buyer.call_service(market.listing_id, {"pdf": "one|two"}, {"page": 3})
