"""From a hold to the known end of the call that it is for.

Boundary: the vendor is called, and its answer judged: schema, digest, and whether its signed
delivery record can be paid. What is accepted is paid once it is kept (`endings`); what is not is
given back on the spot. Source: spec/services.md.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeVar, cast

import orjson

from farthing.protocol import base64url
from farthing.protocol.canonical import InvalidJson, Json, LooseJson, canonical_bytes, sha256_hex
from farthing.protocol.errors import Code, NextAction, Refusal, Refused, refuse
from farthing.protocol.ids import AgreementId, HoldId
from farthing.protocol.listing import Listing
from farthing.protocol.proofs import Voucher, voucher_jwt
from farthing.protocol.schemas import Violation, violation
from farthing.protocol.times import SECOND_US
from farthing.protocol.x402 import Presented, Price, payment
from farthing.server.crowds import VALUES_MAX, has_more_values
from farthing.server.market import Market
from farthing.server.operations.endings import (
    Ending,
    give_back,
    gone,
    nothing_charged,
    signed_answer,
)
from farthing.server.operations.replies import known
from farthing.server.ports import (
    Delivered,
    NotSent,
    PaidCall,
    Progress,
    VendorFailed,
    VendorLost,
    VendorRefused,
)
from farthing.settlement.engine.questions import ObjectionTo
from farthing.settlement.engine.things import Agreement, Hold

__all__ = ["Errand", "make", "misfit"]

T = TypeVar("T")

_VOUCHER_LIFETIME_S: Final = 300
_JTI_BYTES: Final = 16
_UNSENT_MAX: Final = 3
# What takes some milliseconds at most; more is judged beside the loop, behind what came before it.
_STEPS_AT_ONCE: Final = 4_000
_BYTES_AT_ONCE: Final = 32 * 1024
_BACKOFF_S: Final = 0.25
_BACKOFF_S_MAX: Final = 5.0
# How long after its end a hold may be open because the engine has not come to it.
_OVERDUE_S: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """A call that is to be made under a hold.

    Args:
        hold: as it was placed.
        agreement: what it is placed under.
        listing: the version that was agreed on.
        arguments: the tool's.
        entitlement: what the platform tells the vendor of the hold; its payer is the platform.
    """

    hold: Hold
    agreement: Agreement
    listing: Listing
    arguments: Mapping[str, LooseJson]
    entitlement: str

    @property
    def repeatable(self) -> bool:
        """Whether the vendor may be called again where it is not known what it did."""
        return self.listing.idempotent or not self.listing.side_effects


async def make(market: Market, errand: Errand, flights: int, progress: Progress) -> bytes:
    """Make a call, or learn what became of it.

    Args:
        market: the composition.
        errand: the call.
        flights: how often somebody set out for it before; it may have reached the vendor.
        progress: told of the vendor's progress.

    Returns:
        The ending, as it is kept.

    Raises:
        Refused: `unavailable`: the end is not known yet; ask again.
    """
    was_sent, unsent, wait_s = flights > 0, 0, _BACKOFF_S
    may_call = not was_sent or errand.repeatable
    while may_call and not _is_over(market, await known(market, Hold, errand.hold.hold_id)):
        try:
            delivered = await market.vendors.call(_paid_call(market, errand), progress)
        except NotSent as error:
            unsent += 1
            if not was_sent and (unsent == _UNSENT_MAX or not error.again):
                return (await _failed(market, errand, str(error))).to_bytes()
        except VendorLost:
            was_sent, may_call = True, errand.repeatable
        except VendorFailed as failed:
            return (await _failed(market, errand, str(failed))).to_bytes()
        except VendorRefused as refused:
            was_sent = True
            if not refused.refusal.code.retryable:
                return (await _failed(market, errand, refusal=refused.refusal)).to_bytes()
            wait_s = max(wait_s, min(refused.refusal.retry_after_s, _BACKOFF_S_MAX))
        else:
            return await _bounded(market, errand, await _judged(market, errand, delivered))
        if may_call:
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, _BACKOFF_S_MAX)
    return (await _unanswered(market, errand)).to_bytes()


async def _bounded(market: Market, errand: Errand, ending: Ending) -> bytes:
    """An ending as it is kept: one that room was not kept for is nothing."""
    kept = ending.to_bytes()
    if len(kept) <= market.flights.ending_bytes_max:
        return kept
    return (await _failed(market, errand, "The answer is too large to be kept.")).to_bytes()


async def _judged(market: Market, errand: Errand, delivered: Delivered) -> Ending:
    """What an answer is worth: accepted, or nothing."""
    if delivered.hold_id != errand.hold.hold_id:
        return await _failed(market, errand, "The vendor answered for another hold.")
    is_large = len(orjson.dumps((delivered.result, delivered.content))) > _BYTES_AT_ONCE
    if refusal := await _objection(market, errand, delivered, is_large=is_large):
        if refusal.code is Code.HOLD_EXPIRED:
            return await _unanswered(market, errand)
        return await _failed(market, errand, refusal=refusal)
    return Ending(
        result=delivered.result,
        content=await _judge(market, partial(_beside, delivered), is_large=is_large),
        delivery=delivered.delivery,
        signature=delivered.delivery_signature,
    )


async def _objection(
    market: Market, errand: Errand, delivered: Delivered, *, is_large: bool
) -> Refusal | None:
    """Why an answer is not paid for, None where it is good."""
    answer = await signed_answer(market, delivered.delivery, delivered.delivery_signature)
    if isinstance(answer, Refusal):
        return answer
    result = delivered.result
    same = partial(_fault, answer.delivery.result_sha256, result)
    if fault := await _judge(market, same, is_large=is_large):
        return refuse(Code.DELIVERY_INVALID, message=fault)
    if found := await misfit(market, errand.listing.output_schema, result):
        text = f"The result does not fit the output schema at {found.path or '.'}: {found.keyword}."
        return refuse(Code.DELIVERY_INVALID, message=text)
    return await market.ask(ObjectionTo(answer=answer))


async def _failed(
    market: Market, errand: Errand, why: str = "", refusal: Refusal | None = None
) -> Ending:
    """The end of a call that the vendor failed: its hold is given back at once."""
    code = refusal.code if refusal else Code.VENDOR_FAILED
    hold = await give_back(market, errand.hold.hold_id, code)
    if hold.charge_id:
        # Another front end was on the way, and came back with an answer.
        return Ending(refusal=await gone(market, hold))
    failed = nothing_charged(f"{code.value}: {refusal.message}" if refusal else why)
    if refusal is not None and code is not Code.VENDOR_FAILED:
        failed = replace(failed, reasons=(code,))
    if code is Code.CAPTURE_EXCEEDS_HOLD:
        failed = replace(failed, next_action=NextAction.QUOTE_AGAIN)
    return Ending(refusal=failed)


async def _unanswered(market: Market, errand: Errand) -> Ending:
    """The end of a call that is not made again: nothing, unless another front end ended it."""
    wait_s = _BACKOFF_S
    while True:
        hold = await known(market, Hold, errand.hold.hold_id)
        if not _is_over(market, hold):
            return await _failed(market, errand, "The answer was lost, and is not asked for again.")
        if hold.status != "open":
            return Ending(refusal=await gone(market, hold))
        if market.now_us() > hold.expires_at_us + _OVERDUE_S * SECOND_US:
            raise Refused(refuse(Code.UNAVAILABLE, retry_after_s=1))
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * 2, 1.0)


def _is_over(market: Market, hold: Hold) -> bool:
    return hold.status != "open" or hold.expires_at_us <= market.now_us()


async def misfit(market: Market, schema: Mapping[str, Json], instance: object) -> Violation | None:
    """The first place where an instance does not fit; much work waits behind others' alone."""
    found = violation(schema, instance, steps_max=_STEPS_AT_ONCE)
    if found is None or found.keyword != "steps":
        return found
    return await market.vendors.beside(partial(violation, schema, instance))


