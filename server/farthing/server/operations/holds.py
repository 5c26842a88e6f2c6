"""Holds: placing, capturing, releasing, asking what became of one."""

from contextlib import suppress
from dataclasses import replace

from farthing.identity.callers import Caller
from farthing.protocol.canonical import Json
from farthing.protocol.contracts import read_delivery
from farthing.protocol.errors import Code, Refusal, Refused
from farthing.protocol.ids import AgreementId, HoldId, ListingId, OrganisationId, PrincipalId
from farthing.protocol.keys import PublicKey
from farthing.protocol.messages.holds import (
    CAPTURE_HOLD,
    PLACE_HOLD,
    RELEASE_HOLD,
    CaptureHold,
    GetHold,
    Holds,
    ListHolds,
    PlaceHold,
    ReleaseHold,
)
from farthing.protocol.messages.holds import Hold as HoldAnswer
from farthing.protocol.proofs import Entitlement, entitlement_jwt
from farthing.protocol.records import Record
from farthing.protocol.signatures import InvalidSignature, read_header
from farthing.server.market import Market
from farthing.server.operations.endings import paid_by_platform
from farthing.server.operations.pages import page_under_agreement
from farthing.server.operations.replies import Reply, known, money_reply, own, public_key
from farthing.settlement.engine.holds import (
    Capture,
    capture_answer,
    hold_view,
    place_answer,
    release_answer,
)
from farthing.settlement.engine.questions import KeyOf
from farthing.settlement.engine.things import Agreement, Hold

__all__ = ["capture_hold", "entitlement_of", "get_hold", "list_holds", "place_hold", "release_hold"]


async def place_hold(market: Market, caller: Caller, ask: PlaceHold) -> Reply:
    """Set money aside, and say so to the vendor in a signed entitlement."""
    outcome = await market.submit(caller, PLACE_HOLD, ask)
    hold = Hold.from_document(outcome.record.changed[0].after)
    agreement = await known(market, Agreement, hold.agreement_id)
    payer = await public_key(market, outcome.record.by.key_thumbprint)
    entitlement = entitlement_of(market, agreement, hold, payer, outcome.record.at_us)

    def with_entitlement(record: Record) -> HoldAnswer:
        return replace(place_answer(record), entitlement=entitlement)

    return money_reply(outcome, with_entitlement)


async def capture_hold(market: Market, caller: Caller, ask: CaptureHold) -> Reply:
    """Capture what was used, given a delivery record that the vendor signed."""
    key = await _signing_key(market, caller, ask.delivery_signature)
    keys = {key.thumbprint: key}
    delivery = read_delivery(ask.delivery, ask.delivery_signature, keys.get)
    if isinstance(delivery, Refusal):
        if delivery.code is Code.SIGNATURE_INVALID:
            # Whose hold it is comes first, whatever was signed.
            await own(market, caller, Hold, "hold_id", ask.hold_id)
        raise Refused(delivery)
    if (paid := await paid_by_platform(market, caller, ask.hold_id, delivery)) is not None:
        return paid
    facts: dict[str, Json] = {
        "delivery": delivery.document(),
        "delivery_signature": ask.delivery_signature,
    }
    outcome = await market.submit(
        caller,
        CAPTURE_HOLD,
        ask,
        body=Capture(ask=ask, delivery=delivery, key_thumbprint=key.thumbprint),
        facts=facts,
    )
    return money_reply(outcome, capture_answer)


async def _signing_key(market: Market, caller: Caller, signature: str) -> PublicKey:
    """The key that a delivery record names, if it is one of the caller's; else the caller's own."""
    with suppress(InvalidSignature):
        kid = read_header(signature).kid
        facts = None if kid == caller.key_thumbprint else await market.ask(KeyOf(thumbprint=kid))
        if facts and (facts.principal_id, facts.status) == (caller.principal_id, "active"):
            return PublicKey.from_jwk(facts.jwk)
    return await public_key(market, caller.key_thumbprint)


async def release_hold(market: Market, caller: Caller, ask: ReleaseHold) -> Reply:
    """Give a hold back whole."""
    return money_reply(await market.submit(caller, RELEASE_HOLD, ask), release_answer)


async def get_hold(market: Market, caller: Caller, ask: GetHold) -> Reply:
    """What became of a hold."""
    return Reply(answer=hold_view(await own(market, caller, Hold, "hold_id", ask.hold_id)))


async def list_holds(market: Market, caller: Caller, ask: ListHolds) -> Reply:
    """The caller's holds, newest first."""
    page = await page_under_agreement(market, caller, Hold, ask)
    holds = tuple(map(hold_view, page.things))
    return Reply(answer=Holds(holds=holds, as_of_seq=page.as_of_seq, cursor=page.cursor))


def entitlement_of(
    market: Market, agreement: Agreement, hold: Hold, payer: PublicKey, at_us: int
) -> str:
    """The entitlement of a hold: signed as of its record, so a replay gives the same text.

    Args:
        market: the composition.
        agreement: what the hold is placed under.
        hold: the hold.
        payer: whose vouchers the vendor is to take.
        at_us: when the hold was placed.
    """
    entitlement = Entitlement(
        hold_id=HoldId(hold.hold_id),
        agreement_id=AgreementId(hold.agreement_id),
        listing_id=ListingId(agreement.listing_id),
        vendor_id=OrganisationId(PrincipalId(hold.vendor_id)),
        buyer_id=PrincipalId(hold.buyer_id),
        payer_jwk=payer.jwk(),
        cap_units=hold.amount_units,
        asset=hold.asset,
        card_sha256=agreement.rate_card_sha256,
        args_sha256=hold.args_sha256,
        expires_at_us=hold.expires_at_us,
        issuer=market.issuer,
        on_answer=hold.on_answer,
    )
    return entitlement_jwt(market.signer, entitlement, at_us)
