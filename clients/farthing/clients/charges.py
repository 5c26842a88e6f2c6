"""What the parties to a charge do once it is there: have it explained, proven, disputed.

Boundary: one charge at a time, whatever it came from. Source: spec/receipts.md, spec/disputes.md.
"""

from functools import partial
from pathlib import Path
from typing import Literal

from farthing.clients.files import write_whole
from farthing.clients.pins import Pinning
from farthing.protocol.errors import Unverified
from farthing.protocol.evidence import gather, verify
from farthing.protocol.keys import PublicKey
from farthing.protocol.messages.charges import (
    EXPLAIN_CHARGE,
    GET_EVIDENCE,
    GET_RECEIPT,
    LIST_CHARGES,
    Charges,
    ExplainCharge,
    Explanation,
    GetEvidence,
    GetReceipt,
    ListCharges,
    Receipt,
)
from farthing.protocol.messages.disputes import (
    GET_DISPUTE_STATUS,
    INITIATE_DISPUTE,
    PREVIEW_DISPUTE,
    Dispute,
    DisputePreview,
    GetDisputeStatus,
    InitiateDispute,
    PreviewDispute,
)
from farthing.protocol.records import Record

__all__ = ["ChargeParty", "Charged", "DisputeReason"]

DisputeReason = Literal["not_delivered", "calculation_error"]


class ChargeParty(Pinning):
    """Whoever is a party to charges: who was charged, and who was paid."""

    async def charges(self, limit: int = 50, cursor: str = "") -> Charges:
        """The charges, newest first; `cursor` is where a page ended."""
        return await self.connection.call(LIST_CHARGES, ListCharges(limit=limit, cursor=cursor))

    async def explain(self, charge_id: str) -> Explanation:
        """How a charge came about, line by line.

        Raises:
            Unverified: It is of another charge.
        """
        ask = ExplainCharge(charge_id=charge_id)
        explanation = await self.connection.call(EXPLAIN_CHARGE, ask)
        if explanation.charge.charge_id != charge_id:
            raise Unverified(f"the explanation is not of {charge_id}")
        return explanation

    async def receipt(self, charge_id: str) -> Receipt:
        """The receipt of a charge, verified with the journal's key.

        Raises:
            Unverified: It does not verify, or is not of this charge.
        """
        receipt, _ = await self.proven_receipt(charge_id)
        return receipt

    async def proven_receipt(self, charge_id: str) -> tuple[Receipt, Record]:
        """The receipt of a charge, and the record that it proves; raises as `receipt`."""
        receipt = await self.connection.call(GET_RECEIPT, GetReceipt(charge_id=charge_id))
        return receipt, await self.proven_charge(receipt, charge_id)

    async def proven_charge(self, receipt: Receipt, charge_id: str) -> Record:
        """The record that a receipt proves with the journal's key; raises as `receipt`."""
        record = await self.proven(receipt)
        if not any(each.noun == "charge" and each.id == charge_id for each in record.changed):
            raise Unverified(f"receipt {receipt.seq} is not of {charge_id}")
        return record

    async def evidence(self, charge_id: str) -> bytes:
        """The evidence pack of a charge, verified with the journal's key.

        Raises:
            Unverified: It makes no pack, does not verify, or is not of this charge.
        """
        found = await self.connection.call(GET_EVIDENCE, GetEvidence(charge_id=charge_id))
        try:
            pack = gather(found)
        except ValueError as error:
            raise Unverified(f"the evidence makes no pack: {error}") from None
        keys = await self.platform_keys()
        check = partial(_check_pack, pack, charge_id)
        await keys.by_journal(found.receipts[0].tree_head, check)
        return pack

    async def save_evidence(self, charge_id: str, path: Path) -> None:
        """Write the evidence pack of a charge, for `farthing verify`; raises as `evidence`."""
        write_whole(path, await self.evidence(charge_id))

    async def dispute_status(self, dispute_id: str) -> Dispute:
        """Where a dispute stands."""
        return await self.connection.call(
            GET_DISPUTE_STATUS, GetDisputeStatus(dispute_id=dispute_id)
        )


class Charged(ChargeParty):
    """Whoever was charged."""

    async def preview_dispute(self, charge_id: str, reason: DisputeReason) -> DisputePreview:
        """What a dispute would come to, without filing it."""
        return await self.connection.call(
            PREVIEW_DISPUTE, PreviewDispute(charge_id=charge_id, reason=reason)
        )

    async def dispute(self, charge_id: str, reason: DisputeReason, *, key: str = "") -> Dispute:
        """File a dispute of a charge."""
        return await self.connection.call(
            INITIATE_DISPUTE,
            InitiateDispute(
                charge_id=charge_id,
                reason=reason,
                idempotency_key=key or self.connection.new_key(),
            ),
        )


def _check_pack(pack: bytes, charge_id: str, key: PublicKey) -> None:
    findings = verify(pack, frozenset({key.thumbprint}))
    if not findings.verified:
        raise Unverified(f"the evidence: {findings.bad}")
    if findings.charge_id != charge_id:
        raise Unverified(f"the evidence is of {findings.charge_id}, not of {charge_id}")
