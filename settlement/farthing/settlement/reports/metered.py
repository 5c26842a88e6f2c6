"""Reading reported usage: the batches of a session, and what was rejected for whom and why.

Boundary: reads a view; what the tables do not hold yet is in its tail, and never both.
Source: spec/metering.md#what-was-rejected.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from sqlalchemy import ColumnElement, Row, Table, func, select, tuple_

from farthing.protocol.canonical import INTEGER_MAX
from farthing.settlement.reports.reads import View
from farthing.settlement.reports.tables import BEGUN, CORRECTED, COUNTED, REJECTED, REPORT
from farthing.settlement.reports.usage import (
    REASONS,
    REFUSED,
    UNATTRIBUTED,
    Begun,
    Corrected,
    Party,
    Rejection,
    Report,
)

__all__ = [
    "Rejected",
    "Span",
    "begun_of",
    "corrections_within",
    "events_of",
    "last_rejected_of",
    "reasons_of",
    "rejected_of",
    "reports_of",
    "reports_within",
]

T = TypeVar("T", Corrected, Report)

_KEY: Final = (BEGUN.c.at_us, BEGUN.c.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """Which rejections: those of a party's sessions, narrowed down by what is not empty."""

    principal_id: str
    session_id: str = ""
    agreement_id: str = ""
    reason: str = ""
    seq_max: int = INTEGER_MAX

    def matches(self, each: Rejection) -> bool:
        """Whether a rejection is one of these."""
        pairs = (
            (self.session_id, each.session_id),
            (self.agreement_id, each.agreement_id),
            (self.reason, each.reason),
        )
        return (
            self.principal_id in each.party
            and each.seq <= self.seq_max
            and all(not wanted or wanted == found for wanted, found in pairs)
        )

    def counted(self, reason: str) -> list[ColumnElement[bool]]:
        """The records that rejected some of these for a reason; empty for any."""
        return [
            COUNTED.c.party == self.principal_id,
            COUNTED.c.under == (self.session_id or self.agreement_id),
            COUNTED.c.reason == reason,
            COUNTED.c.seq <= self.seq_max,
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """What began under an agreement within a time, after one of them and up to another."""

    agreement_id: str
    since_us: int = 0
    until_us: int = INTEGER_MAX
    after: tuple[int, str] = (-1, "")
    last: tuple[int, str] | None = None

    def has(self, each: Begun) -> bool:
        """Whether it began there."""
        return (
            each.agreement_id == self.agreement_id
            and self.since_us <= each.at_us < self.until_us
            and self.after < each.key
            and (self.last is None or each.key <= self.last)
        )

    @property
    def where(self) -> list[ColumnElement[bool]]:
        """The same for the table."""
        key = tuple_(*_KEY)
        return [
            BEGUN.c.agreement_id == self.agreement_id,
            BEGUN.c.at_us >= self.since_us,
            BEGUN.c.at_us < self.until_us,
            key > self.after,
            *([] if self.last is None else [key <= self.last]),
        ]


async def rejected_of(
    view: View, wanted: Rejected, before: tuple[int, int], limit: int
) -> list[Rejection]:
    """Rejections before a place, newest first."""
    late = [each for each in view.usage.rejections if wanted.matches(each) and each.key < before]
    # The index is entered at the page: one bound of the record stands there, and it is the nearer.
    nearer = replace(wanted, seq_max=min(wanted.seq_max, before[0]))
    stored = (
        select(REJECTED)
        .join(COUNTED, COUNTED.c.seq == REJECTED.c.seq)
        .where(
            *nearer.counted(wanted.reason),
            tuple_(REJECTED.c.seq, REJECTED.c.place) < before,
            *([REJECTED.c.reason == wanted.reason] if wanted.reason else []),
            *([REJECTED.c.agreement_id == wanted.agreement_id] if wanted.agreement_id else []),
        )
        .order_by(COUNTED.c.seq.desc(), REJECTED.c.place.desc())
        .limit(limit)
    )
    late.sort(key=lambda each: each.key, reverse=True)
    found = [*late, *map(_rejection, await view.rows(stored))]
    return found[:limit]


async def last_rejected_of(view: View, session_id: str, call: int) -> Rejection | None:
    """The last event of a call that was rejected."""
    late = [
        each for each in view.usage.rejections if (each.session_id, each.call) == (session_id, call)
    ]
    if late:
        return max(late, key=lambda each: each.key)
    stored = (
        select(REJECTED)
        .where(REJECTED.c.session_id == session_id, REJECTED.c.call == call)
        .order_by(REJECTED.c.seq.desc(), REJECTED.c.place.desc())
        .limit(1)
    )
    rows = await view.rows(stored)
    return _rejection(rows[0]) if rows else None


async def reasons_of(view: View, wanted: Rejected) -> dict[str, int]:
    """How many events were rejected, by reason."""
    reasons = [each for each in REASONS if wanted.reason in {"", each}]
    if wanted.session_id and wanted.agreement_id:
        # What was refused whole is of a session's name alone.
        reasons = [each for each in reasons if each not in {REFUSED, UNATTRIBUTED}]
        if not reasons or not await _is_under(view, wanted.session_id, wanted.agreement_id):
            return {}
    counts = Counter[str]()
    newest = [
        select(COUNTED.c.events)
        .where(*wanted.counted(reason))
        .order_by(COUNTED.c.seq.desc())
        .limit(1)
        .scalar_subquery()
        .label(reason)
        for reason in reasons
    ]
    for row in await view.rows(select(*newest)):
        counts.update({reason: events or 0 for reason, events in row._asdict().items()})
    for each in view.usage.rejections:
        if wanted.matches(each):
            counts[each.reason] += each.events
    return {reason: events for reason, events in sorted(counts.items()) if events}


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
            for each in view.usage.reports
            if each.session_id == session_id
            and (not call or each.call_min <= call <= each.call_max)
        ),
    ]


