"""What either side of a session asks when two countings meet: what was rejected, what differs.

Boundary: asks and their answers; a side's own list is made by `countings`, and what a receipt
proves is read from its record. Source: spec/metering.md.
"""

from collections.abc import Iterable

from farthing.clients.gathering import SignedCount, fitting, gathered, with_count
from farthing.clients.pins import Pinning
from farthing.protocol.calls import ReportedCall, proven_call
from farthing.protocol.errors import Unverified
from farthing.protocol.messages.metering import (
    GET_CALL_RECEIPT,
    LIST_REJECTED_USAGE,
    CallReceipt,
    GetCallReceipt,
    ListRejectedUsage,
    RejectedUsages,
)
from farthing.protocol.messages.reconciliation import (
    RECONCILE_USAGE,
    AcknowledgedCall,
    AcknowledgedSession,
    ReconcileUsage,
    UsageReconciliation,
)

__all__ = ["Reconciling"]


class Reconciling(Pinning):
    """What a party to sessions can ask about usage that was reported."""

    async def rejected_usage(
        self,
        *,
        session_id: str = "",
        agreement_id: str = "",
        reason: str = "",
        cursor: str = "",
        limit: int = 50,
    ) -> RejectedUsages:
        """Usage that was not taken, newest first, and how much by reason."""
        ask = ListRejectedUsage(
            session_id=session_id,
            agreement_id=agreement_id,
            reason=reason,
            cursor=cursor,
            limit=limit,
        )
        return await self.connection.call(LIST_REJECTED_USAGE, ask)

    async def reconcile(
        self,
        session_id: str,
        acknowledged: Iterable[AcknowledgedCall] = (),
        *,
        voucher: str = "",
        gateway: SignedCount | None = None,
    ) -> UsageReconciliation:
        """Compare what was reported of a session with what its buyer acknowledged.

        Args:
            session_id: The session.
            acknowledged: The buyer's list, from its own book (`countings`) or as it gave it.
            voucher: A voucher that proves the list, where none that was reported does.
            gateway: What a gateway counted.

        Raises:
            ValueError: The list is too long for an ask.
        """
        listed = AcknowledgedSession(
            session_id=session_id, calls=tuple(acknowledged), voucher=voucher
        )
        ask = ReconcileUsage(session_id=session_id, acknowledged=(fitting(listed),))
        return await self.connection.call(RECONCILE_USAGE, with_count(ask, gateway))

    async def reconcile_agreement(
        self,
        agreement_id: str,
        acknowledged: Iterable[AcknowledgedSession] | None = None,
        *,
        since: str = "",
        until: str = "",
        gateway: SignedCount | None = None,
    ) -> UsageReconciliation:
        """Compare all sessions of an agreement that were opened in a period.

        Args:
            agreement_id: The agreement.
            acknowledged: The buyer's lists, or the vendor's (`countings`); a buyer's own books
                where they are left out.
            since: The period's begin, included.
            until: Its end, excluded.
            gateway: What a gateway counted.

        Returns:
            The sums over all of it, with the differences that the answers named.
        """
        ask = ReconcileUsage(agreement_id=agreement_id, since=since, until=until)
        lists = await self.own_lists(agreement_id) if acknowledged is None else acknowledged
        return await gathered(self.connection, with_count(ask, gateway), tuple(lists))

    async def own_lists(self, agreement_id: str) -> tuple[AcknowledgedSession, ...]:
        """What this party has counted itself of an agreement's sessions."""
        del agreement_id
        return ()

    async def call_receipt(self, session_id: str, call: int) -> tuple[CallReceipt, ReportedCall]:
        """The receipt of one call, verified with the journal's key, and what it proves.

        Raises:
            Unverified: It does not verify, or the record does not say what the answer says.
        """
        ask = GetCallReceipt(session_id=session_id, call=call)
        answer = await self.connection.call(GET_CALL_RECEIPT, ask)
        proven = proven_call(
            await self.proven(answer.receipt),
            session_id,
            call,
            place=answer.place,
            event=answer.event,
            path=answer.path,
        )
        told = (answer.place, answer.cost.amount.units, answer.cost.rejected)
        if told != (proven.place, proven.amount_units, proven.fault):
            raise Unverified(f"the answer on call {call} is not what its record says")
        return answer, proven
