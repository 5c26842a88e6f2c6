"""What may still be used under an agreement: limits by meter, for a UTC day and in all.

Boundary: quantities only, one agreement at one moment; who sets the limits is the engine's to
decide. The engine and the auditor judge by this one guard. Source: spec/metering.md#allowances.
"""

from collections.abc import Mapping
from enum import StrEnum

__all__ = ["Enforcement", "Guard", "without"]


class Enforcement(StrEnum):
    """What becomes of use beyond an allowance."""

    REFUSE = "refuse"
    """It is refused."""
    REPORT = "report"
    """It is taken, and shown as beyond it."""


class Guard:
    """An allowance against which use is judged, piece after piece.

    Args:
        per_day, in_all: the most of a meter that may be used; of others anything may.
        refuses: whether use beyond is refused.
        expires_at_us: when nothing more may be used; 0 is never.
        used_today, used: what was used so far, of the day and of the agreement's whole life.
        held: what is set aside to be used, which counts as used.
    """

    def __init__(
        self,
        *,
        per_day: Mapping[str, int],
        in_all: Mapping[str, int],
        refuses: bool,
        expires_at_us: int,
        used_today: Mapping[str, int],
        used: Mapping[str, int],
        held: Mapping[str, int],
    ) -> None:
        self._refuses = refuses
        self._expires_at_us = expires_at_us
        self._today = {
            meter: limit - used_today.get(meter, 0) - held.get(meter, 0)
            for meter, limit in per_day.items()
        }
        self._in_all = {
            meter: limit - used.get(meter, 0) - held.get(meter, 0)
            for meter, limit in in_all.items()
        }

    def forbids(self, usage: Mapping[str, int], at_us: int) -> bool:
        """Whether this use, at this time, is refused."""
        return self._refuses and self.exceeded(usage, at_us) is not None

    def exceeded(self, usage: Mapping[str, int], at_us: int) -> str | None:
        """The first meter that this use brings beyond its limit; `""` where the time is over."""
        if self._expires_at_us and at_us >= self._expires_at_us:
            return ""
        for meter, quantity in usage.items():
            left = min(self._today.get(meter, quantity), self._in_all.get(meter, quantity))
            if quantity > left:
                return meter
        return None

    def left(self, meter: str) -> int:
        """What may still be used of a meter that is limited."""
        limits = (left[meter] for left in (self._today, self._in_all) if meter in left)
        return max(min(limits), 0)

    def take(self, usage: Mapping[str, int]) -> None:
        """Count this use."""
        for meter, quantity in usage.items():
            for left in (self._today, self._in_all):
                if meter in left:
                    left[meter] -= quantity


def without(used_today: Mapping[str, int], usage: Mapping[str, int]) -> dict[str, int]:
    """What was used of a day, where some of it was none after all; never below nothing."""
    left = {meter: quantity - usage.get(meter, 0) for meter, quantity in sorted(used_today.items())}
    return {meter: quantity for meter, quantity in left.items() if quantity > 0}