async def begun_of(view: View, span: Span, limit: int) -> list[Begun]:
    """The first sessions of a span, and holds of calls by the platform, by time and id."""
    stored = select(BEGUN).where(*span.where).order_by(*_KEY).limit(limit)
    found = [Begun(**row._asdict()) for row in await view.rows(stored)]
    found += filter(span.has, view.usage.begun)
    return sorted(found, key=lambda each: each.key)[:limit]


async def events_of(view: View, session_ids: Sequence[str]) -> Mapping[str, int]:
    """How many events were reported of sessions, rejected ones included."""
    grouped = (
        select(REPORT.c.session_id, func.sum(REPORT.c.events).label("events"))
        .where(REPORT.c.session_id.in_(session_ids))
        .group_by(REPORT.c.session_id)
    )
    counts = Counter({row.session_id: int(row.events) for row in await view.rows(grouped)})
    for report in view.usage.reports:
        counts[report.session_id] += report.events
    return counts


async def corrections_within(view: View, session_ids: Sequence[str]) -> Mapping[str, list[int]]:
    """The corrections of sessions, by session: their records in order."""
    found = await _within(view, CORRECTED, Corrected, view.usage.corrected, session_ids)
    return {session_id: [each.seq for each in some] for session_id, some in found.items()}


async def reports_within(view: View, session_ids: Sequence[str]) -> Mapping[str, list[Report]]:
    """The accepted batches of sessions, by session, in order."""
    return await _within(view, REPORT, Report, view.usage.reports, session_ids)


async def _is_under(view: View, session_id: str, agreement_id: str) -> bool:
    """Whether a session that was reported of is one of an agreement's."""
    known = {each.agreement_id for each in view.usage.reports if each.session_id == session_id}
    stored = select(REPORT.c.agreement_id).where(REPORT.c.session_id == session_id).limit(1)
    return agreement_id in known | {row.agreement_id for row in await view.rows(stored)}


async def _within(
    view: View, table: Table, kind: type[T], tail: Sequence[T], session_ids: Sequence[str]
) -> dict[str, list[T]]:
    """What is known of some sessions, each in the journal's order, stored and not yet stored."""
    stored = select(table).where(table.c.session_id.in_(session_ids)).order_by(table.c.seq)
    known = [kind(**row._asdict()) for row in await view.rows(stored)]
    known += tail
    found: dict[str, list[T]] = {session_id: [] for session_id in session_ids}
    for each in known:
        if each.session_id in found:
            found[each.session_id].append(each)
    return found


def _rejection(row: Row[Any]) -> Rejection:
    members = row._asdict()
    party = Party(*(members.pop(name) for name in Party._fields))
    return Rejection(party=party, **members)
