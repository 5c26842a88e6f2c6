"""What can be wrong with a journal, as an auditor names it.

Boundary: values, and how a rule is said. Source: spec/audit.md.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from farthing.protocol.errors import Unverified

__all__ = ["Fault", "FaultKind", "RuleBroken", "rule"]


class FaultKind(StrEnum):
    """What of a journal is wrong."""

    RECORD = "record"
    LEDGER = "ledger"
    HEAD = "head"
    MISSING = "missing"
    KEY = "key"
    SIGNATURE = "signature"
    AUTHORITY = "authority"
    IDEMPOTENCY = "idempotency"
    HOLD = "hold"
    SESSION = "session"
    CHARGE = "charge"
    BATCH = "batch"
    TABLE = "table"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """The first thing that is wrong, at record `seq`.

    `RECORD`: that record was changed, removed or forged. `LEDGER`: its transfers break the ledger.
    `HEAD`: a signed head does not fit, so that nothing from that record on is proven.
    `MISSING`: a signed head covers that record, which is not there. `KEY` to `CHARGE`: the record
    is what was written, and breaks a rule that the platform is bound to. `BATCH`: the row that
    holds that record says other than its records. `TABLE`: what the database keeps beside the
    journal is not what the journal gives; `seq` is 0 where no record is to blame.
    """

    kind: FaultKind
    seq: int
    why: str


class RuleBroken(Unverified):
    """A record that is as it was written breaks a rule of the kind."""

    def __init__(self, kind: FaultKind, why: str) -> None:
        super().__init__(why)
        self.kind = kind
        self.why = why


def rule(kind: FaultKind, of: str = "") -> Callable[[bool, str], None]:
    """How a rule of the kind is said: `_lot(units >= 0, "more is drawn on it than it has")`.

    Args:
        kind: what of a journal is wrong where it does not hold.
        of: what it is a rule of, said before why.

    Returns:
        A function that raises `RuleBroken` unless what it is given holds.
    """

    def require(holds: bool, why: str) -> None:  # noqa: FBT001 - reads as a sentence
        if not holds:
            raise RuleBroken(kind, f"{of}: {why}" if of else why)

    return require
