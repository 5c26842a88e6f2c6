"""Reading reported usage: the batches of a session, and what was rejected for whom and why.

Boundary: reads a view; what the tables do not hold yet is in its tail, and never both.
Source: spec/metering.md#what-was-rejected.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, func, or_, select, tuple_

from farthing.protocol.canonical import INTEGER_MAX
from farthing.settlement.reports.reads import View
from farthing.settlement.reports.tables import REJECTED, REPORT
from farthing.settlement.reports.usage import Party, Rejection, Report

__all__ = ["Rejected", "reasons_of", "rejected_of", "reports_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """Which rejections: those of a party's sessions, narrowed down by what is not empty."""

    principal_id: str
    session_id: str = ""
    agreement_id: str = ""
    reason: str = ""
    call: int = 0
    seq_max: int = INTEGER_MAX

    def matches(self, each: Rejection) -> bool:
        """Whether a rejection is one of these."""
        pairs = (
            (self.session_id, each.session_id),
            (self.agreement_id, each.agreement_id),
            (self.reason, each.reason),
            (self.call, each.call),
        )
        return (
            self.principal_id in each.party
            and each.seq <= self.seq_max
            and all(not wanted or wanted == found for wanted, found in pairs)
        )

    @property
    def where(self) -> list[ColumnElement[bool]]:
        """The same for the tables."""
        parties = (REJECTED.c.buyer_id, REJECTED.c.operator_id, REJECTED.c.vendor_id)
        wanted = (
            (REJECTED.c.session_id, self.session_id),
            (REJECTED.c.agreement_id, self.agreement_id),
            (REJECTED.c.reason, self.reason),
            (REJECTED.c.call, self.call),
        )
        return [
            or_(*(each == self.principal_id for each in parties)),
            REJECTED.c.seq <= self.seq_max,
            *(column == value for column, value in wanted if value),
        ]


async def rejected_of(
    view: View, wanted: Rejected, before: tuple[int, int], limit: int
) -> list[Rejection]:
    """Rejections before a place, newest first."""
    late = [each for each in view.rejections if wanted.matches(each) and each.key < before]
    found = sorted(late, key=lambda each: each.key, reverse=True)[:limit]
    if len(found) < limit:
        key = (REJECTED.c.seq, REJECTED.c.place)
        rows = await view.rows(
            select(REJECTED)
            .where(*wanted.where, tuple_(*key) < before)
            .order_by(*(each.desc() for each in key))
            .limit(limit - len(found))
        )
        found += map(_rejection, rows)
    return found


async def reasons_of(view: View, wanted: Rejected) -> dict[str, int]:
    """How many events were rejected, by reason."""
    counts = Counter[str]()
    grouped = (
        select(REJECTED.c.reason, func.sum(REJECTED.c.events).label("events"))
        .where(*wanted.where)
        .group_by(REJECTED.c.reason)
    )
    for row in await view.rows(grouped):
        counts[row.reason] += row.events
    for each in view.rejections:
        if wanted.matches(each):
            counts[each.reason] += each.events
    return dict(sorted(counts.items()))


async def reports_of(view: View, session_id: str, call: int = 0) -> list[Report]:
    """The accepted batches of a session in order; those alone that may have taken a call."""
    where = [REPORT.c.session_id == session_id]
    if call:
        where += [REPORT.c.call_min <= call, REPORT.c.call_max >= call]
    rows = await view.rows(select(REPORT).where(*where).order_by(REPORT.c.seq))
    found: Iterable[Report] = (Report(**row._asdict()) for row in rows)
    return [
        *found,
        *(
            each
            for each in view.reports
            if each.session_id == session_id
            and (not call or each.call_min <= call <= each.call_max)
        ),
    ]


def _rejection(row: Row[Any]) -> Rejection:
    members = row._asdict()
    party = Party(*(members.pop(name) for name in Party._fields))
    return Rejection(party=party, **members)
