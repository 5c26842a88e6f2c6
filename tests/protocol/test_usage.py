"""A batch is read as the vendor signed it or refused at the place of its first fault."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from farthing.protocol import usage
from farthing.protocol.canonical import INTEGER_MAX, canonical_bytes
from farthing.protocol.documents import DocumentError, Fault
from farthing.protocol.ids import SessionId
from farthing.protocol.rating.card import QUANTITY_MAX
from farthing.protocol.usage import (
    BATCH_BYTES_MAX,
    BATCH_EVENTS_MAX,
    BATCH_METERS_MAX,
    BILLED,
    METERS_MAX,
    Columns,
    UsageEvent,
    UsageOutcome,
    batch_bytes,
    event_document,
    read_batch,
)
from tests.protocol.vectors import cases, vectors

VECTORS = vectors("usage")
SESSION = SessionId(VECTORS["session_id"])
DIGEST = "0" * 64

meters = st.dictionaries(
    st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True), st.integers(0, QUANTITY_MAX), max_size=4
)


@st.composite
def events(draw: st.DrawFn) -> UsageEvent:
    outcome = draw(st.sampled_from(UsageOutcome))
    has_result = outcome is UsageOutcome.SUCCEEDED
    return UsageEvent(
        seq=draw(st.integers(1, INTEGER_MAX)),
        at_us=draw(st.integers(1, INTEGER_MAX)),
        usage=draw(meters),
        outcome=outcome,
        args_sha256=draw(st.sampled_from((DIGEST, "ab" * 32))),
        result_sha256="cd" * 32 if has_result else "",
    )


def event_of(document: dict[str, Any]) -> UsageEvent:
    quantities = {meter: int(quantity) for meter, quantity in document["usage"].items()}
    outcome = UsageOutcome(document["outcome"])
    return UsageEvent(**document | {"usage": quantities, "outcome": outcome})


def columns_of(listed: list[UsageEvent]) -> Columns:
    names = sorted({meter for event in listed for meter in event.usage})
    return Columns(
        seqs=tuple(event.seq for event in listed),
        at_us=tuple(event.at_us for event in listed),
        outcomes=tuple([*UsageOutcome].index(event.outcome) for event in listed),
        usage={name: tuple(event.usage.get(name, 0) for event in listed) for name in names},
    )


def refusal(data: bytes) -> tuple[str, Fault]:
    with pytest.raises(DocumentError) as refused:
        read_batch(data, SESSION)
    return refused.value.path, refused.value.reason


@pytest.mark.parametrize("case", cases(VECTORS["accepted"]))
def test_a_batch_is_made_and_read(case: dict[str, Any]) -> None:
    listed = [event_of(document) for document in case["events"]]
    assert batch_bytes(SESSION, listed).decode() == case["batch"]
    assert read_batch(case["batch"].encode(), SESSION) == columns_of(listed)


@pytest.mark.parametrize("case", cases(VECTORS["refused"]))
def test_a_batch_is_refused_at_the_place_of_its_first_fault(case: dict[str, Any]) -> None:
    assert refusal(case["batch"].encode()) == (case["path"], case["fault"])


@given(st.lists(events(), min_size=1, max_size=12))
def test_what_was_metered_is_what_is_read(listed: list[UsageEvent]) -> None:
    assert read_batch(batch_bytes(SESSION, listed), SESSION) == columns_of(listed)


TEXTS = st.one_of(st.just(DIGEST), st.sampled_from(("", '"', "\\", "\u00e9", "{}", "a,b")))


@given(listed=st.lists(events(), min_size=1, max_size=3), args=TEXTS, result=TEXTS, source=TEXTS)
def test_a_batch_is_canonical_whatever_its_texts_hold(
    listed: list[UsageEvent], args: str, result: str, source: str
) -> None:
    odd = [replace(each, args_sha256=args, result_sha256=result) for each in listed]
    documents = [event_document(f"{SESSION}{source}", each) for each in odd]
    assert batch_bytes(f"{SESSION}{source}", odd) == canonical_bytes(documents)


MUTATED = st.sampled_from(
    [
        "id",
        "time",
        "type",
        "source",
        "specversion",
        "args_sha256",
        "outcome",
        "result_sha256",
        "usage",
        "page",
    ]
)
VALUES = st.one_of(
    st.sampled_from(("", "0", "00", "7", "+7", "1.0", "10000000000000001", "9007199254740992")),
    st.sampled_from(("2026-11-21T11:22:33.123456Z", "2026-11-21T11:22:33Z", "0001-01-01T00:00:00")),
    st.sampled_from((*UsageOutcome, DIGEST, DIGEST[1:], "AB" * 32, f"urn:farthing:{SESSION}")),
    st.sampled_from(
        (0, 1, True, [], {}, {"page": "1"}, {"Page": "1"}, {"page": 1}, {"a" * 65: "1"})
    ),
    st.text(max_size=30).filter(lambda text: text.isprintable()),
)


@given(name=MUTATED, value=VALUES, is_added=st.booleans())
@example(name="page", value=str(QUANTITY_MAX + 1), is_added=False)
@example(
    name="usage", value={f"m{number}": "1" for number in range(METERS_MAX + 1)}, is_added=False
)
@example(name="time", value="1969-12-31T23:59:59.999999Z", is_added=False)
@example(name="time", value="1970-01-01T00:00:00.000000Z", is_added=False)
def test_the_quick_reader_and_the_exact_one_agree(*, name: str, value: Any, is_added: bool) -> None:
    whole = event_document(
        SESSION,
        UsageEvent(
            seq=7,
            at_us=1,
            usage={"page": 1},
            outcome=UsageOutcome.SUCCEEDED,
            args_sha256=DIGEST,
            result_sha256=DIGEST,
        ),
    )
    document: Any = json.loads(canonical_bytes(whole))
    for part in (document, document["data"], document["data"]["usage"]):
        if name in part:
            part[name] = value
        elif is_added:
            part["content"] = value
            break
    data = canonical_bytes([whole, document])
    source = f"urn:farthing:{SESSION}"
    quick = usage._read_quickly(data, source)  # noqa: SLF001 - the two are private to one another
    try:
        exact = usage._read(data, source)  # noqa: SLF001
    except DocumentError:
        exact = None
    assert quick == exact


@given(st.binary(max_size=60))
def test_bytes_that_are_no_batch_are_refused(data: bytes) -> None:
    assert refusal(data)[0].startswith("batch")


@given(st.integers(0, 10_000), st.sampled_from((b" ", b"\n", b"\t")))
def test_every_batch_has_one_spelling(place: int, space: bytes) -> None:
    data = VECTORS["accepted"][0]["batch"].encode()
    place %= len(data)
    assert refusal(data[:place] + space + data[place:])


def test_a_batch_has_a_bound_in_events_and_in_bytes() -> None:
    event = UsageEvent(seq=1, at_us=1, usage={}, outcome=UsageOutcome.TIMED_OUT, args_sha256=DIGEST)
    full = batch_bytes(SESSION, [event] * BATCH_EVENTS_MAX)
    assert len(read_batch(full, SESSION).seqs) == BATCH_EVENTS_MAX
    more = full[:-1] + b"," + canonical_bytes(event_document(SESSION, event)) + b"]"
    assert refusal(more) == ("batch", Fault.WRONG_COUNT)
    assert refusal(b" " * (BATCH_BYTES_MAX + 1)) == ("batch", Fault.OUT_OF_RANGE)


def test_what_has_more_brackets_than_a_batch_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    def parse_json(data: bytes) -> None:
        pytest.fail(f"{len(data)} bytes are parsed")

    monkeypatch.setattr(usage, "parse_json", parse_json)
    nested = b"[%b]" % b",".join([b"[]"] * 100_000)
    assert refusal(nested) == ("batch", Fault.WRONG_COUNT)


def test_a_batch_names_no_more_meters_than_a_card_has() -> None:
    event = UsageEvent(seq=1, at_us=1, usage={}, outcome=UsageOutcome.TIMED_OUT, args_sha256=DIGEST)
    listed = [replace(event, usage={f"m{place}": 1}) for place in range(BATCH_METERS_MAX)]
    more = [*listed, replace(event, usage={"m": 1})]

    assert len(read_batch(batch_bytes(SESSION, listed), SESSION).usage) == BATCH_METERS_MAX
    assert refusal(batch_bytes(SESSION, more)) == ("batch", Fault.WRONG_COUNT)


def test_a_batch_of_the_largest_single_meter_events_fits() -> None:
    largest = UsageEvent(
        seq=INTEGER_MAX,
        at_us=INTEGER_MAX,
        usage={"m" * 64: QUANTITY_MAX},
        outcome=UsageOutcome.SUCCEEDED,
        args_sha256=DIGEST,
        result_sha256=DIGEST,
    )
    assert len(batch_bytes(SESSION, [largest] * BATCH_EVENTS_MAX)) <= BATCH_BYTES_MAX


def test_nothing_but_success_is_billed() -> None:
    listed = [
        UsageEvent(
            seq=1 + place,
            at_us=1,
            usage={"page": place},
            outcome=outcome,
            args_sha256=DIGEST,
            result_sha256=DIGEST if place == 0 else "",
        )
        for place, outcome in enumerate(UsageOutcome)
    ]
    columns = read_batch(batch_bytes(SESSION, listed), SESSION)
    billed = [columns.is_billed(place) for place in range(len(listed))]
    assert billed == [outcome in BILLED for outcome in UsageOutcome] == [True, *[False] * 4]
    assert [columns.usage_of(place) for place in range(2)] == [{}, {"page": 1}]
