"""One paid call in one ask, made by the platform."""

from functools import partial
from typing import cast

from farthing.identity.callers import Caller
from farthing.protocol.canonical import InvalidJson, Json, LooseJson, canonical_bytes, sha256_hex
from farthing.protocol.errors import Code, Refused, refuse
from farthing.protocol.ids import derive_id
from farthing.protocol.listing import Listing, parse_listing
from farthing.protocol.messages.holds import PlaceHold
from farthing.protocol.messages.listings import Document
from farthing.protocol.messages.services import CALL_SERVICE, CallService, ServiceResult
from farthing.protocol.times import format_time
from farthing.server.adapters.results import Kept
from farthing.server.market import Market
from farthing.server.operations.calling import Errand, make, misfit
from farthing.server.operations.endings import Ending, gone, pay
from farthing.server.operations.holds import entitlement_of
from farthing.server.operations.listings import document_at
from farthing.server.operations.replies import (
    Reply,
    known,
    own,
    receipt_at,
    record_at,
    standing_now,
)
from farthing.server.ports import NotSent
from farthing.settlement.engine.holds import charge_view, lines_view
from farthing.settlement.engine.questions import StandingOf
from farthing.settlement.engine.services import ServiceCall
from farthing.settlement.engine.things import Agreement, Charge, Hold

__all__ = ["call_service"]


async def call_service(market: Market, caller: Caller, ask: CallService) -> Reply:
    """Hold, call the vendor, check what comes, and answer with it, its charge and its receipt."""
    agreement = await own(market, caller, Agreement, "agreement_id", ask.agreement_id)
    listing = parse_listing(await document_at(market, agreement.listing_sha256))
    args_sha256 = await _checked(market, listing, ask)
    hold_id = derive_id("hld", caller.principal_id, CALL_SERVICE.name, ask.idempotency_key)
    async with market.flights.room(hold_id, caller.organisation_id) as is_known:
        place = PlaceHold(
            agreement_id=ask.agreement_id,
            workload=ask.workload,
            args_sha256=args_sha256,
            expires_in_s=ask.deliver_within_s,
            idempotency_key=ask.idempotency_key,
        )
        outcome = await market.submit(caller, CALL_SERVICE, ask, body=ServiceCall(place=place))
        placed = Hold.from_document(outcome.record.changed[0].after)
        assert placed.hold_id == hold_id
        if outcome.replayed and not is_known:
            # Either nobody has set out yet, or what it came to is forgotten.
            hold = await known(market, Hold, hold_id)
            if hold.status != "open":
                raise Refused(await gone(market, hold))
        errand = Errand(
            hold=placed,
            agreement=agreement,
            listing=listing,
            arguments=cast("dict[str, LooseJson]", ask.arguments),
            entitlement=entitlement_of(
                market, agreement, placed, market.payer.public, outcome.record.at_us
            ),
        )
        with market.metrics.service_call() as ended:
            landed = await market.flights.obtain(
                hold_id,
                caller.organisation_id,
                placed.expires_at_us,
                partial(make, market, errand),
                partial(pay, market, hold_id),
            )
            answer = await _answer(market, caller, agreement, hold_id, landed.kept)
            ended("replayed" if landed.replayed else "delivered")
    return Reply(
        answer=answer,
        replayed=landed.replayed,
        seq=answer.charge.seq,
    )


async def _checked(market: Market, listing: Listing, ask: CallService) -> str:
    """The digest of arguments that the tool takes; raises `Refused` before anything is held."""
    try:
        data = canonical_bytes(cast("Json", ask.arguments))
    except InvalidJson as error:
        text = f"What is paid for by digest does not hold this: {error.reason.value}."
        raise Refused(refuse(Code.INVALID_ARGUMENT, path="arguments", message=text)) from error
    bytes_max = listing.limits.input_bytes_max
    if len(data) > bytes_max:
        raise Refused(refuse(Code.PAYLOAD_TOO_LARGE, path="arguments", required=str(bytes_max)))
    if found := await misfit(market, listing.input_schema, ask.arguments):
        raise Refused(found.refusal())
    try:
        market.vendors.check(listing.interface.url)
    except NotSent as error:
        text = f"{error} Nothing is charged."
        raise Refused(refuse(Code.VENDOR_FAILED, path="interface.url", message=text)) from error
    return sha256_hex(data)


async def _answer(
    market: Market, caller: Caller, agreement: Agreement, hold_id: str, kept: Kept
) -> ServiceResult:
    """What a call came to: the kept result, and the journal's word on it as it is now."""
    hold = await known(market, Hold, hold_id)
    ending = (
        Ending.from_bytes(kept.ending) if kept.ending else Ending(refusal=await gone(market, hold))
    )
    if ending.refusal is not None:
        raise Refused(ending.refusal)
    if not hold.charge_id:
        # It was accepted, and its hold ended before it could be paid.
        raise Refused(await gone(market, hold))
    charge = await known(market, Charge, hold.charge_id)
    record = await record_at(market, charge.seq)
    facts = cast("dict[str, Json]", record.facts)
    standing = await market.ask(StandingOf(principal_id=caller.principal_id))
    return ServiceResult(
        hold_id=hold_id,
        agreement_id=agreement.agreement_id,
        charge=charge_view(charge, lines_view(record)),
        receipt=await receipt_at(market, charge.seq, "idempotency_key"),
        result_sha256=charge.result_sha256,
        untrusted_result=ending.result,
        untrusted_content=tuple(cast("Document", block) for block in ending.content),
        delivery=cast("Document", facts["delivery"]),
        delivery_signature=cast("str", facts["delivery_signature"]),
        kept_until=format_time(kept.until_us),
        standing=standing_now(standing, charge.asset),
    )
