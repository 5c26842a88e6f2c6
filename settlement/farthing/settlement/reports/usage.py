"""Usage as rows: what may be used up, which batch holds which calls, what was rejected and why.

Boundary: pure, one record at a time, as `lines` is. A batch that could not be attributed is a row
of its own, known to nobody but who sent it. Source: spec/metering.md#what-was-rejected.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, cast

import msgspec

from farthing.protocol.canonical import Json
from farthing.protocol.errors import Code
from farthing.protocol.records import Record
from farthing.protocol.usage import UsageFault

__all__ = [
    "REASONS",
    "REFUSED",
    "UNATTRIBUTED",
    "Begun",
    "Party",
    "Rejection",
    "Report",
    "Usage",
    "fold_usage",
    "ids_in",
]

_REPORT: Final = "report_usage"
# What they set money aside for, by noun.
_BEGINS: Final = {"open_session": "session", "call_service": "hold"}
# In canonical bytes nothing but an event's own id is followed by its source.
_ID: Final = re.compile(r'"id":"([0-9]+)","source"')

UNATTRIBUTED: Final = "unattributed"
"""Why a batch counts for nobody: that it is of a session of its sender's is not proven."""
REFUSED: Final = "refused"
"""Why a batch counts for nothing, though its session is known; its code says more."""

REASONS: Final = (*(fault.value for fault in UsageFault), UNATTRIBUTED, REFUSED)


class Party(NamedTuple):
    """Who may see a row; for what is not attributed only `vendor_id`, who sent it."""

    buyer_id: str
    operator_id: str
    vendor_id: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A batch that was accepted, and the least and greatest call taken of it; 0 where none was.

    Every number is taken once and within the window, so few batches of a session span one call,
    whatever numbers its vendor makes up.
    """

    seq: int
    at_us: int
    session_id: str
    agreement_id: str
    charge_id: str
    call_min: int
    call_max: int
    events: int
    rejected: int


class Rejection(msgspec.Struct, frozen=True, kw_only=True):
    """An event that was not taken; or a whole batch of `events`, then `call` is 0.

    `code` is the refusal of a batch, empty for an event. A batch that cannot be read is one event.
    """

    seq: int
    place: int
    at_us: int
    session_id: str
    agreement_id: str
    party: Party
    call: int
    reason: str
    code: str
    events: int

    @property
    def key(self) -> tuple[int, int]:
        """Its place in the journal."""
        return self.seq, self.place


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """A session that was opened, or the hold of a call that the platform was asked to make."""

    seq: int
    at_us: int
    agreement_id: str
    noun: str
    id: str

    @property
    def key(self) -> tuple[int, str]:
        """Its place among those of an agreement."""
        return self.at_us, self.id


@dataclass(frozen=True, slots=True)
class Usage:
    """What a stretch of records says of usage, each in the journal's order."""

    begun: list[Begun] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)


def fold_usage(records: Iterable[Record]) -> Usage:
    """What a stretch of records says of usage."""
    found = Usage()
    for record in records:
        if record.operation == _REPORT:
            _report(found, record)
        elif record.operation in _BEGINS and record.refused is None:
            found.begun.append(_begun(record))
    return found


def ids_in(record: Record) -> list[int]:
    """The numbers of the calls of an accepted batch, in its order."""
    return [*map(int, _ID.findall(cast("str", (record.facts or {})["usage"])))]


def batch_reason(code: Code, path: str) -> str:
    """Why a whole batch counts for nothing, by what it was refused with."""
    foreign = code is Code.USAGE_INVALID and path == "session_id"
    return UNATTRIBUTED if foreign or code is Code.SIGNATURE_INVALID else REFUSED


def _begun(record: Record) -> Begun:
    noun = _BEGINS[record.operation]
    thing = next(each for each in record.changed if each.noun == noun)
    return Begun(
        seq=record.seq,
        at_us=record.at_us,
        agreement_id=str(thing.after["agreement_id"]),
        noun=noun,
        id=thing.id,
    )


def _report(found: Usage, record: Record) -> None:
    if record.refused is not None:
        found.rejections.append(_batch(record, record.refused))
        return
    session = next(each.after for each in record.changed if each.noun == "session")
    charges = [each.id for each in record.changed if each.noun == "charge"]
    calls = ids_in(record)
    rejected = cast("list[list[Json]]", (record.decided or {})["rejected"])
    taken = calls
    if rejected:
        places = {cast("int", place) for place, _ in rejected}
        taken = [call for place, call in enumerate(calls) if place not in places]
    report = Report(
        seq=record.seq,
        at_us=record.at_us,
        session_id=str(session["session_id"]),
        agreement_id=str(session["agreement_id"]),
        charge_id=charges[0] if charges else "",
        call_min=min(taken, default=0),
        call_max=max(taken, default=0),
        events=len(calls),
        rejected=len(rejected),
    )
    found.reports.append(report)
    party = Party(*(str(session[name]) for name in Party._fields))
    found.rejections.extend(_rejections(report, party, calls, rejected))


def _rejections(
    report: Report, party: Party, calls: Sequence[int], rejected: Iterable[list[Json]]
) -> list[Rejection]:
    return [
        Rejection(
            seq=report.seq,
            place=cast("int", place),
            at_us=report.at_us,
            session_id=report.session_id,
            agreement_id=report.agreement_id,
            party=party,
            call=calls[cast("int", place)],
            reason=str(reason),
            code="",
            events=1,
        )
        for place, reason in rejected
    ]


def _batch(record: Record, refused: dict[str, Any]) -> Rejection:
    asked = cast("dict[str, Json]", record.asked)
    events = asked.get("events", 0)
    code = Code(refused["code"])
    return Rejection(
        seq=record.seq,
        place=0,
        at_us=record.at_us,
        session_id=str(asked.get("session_id", "")),
        agreement_id="",
        party=Party("", "", record.by.principal_id),
        call=0,
        reason=batch_reason(code, str(refused.get("path", ""))),
        code=code.value,
        events=max(cast("int", events), 1),
    )
