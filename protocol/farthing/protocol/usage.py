"""Usage events: one metered call of a session each, in the shape of CloudEvents 1.0.

Boundary: the shape of an event and of a batch, and the words for what becomes of them. Digests and
quantities only: a member that could carry content is unknown, and so refused. A batch is its
canonical bytes, for they are what the vendor signs; whether an event is billed is judged by the
engine. Source: spec/metering.md.
"""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Final

import msgspec

from farthing.protocol.canonical import (
    INTEGER_MAX,
    InvalidJson,
    Json,
    canonical_bytes,
    parse_json,
)
from farthing.protocol.documents import SLUG, DocumentError, Fault, Fields
from farthing.protocol.ids import SessionId
from farthing.protocol.rating.card import DIMENSIONS_MAX, QUANTITY_MAX
from farthing.protocol.times import SECOND_US, format_time, parse_time
from farthing.protocol.wire import ROOT

__all__ = [
    "BATCH_BYTES_MAX",
    "BATCH_EVENTS_MAX",
    "BATCH_METERS_MAX",
    "BILLED",
    "METERS_MAX",
    "REPORT_WINDOW_US",
    "SKEW_US",
    "Columns",
    "UsageEvent",
    "UsageFault",
    "UsageOutcome",
    "batch_bytes",
    "event_document",
    "is_meter",
    "read_batch",
]

BATCH_EVENTS_MAX: Final = 1000
# An event has three pairs.
_BRACKETS_MAX: Final = 4 * BATCH_EVENTS_MAX
BATCH_BYTES_MAX: Final = 600_000
METERS_MAX: Final = 20
BATCH_METERS_MAX: Final = DIMENSIONS_MAX
"""A card has no more; without a bound the columns of a batch would be a thousand times its size."""
REPORT_WINDOW_US: Final = 300 * SECOND_US
"""For how long after a session's end the calls from before it can be reported."""
SKEW_US: Final = 5 * SECOND_US
"""How far a vendor's clock may be off the platform's."""

_SPECVERSION: Final = "1.0"
_TYPE: Final = f"{ROOT}.usage.v1"
_METER_CHARACTERS_MAX: Final = 64
_ID: Final = re.compile(r"[1-9][0-9]{0,15}")
_QUANTITY: Final = re.compile(r"0|[1-9][0-9]{0,15}")
_TO_SECOND: Final = len("2026-11-21T11:22:33.")
_MICROSECONDS: Final = re.compile(r"[0-9]{6}Z")


class UsageOutcome(StrEnum):
    """How a metered call ended."""

    SUCCEEDED = "succeeded"
    FAILED_VENDOR = "failed_vendor"
    """The vendor could not deliver."""
    FAILED_BUYER = "failed_buyer"
    """What the buyer sent could not be worked on."""
    RETRIED = "retried"
    """Given up for another call in its place."""
    TIMED_OUT = "timed_out"


BILLED: Final = frozenset({UsageOutcome.SUCCEEDED})
"""The terms' clause `refunds.undelivered: not_charged` says that nothing else is."""

_OUTCOMES: Final = tuple(UsageOutcome)
_PLACES: Final = {outcome.value: place for place, outcome in enumerate(_OUTCOMES)}
_BILLED_PLACES: Final = frozenset(map(_OUTCOMES.index, BILLED))
_PLACES_READ: Final = {outcome.encode(): place for outcome, place in _PLACES.items()}


class UsageFault(StrEnum):
    """Why an event of an accepted batch is rejected, in order of precedence."""

    DUPLICATE = "duplicate"
    """Its number was taken before."""
    OUT_OF_WINDOW = "out_of_window"
    """Its number is too far behind the highest one taken, or ahead of it."""
    BEFORE_SESSION = "before_session"
    """Its time is before the session was opened."""
    AFTER_END = "after_end"
    """Its time is after the session's `expires_at`."""
    IN_FUTURE = "in_future"
    """Its time has not come."""
    FROZEN = "frozen"
    """Its time is after the buyer was frozen."""
    UNKNOWN_METER = "unknown_meter"
    """It uses a meter that the rate card has no price for."""
    OVER_ALLOWANCE = "over_allowance"
    """The agreement's allowance for a meter is used up."""
    OVER_PER_CALL = "over_per_call"
    """It costs more than the session lets one call cost."""
    OVER_CAP = "over_cap"
    """The session's money is used up."""
    BEYOND_VOUCHER = "beyond_voucher"
    """No voucher that settlement has seen covers its number, or the sum with it."""


class UsageEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One call, metered by the vendor.

    `seq` is the call's number in its session, `usage` the quantities by meter in their smallest
    unit. A result there is only of a call that succeeded.
    """

    seq: int
    at_us: int
    usage: Mapping[str, int]
    outcome: UsageOutcome
    args_sha256: str
    result_sha256: str = ""


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """A batch as settlement reads it: one place for each event, in the batch's order.

    `outcomes` are places in `UsageOutcome`; `usage` has, by meter, 0 where an event has none of it.
    The digests are not here: nothing is judged by them, and the signed text has them.
    """

    seqs: tuple[int, ...]
    at_us: tuple[int, ...]
    outcomes: tuple[int, ...]
    usage: dict[str, tuple[int, ...]]

    def usage_of(self, place: int) -> dict[str, int]:
        """What one event used, without the meters it used nothing of."""
        return {meter: each[place] for meter, each in self.usage.items() if each[place]}

    @property
    def billed(self) -> list[int]:
        """The places of the events whose outcome is one that is billed."""
        return [place for place, outcome in enumerate(self.outcomes) if outcome in _BILLED_PLACES]

    def is_billed(self, place: int) -> bool:
        """Whether an event's outcome is one that is billed."""
        return self.outcomes[place] in _BILLED_PLACES


def event_document(session_id: str, event: UsageEvent) -> dict[str, Json]:
    """The CloudEvent of a call: `source` and `id` together name it."""
    data: dict[str, Json] = {
        "args_sha256": event.args_sha256,
        "outcome": event.outcome.value,
        "usage": {meter: str(quantity) for meter, quantity in event.usage.items()},
    }
    if event.outcome is UsageOutcome.SUCCEEDED:
        data["result_sha256"] = event.result_sha256
    return {
        "specversion": _SPECVERSION,
        "type": _TYPE,
        "source": _source(session_id),
        "id": str(event.seq),
        "time": format_time(event.at_us),
        "data": data,
    }


def batch_bytes(session_id: str, events: Sequence[UsageEvent]) -> bytes:
    """The bytes of a batch, which its vendor signs: canonical JSON, an array of events."""
    assert 1 <= len(events) <= BATCH_EVENTS_MAX, "a batch has a bound"
    return b"[%b]" % b",".join([_event_bytes(session_id, event) for event in events])


def _event_bytes(session_id: str, event: UsageEvent) -> bytes:
    """The canonical bytes of an event: written in their form where that is what comes of it."""
    usage = event.usage
    counted = ",".join([f'"{meter}":"{usage[meter]}"' for meter in sorted(usage)])
    is_done = event.outcome is UsageOutcome.SUCCEEDED
    result = f',"result_sha256":"{event.result_sha256}"' if is_done else ""
    data = (
        f'{{"data":{{"args_sha256":"{event.args_sha256}","outcome":"{event.outcome.value}"{result},'
        f'"usage":{{{counted}}}}},"id":"{event.seq}","source":"{_source(session_id)}",'
        f'"specversion":"{_SPECVERSION}","time":"{_second_text(event.at_us // SECOND_US)}'
        f'{event.at_us % SECOND_US:06d}Z","type":"{_TYPE}"}}'
    ).encode(errors="surrogatepass")
    if _EVENT.fullmatch(data) is not None and all(map(is_meter, usage)):
        return data
    return canonical_bytes(event_document(session_id, event))


