"""The headers in which x402's shapes travel on HTTP: base64 of JSON.

Boundary: names and form; what stands in them is `x402`'s. Source: spec/payments-mcp.md#over-http,
x402 specification v2 with its HTTP transport.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Final

import orjson

__all__ = ["PAYMENT_REQUIRED", "PAYMENT_RESPONSE", "PAYMENT_SIGNATURE", "read_header", "to_header"]

PAYMENT_REQUIRED: Final = "payment-required"
PAYMENT_SIGNATURE: Final = "payment-signature"
PAYMENT_RESPONSE: Final = "payment-response"

_CHARACTERS_MAX: Final = 65_536


def to_header(document: Mapping[str, object]) -> str:
    """The value of a header."""
    return base64.b64encode(orjson.dumps(document)).decode()


def read_header(text: str) -> object:
    """What stands in a header; raises `ValueError` where it is no base64 of JSON, or too long."""
    if len(text) > _CHARACTERS_MAX:
        raise ValueError("the header is too long")
    try:
        return orjson.loads(base64.b64decode(text, validate=True))
    except binascii.Error as error:
        raise ValueError("the header is no base64") from error
