"""A charge made by the real engine, its journal sealed by a real key, and the evidence of both."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from farthing.protocol.canonical import Json
from farthing.protocol.checkpoints import Checkpoint, sign_checkpoint
from farthing.protocol.keys import PrivateKey
from farthing.protocol.merkle import Tree, leaf_hash
from farthing.protocol.messages.charges import REFUND_CHARGE, Evidence, Receipt, RefundCharge
from farthing.protocol.messages.disputes import (
    INITIATE_DISPUTE,
    SUBMIT_EVIDENCE,
    InitiateDispute,
    SubmitEvidence,
)
from farthing.protocol.receipts import make_receipt
from farthing.protocol.records import line_of
from farthing.protocol.wire import money
from farthing.settlement.engine.disputes import Examined
from tests.construction import Trade
from tests.keyholding import rotate
from tests.papers import signing_key

__all__ = ["JOURNAL_KEY", "ORIGIN", "QUOTE_KEY", "Sealed", "Told"]

ORIGIN = "farthing.example/journal"
JOURNAL_KEY = signing_key("journal")
QUOTE_KEY = signing_key("platform")


@dataclass(frozen=True)
class Sealed:
    """A journal under one signed head."""

    records: list[bytes]
    key: PrivateKey = JOURNAL_KEY
    origin: str = ORIGIN

    def receipt(self, seq: int) -> Receipt:
        tree = Tree()
        for record in self.records:
            tree.append(leaf_hash(line_of(record)))
        head = Checkpoint(origin=self.origin, size=tree.size, root=tree.root())
        return make_receipt(
            seq=seq,
            record=self.records[seq - 1],
            path=tree.inclusion(seq - 1, tree.size),
            tree_head=sign_checkpoint(self.key, head),
        )

    def evidence(self, charge_id: str, seqs: set[int], *, also: PrivateKey = QUOTE_KEY) -> Evidence:
        return Evidence(
            charge_id=charge_id,
            receipts=tuple(self.receipt(seq) for seq in sorted(seqs)),
            journal_key=dict(self.key.public.jwk()),
            quote_keys=(
                dict(signing_key("an older platform").public.jwk()),
                dict(QUOTE_KEY.public.jwk()),
                dict(also.public.jwk()),
            ),
        )


@dataclass
class Told:
    """A charge with whatever became of it."""

    trade: Trade
    charge_id: str

    @classmethod
    def of(
        cls,
        pages: int = 12,
        *,
        held: int = 0,
        card: dict[str, Json] | None = None,
        rotated: bool = False,
        room: Mapping[str, int] = MappingProxyType({}),
    ) -> "Told":
        """A charge for `pages`, captured of a hold for `held` of them, or for as many."""
        trade = Trade.opened(**room)
        if card is not None:
            listing_id = trade.room.publish(trade.vendor, card=card, name="Another listing")
            trade.agreement_id = trade.room.agree(trade.agent, listing_id)
        hold_id = trade.held(held or pages)
        if rotated:
            _rotate(trade)
        record = trade.room.capture(trade.vendor, hold_id, pages)
        assert record.refusal is None, record.refusal
        return cls(trade, record.changed[1].id)

    def refund(self, units: int) -> None:
        ask = RefundCharge(
            charge_id=self.charge_id,
            amount=money(units, "USD"),
            idempotency_key=self.trade.room.key(),
        )
        self.trade.room.done(self.trade.vendor, REFUND_CHARGE, ask)

    def dispute(self, reason: Any) -> str:
        ask = InitiateDispute(
            charge_id=self.charge_id, reason=reason, idempotency_key=self.trade.room.key()
        )
        record = self.trade.room.done(self.trade.agent, INITIATE_DISPUTE, ask)
        return record.changed[1].id

    def answer(self, dispute_id: str, body_sha256: str, *, schema_valid: bool) -> None:
        ask = SubmitEvidence(
            dispute_id=dispute_id, body="aGVsbG8=", idempotency_key=self.trade.room.key()
        )
        body = Examined(ask=ask, body_sha256=body_sha256, schema_valid=schema_valid)
        self.trade.room.done(self.trade.vendor, SUBMIT_EVIDENCE, ask, body=body)

    def seqs(self) -> set[int]:
        """The records that belong into the pack, found as the server finds them."""
        state = self.trade.room.state
        charge = state.charges[self.charge_id]
        agreement = state.agreements[charge.agreement_id]
        hold = state.holds.get(charge.hold_id)
        promised = hold or state.sessions[charge.session_id]
        parties = (charge.buyer_id, charge.operator_id, charge.vendor_id)
        return {
            state.document_seqs[agreement.listing_sha256],
            agreement.seq,
            promised.seq,
            charge.seq,
            *charge.trail_seqs,
            *(key.seq for key in state.keys.values() if key.principal_id in parties),
        }

    def evidence(self, records: list[bytes] | None = None) -> Evidence:
        return Sealed(records or self.trade.room.journal).evidence(self.charge_id, self.seqs())


def _rotate(trade: Trade) -> None:
    """Give the vendor its next key."""
    assert rotate(trade.room, trade.vendor, "Vendor Two").refusal is None
    key = signing_key("Vendor Two")
    trade.vendor = replace(trade.vendor, key_thumbprint=key.thumbprint)
