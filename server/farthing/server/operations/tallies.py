"""What was counted, as it is answered: sums, sessions, differences.

Boundary: shapes what `reconciliation` found; nothing is read or compared here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from farthing.protocol.messages.reconciliation import (
    CallDifference,
    PassedCalls,
    SessionTally,
    UsageReconciliation,
)
from farthing.protocol.reconciliation import (
    Difference,
    GatewayCount,
    Reconciliation,
    together,
)
from farthing.protocol.tallies import meters_of, tally_of
from farthing.protocol.terms import Terms
from farthing.protocol.times import format_time
from farthing.protocol.wire import money, usage_of
from farthing.settlement.engine.things import Agreement, Charge, Hold, Session

__all__ = ["Passed", "Tallied", "reconciliation_view"]

_DIFFERENCES_MAX: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Tallied:
    """A session and what its comparison found; None where it was too long for one."""

    session: Session
    found: Reconciliation | None = None
    gateway: GatewayCount | None = None


@dataclass(slots=True)
class Passed:
    """Calls by the platform, counted by what became of their holds."""

    statuses: dict[str, int] = field(default_factory=dict)
    charged_units: int = 0
    usage: dict[str, int] = field(default_factory=dict)

    def add(self, hold: Hold, charge: Charge | None) -> None:
        """Count one."""
        self.statuses[hold.status] = self.statuses.get(hold.status, 0) + 1
        if charge is not None:
            self.charged_units += charge.amount_units
            for meter, quantity in charge.usage.items():
                self.usage[meter] = self.usage.get(meter, 0) + quantity


def reconciliation_view(
    agreement: Agreement,
    terms: Terms,
    tallied: Sequence[Tallied],
    passed: Passed,
    *,
    as_of_seq: int,
) -> UsageReconciliation:
    """The answer over all that was counted."""
    asset, tolerance_ppm = agreement.asset, terms.usage.tolerance_ppm
    found = together(each.found for each in tallied if each.found is not None)
    is_whole = all(each.found is not None for each in tallied)
    return UsageReconciliation(
        agreement_id=agreement.agreement_id,
        terms_sha256=agreement.terms_sha256,
        tolerance_ppm=tolerance_ppm,
        calls=tally_of(found.calls),
        meters=meters_of(found),
        billed=money(found.units.one, asset),
        acknowledged=money(found.units.other, asset),
        over=money(found.units.over, asset),
        under=money(found.units.under, asset),
        sessions=tuple(map(_session, tallied)),
        passed=_passed(passed, asset),
        differences=tuple(
            _difference(each, asset) for each in found.differences[:_DIFFERENCES_MAX]
        ),
        differences_in_all=len(found.differences),
        other_results=found.other_results,
        within=is_whole and found.is_within(tolerance_ppm),
        as_of_seq=as_of_seq,
    )


def _session(tallied: Tallied) -> SessionTally:
    session, asset = tallied.session, tallied.session.asset
    found = tallied.found or Reconciliation()
    return SessionTally(
        session_id=session.session_id,
        opened_at=format_time(session.opened_at_us),
        counted_calls=session.calls,
        counted=money(session.spent_units, asset),
        reported_calls=found.calls.platform.one,
        billed_calls=found.calls.platform.other,
        billed=money(found.units.one, asset),
        acknowledged_calls=found.calls.buyer.other,
        acknowledged=money(found.units.other, asset),
        gateway_calls=None if tallied.gateway is None else tallied.gateway.calls,
        proven=found.proven,
        differences=len(found.differences),
        compared=tallied.found is not None,
    )


def _difference(each: Difference, asset: str) -> CallDifference:
    return CallDifference(
        session_id=each.session_id,
        call=each.seq,
        kind=each.kind.value,
        direction=each.direction.value if each.direction else "",
        billed=money(each.billed_units, asset),
        acknowledged=money(each.acknowledged_units, asset),
        fault=each.fault,
    )


def _passed(passed: Passed, asset: str) -> PassedCalls:
    counts = passed.statuses
    return PassedCalls(
        asked=sum(counts.values()),
        captured=counts.get("captured", 0),
        released=counts.get("released", 0),
        expired=counts.get("expired", 0),
        open=counts.get("open", 0),
        charged=money(passed.charged_units, asset),
        usage=usage_of(passed.usage),
    )
