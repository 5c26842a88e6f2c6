"""Whoever compares countings alone comes to what the vectors say."""

from typing import Any

import pytest

from farthing.protocol.calls import ReportedCall
from farthing.protocol.canonical import document_sha256
from farthing.protocol.gateways import GatewayReport
from farthing.protocol.reconciliation import (
    Acknowledged,
    Compared,
    Counted,
    GatewayCount,
    TakenBack,
    reconcile,
)
from farthing.protocol.usage import UsageOutcome
from tests.protocol.vectors import cases, vectors

TOLERANCES_PPM = (0, 50_000, 500_000)


def quantities(named: dict[str, str]) -> dict[str, int]:
    return {meter: int(quantity) for meter, quantity in named.items()}


def compared(count: Compared) -> list[str]:
    return [str(each) for each in (count.one, count.other, count.over, count.under)]


def counted(count: Counted) -> dict[str, list[str]]:
    return {
        "buyer": compared(count.buyer),
        "platform": compared(count.platform),
        "gateway": compared(count.gateway),
    }


def found_of(case: dict[str, Any]) -> dict[str, Any]:
    """What a case comes to, as the vectors write it."""
    calls = [
        ReportedCall(
            seq=each["call"],
            place=place,
            at_us=0,
            outcome=UsageOutcome(each["outcome"]),
            usage=quantities(each["usage"]),
            args_sha256="a" * 64,
            result_sha256=each["result_sha256"],
            amount_units=int(each["units"]),
            fault=each["fault"],
        )
        for place, each in enumerate(case["calls"])
    ]
    acknowledged = [
        Acknowledged(
            seq=each["call"],
            units=int(each["units"]),
            result_sha256=each["result_sha256"],
            usage=quantities(each["usage"]) if "usage" in each else None,
        )
        for each in case["acknowledged"]
    ]
    gateway, back = case.get("gateway"), case.get("taken_back", {"calls": {}, "units": "0"})
    found = reconcile(
        calls,
        acknowledged,
        case["acks"],
        GatewayCount(calls=int(gateway["calls"]), usage=quantities(gateway["usage"]))
        if gateway
        else None,
        taken_back=TakenBack(
            calls={int(call): quantities(usage) for call, usage in back["calls"].items()},
            units=int(back["units"]),
        ),
    )
    return {
        "differences": [
            {
                "call": each.seq,
                "kind": each.kind.value,
                "direction": each.direction.value if each.direction else "",
            }
            for each in found.differences
        ],
        "calls": counted(found.calls),
        "meters": {meter: counted(count) for meter, count in found.meters.items()},
        "units": compared(found.units),
        "proven": found.proven,
        "within_ppm": [ppm for ppm in TOLERANCES_PPM if found.is_within(ppm)],
    }


VECTORS = vectors("reconciliation")


@pytest.mark.parametrize("case", cases(VECTORS["cases"]))
def test_countings_come_to_what_the_vectors_say(case: dict[str, Any]) -> None:
    assert found_of(case) == case["found"]


def test_a_gateway_s_document_has_the_digest_of_the_vectors() -> None:
    vector = VECTORS["gateway"]

    report = GatewayReport.from_document(vector["document"])

    assert report.document() == vector["document"]
    assert document_sha256(vector["document"]) == vector["sha256"]
