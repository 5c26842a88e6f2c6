"""The law of corrections: what is signed, what may be taken back, and what that is worth."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.protocol.corrections import (
    CallBack,
    Correction,
    calls_document,
    calls_sha256,
    misfit,
    read_calls,
    read_correction,
    worth,
)
from farthing.protocol.documents import DocumentError
from farthing.protocol.rating import CompiledCard, compile_card, parse_card, rate
from farthing.protocol.usage import BATCH_EVENTS_MAX
from tests.protocol.vectors import cases, vectors

VECTORS = vectors("corrections")
CARDS = vectors("rating")["cards"]
CHARGE = VECTORS["signed"][0]["document"]["charge_id"]


def card_of(name: str) -> CompiledCard:
    return compile_card(parse_card(CARDS[name]["document"]))


def numbers(quantities: dict[str, str]) -> dict[str, int]:
    return {meter: int(each) for meter, each in quantities.items()}


@pytest.mark.parametrize("case", cases(VECTORS["signed"]))
def test_a_correction_is_read_and_signed_in_one_spelling(case: Any) -> None:
    correction = read_correction(case["document"])
    assert correction.document() == case["document"]
    assert correction.signed_bytes() == case["signed"].encode()


@pytest.mark.parametrize("case", cases(VECTORS["refused"]))
def test_what_is_no_correction_is_refused_at_its_first_fault(case: Any) -> None:
    with pytest.raises(DocumentError) as error:
        read_correction(case["document"])
    assert (error.value.path, error.value.reason) == (case["path"], case["fault"])


def test_no_more_calls_are_corrected_at_once_than_a_batch_has() -> None:
    calls = [CallBack(seq, {"page": 1}) for seq in range(1, BATCH_EVENTS_MAX + 2)]
    most = Correction(charge_id=CHARGE, calls=tuple(calls[:-1]))
    assert read_correction(most.document()) == most
    with pytest.raises(DocumentError, match="wrong_count"):
        read_correction(Correction(charge_id=CHARGE, calls=tuple(calls)).document())


@pytest.mark.parametrize("case", cases(VECTORS["fits"]))
def test_only_what_a_billed_call_used_is_taken_back_once(case: Any) -> None:
    document = {"charge_id": CHARGE, "corrections": case["corrections"]}
    billed = {each.seq: each.usage for each in read_calls(VECTORS["billed"])}
    found = misfit(read_correction(document), billed, case["corrected"])
    assert (found.path if found else "") == case["path"]
    assert (found.remaining if found else "") == case["remaining"]


@pytest.mark.parametrize("case", cases(VECTORS["worth"]))
def test_what_is_taken_back_is_worth_what_it_adds_to_the_position(case: Any) -> None:
    found = worth(card_of(case["card"]), numbers(case["position"]), numbers(case["taken_back"]))
    assert (found.units, found.position) == (int(case["units"]), numbers(case["after"]))
    assert sum(line.amount_units for line in found.lines) == found.units


@given(st.sampled_from(sorted(CARDS)), st.lists(st.integers(1, 500), min_size=1, max_size=8))
def test_taken_back_in_whatever_parts_all_is_worth_what_it_had_cost(
    name: str, parts: list[int]
) -> None:
    card = card_of(name)
    meter = min(card.by_meter)
    if name == "dear":
        parts = [1]
    position = {meter: sum(parts)}
    whole = rate(card, {}, position).total_units
    given_back = 0
    for part in parts:
        back = worth(card, position, {meter: part})
        given_back += back.units
        position = back.position
    assert (given_back, position) == (whole, {meter: 0})


@given(
    st.lists(
        st.builds(
            CallBack,
            st.integers(1, 2**53 - 1),
            st.dictionaries(st.sampled_from(("page", "word")), st.integers(1, 10**15)),
        ),
        max_size=6,
    )
)
def test_calls_are_kept_and_told_apart_as_they_are(calls: list[CallBack]) -> None:
    assert read_calls(calls_document(calls)) == tuple(calls)
    others = [*calls, CallBack(1, {})]
    assert calls_sha256(calls) != calls_sha256(others)


def test_the_totals_of_a_correction_are_by_meter() -> None:
    calls = (CallBack(1, {"word": 2, "page": 1}), CallBack(2, {"page": 3}))
    assert Correction(charge_id=CHARGE, calls=calls).totals() == {"page": 4, "word": 2}
