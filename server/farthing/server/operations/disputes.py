"""Disputes: preview, filing, the vendor's evidence, status."""

import base64
from dataclasses import replace
from functools import partial
from typing import cast

from sqlalchemy import select

from farthing.identity.callers import Caller
from farthing.protocol.canonical import InvalidJson, Json, parse_json, sha256_hex
from farthing.protocol.disputes.case import Reason
from farthing.protocol.errors import Code, Refused, refuse
from farthing.protocol.messages.disputes import (
    INITIATE_DISPUTE,
    SUBMIT_EVIDENCE,
    DisputePreview,
    Disputes,
    GetDisputeStatus,
    InitiateDispute,
    ListDisputes,
    PreviewDispute,
    SubmitEvidence,
)
from farthing.protocol.messages.listings import Document
from farthing.protocol.schemas import violation
from farthing.protocol.times import DAY_US
from farthing.protocol.wire import money
from farthing.server.market import Market
from farthing.server.operations.listings import document_at
from farthing.server.operations.pages import page_of
from farthing.server.operations.replies import Reply, checked, known, own, record_at, reply
from farthing.settlement.engine.commands import Kept
from farthing.settlement.engine.disputes import Examined, dispute_answer, dispute_view
from farthing.settlement.engine.questions import PreviewOf
from farthing.settlement.engine.things import Agreement, Charge, Dispute
from farthing.settlement.tables import KEPT_BODY

__all__ = [
    "get_dispute_status",
    "initiate_dispute",
    "list_disputes",
    "preview_dispute",
    "submit_evidence",
]

# How long a body that a vendor answered with can be fetched by the buyer (spec/disputes.md).
_REDELIVERY_US = DAY_US


async def preview_dispute(market: Market, caller: Caller, ask: PreviewDispute) -> Reply:
    """What the rule says now; nothing is filed."""
    charge = await own(market, caller, Charge, "charge_id", ask.charge_id)
    ruling = checked(
        await market.ask(
            PreviewOf(
                principal_id=caller.principal_id,
                charge_id=charge.charge_id,
                reason=Reason(ask.reason),
            )
        )
    )
    return Reply(
        answer=DisputePreview(
            charge_id=charge.charge_id,
            reason=ask.reason,
            outcome=ruling.outcome.value,
            credit=money(ruling.credit_units, charge.asset),
            rule_id=ruling.rule_id,
            trace=tuple(cast("Document", step.document()) for step in ruling.trace),
        )
    )


async def initiate_dispute(market: Market, caller: Caller, ask: InitiateDispute) -> Reply:
    """File a dispute; the rule decides at once where it can."""
    return reply(await market.submit(caller, INITIATE_DISPUTE, ask), dispute_answer)


async def submit_evidence(market: Market, caller: Caller, ask: SubmitEvidence) -> Reply:
    """Examine the body a vendor answers with: digest and schema, nothing else.

    A body that fits is kept outside the journal for the buyer to fetch, so that a vendor cannot
    win by showing the platform what it withholds from the buyer.
    """
    body = _decoded(ask.body)
    dispute = await own(market, caller, Dispute, "dispute_id", ask.dispute_id)
    schema = await _output_schema(market, dispute)
    body_sha256 = sha256_hex(body)
    fits = await market.vendors.beside(partial(_fits, body, schema))
    examined = Examined(ask=ask, body_sha256=body_sha256, schema_valid=fits)
    row: dict[str, str | int | bytes] = {
        "id": dispute.dispute_id,
        "expires_at_us": market.now_us() + _REDELIVERY_US,
        "body": body,
    }
    kept = (Kept(table="kept_body", row=row),) if examined.schema_valid else ()
    outcome = await market.submit(caller, SUBMIT_EVIDENCE, ask, body=examined, kept=kept)
    return reply(outcome, dispute_answer)


async def list_disputes(market: Market, caller: Caller, ask: ListDisputes) -> Reply:
    """The disputes that the caller is a party to, newest first."""
    if ask.charge_id is not None:
        await own(market, caller, Charge, "charge_id", ask.charge_id)
    page = await page_of(market, caller, Dispute, ask, under=ask.charge_id)
    disputes = [
        dispute_view(each, await record_at(market, each.ruled_seq or each.seq))
        for each in page.things
    ]
    return Reply(
        answer=Disputes(disputes=tuple(disputes), as_of_seq=page.as_of_seq, cursor=page.cursor)
    )


async def get_dispute_status(market: Market, caller: Caller, ask: GetDisputeStatus) -> Reply:
    """Where a dispute stands, with the body itself where the vendor answered with it."""
    dispute = await own(market, caller, Dispute, "dispute_id", ask.dispute_id)
    record = await record_at(market, dispute.ruled_seq or dispute.seq)
    answer = dispute_view(dispute, record)
    if dispute.outcome == "reject" and caller.principal_id != dispute.vendor_id:
        body = await _kept_body(market, dispute.dispute_id)
        answer = replace(answer, redelivery=base64.b64encode(body).decode())
    return Reply(answer=answer)


async def _output_schema(market: Market, dispute: Dispute) -> Json:
    charge = await known(market, Charge, dispute.charge_id)
    agreement = await known(market, Agreement, charge.agreement_id)
    return (await document_at(market, agreement.listing_sha256))["output_schema"]


async def _kept_body(market: Market, dispute_id: str) -> bytes:
    async with market.reads() as conn:
        row = await conn.execute(
            select(KEPT_BODY.c.body).where(
                KEPT_BODY.c.id == dispute_id, KEPT_BODY.c.expires_at_us > market.now_us()
            )
        )
        return cast("bytes", row.scalar() or b"")


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise Refused(refuse(Code.INVALID_ARGUMENT, path="body")) from error


def _fits(body: bytes, schema: Json) -> bool:
    """Whether a body is a structured result that fits the schema it was sold under."""
    try:
        # A result is the vendor's JSON, not a signed document: it may hold null and fractions.
        document = parse_json(body, allow_float=True, allow_null=True)
    except InvalidJson:
        return False
    assert isinstance(schema, dict)
    return violation(schema, document) is None
