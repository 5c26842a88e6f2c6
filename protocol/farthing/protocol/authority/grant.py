"""The authority grant: limits an operator sets for one agent and one asset.

Boundary: the value and its document form. Source: spec/authority.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from farthing.protocol.canonical import Json

__all__ = ["Grant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Limits for one agent and one asset.

    Empty allow lists allow everything; a deny always wins; a capability covers all tags below it.
    `expires_at_us` 0 means no expiry.
    """

    grant_id: str
    agent_id: str
    operator_id: str
    asset: str
    per_call_units_max: int
    per_day_units_max: int
    vendors_allow: tuple[str, ...] = ()
    vendors_deny: tuple[str, ...] = ()
    capabilities_allow: tuple[str, ...] = ()
    capabilities_deny: tuple[str, ...] = ()
    expires_at_us: int = 0
    revoked: bool = False

    def document(self) -> dict[str, Json]:
        """The grant as it stands in a record."""
        return {
            "grant_id": self.grant_id,
            "agent_id": self.agent_id,
            "operator_id": self.operator_id,
            "asset": self.asset,
            "per_call_units_max": str(self.per_call_units_max),
            "per_day_units_max": str(self.per_day_units_max),
            "vendors_allow": list(self.vendors_allow),
            "vendors_deny": list(self.vendors_deny),
            "capabilities_allow": list(self.capabilities_allow),
            "capabilities_deny": list(self.capabilities_deny),
            "expires_at_us": self.expires_at_us,
            "revoked": self.revoked,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Json]) -> "Grant":
        """The grant that `document` wrote."""

        def texts(name: str) -> tuple[str, ...]:
            return tuple(cast("list[str]", document[name]))

        return cls(
            grant_id=str(document["grant_id"]),
            agent_id=str(document["agent_id"]),
            operator_id=str(document["operator_id"]),
            asset=str(document["asset"]),
            per_call_units_max=int(str(document["per_call_units_max"])),
            per_day_units_max=int(str(document["per_day_units_max"])),
            vendors_allow=texts("vendors_allow"),
            vendors_deny=texts("vendors_deny"),
            capabilities_allow=texts("capabilities_allow"),
            capabilities_deny=texts("capabilities_deny"),
            expires_at_us=cast("int", document["expires_at_us"]),
            revoked=bool(document["revoked"]),
        )
