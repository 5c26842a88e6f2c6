"""Allowances in a simulated market: proposed by any party, approved by any organisation.

Boundary: makes commands as the doors would. Whether they may be done is for others to say.
"""

from dataclasses import dataclass
from typing import Any

from farthing.protocol.messages import allowances
from farthing.protocol.times import DAY_US, SECOND_US, format_time
from farthing.protocol.wire import Usage
from farthing.settlement.engine.commands import Command
from tests.simulation.cards import METERS
from tests.simulation.lanes import Laning

__all__ = ["Allowing"]


@dataclass(slots=True)
class Allowing(Laning):
    """A crowd that limits what may be used."""

    def propose(self) -> Command | None:
        """Limits for an agreement, or none."""
        agreement = self._any("agreement")
        if agreement is None:
            return None
        meters = {"page", self.chance.choice(METERS)}
        limit = tuple(
            Usage(meter=meter, quantity=str(self.chance.choice((0, 3, 20, 100, 2_000))))
            for meter in sorted(meters)
        )
        enforcement: Any = "refuse" if self.chance.random() < 0.8 else "report"
        expires_in_us = self.chance.choice((0, 0, 0, 30 * SECOND_US, DAY_US))
        ask = allowances.ProposeAllowance(
            agreement_id=agreement["agreement_id"],
            per_day=limit if self.chance.random() < 0.5 else (),
            in_all=limit if self.chance.random() < 0.5 else (),
            enforcement=enforcement,
            expires_at=format_time(self.now_us + expires_in_us) if expires_in_us else "",
            idempotency_key=self._id(),
        )
        by = self.chance.choice(("buyer", "operator", "vendor"))
        parties = {"buyer": self.buyers, "operator": self.operators, "vendor": self.vendors}
        party = self._of(parties[by], agreement[f"{by}_id"])
        return self._ask(party.caller(), allowances.PROPOSE_ALLOWANCE, ask)

    def approve(self) -> Command | None:
        """What was proposed, mostly by the other side's organisation."""
        found = self._any("allowance")
        if found is None or "proposed" not in found:
            return self.propose()
        proposed = found["proposed"]
        by_vendor = proposed["proposed_by"] == found["vendor_id"]
        other = self._of(
            self.operators if by_vendor else self.vendors,
            found["operator_id" if by_vendor else "vendor_id"],
        )
        own = self._of(self.operators, found["operator_id"])
        party = other if self.chance.random() < 0.8 else own
        ask = allowances.ApproveAllowance(
            agreement_id=found["agreement_id"],
            allowance_id=proposed["allowance_id"],
            idempotency_key=self._id(),
        )
        return self._ask(party.caller(), allowances.APPROVE_ALLOWANCE, ask)
