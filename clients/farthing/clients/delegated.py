"""Having the platform make a paid call: for a buyer who would rather not call vendors itself.

Boundary: one ask, asked again while the vendor is at work, and its answer held against the proof.
The content goes through the platform; who minds uses `Buyer.call_service`.
Source: spec/services.md.
"""

from collections.abc import Mapping
from typing import Final

from farthing.clients.charges import Charged
from farthing.clients.documents import result_sha256
from farthing.clients.purchases import check_charge
from farthing.clients.services import NotDelivered
from farthing.clients.transport import Reply
from farthing.protocol.errors import Code, Refused
from farthing.protocol.messages.services import CALL_SERVICE, CallService, ServiceResult
from farthing.protocol.times import SECOND_US
from farthing.protocol.wire import usage_of

__all__ = ["Delegating"]

_WAIT_S: Final = 600


class Delegating(Charged):
    """Whoever lets the platform call."""

    async def have_called(
        self,
        agreement_id: str,
        arguments: Mapping[str, object],
        workload: Mapping[str, int],
        *,
        deliver_within_s: int = 0,
        wait_s: int = _WAIT_S,
        key: str = "",
    ) -> Reply[ServiceResult]:
        """Have the platform make one call of an agreement's tool, and wait for its end.

        Args:
            agreement_id: Under which agreement.
            arguments: The tool's arguments; no fractions and no null, since they are digested.
            workload: The most that may be used, by meter.
            deliver_within_s: How long the vendor has; by default, as long as the terms give it.
            wait_s: How long to ask again while the call is on its way.
            key: Names the call. Under the same key nothing is done or charged twice.

        Raises:
            Refused: `vendor_failed` where nothing is charged, `result_expired` where only the
                digest is left; `unavailable` after `wait_s`.
            NotDelivered: The result is not the one that was charged for.
            Unverified: The charge is not shown as its receipt proves it.
        """
        connection = self.connection
        ask = CallService(
            agreement_id=agreement_id,
            workload=usage_of(workload),
            arguments=dict(arguments),
            deliver_within_s=deliver_within_s,
            idempotency_key=key or connection.new_key(),
        )
        until_us = connection.clock() + wait_s * SECOND_US
        while True:
            try:
                reply = await connection.send(CALL_SERVICE, ask)
            except Refused as refused:
                left_s = (until_us - connection.clock()) / SECOND_US
                if refused.code is not Code.UNAVAILABLE or left_s <= 0:
                    raise
                await connection.sleep(min(max(refused.refusal.retry_after_s, 1), left_s))
            else:
                await self._check(reply.answer)
                return reply

    async def _check(self, answer: ServiceResult) -> None:
        charge_id = answer.charge.charge_id
        record = await self.proven_charge(answer.receipt, charge_id)
        check_charge(answer.charge, answer.hold_id, record)
        digests = {
            answer.charge.result_sha256,
            answer.result_sha256,
            result_sha256(answer.untrusted_result),
        }
        if len(digests) > 1:
            raise NotDelivered("the result is not the one that was charged for", charge_id)
