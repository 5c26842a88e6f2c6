"""The treasurer: what came in, what left, credit, grace, and the books.

Boundary: its calls to the platform, which judges who has the role.
"""

from typing import Literal

from farthing.clients.operators import Member
from farthing.clients.statements import AccountHolder
from farthing.clients.trial_balance import whole_trial_balance
from farthing.protocol.messages.accounts import (
    FUND_ACCOUNT,
    WITHDRAW_FUNDS,
    FundAccount,
    Funding,
    TrialBalance,
    Withdrawal,
    WithdrawFunds,
)
from farthing.protocol.messages.payments import (
    CONFIRM_PAYOUT,
    CONFIRM_TOP_UP,
    FAIL_PAYOUT,
    FAIL_TOP_UP,
    LIST_PAYOUTS,
    LIST_TOP_UPS,
    REVERSE_PAYOUT,
    REVERSE_TOP_UP,
    SEND_PAYOUT,
    ConfirmPayout,
    ConfirmTopUp,
    FailPayout,
    FailTopUp,
    ListPayouts,
    ListTopUps,
    Payouts,
    PayoutStatus,
    PayoutView,
    ReversePayout,
    ReverseTopUp,
    SendPayout,
    TopUps,
    TopUpStatus,
    TopUpView,
)
from farthing.protocol.messages.treasury import (
    CLOSE_ACCOUNT,
    GRANT_CREDIT,
    LIST_CREDIT_LOTS,
    SET_GRACE,
    WITHDRAW_CREDIT,
    AccountState,
    CloseAccount,
    CreditLot,
    CreditLots,
    GraceView,
    GrantCredit,
    ListCreditLots,
    SetGrace,
    WithdrawCredit,
)
from farthing.protocol.wire import Money, Role

__all__ = ["Treasurer"]


