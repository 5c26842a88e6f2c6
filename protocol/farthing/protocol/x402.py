"""The x402 v2 shapes by which a payment travels on MCP, and what of ours stands in each.

Boundary: shapes only; whether a payment is good its vendor says, what is charged the platform.
Source: spec/payments-mcp.md, x402 specification v2 with its MCP transport.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any, Final, NamedTuple

from farthing.protocol.canonical import LooseJson
from farthing.protocol.documents import DIGEST, SLUG
from farthing.protocol.errors import Code, Refusal, refuse
from farthing.protocol.money import ASSETS, INT64_MAX
from farthing.protocol.signatures import TOKEN_CHARACTERS_MAX
from farthing.protocol.wire import EXTENSION

__all__ = [
    "PAYMENT",
    "PAYMENT_REQUIRED",
    "PAYMENT_RESPONSE",
    "Presented",
    "Price",
    "Settlement",
    "Used",
    "network_of",
    "payment",
    "payment_required",
    "read_payment",
    "read_refusal",
    "read_settlement",
    "read_used",
    "settlement",
    "unsettled",
    "used",
]

PAYMENT: Final = "x402/payment"
PAYMENT_RESPONSE: Final = "x402/payment-response"
_VERSION: Final = 2
PAYMENT_REQUIRED: Final[dict[str, Any]] = {
    "type": "object",
    "description": "A call that has to be paid for: x402's PaymentRequired.",
    "required": ["x402Version", "error", "accepts"],
    "properties": {
        "x402Version": {"type": "integer"},
        "error": {"type": "string"},
        "accepts": {"type": "array", "items": {"type": "object"}},
    },
}
"""JSON Schema: enough to tell it from a result."""
# Authorise up to a maximum, settle what was used: what a hold and its capture are.
_SCHEME: Final = "upto"
# What a payment may be drawn on: one call's hold, or a spend session.
_TAKES: Final = ("hold", "session")
_REFERENCE_CHARACTERS: Final = 32
_COUNT_CHARACTERS_MAX: Final = 20

Object = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a tool asks for, as far as it can be known before the work.

    `exact` says that every call costs `amount_units` under a new agreement; otherwise it is the
    price of the smallest use. `url` is where a service that is no MCP tool is called.
    """

    tool: str
    platform: str
    vendor_id: str
    listing_id: str
    listing_sha256: str
    rate_card_sha256: str
    terms_sha256: str
    asset: str
    amount_units: int
    exact: bool
    deadline_s: int
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """What a caller sent as payment; nothing of it is proven yet.

    Exactly one of `voucher` and `mac` is there. `mac_key`, in base64url, is handed over beside a
    voucher that names its digest.
    """

    entitlement: str
    voucher: str = ""
    mac: str = ""
    mac_key: str = ""


_TOKENS: Final = frozenset(each.name for each in fields(Presented))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What a vendor says about a captured payment; the platform's record is what counts."""

    charge_id: str
    hold_id: str
    amount_units: int
    delivery: Mapping[str, object]
    delivery_signature: str


class Used(NamedTuple):
    """What a vendor says about one call of a session; the platform bills it with its batch.

    `amount_units` is the call's price, `spent_units` that of all calls of the session so far.
    """

    session_id: str
    seq: int
    usage: Mapping[str, int]
    amount_units: int
    spent_units: int
    result_sha256: str


@lru_cache(maxsize=16)
def network_of(platform: str) -> str:
    """The CAIP-2 name of a platform's ledger: its public URL, digested to the allowed length."""
    digest = hashlib.sha256(platform.encode()).hexdigest()
    return f"farthing:{digest[:_REFERENCE_CHARACTERS]}"


def payment_required(price: Price, refusal: Refusal) -> Object:
    """The answer to a call that was not paid, or not well enough."""
    return {
        "x402Version": _VERSION,
        "error": refusal.code.value,
        "resource": {"url": price.url or f"mcp://tool/{price.tool}"},
        "accepts": [_requirements(price)],
        "extensions": {EXTENSION: refusal.document()},
    }


def payment(price: Price, presented: Presented) -> Object:
    """What a caller puts under `_meta["x402/payment"]`."""
    return {
        "x402Version": _VERSION,
        "resource": {"url": price.url or f"mcp://tool/{price.tool}"},
        "accepted": _requirements(price),
        "payload": {name: token for name, token in asdict(presented).items() if token},
    }


def read_payment(value: object, platform: str) -> Presented | Refusal:
    """Read what a caller sent as payment.

    Returns:
        The tokens, or `unauthenticated` where nothing was sent, else `proof_invalid` with the path
        of what is not as it should be.
    """
    if value is None:
        text = "This tool is paid for: place a hold, then send its entitlement and a voucher."
        return refuse(Code.UNAUTHENTICATED, path=PAYMENT, message=text)
    if not isinstance(value, Mapping) or value.get("x402Version") != _VERSION:
        return _unreadable("x402Version")
    accepted, payload = value.get("accepted"), value.get("payload")
    if not isinstance(accepted, Mapping) or accepted.get("scheme") != _SCHEME:
        return _unreadable("accepted.scheme")
    if accepted.get("network") != network_of(platform):
        return _unreadable("accepted.network")
    if not isinstance(payload, Mapping):
        return _unreadable("payload")
    if not _is_token(payload.get("entitlement")):
        return _unreadable("payload.entitlement")
    # A voucher, or a MAC in its place; a key is handed over under a signature alone.
    by_mac = "mac" in payload
    if not _is_token(payload.get("mac" if by_mac else "voucher")) or (
        by_mac and payload.keys() & {"voucher", "mac_key"}
    ):
        return _unreadable("payload.voucher")
    if not _is_token(payload.get("mac_key", "-")):
        return _unreadable("payload.mac_key")
    return Presented(**{name: str(payload[name]) for name in _TOKENS & payload.keys()})


