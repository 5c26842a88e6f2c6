"""Whether a call is paid: the platform's entitlement and the payer's voucher, checked offline.

Boundary: pure. That a hold or a session's call is worked for once only is the spool's affair, that
a hold is still open the platform's, what a session owes the desk's. Source: spec/payments-mcp.md,
spec/proofs.md.
"""

import hmac
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from farthing.protocol import base64url
from farthing.protocol.canonical import InvalidJson, Json, parse_json, sha256_hex
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
from farthing.protocol.vouchers import MAC_KEY_BYTES, check_mac
from farthing.protocol.x402 import PAYMENT, Presented

__all__ = [
    "Paid",
    "Vouched",
    "check_entitled",
    "check_payment",
    "check_vouched",
    "claimed",
    "claimed_hold",
]

log = logging.getLogger(__name__)


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


class Vouched(NamedTuple):
    """A payment for one call of a session that holds.

    Args:
        voucher: What the payer authorised, by a signature or a MAC.
        token: The signed voucher as sent; empty for a MAC.
        mac_key: The key that was handed over beside it; empty where none was.
    """

    voucher: Voucher
    token: str = ""
    mac_key: bytes = b""


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
        reason in the message; `vendor_failed` as `check_entitled`.
    """
    entitlement = check_entitled(
        presented.entitlement,
        platform_key_of=platform_key_of,
        platform=platform,
        vendor_id=vendor_id,
        now_us=now_us if done_at_us is None else done_at_us,
    )
    if isinstance(entitlement, Refusal):
        return entitlement
    if entitlement.hold_id is None or entitlement.listing_id != listing_id:
        return _of_another("hold_id" if entitlement.hold_id is None else "listing_id")
    try:
        voucher = check_voucher(
            presented.voucher,
            entitlement=_lasting(entitlement, now_us, done_at_us),
            args_sha256=args_sha256,
            now_us=now_us,
        )
    except ProofError as error:
        return _refusal("voucher", error.reason, Code.PROOF_EXPIRED)
    return Paid(entitlement=entitlement, voucher=voucher)


def check_entitled(
    token: str, *, platform_key_of: KeyOf, platform: str, vendor_id: str, now_us: int
) -> Entitlement | Refusal:
    """Check that the platform itself says this, to this vendor, and still says it.

    Returns:
        What it says, or `proof_invalid`; past its end `hold_expired`, `session_closed`;
        `vendor_failed` before its beginning, for then it is this clock that is wrong.
    """
    try:
        entitlement = check_entitlement(
            token, key_of=platform_key_of, vendor_id=vendor_id, now_us=now_us
        )
    except ProofError as error:
        if error.reason is ProofFault.NOT_YET_VALID:
            # The platform signed it: the buyer can mend nothing.
            log.warning("payments are refused: this clock is behind the platform's")
            text = "The vendor's clock is behind the platform's; nothing was done or captured."
            return refuse(Code.VENDOR_FAILED, message=text)
        is_session = "session_id" in claimed(token)
        return _refusal(
            "entitlement", error.reason, Code.SESSION_CLOSED if is_session else Code.HOLD_EXPIRED
        )
    if entitlement.issuer != platform:
        return _refusal("entitlement", ProofFault.WRONG_SUBJECT, Code.PROOF_INVALID)
    return entitlement


def check_vouched(
    presented: Presented,
    entitlement: Entitlement,
    *,
    mac_key: bytes,
    listing_id: str,
    args_sha256: str,
    now_us: int,
    done_at_us: int | None = None,
) -> Vouched | Refusal:
    """Check a payment for one call of a session whose entitlement was checked.

    Args:
        presented: The tokens as sent.
        entitlement: What the platform said about the session.
        mac_key: The key that the payer handed over before; empty where it did not.
        listing_id: What is called.
        args_sha256: The digest of the arguments as received.
        now_us: The vendor's clock.
        done_at_us: As for `check_payment`.

    Returns:
        The payment, or `session_closed`, `proof_expired`, `proof_invalid`.
    """
    if entitlement.listing_id != listing_id:
        return _of_another("listing_id")
    if now_us >= entitlement.expires_at_us and done_at_us is None:
        return _refusal("entitlement", ProofFault.EXPIRED, Code.SESSION_CLOSED)
    lasting = _lasting(entitlement, now_us, done_at_us)
    if presented.mac:
        if not mac_key:
            return _refusal("mac", ProofFault.UNKNOWN_KEY, Code.PROOF_INVALID)
        try:
            voucher = check_mac(
                presented.mac,
                key=mac_key,
                entitlement=lasting,
                args_sha256=args_sha256,
                now_us=now_us,
            )
        except ProofError as error:
            return _refusal("mac", error.reason, Code.PROOF_INVALID)
        return Vouched(voucher=voucher)
    try:
        voucher = check_voucher(
            presented.voucher, entitlement=lasting, args_sha256=args_sha256, now_us=now_us
        )
    except ProofError as error:
        return _refusal("voucher", error.reason, Code.PROOF_EXPIRED)
    handed_over = _handed_over(presented.mac_key, voucher.mac_sha256)
    if handed_over is None:
        return refuse(Code.PROOF_INVALID, path=f"{PAYMENT}.payload.mac_key")
    return Vouched(voucher=voucher, token=presented.voucher, mac_key=handed_over)


def claimed(token: str) -> Mapping[str, Json]:
    """What a token says of itself, unproven; nothing where it is none."""
    try:
        claims = parse_json(base64url.decode(token.split(".")[1]))
    except (IndexError, base64url.InvalidBase64, InvalidJson):
        return {}
    return claims if isinstance(claims, dict) else {}


def claimed_hold(presented: Presented) -> str:
    """The hold an entitlement calls itself of, unproven; empty where it is no such thing."""
    hold_id = claimed(presented.entitlement).get("hold_id")
    return hold_id if isinstance(hold_id, str) else ""


def _lasting(entitlement: Entitlement, now_us: int, done_at_us: int | None) -> Entitlement:
    """The entitlement as it counts for a result that was made while it lasted."""
    if done_at_us is None or done_at_us >= entitlement.expires_at_us:
        return entitlement
    return replace(entitlement, expires_at_us=max(entitlement.expires_at_us, now_us + SECOND_US))


def _handed_over(mac_key: str, mac_sha256: str | None) -> bytes | None:
    """The key handed over beside a voucher, empty for none, None where it is not the one named."""
    if not mac_key:
        return b""
    try:
        key = base64url.decode(mac_key)
    except base64url.InvalidBase64:
        return None
    is_named = hmac.compare_digest(sha256_hex(key), mac_sha256 or "")
    return key if is_named and len(key) == MAC_KEY_BYTES else None


def _of_another(claim: str) -> Refusal:
    return refuse(Code.PROOF_INVALID, path=f"{PAYMENT}.payload.entitlement.{claim}")


def _refusal(which: str, reason: ProofFault, expired: Code) -> Refusal:
    code = expired if reason is ProofFault.EXPIRED else Code.PROOF_INVALID
    text = f"{code.says} ({which}: {reason.value})"
    return refuse(code, path=f"{PAYMENT}.payload.{which}", message=text)
