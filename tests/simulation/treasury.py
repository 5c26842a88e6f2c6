"""What a simulated treasurer does, and who has money coming and going: commands drawn by chance.

Boundary: makes commands as the doors, and a processor's webhook, would. Whether they may be done is
for others to say.
"""

from dataclasses import dataclass
from typing import Any, Final, Literal

from farthing.protocol.ids import derive_id
from farthing.protocol.messages import accounts as money_in
from farthing.protocol.messages import payments, treasury
from farthing.protocol.times import DAY_US, SECOND_US, format_time
from farthing.protocol.wire import Operation, money
from farthing.settlement.engine.commands import Command, platform_command
from farthing.settlement.engine.payments import Processed
from tests.simulation.auditor import Json
from tests.simulation.parties import Crowd, Party

__all__ = ["Treasury"]

_EARNED: Final = ("vendor_payable", "partner_payable")


@dataclass(slots=True)
class Treasury(Crowd):
    """A crowd with money."""

    def fund_any(self) -> Command:
        units = self.chance.choice((1, 999, 10**6, 10**9, 2**62))
        return self.fund(self.chance.choice(self.operators), self._asset(), units)

    def fund(self, operator: Party, asset: str, units: int) -> Command:
        ask = money_in.FundAccount(
            organisation_id=operator.principal_id,
            amount=money(units, asset),
            reference="simulated",
            idempotency_key=self._id(),
        )
        return self._ask(self.treasurer.caller(), money_in.FUND_ACCOUNT, ask)

    def paid_in(self, operator: Party, asset: str, units: int) -> list[Command]:
        """Money that comes at once: some of it by a top-up, which may go back."""
        if self.chance.random() < 0.3:
            return [self.fund(operator, asset, units)]
        ask = payments.CreateTopUp(amount=money(units, asset), idempotency_key=self._id())
        named = ("top", operator.principal_id, "create_top_up", ask.idempotency_key)
        came = payments.ConfirmTopUp(top_up_id=derive_id(*named), idempotency_key=self._id())
        return [
            self._ask(operator.caller(), payments.CREATE_TOP_UP, ask),
            self._ask(self.treasurer.caller(), payments.CONFIRM_TOP_UP, came),
        ]

    def credit(self) -> Command:
        """A credit lot, spent before money."""
        expires_in_us = self.chance.choice((0, 5 * SECOND_US, 700 * SECOND_US, DAY_US))
        kind: Any = self.chance.choice(("bought", "promotional"))
        ask = treasury.GrantCredit(
            organisation_id=self.chance.choice(self.operators).principal_id,
            amount=money(self.chance.choice((1, 10**6, 10**8)), self._asset()),
            kind=kind,
            priority=self.chance.choice((1, 100)),
            expires_at=format_time(self.now_us + expires_in_us) if expires_in_us else "",
            idempotency_key=self._id(),
        )
        return self._ask(self.treasurer.caller(), treasury.GRANT_CREDIT, ask)

    def grace(self) -> Command:
        """How far an operator may be below zero, by the treasurer or by itself."""
        operator = self.chance.choice(self.operators)
        ask = treasury.SetGrace(
            organisation_id=operator.principal_id,
            amount=money(self.chance.choice((0, 10**6, 10**9)), self._asset()),
            idempotency_key=self._id(),
        )
        by = self.chance.choice((operator, self.treasurer, self.treasurer))
        return self._ask(by.caller(), treasury.SET_GRACE, ask)

    def partner(self) -> Command:
        """Who shares in what is agreed from now on."""
        ask = treasury.SetPartner(
            subject_id=self.chance.choice(self.vendors).principal_id,
            partner_id=self.chance.choice((*self.operators, *self.vendors)).principal_id,
            ppm=self.chance.choice((0, 1, 50_000, 333_333, 1_000_000)),
            idempotency_key=self._id(),
        )
        return self._ask(self.admin.caller(), treasury.SET_PARTNER, ask)

    def top_up(self) -> Command:
        """Money that an operator says is coming."""
        ask = payments.CreateTopUp(
            amount=money(self.chance.choice((0, 1, 10**6, 10**9)), self._asset()),
            idempotency_key=self._id(),
        )
        operator = self.chance.choice(self.operators)
        return self._ask(operator.caller(), payments.CREATE_TOP_UP, ask)

    def payout(self) -> Command | None:
        """Money that a vendor or partner wants, of what it has or a little more."""
        full = [name for name in self._accounts(*_EARNED) if self.books.available(name)]
        if self.chance.random() < 0.9:
            if not full:
                return None
            name = self.chance.choice(full)
            owner, kind, asset = name.split(":")
            party = self._of((*self.vendors, *self.operators), owner)
            available = self.books.available(name)
        else:
            party, kind = self.chance.choice(self.vendors), self.chance.choice(_EARNED)
            asset, available = self._asset(), 1
        units = self.chance.choice((available, available, available // 2, 1, available + 1))
        account: Any = kind
        ask = payments.RequestPayout(
            amount=money(min(units, 2**62), asset), account=account, idempotency_key=self._id()
        )
        return self._ask(party.caller(), payments.REQUEST_PAYOUT, ask)

    def word(self) -> Command | None:
        """What the treasurer says became of a top-up or payout."""
        noun = "payout" if self.books.waiting["payout"] else "top_up"
        if self.chance.random() < 0.3:
            noun = self.chance.choice(("top_up", "payout"))
        payment = self._any(noun, waiting=0.8)
        if payment is None:
            return None
        asks: tuple[tuple[Operation[Any, Any], Any], ...] = (
            (payments.CONFIRM_TOP_UP, payments.ConfirmTopUp),
            (payments.FAIL_TOP_UP, payments.FailTopUp),
        )
        if noun == "payout":
            asks = (
                (payments.SEND_PAYOUT, payments.SendPayout),
                (payments.SEND_PAYOUT, payments.SendPayout),
                (payments.CONFIRM_PAYOUT, payments.ConfirmPayout),
                (payments.FAIL_PAYOUT, payments.FailPayout),
                (payments.CANCEL_PAYOUT, payments.CancelPayout),
            )
        operation, ask = self.chance.choice(asks)
        by = self.treasurer
        if operation is payments.CANCEL_PAYOUT and self.chance.random() < 0.9:
            by = self._of((*self.vendors, *self.operators), payment["organisation_id"])
        elif operation is payments.CANCEL_PAYOUT:
            by = self.chance.choice((*self.vendors, *self.operators))
        named = {f"{noun}_id": payment[f"{noun}_id"], "idempotency_key": self._id()}
        return self._ask(by.caller(), operation, ask(**named))

    def event(self) -> Command | None:
        """What a processor says: twice, late, of another amount, or of what it does not know."""
        noun = self.chance.choice(("top_up", "payout"))
        payment = self._any(noun, waiting=0.6)
        if payment is None:
            return None
        outcome: Literal["paid", "failed"] = "paid" if self.chance.random() < 0.7 else "failed"
        units = int(payment["amount_units"]) + (self.chance.random() < 0.05)
        body = Processed(
            payment_id=payment[f"{noun}_id"],
            event_id=f"evt_{self._id()}",
            reference=f"ref_{self._id()}",
            outcome=outcome,
            asset=payment["asset"],
            units=str(units),
        )
        return platform_command("process_event", body)

    def back(self) -> Command | None:
        """Money that goes back, or comes back: said by the treasurer or by the processor."""
        moved = [
            (noun, each)
            for noun in ("payout", "top_up")
            for each in self.books.things[noun].values()
            if each["status"] in {"paid", "posted"} or self.chance.random() < 0.1
        ]
        if not moved:
            return None
        # Payouts get as far as that more seldom than top-ups, and few are spent.
        rare = [each for each in moved if each[0] == "payout" or self._is_spent(each[1])]
        noun, payment = self.chance.choice(rare or moved)
        whole, before = int(payment["amount_units"]), int(payment.get("reversed_units", 0))
        total = self.chance.choice((whole, (whole + before) // 2, before + 1, before, whole + 1))
        if self.chance.random() < 0.4:
            body = Processed(
                payment_id=payment[f"{noun}_id"],
                event_id=f"evt_{self._id()}",
                reference=f"ref_{self._id()}",
                outcome="reversed",
                asset=payment["asset"],
                units=str(total),
            )
            return platform_command("process_event", body)
        named = {
            f"{noun}_id": payment[f"{noun}_id"],
            "total": money(total, payment["asset"]),
            "idempotency_key": self._id(),
        }
        by = self.treasurer.caller()
        if noun == "payout":
            return self._ask(by, payments.REVERSE_PAYOUT, payments.ReversePayout(**named))
        may_owe = self.chance.random() < 0.5
        ask = payments.ReverseTopUp(**named, may_owe=may_owe)
        return self._ask(by, payments.REVERSE_TOP_UP, ask)

    def take_out(self) -> Command | None:
        """Money or credit that is taken out again, or a little more than is there."""
        by, lots = self.treasurer.caller(), list(self.books.things["lot"].values())
        if lots and self.chance.random() < 0.5:
            lot = self.chance.choice([each for each in lots if int(each["free_units"])] or lots)
            free = int(lot["free_units"])
            credit = treasury.WithdrawCredit(
                lot_id=lot["lot_id"],
                amount=money(self._about(free), lot["asset"]),
                idempotency_key=self._id(),
            )
            return self._ask(by, treasury.WITHDRAW_CREDIT, credit)
        names = self._accounts("prepaid")
        if not names:
            return None
        name = self.chance.choice(names)
        owner, _, asset = name.split(":")
        ask = money_in.WithdrawFunds(
            organisation_id=owner,
            amount=money(min(self._about(self.books.available(name)), 2**62), asset),
            may_owe=self.chance.random() < 0.3,
            reference="simulated",
            idempotency_key=self._id(),
        )
        return self._ask(by, money_in.WITHDRAW_FUNDS, ask)

    def _about(self, units: int) -> int:
        units = max(units, 1)
        return self.chance.choice((units, units // 2 or 1, 1, units + 1))

    def _is_spent(self, top_up: Json) -> bool:
        account = f"{top_up['organisation_id']}:prepaid:{top_up['asset']}"
        left = int(top_up["amount_units"]) - int(top_up.get("reversed_units", 0))
        return left > self.books.available(account)

    def close(self) -> Command | None:
        """An account closed, where it is empty."""
        names = self._accounts("prepaid", *_EARNED)
        if not names:
            return None
        # One that can be closed, where there is one.
        empty = [name for name in names if not any(self.books.accounts[name][0::2])]
        empty = [name for name in empty if not self.books.posted(name)]
        owner, kind, asset = self.chance.choice(empty or names).split(":")
        account: Any = kind
        ask = treasury.CloseAccount(
            organisation_id=owner, account=account, asset=asset, idempotency_key=self._id()
        )
        return self._ask(self.treasurer.caller(), treasury.CLOSE_ACCOUNT, ask)

    def _accounts(self, *kinds: str) -> list[str]:
        return [name for name in self.books.accounts if name.split(":")[1] in kinds]
