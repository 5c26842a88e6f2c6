"""What either side of a session asks when two countings meet: what was rejected, what differs.

Boundary: asks and their answers; a buyer's own list is made of its book, and what a receipt proves
is read from its record. Source: spec/metering.md.
"""

from collections.abc import Iterable

from farthing.clients.callbooks import Called
from farthing.clients.transport import Connection
from farthing.protocol.calls import ReportedCall, call_of
from farthing.protocol.errors import Unverified
from farthing.protocol.messages.metering import (
    GET_CALL_RECEIPT,
    LIST_REJECTED_USAGE,
    RECONCILE_USAGE,
    AcknowledgedCall,
    CallReceipt,
    GetCallReceipt,
    ListRejectedUsage,
    ReconcileUsage,
    RejectedUsages,
    UsageReconciliation,
)
from farthing.protocol.receipts import verify_receipt

__all__ = ["Reconciling", "acknowledged_of"]


class Reconciling:
    """What a party to sessions can ask about usage that was reported."""

    connection: Connection

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
        tolerance_ppm: int = 0,
    ) -> UsageReconciliation:
        """Compare what was reported of a session with what its buyer acknowledged.

        Args:
            session_id: The session.
            acknowledged: The buyer's list, from its own book (`acknowledged_of`) or as it gave it.
            voucher: A voucher that proves the list, where none that was reported does.
            tolerance_ppm: How far apart two sums may be.
        """
        ask = ReconcileUsage(
            session_id=session_id,
            acknowledged=tuple(acknowledged),
            voucher=voucher,
            tolerance_ppm=tolerance_ppm,
        )
        return await self.connection.call(RECONCILE_USAGE, ask)

    async def call_receipt(self, session_id: str, call: int) -> tuple[CallReceipt, ReportedCall]:
        """The receipt of one call, verified with the platform's key, and what it proves.

        Raises:
            Unverified: It does not verify, or the record does not say what the answer says.
        """
        ask = GetCallReceipt(session_id=session_id, call=call)
        answer = await self.connection.call(GET_CALL_RECEIPT, ask)
        faults: list[str] = []
        for key in (await self.connection.platform_keys()).values():
            try:
                record = verify_receipt(answer.receipt, key).record
            except Unverified as error:
                faults.append(str(error))
                continue
            proven = call_of(record, session_id, call)
            told = (answer.place, answer.cost.amount.units, answer.cost.rejected)
            if told != (proven.place, proven.amount_units, proven.fault):
                raise Unverified(f"the answer on call {call} is not what its record says")
            return answer, proven
        raise Unverified(faults[0] if faults else "the platform publishes no key")


def acknowledged_of(calls: Iterable[Called]) -> tuple[AcknowledgedCall, ...]:
    """The list that a book's calls make: those that were acknowledged, in that order."""
    return tuple(
        AcknowledgedCall(call=each.seq, units=str(each.units), result_sha256=each.result_sha256)
        for each in sorted(calls, key=lambda each: each.place)
        if each.place
    )
