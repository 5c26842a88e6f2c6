"""The calls that a record of reported usage holds: what each used, and what became of it.

Boundary: reads a record that stands in a journal; that it is right is the auditor's to say. What
is here is the same for the platform that explains, and for whoever holds a receipt.
Source: spec/metering.md#one-call.
"""

from collections.abc import Iterator, Mapping
from typing import Final, cast

import msgspec

from farthing.protocol.canonical import Json, parse_json
from farthing.protocol.errors import Unverified
from farthing.protocol.records import Record
from farthing.protocol.times import parse_time
from farthing.protocol.usage import UsageOutcome

__all__ = [
    "REPORT_USAGE",
    "ReportedCall",
    "brief_of",
    "call_of",
    "find_call",
    "reported_calls",
    "session_of",
]

REPORT_USAGE: Final = "report_usage"
# In the bytes of a record a quote within a text has a backslash before it: neither is in a text.
_TEXT_BEGINS: Final = b'"facts":{"usage":"['
_TEXT_ENDS: Final = b']","usage_signature":"'


class ReportedCall(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a batch. `fault` is why it was not taken; then nothing of it is billed."""

    seq: int
    place: int
    at_us: int
    outcome: UsageOutcome
    usage: Mapping[str, int]
    args_sha256: str
    result_sha256: str
    amount_units: int
    fault: str

    @property
    def is_taken(self) -> bool:
        """Whether the platform took it, billed or not."""
        return not self.fault


def brief_of(data: bytes) -> bytes:
    """The bytes of a record without the text of a batch, for whoever needs the decisions alone.

    They are no longer the record's: its hash, its leaf and its proof are of the whole.
    """
    begin = data.find(_TEXT_BEGINS)
    if begin < 0:
        return data
    begin += len(_TEXT_BEGINS) - 1
    end = data.find(_TEXT_ENDS, begin)
    return data if end < 0 else data[:begin] + data[end + 1 :]


def session_of(record: Record) -> str:
    """Whose usage an accepted report is of; empty for any other record."""
    if record.operation != REPORT_USAGE or record.refused is not None:
        return ""
    return next((each.id for each in record.changed if each.noun == "session"), "")


def reported_calls(record: Record) -> list[ReportedCall]:
    """Every event of an accepted report, in the batch's order."""
    decided = cast("Mapping[str, Json]", record.decided)
    amounts = cast("list[str]", decided["amounts"])
    rejected = {
        place: fault for place, fault, _ in cast("list[tuple[int, str, int]]", decided["rejected"])
    }
    return [
        _call(
            place, cast("Mapping[str, Json]", event), int(amounts[place]), rejected.get(place, "")
        )
        for place, event in enumerate(_events(record))
    ]


def find_call(record: Record, session_id: str, seq: int) -> ReportedCall | None:
    """One call of a session, where a record tells of it: as it was taken, else as it was not."""
    if session_of(record) != session_id:
        return None
    found = [each for each in reported_calls(record) if each.seq == seq]
    # A number stands twice in a batch where the second was a duplicate.
    return min(found, key=lambda each: bool(each.fault), default=None)


def call_of(record: Record, session_id: str, seq: int) -> ReportedCall:
    """One call of a session, as a record that a receipt has proven tells it.

    Raises:
        Unverified: The record says nothing of that call.
    """
    call = find_call(record, session_id, seq)
    if call is None:
        raise Unverified(f"record {record.seq} is not of call {seq} of {session_id}")
    return call


def _events(record: Record) -> Iterator[Json]:
    batch = parse_json(str((record.facts or {})["usage"]).encode())
    assert isinstance(batch, list), "an accepted batch is an array"
    yield from batch


def _call(place: int, event: Mapping[str, Json], units: int, fault: str) -> ReportedCall:
    details = cast("Mapping[str, Json]", event["data"])
    usage = cast("Mapping[str, str]", details["usage"])
    return ReportedCall(
        seq=int(cast("str", event["id"])),
        place=place,
        at_us=parse_time(cast("str", event["time"])),
        outcome=UsageOutcome(cast("str", details["outcome"])),
        usage={meter: int(quantity) for meter, quantity in usage.items()},
        args_sha256=cast("str", details["args_sha256"]),
        result_sha256=cast("str", details.get("result_sha256", "")),
        amount_units=units,
        fault=fault,
    )
