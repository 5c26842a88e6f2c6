"""What a gateway counted, as a signed document: a proxy that stands in front of a vendor's tools.

Boundary: reads and writes the document. Whose key may sign it is judged where keys are known.
Source: spec/metering.md#a-gateway.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from farthing.protocol.canonical import Json, canonical_bytes
from farthing.protocol.documents import quantities_document, read_document
from farthing.protocol.rating.card import DIMENSIONS_MAX
from farthing.protocol.reconciliation import GatewayCount

__all__ = ["GATEWAY_SCHEMA", "GatewayReport"]

GATEWAY_SCHEMA: Final = "farthing-gateway/1"
_SESSIONS_MAX: Final = 200


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
                    "usage": quantities_document(count.usage),
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
        agreement_id = fields.typeid("agreement_id", "agr")
        sessions: dict[str, GatewayCount] = {}
        for each in fields.each("sessions", count_min=1, count_max=_SESSIONS_MAX):
            session_id = each.typeid("session_id", "ses")
            each.check_order("session_id", session_id, sessions)
            sessions[session_id] = GatewayCount(
                calls=each.quantity("calls"),
                usage=each.quantities("usage", count_min=0, count_max=DIMENSIONS_MAX),
            )
            each.end()
        fields.end()
        return cls(agreement_id=agreement_id, sessions=sessions)