class Treasurer(Member, AccountHolder):
    """The platform's treasurer: the only one who says what came in and what left."""

    role = Role.TREASURER

    async def fund(
        self, organisation_id: str, amount: Money, reference: str, *, key: str = ""
    ) -> Funding:
        """Credit a prepaid account from external clearing."""
        return await self.connection.call(
            FUND_ACCOUNT,
            FundAccount(
                organisation_id=organisation_id,
                amount=amount,
                reference=reference,
                idempotency_key=key or self.connection.new_key(),
            ),
        )

    async def withdraw_funds(
        self,
        organisation_id: str,
        amount: Money,
        reference: str,
        *,
        may_owe: bool = False,
        key: str = "",
    ) -> Withdrawal:
        """Take money out of a prepaid account again; a top-up's goes back by `reverse_top_up`.

        Args:
            organisation_id: The operator.
            amount: How much goes.
            reference: What it is booked under outside.
            may_owe: Whether the operator owes what it has not: True for what has gone whatever is
                there.
            key: The idempotency key; a new one where it is left out.

        Raises:
            Refused: `insufficient_funds`: the operator has less, and is not to owe it.
        """
        return await self.connection.call(
            WITHDRAW_FUNDS,
            WithdrawFunds(
                organisation_id=organisation_id,
                amount=amount,
                may_owe=may_owe,
                reference=reference,
                idempotency_key=key or self.connection.new_key(),
            ),
        )

    async def confirm_top_up(
        self, top_up_id: str, reference: str = "", *, key: str = ""
    ) -> TopUpView:
        """Say that the money of a top-up has come."""
        return await self.connection.call(
            CONFIRM_TOP_UP,
            ConfirmTopUp(
                top_up_id=top_up_id,
                reference=reference,
                idempotency_key=key or self.connection.new_key(),
            ),
        )

    async def fail_top_up(self, top_up_id: str, reference: str = "", *, key: str = "") -> TopUpView:
        """Say that the money of a top-up will not come."""
        return await self.connection.call(
            FAIL_TOP_UP,
            FailTopUp(
                top_up_id=top_up_id,
                reference=reference,
                idempotency_key=key or self.connection.new_key(),
            ),
        )

    async def reverse_top_up(
        self,
        top_up_id: str,
        total: Money,
        reference: str = "",
        *,
        may_owe: bool = False,
        key: str = "",
    ) -> TopUpView:
        """Say that money of a top-up has gone back, or is about to.

        Args:
            top_up_id: The top-up.
            total: How much of it in all, with what was said before.
            reference: What that is booked under outside.
            may_owe: Whether its operator owes what it has not any more: True for what has gone
                whatever is there, as by a chargeback.
            key: The idempotency key; a new one where it is left out.

        Raises:
            Refused: `insufficient_funds`: the operator has less, and is not to owe it.
        """
        return await self.connection.call(
            REVERSE_TOP_UP,
            ReverseTopUp(
                top_up_id=top_up_id,
                total=total,
                may_owe=may_owe,
                reference=reference,
                idempotency_key=key or self.connection.new_key(),
            ),
        )

    async def top_ups(
        self,
        organisation_id: str = "",
        limit: int = 50,
        cursor: str = "",
        *,
        status: TopUpStatus | None = None,
    ) -> TopUps:
        """Top-ups of an organisation, or of all; newest first, from where a page ended.

        Args:
            organisation_id: Whose; all of them if left out.
            limit: The most of a page.
            cursor: Where a page ended.
            status: Those alone that stand so.
        """
        ask = ListTopUps(
            organisation_id=organisation_id or None, status=status, limit=limit, cursor=cursor
        )
        return await self.connection.call(LIST_TOP_UPS, ask)

    async def send_payout(self, payout_id: str, *, key: str = "") -> PayoutView:
        """Let a payout go: the processor is told to pay it.

        Raises:
            Refused: `processor_failed`: call again with the same key.
        """
        return await self.connection.call(
            SEND_PAYOUT,
            SendPayout(payout_id=payout_id, idempotency_key=key or self.connection.new_key()),
        )

    async def confirm_payout(
        self, payout_id: str, reference: str = "", *, key: str = ""
    ) -> PayoutView:
        """Say that the money of a payout has left."""
        return await self.connection.call(
            CONFIRM_PAYOUT,
            ConfirmPayout(
                payout_id=payout_id,
                reference=reference,
                idempotency_key=key or self.connection.new_key(),
            ),
        )

    async def fail_payout(
        self, payout_id: str, reference: str = "", *, key: str = ""
    ) -> PayoutView:
        """Say that the money of a payout has not left."""
        return await self.connection.call(
            FAIL_PAYOUT,
            FailPayout(
                payout_id=payout_id,
                reference=reference,
                idempotency_key=key or self.connection.new_key(),
            ),
        )

    async def reverse_payout(
        self, payout_id: str, total: Money, reference: str = "", *, key: str = ""
    ) -> PayoutView:
        """Say that money of a payout has come back: `total` is how much of it in all."""
        return await self.connection.call(
            REVERSE_PAYOUT,
            ReversePayout(
                payout_id=payout_id,
                total=total,
                reference=reference,
                idempotency_key=key or self.connection.new_key(),
            ),
        )

    async def payouts(
        self,
        organisation_id: str = "",
        limit: int = 50,
        cursor: str = "",
        *,
        status: PayoutStatus | None = None,
    ) -> Payouts:
        """Payouts of an organisation, or of all; newest first, from where a page ended.

        Args:
            organisation_id: Whose; all of them if left out.
            limit: The most of a page.
            cursor: Where a page ended.
            status: Those alone that stand so.
        """
        ask = ListPayouts(
            organisation_id=organisation_id or None, status=status, limit=limit, cursor=cursor
        )
        return await self.connection.call(LIST_PAYOUTS, ask)

    async def grant_credit(
        self,
        organisation_id: str,
        amount: Money,
        *,
        kind: Literal["bought", "promotional"],
        priority: int = 100,
        expires_at: str = "",
        reference: str = "",
        key: str = "",
    ) -> CreditLot:
        """Give an operator a credit lot."""
        return await self.connection.call(
            GRANT_CREDIT,
            GrantCredit(
                organisation_id=organisation_id,
                amount=amount,
                kind=kind,
                priority=priority,
                expires_at=expires_at,
                reference=reference,
                idempotency_key=key or self.connection.new_key(),
            ),
        )

    async def withdraw_credit(
        self, lot_id: str, amount: Money, reference: str = "", *, key: str = ""
    ) -> CreditLot:
        """Take back what is free of a credit lot, or a part of it.

        Raises:
            Refused: `insufficient_funds`: less of it is free.
        """
        return await self.connection.call(
            WITHDRAW_CREDIT,
            WithdrawCredit(
                lot_id=lot_id,
                amount=amount,
                reference=reference,
                idempotency_key=key or self.connection.new_key(),
            ),
        )

    async def credit_lots(
        self, organisation_id: str = "", limit: int = 50, cursor: str = ""
    ) -> CreditLots:
        """Credit lots of an organisation, or of all; newest first, from where a page ended."""
        ask = ListCreditLots(organisation_id=organisation_id or None, limit=limit, cursor=cursor)
        return await self.connection.call(LIST_CREDIT_LOTS, ask)

    async def set_grace(self, organisation_id: str, amount: Money, *, key: str = "") -> GraceView:
        """Let an operator's prepaid account be so far below zero."""
        return await self.connection.call(
            SET_GRACE,
            SetGrace(
                organisation_id=organisation_id,
                amount=amount,
                idempotency_key=key or self.connection.new_key(),
            ),
        )

    async def close_account(
        self,
        organisation_id: str,
        account: Literal["prepaid", "vendor_payable", "partner_payable"],
        asset: str,
        *,
        key: str = "",
    ) -> AccountState:
        """Close an empty account: nothing new begins on it."""
        return await self.connection.call(
            CLOSE_ACCOUNT,
            CloseAccount(
                organisation_id=organisation_id,
                account=account,
                asset=asset,
                idempotency_key=key or self.connection.new_key(),
            ),
        )

    async def trial_balance(self, at_seq: int = 0) -> TrialBalance:
        """Every account's gross counters, now or after an earlier record, all pages of it.

        Raises:
            Unverified: The accounts do not add up to the totals.
        """
        return await whole_trial_balance(self.connection, at_seq)
