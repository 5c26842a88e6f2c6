"""What a gateway counted, as a signed document: a proxy that stands in front of a vendor's tools.

Boundary: reads and writes the document. Whose key may sign it is judged where keys are known.
Source: spec/metering.md#a-gateway.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from farthing.protocol.canonical import Json, canonical_bytes
from farthing.protocol.documents import SLUG, DocumentError, Fault, Fields, read_document
from farthing.protocol.ids import id_pattern
from farthing.protocol.reconciliation import GatewayCount

__all__ = ["GATEWAY_SCHEMA", "GATEWAY_SESSIONS_MAX", "GatewayReport"]

GATEWAY_SCHEMA: Final = "farthing-gateway/1"
GATEWAY_SESSIONS_MAX: Final = 200

_METERS_MAX: Final = 64
_ID_LENGTH_MAX: Final = 40
_AGREEMENT: Final = re.compile(id_pattern("agr"))
_SESSION: Final = re.compile(id_pattern("ses"))
_QUANTITY: Final = re.compile(r"0|[1-9][0-9]{0,15}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayReport:
    """A gateway's count of sessions of one agreement, by their ids."""

    agreement_id: str
    sessions: Mapping[str, GatewayCount]

    def document(self) -> dict[str, Json]:
        """The document that is signed; sessions and meters stand in the order of their names."""
        return {
            "schema": GATEWAY_SCHEMA,
            "agreement_id": self.agreement_id,
            "sessions": [
                {
                    "session_id": session_id,
                    "calls": str(count.calls),
                    "usage": [
                        {"meter": meter, "quantity": str(count.usage[meter])}
                        for meter in sorted(count.usage)
                    ],
                }
                for session_id, count in sorted(self.sessions.items())
            ],
        }

    def signed_bytes(self) -> bytes:
        """The bytes that are signed: the document's canonical ones."""
        return canonical_bytes(self.document())

    @classmethod
    def from_document(cls, document: Json) -> "GatewayReport":
        """Read what `document` wrote, strictly.

        Raises:
            DocumentError: The first fault, with its path.
        """
        fields = read_document(document, GATEWAY_SCHEMA)
        agreement_id = fields.text("agreement_id", length_max=_ID_LENGTH_MAX, form=_AGREEMENT)
        sessions: dict[str, GatewayCount] = {}
        for each in fields.each("sessions", count_min=1, count_max=GATEWAY_SESSIONS_MAX):
            session_id = each.text("session_id", length_max=_ID_LENGTH_MAX, form=_SESSION)
            _in_order(each, "session_id", session_id, sessions)
            sessions[session_id] = GatewayCount(calls=_quantity(each, "calls"), usage=_usage(each))
            each.end()
        fields.end()
        return cls(agreement_id=agreement_id, sessions=sessions)


def _usage(fields: Fields) -> dict[str, int]:
    usage: dict[str, int] = {}
    for each in fields.each("usage", count_min=0, count_max=_METERS_MAX):
        meter = each.text("meter", length_max=64, form=SLUG)
        _in_order(each, "meter", meter, usage)
        usage[meter] = _quantity(each, "quantity")
        each.end()
    return usage


def _in_order(fields: Fields, name: str, value: str, before: Collection[str]) -> None:
    """One count, one document."""
    if value in before:
        raise DocumentError(fields.at(name), Fault.DUPLICATE)
    if value < max(before, default=""):
        raise DocumentError(fields.at(name), Fault.INVALID_FORM)


def _quantity(fields: Fields, name: str) -> int:
    return int(fields.text(name, length_max=16, form=_QUANTITY))