def read_batch(data: bytes, session_id: SessionId) -> Columns:
    """Read a batch of one session's events.

    Args:
        data: The bytes that the vendor signed.
        session_id: The only session its events may be of.

    Raises:
        DocumentError: For the first event that is none, with a path such as
            `batch.17.data.usage`; at `batch` where it is no canonical JSON array, or too large.
    """
    if len(data) > BATCH_BYTES_MAX:
        raise DocumentError("batch", Fault.OUT_OF_RANGE)
    columns = _read_quickly(data, _source(session_id))
    return _read(data, _source(session_id)) if columns is None else columns


# The one form that canonical JSON gives an event.
_EVENT: Final = re.compile(
    rb'(\{"data":\{"args_sha256":"[0-9a-f]{64}","outcome":"([a-z_]+)"'
    rb'(,"result_sha256":"[0-9a-f]{64}")?,"usage":\{([^{}]*)\}\},"id":"([1-9][0-9]{0,15})",'
    rb'"source":"([a-z0-9:_]+)","specversion":"1\.0",'
    rb'"time":"([0-9T:-]{19}\.)([0-9]{6})Z","type":"org\.farthing\.usage\.v1"\})'
)
_QUANTITY_OF: Final = re.compile(rb'"([a-z0-9._-]+)":"(0|[1-9][0-9]{0,15})"')


def _read_quickly(data: bytes, source: str) -> Columns | None:
    # What is found covers every byte, so nothing was passed over. None stands for whatever is
    # wrong: `_read` says what.
    found = _EVENT.findall(data, 0, BATCH_BYTES_MAX)
    if not 1 <= len(found) <= BATCH_EVENTS_MAX:
        return None
    events, outcomes, results, usages, ids, sources, starts, ends = zip(*found, strict=True)
    if b"[%b]" % b",".join(events) != data or set(sources) != {source.encode()}:
        return None
    places = [_PLACES_READ.get(outcome, -1) for outcome in outcomes]
    if [bool(result) for result in results] != [place == 0 for place in places] or -1 in places:
        return None
    seqs = list(map(int, ids))
    # A batch has few seconds, and few ways to use something: each is read once.
    seconds_us = {start: _second_us(start.decode()) for start in set(starts)}
    at_us = [seconds_us[start] + int(end) for start, end in zip(starts, ends, strict=True)]
    usage = _columns_of(usages)
    if usage is None or max(seqs) > INTEGER_MAX or min(at_us) < 1:
        return None
    return _columns(seqs, at_us, places, usage)


def _columns_of(usages: Sequence[bytes]) -> dict[str, list[int]] | None:
    by_text: dict[bytes, dict[str, int]] = {}
    for text in set(usages):
        quantities = _QUANTITY_OF.findall(text)
        if b",".join([b'"%b":"%b"' % each for each in quantities]) != text:
            return None
        read = {meter.decode(): int(quantity) for meter, quantity in quantities}
        if [*read] != sorted(read) or not len(quantities) == len(read) <= METERS_MAX:
            return None
        if max(read.values(), default=0) > QUANTITY_MAX:
            return None
        by_text[text] = read
    meters = {meter for read in by_text.values() for meter in read}
    if len(meters) > BATCH_METERS_MAX or not all(map(is_meter, meters)):
        return None
    columns: dict[str, list[int]] = {}
    for meter in meters:
        quantity_of = {text: read.get(meter, 0) for text, read in by_text.items()}
        columns[meter] = list(map(quantity_of.__getitem__, usages))
    return columns


