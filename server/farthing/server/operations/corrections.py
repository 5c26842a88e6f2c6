"""Billed usage that its vendor takes back."""

from dataclasses import replace

from farthing.identity.callers import Caller
from farthing.protocol.canonical import Json, canonical_bytes, sha256_hex
from farthing.protocol.corrections import (
    CallBack,
    billed_by,
    calls_document,
    read_correction,
)
from farthing.protocol.documents import DocumentError
from farthing.protocol.errors import Code, refuse
from farthing.protocol.messages.corrections import CORRECT_USAGE, CorrectUsage
from farthing.protocol.signatures import InvalidSignature, Typ, verify_detached
from farthing.protocol.wire import document_of
from farthing.server.market import Market
from farthing.server.operations.replies import Reply, money_reply, own_key, record_at, unverified
from farthing.settlement.engine.corrections import Corrected, correction_answer
from farthing.settlement.engine.questions import Lookup
from farthing.settlement.engine.things import Charge

__all__ = ["correct_usage"]


async def correct_usage(market: Market, caller: Caller, ask: CorrectUsage) -> Reply:
    """Take back what billed calls used too much, with the price that it comes to."""
    body, billed = await _read(market, caller, ask)
    facts: dict[str, Json] | None = None
    if body.correction is not None and body.fault is None:
        facts = {
            "billed": calls_document(billed),
            "correction": body.correction.document(),
            "correction_signature": ask.signature,
        }
    outcome = await market.submit(caller, CORRECT_USAGE, ask, body=body, facts=facts)
    return money_reply(outcome, correction_answer)


async def _read(
    market: Market, caller: Caller, ask: CorrectUsage
) -> tuple[Corrected, list[CallBack]]:
    """The correction as it is found, and the billed calls of its charge.

    What is wrong with it is the engine's to refuse, and remember.
    """
    arguments = document_of(ask)
    document = {name: arguments[name] for name in ("charge_id", "corrections")}
    found = await _signed(market, caller, ask, canonical_bytes(document))
    try:
        found = replace(found, correction=read_correction(document))
    except DocumentError as error:
        text = f"The correction cannot be read: {error}."
        fault = found.fault or refuse(Code.USAGE_INVALID, path=error.path, message=text)
        return replace(found, fault=fault), []
    if found.fault is not None:
        return found, []
    charge = await market.ask(Lookup(noun="charge", id=ask.charge_id))
    if not isinstance(charge, Charge) or charge.vendor_id != caller.principal_id:
        return found, []
    if not charge.session_id:
        return found, []
    billed = billed_by(await record_at(market, charge.seq))
    wanted = {int(each.call) for each in ask.corrections}
    used = {each.seq: each.usage for each in billed if each.seq in wanted}
    return replace(found, billed=used), billed


async def _signed(market: Market, caller: Caller, ask: CorrectUsage, data: bytes) -> Corrected:
    """By which key of the caller's the correction is signed, or why it is by none."""
    found = Corrected(charge_id=ask.charge_id, sha256=sha256_hex(data))
    try:
        kid, key = await own_key(market, caller, ask.signature)
        verify_detached(ask.signature, Typ.CORRECTION, data, {kid: key}.get)
    except InvalidSignature as error:
        return replace(found, fault=unverified("signature", error))
    return replace(found, key_thumbprint=kid)