async def _judge(market: Market, work: Callable[[], T], *, is_large: bool) -> T:
    """Do what an answer's size costs, of a large one beside the loop."""
    return await market.vendors.beside(work) if is_large else work()


def _fault(signed_sha256: str, result: LooseJson) -> str:
    """What is wrong with a result beside what the vendor signed; empty when nothing is."""
    try:
        received_sha256 = sha256_hex(canonical_bytes(cast("Json", result)))
    except InvalidJson as error:
        return f"The result has no digest: {error.reason.value}."
    if received_sha256 != signed_sha256:
        return f"The result is {received_sha256} and not {signed_sha256}."
    return ""


def _beside(delivered: Delivered) -> tuple[LooseJson, ...]:
    """The content beside a result: what only repeats it is left out, as is what no answer holds."""
    # What is no block is among the latter.
    blocks = [block for block in delivered.content if isinstance(block, dict)]
    return tuple(_in_alphabet(each) for each in blocks if not _repeats(each, delivered.result))


def _repeats(block: Mapping[str, LooseJson], result: LooseJson) -> bool:
    text = block.get("text")
    if not isinstance(text, str) or has_more_values(text.encode(), VALUES_MAX):
        return False
    try:
        return bool(orjson.loads(text) == result)
    except orjson.JSONDecodeError:
        return False


def _in_alphabet(value: LooseJson) -> LooseJson:
    """Content without the fractions and nulls that annotations may hold and answers do not."""
    if isinstance(value, dict):
        return {
            name: _in_alphabet(each)
            for name, each in value.items()
            if each is not None and not isinstance(each, float)
        }
    if isinstance(value, list):
        return [
            _in_alphabet(each) for each in value if each is not None and not isinstance(each, float)
        ]
    return value


def _paid_call(market: Market, errand: Errand) -> PaidCall:
    """The call as it is made now: each attempt has a voucher of its own."""
    hold, agreement, interface = errand.hold, errand.agreement, errand.listing.interface
    now_us = market.now_us()
    voucher = voucher_jwt(
        market.payer,
        Voucher(
            agreement_id=AgreementId(hold.agreement_id),
            hold_id=HoldId(hold.hold_id),
            args_sha256=hold.args_sha256,
            seq=1,
            max_cum_units=hold.amount_units,
            ack="",
        ),
        now_us=now_us,
        jti=base64url.encode(market.entropy(_JTI_BYTES)),
        lifetime_s=_VOUCHER_LIFETIME_S,
    )
    price = Price(
        tool=interface.tool,
        platform=market.issuer,
        vendor_id=hold.vendor_id,
        listing_id=agreement.listing_id,
        listing_sha256=agreement.listing_sha256,
        rate_card_sha256=agreement.rate_card_sha256,
        terms_sha256=agreement.terms_sha256,
        asset=hold.asset,
        amount_units=hold.amount_units,
        exact=False,
        deadline_s=agreement.delivery_deadline_s,
        url="" if interface.tool else interface.url,
    )
    rest_s = max((hold.expires_at_us - now_us) / SECOND_US, 1.0)
    return PaidCall(
        kind=interface.kind,
        url=interface.url,
        tool=interface.tool,
        arguments=errand.arguments,
        input_schema=errand.listing.input_schema,
        payment=payment(price, Presented(entitlement=errand.entitlement, voucher=voucher)),
        # What may not be called again is waited for as long as it can be paid.
        timeout_s=min(rest_s, market.vendor_timeout_s) if errand.repeatable else rest_s,
    )