def settlement(settled: Settlement, *, payer: str, platform: str) -> Object:
    """What a vendor puts under `_meta["x402/payment-response"]` once the money is captured."""
    return {
        "success": True,
        "transaction": settled.charge_id,
        "network": network_of(platform),
        "payer": payer,
        "amount": str(settled.amount_units),
        "extra": {
            "hold_id": settled.hold_id,
            "delivery": dict(settled.delivery),
            "delivery_signature": settled.delivery_signature,
        },
    }


def used(call: Used, *, payer: str, platform: str) -> Object:
    """What a vendor puts there when it has answered a call of a session."""
    return {
        "success": True,
        "transaction": f"{call.session_id}/{call.seq}",
        "network": network_of(platform),
        "payer": payer,
        "amount": str(call.amount_units),
        "extra": {
            "session_id": call.session_id,
            "seq": call.seq,
            "usage": {meter: str(quantity) for meter, quantity in call.usage.items()},
            "spent": str(call.spent_units),
            "result_sha256": call.result_sha256,
        },
    }


def unsettled(refusal: Refusal, platform: str) -> Object:
    """What a vendor puts there when a paid call came to nothing."""
    return {
        "success": False,
        "errorReason": refusal.code.value,
        "transaction": "",
        "network": network_of(platform),
    }


def read_settlement(value: object) -> Settlement | None:
    """Read what a vendor says about a captured payment; None where it says nothing usable."""
    if not isinstance(value, Mapping) or value.get("success") is not True:
        return None
    extra = value.get("extra")
    if not isinstance(extra, Mapping):
        return None
    delivery, amount = extra.get("delivery"), value.get("amount")
    texts = (value.get("transaction"), extra.get("hold_id"), extra.get("delivery_signature"))
    if not isinstance(delivery, Mapping) or not _is_count(amount):
        return None
    charge_id, hold_id, signature = (each if isinstance(each, str) else "" for each in texts)
    return Settlement(
        charge_id=charge_id,
        hold_id=hold_id,
        amount_units=int(str(amount)),
        delivery=delivery,
        delivery_signature=signature,
    )


def read_used(value: object) -> Used | None:
    """Read what a vendor says about one call of a session; None where it says nothing usable."""
    if not isinstance(value, Mapping) or value.get("success") is not True:
        return None
    extra = value.get("extra")
    if not isinstance(extra, Mapping) or type(seq := extra.get("seq")) is not int:
        return None
    usage = extra.get("usage")
    if not isinstance(usage, Mapping) or not all(map(_is_count, usage.values())):
        return None
    if not all(SLUG.fullmatch(str(meter)) for meter in usage):
        return None
    if not (_is_count(value.get("amount")) and _is_count(extra.get("spent"))):
        return None
    if not DIGEST.fullmatch(result_sha256 := str(extra.get("result_sha256"))):
        return None
    return Used(
        session_id=str(extra.get("session_id")),
        seq=seq,
        usage={str(meter): int(quantity) for meter, quantity in usage.items()},
        amount_units=int(str(value["amount"])),
        spent_units=int(str(extra["spent"])),
        result_sha256=result_sha256,
    )


def read_refusal(structured: LooseJson) -> Refusal | None:
    """The refusal in a vendor's failed result, whether it wants payment or could not deliver."""
    if not isinstance(structured, dict):
        return None
    extensions = structured.get("extensions")
    inner = extensions.get(EXTENSION) if isinstance(extensions, dict) else structured
    if not isinstance(inner, dict) or not isinstance(inner.get("code"), str):
        return None
    return Refusal.from_document(inner)


def _requirements(price: Price) -> Object:
    return {
        "scheme": _SCHEME,
        "network": network_of(price.platform),
        "amount": str(price.amount_units),
        "asset": price.asset,
        "payTo": price.vendor_id,
        "maxTimeoutSeconds": price.deadline_s,
        "extra": {
            "scale": ASSETS[price.asset].scale,
            "amountIs": "exact" if price.exact else "minimum",
            "takes": list(_TAKES),
            "platform": price.platform,
            "listing_id": price.listing_id,
            "listing_sha256": price.listing_sha256,
            "rate_card_sha256": price.rate_card_sha256,
            "terms_sha256": price.terms_sha256,
        },
    }


def _is_token(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= TOKEN_CHARACTERS_MAX


def _is_count(value: object) -> bool:
    return (
        isinstance(value, str)
        and 0 < len(value) <= _COUNT_CHARACTERS_MAX
        and value.isascii()
        and value.isdecimal()
        and int(value) <= INT64_MAX
    )


def _unreadable(path: str) -> Refusal:
    return refuse(Code.PROOF_INVALID, path=f"{PAYMENT}.{path}")
