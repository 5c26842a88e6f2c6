"""What a remembered refusal leaves in the journal for ever: digests, never names or work."""

from farthing.identity.callers import Assurance, Caller
from farthing.protocol.errors import Code
from farthing.protocol.messages.agents import REGISTER_AGENT, RegisterAgent
from farthing.protocol.messages.disputes import (
    INITIATE_DISPUTE,
    SUBMIT_EVIDENCE,
    InitiateDispute,
    SubmitEvidence,
)
from farthing.protocol.records import Record
from farthing.protocol.wire import Role
from farthing.settlement.engine.disputes import Examined
from farthing.settlement.engine.principals import Named
from tests.construction import Trade
from tests.papers import public_jwk, signing_key


def test_a_refused_registration_leaves_no_name_in_the_journal() -> None:
    trade = Trade.opened()
    key = signing_key("Agent One")
    caller = Caller(
        role=Role.NEWCOMER,
        assurance=Assurance.SIGNED_BODY,
        key_thumbprint=key.public.thumbprint,
    )
    ask = RegisterAgent(
        operator_id=trade.operator.principal_id,
        name="Ada Lovelace",
        key=public_jwk(key),
        idempotency_key=trade.room.key(),
    )

    body = Named(ask=ask, name_sha256="c" * 64)
    record = trade.room.submit(caller, REGISTER_AGENT, ask, body=body)

    assert isinstance(record, Record)
    assert record.code is Code.ALREADY_REGISTERED
    assert record.asked == {"name_sha256": "c" * 64, "operator_id": trade.operator.principal_id}
    assert b"Lovelace" not in trade.room.journal[-1]


def test_refused_evidence_leaves_no_body_in_the_journal() -> None:
    trade = Trade.opened()
    charge_id = trade.captured(3)
    dispute = InitiateDispute(
        charge_id=charge_id, reason="not_delivered", idempotency_key=trade.room.key()
    )
    filed = trade.room.done(trade.agent, INITIATE_DISPUTE, dispute)
    dispute_id = next(each.id for each in filed.changed if each.noun == "dispute")
    answer(trade, dispute_id)

    record = answer(trade, dispute_id)

    assert record.code is Code.DISPUTE_DECIDED
    assert record.asked == {"body_sha256": "b" * 64, "dispute_id": dispute_id}
    assert b"cGFnZXM" not in trade.room.journal[-1]


def answer(trade: Trade, dispute_id: str) -> Record:
    ask = SubmitEvidence(dispute_id=dispute_id, body="cGFnZXM", idempotency_key=trade.room.key())
    body = Examined(ask=ask, body_sha256="b" * 64, schema_valid=True)
    record = trade.room.submit(trade.vendor, SUBMIT_EVIDENCE, ask, body=body)
    assert isinstance(record, Record)
    return record
