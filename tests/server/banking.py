"""A server that takes money by Stripe, and the fake of Stripe behind it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farthing.protocol.ledger import AccountKind, account_name
from farthing.settlement.engine.questions import AllAccounts, FiguresNow
from tests.server.fake_stripe import (
    SECRET,
    FakeStripe,
    fake_stripe,
    signature,
)
from tests.serving import Serving, Shop, serving

__all__ = ["KEY", "Bank", "opened", "settings_of"]

KEY = "sk_test_notreal"


@dataclass(frozen=True, slots=True)
class Bank:
    """A server with Stripe, and the fake behind it."""

    server: Serving
    fake: FakeStripe
    shop: Shop

    async def send(self, body: bytes, signed: str | None = None, **headers: str) -> int:
        """Send an event as Stripe does; gives the status of the answer."""
        signed = signature(body) if signed is None else signed
        typed = {name.encode(): value.encode() for name, value in headers.items()}
        typed[b"content-type"] = b"application/json"
        answer = await self.server.http.post(
            "/webhooks/stripe",
            content=body,
            headers={b"stripe-signature": signed.encode("latin-1"), **typed},
        )
        return answer.status_code

    async def units(self, owner: str, kind: AccountKind) -> int:
        """What can be debited from an account."""
        books = await self.server.service.market.ask(AllAccounts())
        name = account_name(owner, kind, "USD")
        return books.accounts[name].available_units if name in books.accounts else 0

    async def prepaid(self) -> int:
        """What the operator can spend."""
        return await self.units(self.shop.operator.connection.principal, AccountKind.PREPAID)

    async def earned(self) -> int:
        """Have the vendor earn ten pages; gives what it can be paid out."""
        shop = self.shop
        before = await self.units(shop.vendor.vendor_id, AccountKind.VENDOR_PAYABLE)
        quote = await shop.buyer.quote(shop.listing_id, {"page": 10})
        agreement = await shop.buyer.accept(quote)
        hold = await shop.buyer.hold(agreement.agreement_id, {"page": 10}, {"call": "1"})
        await shop.captured(agreement, hold.answer.hold_id, {"page": 10}, "b" * 64)
        self.server.clock.ahead_us += 86_400 * 10**6
        while (
            units := await self.units(shop.vendor.vendor_id, AccountKind.VENDOR_PAYABLE)
        ) == before:
            # The writer settles by itself, as soon as its clock says so.
            await shop.operator.balance()
        return units

    async def records(self) -> int:
        """The journal's length."""
        return (await self.server.service.market.ask(FiguresNow())).seq


@asynccontextmanager
async def opened(folder: Path, **settings: Any) -> AsyncIterator[Bank]:
    """A server with Stripe, in a folder of its own."""
    with fake_stripe() as fake:
        given = {**settings_of(folder, fake.url), **settings}
        async with serving(folder / "data", **given) as server:
            yield Bank(server, fake, await Shop.opened(server))


def settings_of(folder: Path, url: str) -> dict[str, Any]:
    key, secret = folder / "key", folder / "secret"
    key.write_text(f"{KEY}\n")
    secret.write_text(f"{SECRET}\n")
    return {
        "stripe_api_url": url,
        "stripe_key_file": str(key),
        "stripe_webhook_secret_file": str(secret),
    }
