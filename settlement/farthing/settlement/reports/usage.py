"""Usage as rows: what may be used up, which batch holds which calls, what was rejected and why.

Boundary: pure, one record at a time, as `lines` is. A batch that could not be attributed is a row
of its own, known to nobody but who sent it. Source: spec/metering.md#what-was-rejected.
"""

from collections.abc import Iterable
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
    "Corrected",
    "CountKey",
    "Party",
    "Rejection",
    "Report",
    "Usage",
    "batch_reason",
    "fold_counts",
    "fold_usage",
]

_REPORT: Final = "report_usage"
_CORRECT: Final = "correct_usage"
# What they set money aside for, by noun.
_BEGINS: Final = {"open_session": "session", "call_service": "hold"}

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


class CountKey(NamedTuple):
    """What rejected events are counted by: each name but the party's may be empty, for all."""

    party: str
    under: str
    reason: str


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


class Corrected(msgspec.Struct, frozen=True, kw_only=True):
    """A correction of a session's calls."""

    seq: int
    session_id: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What a stretch of records says of usage, each in the journal's order."""

    begun: list[Begun] = field(default_factory=list)
    corrected: list[Corrected] = field(default_factory=list)
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
        elif record.operation == _CORRECT and record.refused is None:
            charge = next(each.after for each in record.changed if each.noun == "charge")
            session_id = str(charge["session_id"])
            found.corrected.append(Corrected(seq=record.seq, session_id=session_id))
    return found


def fold_counts(rejections: Iterable[Rejection]) -> dict[tuple[int, CountKey], int]:
    """How many events were rejected, by record and key. All of a record are of one session."""
    batches: dict[tuple[int, str], list[Rejection]] = {}
    for each in rejections:
        batches.setdefault((each.seq, each.reason), []).append(each)
    found: dict[tuple[int, CountKey], int] = {}
    for (seq, reason), batch in batches.items():
        events = sum(each.events for each in batch)
        for party in dict.fromkeys(filter(None, batch[0].party)):
            for under in dict.fromkeys(("", batch[0].session_id, batch[0].agreement_id)):
                for key in (CountKey(party, under, ""), CountKey(party, under, reason)):
                    found[seq, key] = found.get((seq, key), 0) + events
    return found


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
    decided = record.decided or {}
    rejected = cast("list[tuple[int, str, int]]", decided["rejected"])
    call_min, call_max = cast("list[int]", decided["span"]) or (0, 0)
    report = Report(
        seq=record.seq,
        at_us=record.at_us,
        session_id=str(session["session_id"]),
        agreement_id=str(session["agreement_id"]),
        charge_id=charges[0] if charges else "",
        call_min=call_min,
        call_max=call_max,
        events=cast("int", record.asked["events"]),
        rejected=len(rejected),
    )
    found.reports.append(report)
    party = Party(*(str(session[name]) for name in Party._fields))
    found.rejections.extend(_rejections(report, party, rejected))


def _rejections(
    report: Report, party: Party, rejected: Iterable[tuple[int, str, int]]
) -> list[Rejection]:
    return [
        Rejection(
            seq=report.seq,
            place=place,
            at_us=report.at_us,
            session_id=report.session_id,
            agreement_id=report.agreement_id,
            party=party,
            call=call,
            reason=reason,
            code="",
            events=1,
        )
        for place, reason, call in rejected
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
