"""A market whose treasurer is at work: the asks of the treasury, in one line each."""

from typing import Any, Literal

from farthing.identity.callers import Caller
from farthing.protocol.canonical import Json
from farthing.protocol.messages import payments, treasury
from farthing.protocol.messages.charges import REFUND_CHARGE, RefundCharge
from farthing.protocol.records import Record
from farthing.protocol.wire import Role, money
from farthing.settlement.engine.commands import platform_command
from farthing.settlement.engine.payments import Processed
from tests.construction import Room, Trade
from tests.papers import card_document

__all__ = ["DOLLAR", "Treasury", "card_of", "posted"]

DOLLAR = 10**9


def card_of(amount: str, asset: str = "USD", per: str = "1") -> dict[str, Json]:
    """A card that asks so much for each page."""
    return card_document(({"amount": amount, "per_quantity": per},), asset=asset)


class Treasury:
    """The treasurer's, the admin's and the organisations' asks of one market."""

    def __init__(self, trade: Trade) -> None:
        self.trade = trade
        self.room: Room = trade.room

    @property
    def treasurer(self) -> Caller:
        """The treasurer."""
        return self.room.staff(Role.TREASURER)

    def ask(self, by: Caller, operation: str, **arguments: Any) -> Any:
        """Ask for anything of the treasury; gives whatever the engine decides."""
        declared = {**vars(payments), **vars(treasury)}[operation.upper()]
        ask = declared.ask(**arguments, idempotency_key=self.room.key())
        return self.room.submit(by, declared, ask)

    def grant_credit(
        self,
        units: int,
        kind: Literal["bought", "promotional"] = "bought",
        *,
        asset: str = "USD",
        **other: Any,
    ) -> str:
        """Give the operator a lot; gives its id."""
        record = self.ask(
            self.treasurer,
            "grant_credit",
            organisation_id=self.trade.operator.principal_id,
            amount=money(units, asset),
            kind=kind,
            **other,
        )
        assert record.refused is None, record.refused
        return str(record.changed[0].id)

    def grace(self, units: int, by: Caller | None = None) -> Any:
        """Set the operator's grace."""
        return self.ask(
            by or self.treasurer,
            "set_grace",
            organisation_id=self.trade.operator.principal_id,
            amount=money(units, "USD"),
        )

    def partner(self, partner: Caller, ppm: int, subject: str = "") -> Any:
        """Name the partner of the vendor, or of a listing."""
        return self.ask(
            self.room.staff(Role.ADMIN),
            "set_partner",
            subject_id=subject or self.trade.vendor.principal_id,
            partner_id=partner.principal_id,
            ppm=ppm,
        )

    def earned_as_partner(self) -> None:
        """Have the operator spend ten pages, and earn half of that as its vendor's partner."""
        self.partner(self.trade.operator, 500_000)
        self.trade.agreement_id = self.room.agree(self.trade.agent, self.trade.listing_id)
        self.trade.captured(10)
        self.room.advance(86_400)

    def top_up(self, units: int) -> str:
        """Announce money; gives the top-up's id."""
        record = self.ask(self.trade.operator, "create_top_up", amount=money(units, "USD"))
        assert record.refused is None, record.refused
        return str(record.changed[0].id)

    def payout(self, units: int, by: Caller | None = None, **other: Any) -> Any:
        """Ask for earned money."""
        return self.ask(
            by or self.trade.vendor, "request_payout", amount=money(units, "USD"), **other
        )

    def close(self, owner: Caller, account: str, asset: str = "USD") -> Any:
        """Close an account."""
        return self.ask(
            self.treasurer,
            "close_account",
            organisation_id=owner.principal_id,
            account=account,
            asset=asset,
        )

    def event(
        self,
        payment_id: str,
        outcome: Literal["paid", "failed", "reversed"],
        event: str,
        units: str = "",
    ) -> Record:
        """What the processor says, of the amount that was asked for or of another."""
        state = self.room.state
        known = state.top_ups.get(payment_id) or state.payouts.get(payment_id)
        body = Processed(
            payment_id=payment_id,
            event_id=event,
            reference=f"ref_{event}",
            outcome=outcome,
            asset="USD",
            units=units or str(known.amount_units if known else 1),
        )
        record = self.room.run(platform_command("process_event", body))
        assert isinstance(record, Record)
        return record

    def refund(self, charge_id: str, units: int) -> Record:
        """Give a charge back, in part."""
        ask = RefundCharge(
            charge_id=charge_id, amount=money(units, "USD"), idempotency_key=self.room.key()
        )
        record = self.room.submit(self.trade.vendor, REFUND_CHARGE, ask)
        assert isinstance(record, Record), record
        return record

    def balances(self, asset: str = "USD") -> dict[str, int]:
        """What stands on each account that is not empty, by the owner's part and kind."""
        names = {
            self.trade.operator.principal_id: "operator",
            self.trade.vendor.principal_id: "vendor",
        }
        return {
            f"{names.get(owner, owner[:8])}:{kind}": account.posted_units
            for name, account in self.room.state.accounts.items()
            for owner, kind, of in [name.split(":")]
            if of == asset and account.posted_units
        }


def posted(treasury: Treasury, units: int) -> str:
    """A top-up that has come."""
    top_up_id = treasury.top_up(units)
    treasury.event(top_up_id, "paid", f"evt_{top_up_id}")
    return top_up_id