def _read(data: bytes, source: str) -> Columns:
    """The same, one event after the other, with the place of what is wrong."""
    # Told before it is parsed: a byte of brackets costs more than a hundred of an event.
    if data.count(b"[") + data.count(b"{") > _BRACKETS_MAX:
        raise DocumentError("batch", Fault.WRONG_COUNT)
    try:
        events = parse_json(data)
        is_canonical = canonical_bytes(events) == data
    except InvalidJson:
        raise DocumentError("batch", Fault.INVALID_FORM) from None
    if not isinstance(events, list):
        raise DocumentError("batch", Fault.WRONG_TYPE)
    if not 1 <= len(events) <= BATCH_EVENTS_MAX:
        raise DocumentError("batch", Fault.WRONG_COUNT)
    seqs: list[int] = []
    at_us: list[int] = []
    outcomes: list[int] = []
    usage: dict[str, list[int]] = {}
    for place, each in enumerate(events):
        fields = Fields(each, f"batch.{place}")
        for name, value in (("specversion", _SPECVERSION), ("type", _TYPE), ("source", source)):
            if fields.value(name) != value:
                raise DocumentError(fields.at(name), Fault.UNKNOWN_VALUE)
        seqs.append(_integer(fields, "id", _ID, INTEGER_MAX))
        at_us.append(_time(fields))
        details = fields.fields("data")
        outcomes.append(_PLACES[_details(details).value])
        _add_usage(details, place, len(events), usage)
        details.end()
        fields.end()
    if not is_canonical:
        raise DocumentError("batch", Fault.INVALID_FORM)
    return _columns(seqs, at_us, outcomes, usage)


def _details(details: Fields) -> UsageOutcome:
    details.digest("args_sha256")
    outcome = details.member("outcome", UsageOutcome)
    if outcome is UsageOutcome.SUCCEEDED:
        details.digest("result_sha256")
    return outcome


def _add_usage(details: Fields, place: int, count: int, usage: dict[str, list[int]]) -> None:
    meters, names = details.fields("usage"), details.mapping("usage")
    if len(names) > METERS_MAX:
        raise DocumentError(meters.path, Fault.WRONG_COUNT)
    for meter in names:
        if not is_meter(meter):
            raise DocumentError(meters.path, Fault.INVALID_FORM)
        quantity = _integer(meters, meter, _QUANTITY, QUANTITY_MAX)
        if meter not in usage and len(usage) == BATCH_METERS_MAX:
            raise DocumentError("batch", Fault.WRONG_COUNT)
        usage.setdefault(meter, [0] * count)[place] = quantity


def _integer(fields: Fields, name: str, form: re.Pattern[str], at_most: int) -> int:
    number = int(fields.text(name, length_max=len(str(INTEGER_MAX)), form=form))
    if number > at_most:
        raise DocumentError(fields.at(name), Fault.OUT_OF_RANGE)
    return number


def _time(fields: Fields) -> int:
    at_us = _instant_us(fields.text("time", length_max=len("2026-11-21T11:22:33.123456Z")))
    if at_us < 1:
        raise DocumentError(fields.at("time"), Fault.INVALID_FORM)
    return at_us


def _columns(
    seqs: list[int], at_us: list[int], outcomes: list[int], usage: Mapping[str, list[int]]
) -> Columns:
    return Columns(
        seqs=tuple(seqs),
        at_us=tuple(at_us),
        outcomes=tuple(outcomes),
        usage={meter: tuple(usage[meter]) for meter in sorted(usage)},
    )


def _source(session_id: str) -> str:
    return f"urn:farthing:{session_id}"


# A batch has few meters and few seconds: each is looked at once.
@lru_cache(maxsize=1024)
def is_meter(name: str) -> bool:
    """Whether a text has the form of a meter's name."""
    return len(name) <= _METER_CHARACTERS_MAX and SLUG.fullmatch(name) is not None


@lru_cache(maxsize=64)
def _second_text(second: int) -> str:
    return format_time(second * SECOND_US)[:_TO_SECOND]


@lru_cache(maxsize=4096)
def _second_us(text: str) -> int:
    try:
        return parse_time(f"{text}000000Z")
    except ValueError:
        return -SECOND_US


def _instant_us(text: str) -> int:
    """The instant of a time on the wire after 1970; below 1 where it is none."""
    if _MICROSECONDS.fullmatch(text, _TO_SECOND) is None:
        return 0
    return _second_us(text[:_TO_SECOND]) + int(text[_TO_SECOND:-1])
