"""Charges: explained, listed, refunded, proven."""

from typing import cast

from farthing.identity.callers import Caller
from farthing.protocol.calls import ReportedCall, reported_calls
from farthing.protocol.canonical import Json
from farthing.protocol.corrections import CORRECT_USAGE, correction_of
from farthing.protocol.messages.charges import (
    REFUND_CHARGE,
    CallCost,
    Charges,
    Evidence,
    ExplainCharge,
    Explanation,
    GetEvidence,
    GetReceipt,
    ListCharges,
    RefundCharge,
)
from farthing.protocol.messages.corrections import UsageCorrection
from farthing.protocol.messages.holds import Charge as ChargeView
from farthing.protocol.messages.listings import Document
from farthing.protocol.signatures import read_header
from farthing.protocol.times import format_time
from farthing.protocol.wire import Usage, money, usage_of
from farthing.server.market import Market
from farthing.server.operations.pages import page_under_agreement
from farthing.server.operations.replies import (
    Reply,
    known,
    money_reply,
    own,
    receipt_at,
    record_at,
)
from farthing.settlement.engine.charges import refund_answer
from farthing.settlement.engine.corrections import correction_answer
from farthing.settlement.engine.holds import charge_view, lines_view
from farthing.settlement.engine.questions import KeysOf, Lookup
from farthing.settlement.engine.things import Agreement, Charge, Hold, Session

__all__ = [
    "call_cost",
    "explain_charge",
    "get_evidence",
    "get_receipt",
    "list_charges",
    "refund_charge",
]


async def refund_charge(market: Market, caller: Caller, ask: RefundCharge) -> Reply:
    """Give a charge back, whole or in part."""
    return money_reply(await market.submit(caller, REFUND_CHARGE, ask), refund_answer)


async def explain_charge(market: Market, caller: Caller, ask: ExplainCharge) -> Reply:
    """Every line's trace and every posting of a charge; a session's also call by call."""
    charge = await own(market, caller, Charge, "charge_id", ask.charge_id)
    record = await record_at(market, charge.seq)
    decided = cast("dict[str, Json]", record.decided)
    calls = reported_calls(record) if charge.session_id else []
    corrections, taken_back = await _corrections(market, charge)
    return Reply(
        answer=Explanation(
            charge=charge_view(charge, lines_view(record)),
            rate_card_sha256=charge.rate_card_sha256,
            trace=tuple(cast("list[Document]", decided["lines"])),
            postings=tuple(cast("Document", each.document()) for each in record.moved),
            calls=tuple(
                call_cost(each, charge.asset, () if each.fault else taken_back.get(each.seq, ()))
                for each in calls[ask.first : ask.first + ask.limit]
            ),
            calls_in_all=len(calls),
            corrections=corrections,
        )
    )


async def list_charges(market: Market, caller: Caller, ask: ListCharges) -> Reply:
    """The caller's charges, newest first."""
    page = await page_under_agreement(market, caller, Charge, ask)
    charges = tuple([await _view(market, each) for each in page.things])
    return Reply(answer=Charges(charges=charges, as_of_seq=page.as_of_seq, cursor=page.cursor))


async def get_receipt(market: Market, caller: Caller, ask: GetReceipt) -> Reply:
    """The receipt of a charge: its record, proven under the newest signed head."""
    charge = await own(market, caller, Charge, "charge_id", ask.charge_id)
    return Reply(answer=await receipt_at(market, charge.seq, "charge_id", in_brief=True))


async def get_evidence(market: Market, caller: Caller, ask: GetEvidence) -> Reply:
    """Receipts of every record that a charge rests on, and the platform's keys."""
    charge = await own(market, caller, Charge, "charge_id", ask.charge_id)
    agreement = await known(market, Agreement, charge.agreement_id)
    source: Hold | Session
    if charge.session_id:
        source = await known(market, Session, charge.session_id)
    else:
        source = await known(market, Hold, charge.hold_id)
    publication = await market.ask(Lookup(noun="document_seq", id=agreement.listing_sha256))
    assert isinstance(publication, int)
    keys = await _begun_at(market, charge)
    seqs = {publication, agreement.seq, source.seq, charge.seq, *charge.trail_seqs}
    # A key that began after all of it signed none of it.
    seqs |= {seq for seq in keys if seq < max(seqs)}
    return Reply(
        answer=Evidence(
            charge_id=charge.charge_id,
            receipts=tuple([await receipt_at(market, seq, "charge_id") for seq in sorted(seqs)]),
            journal_key=dict(market.journal_jwk),
            quote_keys=tuple(dict(jwk) for jwk in market.quote_keys),
        )
    )


async def _begun_at(market: Market, charge: Charge) -> set[int]:
    """Where the keys began that a charge's records are by: of many machines, the one that sold it.

    A key that replaced another is proven by that one too.
    """
    record = await record_at(market, charge.seq)
    signers = {record.by.key_thumbprint}
    for name in ("delivery_signature", "usage_signature"):
        if signature := (record.facts or {}).get(name):
            signers.add(read_header(cast("str", signature)).kid)
    seqs: set[int] = set()
    for principal_id in (charge.buyer_id, charge.operator_id, charge.vendor_id):
        keys = await market.ask(KeysOf(principal_id=principal_id))
        replaced_at_us: set[int] = set()
        for key in reversed(keys):
            is_sellers = key.thumbprint in signers or key.until_us in replaced_at_us
            if not key.purpose or is_sellers:
                seqs.add(key.seq)
                replaced_at_us.add(key.since_us)
    return seqs


def call_cost(call: ReportedCall, asset: str, taken_back: tuple[Usage, ...] = ()) -> CallCost:
    """A reported call as the parties see it."""
    return CallCost(
        call=call.seq,
        at=format_time(call.at_us),
        outcome=call.outcome.value,
        usage=usage_of(call.usage),
        amount=money(call.amount_units, asset),
        args_sha256=call.args_sha256,
        result_sha256=call.result_sha256,
        rejected=call.fault,
        taken_back=taken_back,
    )


async def _corrections(
    market: Market, charge: Charge
) -> tuple[tuple[UsageCorrection, ...], dict[int, tuple[Usage, ...]]]:
    """The corrections of a charge, and what they took back of each call."""
    corrections: list[UsageCorrection] = []
    taken_back: dict[int, tuple[Usage, ...]] = {}
    # One record at a time: each holds what every call of the batch had used.
    for seq in charge.trail_seqs if charge.corrected else ():
        record = await record_at(market, seq)
        if record.operation == CORRECT_USAGE:
            corrections.append(correction_answer(record))
            taken_back |= {each.seq: usage_of(each.usage) for each in correction_of(record).calls}
    return tuple(corrections), taken_back


async def _view(market: Market, charge: Charge) -> ChargeView:
    return charge_view(charge, lines_view(await record_at(market, charge.seq)))
