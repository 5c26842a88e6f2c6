"""Whether a call is paid: the platform's entitlement and the payer's voucher, checked offline.

Boundary: pure. That a hold is worked for once only is the spool's affair, that it is still open the
platform's. Source: spec/payments-mcp.md, spec/proofs.md.
"""

from dataclasses import dataclass, replace

from farthing.clients.x402 import PAYMENT, Presented
from farthing.protocol import base64url
from farthing.protocol.canonical import InvalidJson, parse_json
from farthing.protocol.errors import Code, Refusal, refuse
from farthing.protocol.ids import HoldId
from farthing.protocol.proofs import (
    Entitlement,
    ProofError,
    ProofFault,
    Voucher,
    check_entitlement,
    check_voucher,
)
from farthing.protocol.signatures import KeyOf
from farthing.protocol.times import SECOND_US

__all__ = ["Paid", "check_payment", "claimed_hold"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Paid:
    """A payment that holds: what the platform set aside, and what the payer authorised of it."""

    entitlement: Entitlement
    voucher: Voucher

    @property
    def hold_id(self) -> HoldId:
        """The hold that this pays from."""
        assert self.entitlement.hold_id is not None, "a session's payment is no hold's"
        return self.entitlement.hold_id

    @property
    def cap_units(self) -> int:
        """The most that may be captured for this call."""
        return min(self.entitlement.cap_units, self.voucher.max_cum_units)


def check_payment(
    presented: Presented,
    *,
    platform_key_of: KeyOf,
    platform: str,
    vendor_id: str,
    listing_id: str,
    args_sha256: str,
    now_us: int,
    done_at_us: int | None = None,
) -> Paid | Refusal:
    """Check a payment for one call.

    Args:
        presented: The two tokens as sent.
        platform_key_of: Knows the pinned keys of the platform and no others.
        platform: The platform's public URL.
        vendor_id: Who is to be paid.
        listing_id: What is called.
        args_sha256: The digest of the arguments as received.
        now_us: The vendor's clock.
        done_at_us: When the work for these arguments was done, where it was; asking for its
            result again needs no hold that is still alive.

    Returns:
        The payment, or a refusal: `hold_expired`, `proof_expired`, `proof_invalid`, with the
        reason in the message.
    """
    try:
        entitlement = check_entitlement(
            presented.entitlement,
            key_of=platform_key_of,
            vendor_id=vendor_id,
            now_us=now_us if done_at_us is None else done_at_us,
        )
    except ProofError as error:
        return _refusal("entitlement", error.reason, Code.HOLD_EXPIRED)
    if entitlement.hold_id is None:
        return refuse(Code.PROOF_INVALID, path=f"{PAYMENT}.payload.entitlement.hold_id")
    if entitlement.issuer != platform:
        return _refusal("entitlement", ProofFault.WRONG_SUBJECT, Code.PROOF_INVALID)
    if entitlement.listing_id != listing_id:
        return refuse(Code.PROOF_INVALID, path=f"{PAYMENT}.payload.entitlement.listing_id")
    lasting = entitlement
    if done_at_us is not None:
        later_us = max(entitlement.expires_at_us, now_us + SECOND_US)
        lasting = replace(entitlement, expires_at_us=later_us)
    try:
        voucher = check_voucher(
            presented.voucher, entitlement=lasting, args_sha256=args_sha256, now_us=now_us
        )
    except ProofError as error:
        return _refusal("voucher", error.reason, Code.PROOF_EXPIRED)
    return Paid(entitlement=entitlement, voucher=voucher)


def claimed_hold(presented: Presented) -> str:
    """The hold an entitlement calls itself of, unproven; empty where it is no such thing."""
    try:
        claims = parse_json(base64url.decode(presented.entitlement.split(".")[1]))
    except (IndexError, base64url.InvalidBase64, InvalidJson):
        return ""
    hold_id = claims.get("hold_id") if isinstance(claims, dict) else None
    return hold_id if isinstance(hold_id, str) else ""


def _refusal(which: str, reason: ProofFault, expired: Code) -> Refusal:
    code = expired if reason is ProofFault.EXPIRED else Code.PROOF_INVALID
    text = f"{code.says} ({which}: {reason.value})"
    return refuse(code, path=f"{PAYMENT}.payload.{which}", message=text)
