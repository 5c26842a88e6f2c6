"""Vendors' machines in a simulated market: metering keys that begin, are replaced, and end.

Boundary: makes commands as the doors would. Whether they may be done is for others to say.
"""

from dataclasses import dataclass

from farthing.protocol.canonical import Json
from farthing.protocol.messages import agents
from farthing.protocol.signatures import Typ
from farthing.settlement.engine.commands import Command
from tests.papers import public_jwk
from tests.simulation.corrections import Correcting
from tests.simulation.parties import Party, signed

__all__ = ["Manning"]


@dataclass(slots=True)
class Manning(Correcting):
    """A crowd whose vendors have machines."""

    def machine(self) -> Command:
        """A new machine of a vendor's, or another key for one, or the end of one."""
        vendor = self.chance.choice(self.vendors)
        choice = self.chance.random()
        if not vendor.machines or choice < 0.5:
            return self._added(vendor)
        old = self.chance.choice(vendor.machines).thumbprint
        return self._replaced(vendor, old) if choice < 0.7 else self._revoked(vendor, old)

    def _added(self, vendor: Party) -> Command:
        new = self._new_key()
        vendor.machines.append(new)
        shown: dict[str, Json] = {
            "new": new.thumbprint,
            "principal": vendor.principal_id,
            "purpose": "metering",
        }
        possession = signed(new, Typ.NEW_KEY, shown)
        ask = agents.AddKey(
            key=public_jwk(new),
            purpose="metering",
            possession=possession,
            idempotency_key=self._id(),
        )
        facts: dict[str, Json] = {"new_thumbprint": new.thumbprint, "possession": possession}
        return self._ask(vendor.caller(), agents.ADD_KEY, ask, facts=facts)

    def _replaced(self, vendor: Party, old: str) -> Command:
        new = self._new_key()
        vendor.machines.append(new)
        shown: dict[str, Json] = {
            "new": new.thumbprint,
            "old": old,
            "principal": vendor.principal_id,
        }
        possession = signed(new, Typ.ROTATION, shown)
        ask = agents.RotateKey(
            key=public_jwk(new),
            possession=possession,
            replaces=old,
            idempotency_key=self._id(),
        )
        facts: dict[str, Json] = {"new_thumbprint": new.thumbprint, "possession": possession}
        return self._ask(vendor.caller(), agents.ROTATE_KEY, ask, facts=facts)

    def _revoked(self, vendor: Party, old: str) -> Command:
        ask = agents.RevokeKey(
            principal_id=vendor.principal_id, key_thumbprint=old, idempotency_key=self._id()
        )
        return self._ask(vendor.caller(), agents.REVOKE_KEY, ask)
