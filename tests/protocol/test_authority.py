from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.protocol.authority.decide import Purchase, decide, first_of
from farthing.protocol.authority.grant import Grant
from farthing.protocol.authority.standing import NOBODY, Standing, decide_purchase
from farthing.protocol.errors import Code, refuse
from tests.protocol.vectors import cases, vectors

VECTORS = vectors("authority")
GRANT = Grant.from_document(VECTORS["grant"])
NOW_US = 1_795_176_000_000_000


def purchase_of(**other: Any) -> Purchase:
    given_ = VECTORS["purchase"] | other
    return Purchase(
        vendor_id=given_["vendor_id"],
        tags=tuple(given_["tags"]),
        asset=given_["asset"],
        units=int(given_["units"]),
        per_call_units=int(given_["per_call_units"]) if "per_call_units" in given_ else None,
    )


@pytest.mark.parametrize("case", cases(VECTORS["cases"]))
def test_authority_is_decided_as_the_vectors_say(case: dict[str, Any]) -> None:
    grant = None if "no_grant" in case else Grant.from_document(VECTORS["grant"] | case["grant"])
    reasons = decide(
        grant,
        purchase_of(**case["purchase"]),
        frozen=case["frozen"],
        spent_units=int(case["spent_units"]),
        now_us=case["now_us"],
    )

    assert [reason.code for reason in reasons] == case["codes"]
    if "required" in case:
        assert (reasons[0].required, reasons[0].remaining) == (case["required"], case["remaining"])


def test_a_grant_is_the_same_after_writing_and_reading() -> None:
    assert Grant.from_document(GRANT.document()) == GRANT
    assert GRANT.document() == VECTORS["grant"]


@given(st.permutations([Code.BUDGET_EXCEEDED, Code.FROZEN, Code.INSUFFICIENT_FUNDS]))
def test_the_one_answer_is_the_first_in_precedence_and_names_all(codes: list[Code]) -> None:
    answer = first_of(refuse(code) for code in codes)

    assert answer.code is Code.FROZEN
    assert answer.reasons == (Code.FROZEN, Code.BUDGET_EXCEEDED, Code.INSUFFICIENT_FUNDS)


@given(
    per_call=st.integers(0, 100),
    per_day=st.integers(0, 100),
    spent=st.integers(0, 100),
    units=st.integers(0, 100),
)
def test_what_is_allowed_never_leads_beyond_a_limit(
    per_call: int, per_day: int, spent: int, units: int
) -> None:
    limits = {"per_call_units_max": str(per_call), "per_day_units_max": str(per_day)}
    allowed = not decide(
        Grant.from_document(VECTORS["grant"] | limits),
        purchase_of(units=units),
        frozen=False,
        spent_units=spent,
        now_us=NOW_US,
    )

    assert allowed == (units <= per_call and units <= max(per_day - spent, 0))


def test_what_costs_nothing_is_allowed_where_the_day_was_limited_below_what_is_spent() -> None:
    reasons = decide(GRANT, purchase_of(units=0), frozen=False, spent_units=10**18, now_us=NOW_US)

    assert reasons == ()


def test_a_standing_refuses_for_want_of_money_besides_authority() -> None:
    standing = Standing(
        principal_id="agt_x",
        grants={"USD": GRANT},
        available_units={"USD": 100},
        spent_units={"USD": 200},
    )

    def codes(units: int) -> list[Code]:
        reasons = decide_purchase(standing, purchase_of(units=units), NOW_US)
        return [reason.code for reason in reasons]

    assert codes(50) == []
    assert codes(51) == [Code.BUDGET_EXCEEDED]
    assert codes(101) == [
        Code.PER_CALL_LIMIT_EXCEEDED,
        Code.BUDGET_EXCEEDED,
        Code.INSUFFICIENT_FUNDS,
    ]


def test_nobody_may_spend_anything() -> None:
    reasons = decide_purchase(NOBODY, purchase_of(), NOW_US)

    assert [reason.code for reason in reasons] == [Code.AUTHORITY_MISSING, Code.INSUFFICIENT_FUNDS]
