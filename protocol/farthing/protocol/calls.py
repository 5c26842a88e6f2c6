"""The calls that a record of reported usage holds: what each used, and what became of it.

Boundary: reads a record that stands in a journal; that it is right is the auditor's to say. What
is here is the same for the platform that explains, and for whoever holds a receipt.
Source: spec/metering.md#one-call.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, cast

import msgspec

from farthing.protocol.batches import events_in
from farthing.protocol.canonical import Json, parse_json
from farthing.protocol.errors import Unverified
from farthing.protocol.merkle import inclusion_of, leaf_hash, read_path, verify_inclusion
from farthing.protocol.records import Record
from farthing.protocol.times import parse_time
from farthing.protocol.usage import UsageOutcome

__all__ = [
    "REPORT_USAGE",
    "ReportedCall",
    "find_call",
    "proof_of",
    "proven_call",
    "reported_calls",
    "session_of",
]

REPORT_USAGE: Final = "report_usage"


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


def session_of(record: Record) -> str:
    """Whose usage an accepted report is of; empty for any other record."""
    if record.operation != REPORT_USAGE or record.refused is not None:
        return ""
    return next((each.id for each in record.changed if each.noun == "session"), "")


def reported_calls(record: Record) -> list[ReportedCall]:
    """Every event of an accepted report, in the batch's order.

    Raises:
        Unverified: The record came without its batch.
    """
    verdicts = _Verdicts(record)
    return [
        verdicts.call(place, cast("Mapping[str, Json]", event))
        for place, event in enumerate(_events(record))
    ]


def find_call(record: Record, session_id: str, seq: int) -> ReportedCall | None:
    """One call of a session, where a record tells of it: as it was taken, else as it was not."""
    if session_of(record) != session_id:
        return None
    found = [each for each in reported_calls(record) if each.seq == seq]
    # A number stands twice in a batch where the second was a duplicate.
    return min(found, key=lambda each: bool(each.fault), default=None)


def proof_of(record: Record, place: int) -> tuple[str, tuple[str, ...]]:
    """One event of an accepted report, and its path to the root that the vendor signed."""
    events = events_in(_batch(record))
    return events[place].decode(), tuple(node.hex() for node in inclusion_of(events, place))


def proven_call(
    record: Record, session_id: str, seq: int, *, place: int, event: str, path: Sequence[str]
) -> ReportedCall:
    """One call of a session, of a record that a receipt has proven, with or without its batch.

    Args:
        record: The record of the report that tells of the call.
        session_id: Whose call.
        seq: Its number.
        place: Where in the batch it is.
        event: Its canonical text.
        path: The event's path to the batch's root, in hex.

    Raises:
        Unverified: The record says nothing of that call.
    """
    root, events = (record.facts or {}).get("usage_root"), record.asked.get("events")
    data = event.encode(errors="surrogatepass")
    try:
        nodes, (signed,) = read_path(path), read_path([str(root)])
        is_in = verify_inclusion(leaf_hash(data), place, cast("int", events), nodes, signed)
        document = parse_json(data)
    except (TypeError, ValueError) as error:
        raise Unverified(f"record {record.seq}: the event or its path cannot be read") from error
    is_told = isinstance(document, dict) and document.get("id") == str(seq)
    if session_of(record) != session_id or not (is_in and is_told):
        raise Unverified(f"record {record.seq} is not of call {seq} of {session_id}")
    return _Verdicts(record).call(place, cast("Mapping[str, Json]", document))


class _Verdicts:
    """What an accepted report decided of each event."""

    def __init__(self, record: Record) -> None:
        decided = cast("Mapping[str, Json]", record.decided)
        self._amounts = cast("list[str]", decided["amounts"])
        self._faults = {
            place: fault
            for place, fault, _ in cast("list[tuple[int, str, int]]", decided["rejected"])
        }

    def call(self, place: int, event: Mapping[str, Json]) -> ReportedCall:
        """The call of an event, with its verdict."""
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
            amount_units=int(self._amounts[place]),
            fault=self._faults.get(place, ""),
        )


def _batch(record: Record) -> bytes:
    text = (record.facts or {}).get("usage")
    if not isinstance(text, str):
        raise Unverified(f"record {record.seq} came without its batch")
    return text.encode()


def _events(record: Record) -> Iterator[Json]:
    batch = parse_json(_batch(record))
    assert isinstance(batch, list), "an accepted batch is an array"
    yield from batch
