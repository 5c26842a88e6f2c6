"""A gateway's count has one spelling, and what is not one is refused where it goes wrong."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.protocol.canonical import parse_json
from farthing.protocol.documents import DocumentError
from farthing.protocol.gateways import GatewayReport
from farthing.protocol.ids import derive_id
from farthing.protocol.reconciliation import GatewayCount
from tests.protocol.documents import changed

AGREEMENT = derive_id("agr", "one")
FIRST, SECOND = sorted((derive_id("ses", "one"), derive_id("ses", "two")))
COUNT = st.builds(
    GatewayCount,
    calls=st.integers(0, 10**15),
    usage=st.dictionaries(st.sampled_from(["line", "page", "token"]), st.integers(0, 10**15)),
)
REPORT = GatewayReport(
    agreement_id=AGREEMENT,
    sessions={
        FIRST: GatewayCount(calls=3, usage={"line": 1, "page": 2}),
        SECOND: GatewayCount(calls=0),
    },
)


@given(st.dictionaries(st.sampled_from([FIRST, SECOND]), COUNT, min_size=1))
def test_what_is_signed_is_read_again_as_it_was_counted(sessions: dict[str, GatewayCount]) -> None:
    report = GatewayReport(agreement_id=AGREEMENT, sessions=sessions)

    read = GatewayReport.from_document(parse_json(report.signed_bytes()))

    assert read == report
    assert read.signed_bytes() == report.signed_bytes()


@pytest.mark.parametrize(
    ("change", "path", "reason"),
    [
        ({"set": {"schema": "farthing-usage/1"}}, "schema", "unknown_value"),
        ({"set": {"agreement_id": FIRST}}, "agreement_id", "invalid_form"),
        ({"set": {"sessions": []}}, "sessions", "wrong_count"),
        ({"set": {"sessions.0.calls": 3}}, "sessions.0.calls", "wrong_type"),
        ({"set": {"sessions.0.calls": "03"}}, "sessions.0.calls", "invalid_form"),
        ({"set": {"sessions.0": {"session_id": FIRST}}}, "sessions.0.calls", "missing"),
        ({"set": {"sessions.0.price": "1"}}, "sessions.0.price", "unknown_field"),
        ({"set": {"sessions.1.session_id": FIRST}}, "sessions.1.session_id", "duplicate"),
        (
            {"set": {"sessions.0.session_id": SECOND, "sessions.1.session_id": FIRST}},
            "sessions.1.session_id",
            "invalid_form",
        ),
        ({"set": {"sessions.0.usage.1.meter": "line"}}, "sessions.0.usage.1.meter", "duplicate"),
        ({"set": {"sessions.0.usage.1.meter": "ink"}}, "sessions.0.usage.1.meter", "invalid_form"),
        ({"unset": ["sessions.1.usage"]}, "sessions.1.usage", "missing"),
        ({"set": {"by": "proxy"}}, "by", "unknown_field"),
    ],
)
def test_a_count_with_a_fault_is_refused_at_its_place(
    change: dict[str, Any], path: str, reason: str
) -> None:
    with pytest.raises(DocumentError) as refused:
        GatewayReport.from_document(changed(REPORT.document(), change))

    assert (refused.value.path, refused.value.reason) == (path, reason)
