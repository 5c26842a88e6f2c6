"""Arguments without their documented form, at the real door: each is named, and writes nothing.

What is judged with the effect (a quantity that no ledger holds) is remembered under its key: it
leaves the record of a refusal, and moves nothing either.
"""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from farthing.protocol.canonical import Json
from farthing.protocol.rating.card import QUANTITY_MAX
from farthing.protocol.wire import Role
from tests.papers import signing_key
from tests.raw import Desk, hold_arguments, in_a_task, opened, unchanged

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "k" * 16


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    folder: Path = tmp_path_factory.mktemp("market")
    async with in_a_task(lambda: opened(folder)) as made:
        yield made


def funding(desk: Desk, amount: Json, **changed: Json) -> dict[str, Json]:
    return {
        "organisation_id": desk.operator.principal,
        "amount": amount,
        "reference": "test",
        "idempotency_key": KEY,
        **changed,
    }


def limits(desk: Desk, **changed: Json) -> dict[str, Json]:
    return {
        "agent_id": desk.buyer.principal,
        "per_call_max": {"amount": "0.1", "asset": "USD"},
        "per_day_max": {"amount": "0.1", "asset": "USD"},
        "idempotency_key": KEY,
        **changed,
    }


AMOUNTS: dict[str, Json] = {
    "negative": "-1",
    "negative zero": "-0",
    "above the ledger": "9223372036.854775808",
    "enormous": "9" * 19,
    "without end": "9" * 4000,
    "a trailing zero": "1.50",
    "a trailing point": "1.",
    "a leading zero": "01",
    "no whole part": ".5",
    "an exponent": "1e3",
    "an exponent with a sign": "1E+3",
    "a plus": "+1",
    "a space": " 1",
    "a line's end": "1\n",
    "thousands": "1,000",
    "a comma": "1,5",
    "another alphabet's digits": "１",  # noqa: RUF001  # the point of it
    "hexadecimal": "0x10",
    "a word": "NaN",
    "nothing": "",
    "finer than the asset": "0.0000000001",
    "an integer": 1,
    "a fraction": 1.5,  # type: ignore[dict-item]
    "a list": ["1"],
    "an object": {"amount": "1"},
    "true": True,
}


@pytest.mark.parametrize("case", AMOUNTS)
async def test_an_amount_in_any_but_the_one_form_is_refused(desk: Desk, case: str) -> None:
    treasurer = desk.as_role(Role.TREASURER)
    amount: Json = {"amount": AMOUNTS[case], "asset": "USD"}
    refund: dict[str, Json] = {
        "charge_id": desk.charge_id,
        "amount": amount,
        "idempotency_key": KEY,
    }
    calls: list[tuple[Any, str, dict[str, Json]]] = [
        (treasurer, "fund_account", funding(desk, amount)),
        (desk.vendor, "refund_charge", refund),
        (desk.operator, "set_authority", limits(desk, per_call_max=amount)),
        (desk.buyer, "search_catalog", {"query": "text", "max_total": amount}),
    ]
    async with unchanged(desk):
        for by, name, arguments in calls:
            answer = await desk.call(by, name, arguments)
            assert answer.code == "invalid_amount", (name, answer.text)
            assert answer.path.split(".")[0] in {"amount", "per_call_max", "max_total"}


@pytest.mark.parametrize("name", ["fund_account", "refund_charge"])
async def test_nothing_is_no_amount_to_move(desk: Desk, name: str) -> None:
    nothing: Json = {"amount": "0", "asset": "USD"}
    refund: dict[str, Json] = {
        "charge_id": desk.charge_id,
        "amount": nothing,
        "idempotency_key": KEY,
    }
    by, arguments = {
        "fund_account": (desk.as_role(Role.TREASURER), funding(desk, nothing)),
        "refund_charge": (desk.vendor, refund),
    }[name]
    async with unchanged(desk):
        answer = await desk.call(by, name, arguments)
        assert (answer.code, answer.path) == ("invalid_amount", "amount.amount")


ARGUMENTS: dict[str, tuple[str, str, Callable[[Desk], dict[str, Json]], str]] = {
    "an unknown field": ("buyer", "place_hold", lambda d: hold_arguments(d, tip="1"), "tip"),
    "an unknown field in money": (
        "treasurer",
        "fund_account",
        lambda d: funding(d, {"amount": "1", "asset": "USD", "units": 1}),
        "amount.units",
    ),
    "an unknown field in a list": (
        "buyer",
        "place_hold",
        lambda d: hold_arguments(d, workload=[{"meter": "page", "quantity": "1", "price": "0"}]),
        "workload.0.price",
    ),
    "a field left out": (
        "buyer",
        "place_hold",
        lambda d: {"agreement_id": d.agreement.agreement_id},
        "workload",
    ),
    "a number for a text": (
        "buyer",
        "place_hold",
        lambda d: hold_arguments(d, args_sha256=5),
        "args_sha256",
    ),
    "a text for a number": (
        "buyer",
        "place_hold",
        lambda d: hold_arguments(d, expires_in_s="5"),
        "expires_in_s",
    ),
    "a fraction of a second": (
        "buyer",
        "place_hold",
        lambda d: hold_arguments(d, expires_in_s=1.5),  # type: ignore[arg-type]
        "expires_in_s",
    ),
    "a truth for a number": (
        "buyer",
        "place_hold",
        lambda d: hold_arguments(d, expires_in_s=True),
        "expires_in_s",
    ),
    "a time that runs backwards": (
        "buyer",
        "place_hold",
        lambda d: hold_arguments(d, expires_in_s=-1),
        "expires_in_s",
    ),
    "a key too short": (
        "buyer",
        "place_hold",
        lambda d: hold_arguments(d, idempotency_key="short"),
        "idempotency_key",
    ),
    "a key with a line's end": (
        "buyer",
        "place_hold",
        lambda d: hold_arguments(d, idempotency_key=KEY + "\n"),
        "idempotency_key",
    ),
    "an id of another kind": (
        "buyer",
        "place_hold",
        lambda d: hold_arguments(d, agreement_id=d.charge_id),
        "agreement_id",
    ),
    "an id in capitals": (
        "buyer",
        "place_hold",
        lambda d: hold_arguments(d, agreement_id=d.agreement.agreement_id.upper()),
        "agreement_id",
    ),
    "an id that is a path": (
        "buyer",
        "get_hold",
        lambda _: {"hold_id": "hld_../../../../etc/passwd"},
        "hold_id",
    ),
    "a 30th of February": (
        "operator",
        "set_authority",
        lambda d: limits(d, expires_at="2027-02-30T00:00:00.000000Z"),
        "expires_at",
    ),
    "a leap second": (
        "operator",
        "set_authority",
        lambda d: limits(d, expires_at="2027-06-30T23:59:60.000000Z"),
        "expires_at",
    ),
    "a time elsewhere": (
        "operator",
        "set_authority",
        lambda d: limits(d, expires_at="2027-06-30T12:00:00.000000+02:00"),
        "expires_at",
    ),
    "a date alone": (
        "operator",
        "set_authority",
        lambda d: limits(d, expires_at="2027-06-30"),
        "expires_at",
    ),
    "a year of nobody": (
        "operator",
        "set_authority",
        lambda d: limits(d, expires_at="0000-01-01T00:00:00.000000Z"),
        "expires_at",
    ),
    "a quantity below nothing": (
        "buyer",
        "get_quote",
        lambda d: quote_of(d, "-1"),
        "workload.0.quantity",
    ),
    "a quantity with a fraction": (
        "buyer",
        "get_quote",
        lambda d: quote_of(d, "1.5"),
        "workload.0.quantity",
    ),
    "a quantity in floating digits": (
        "buyer",
        "get_quote",
        lambda d: quote_of(d, "1e9"),
        "workload.0.quantity",
    ),
    "a quantity of seventeen digits": (
        "buyer",
        "get_quote",
        lambda d: quote_of(d, "9" * 17),
        "workload.0.quantity",
    ),
    "a quantity without end": (
        "buyer",
        "place_hold",
        lambda d: hold_arguments(d, workload=[{"meter": "page", "quantity": "9" * 100_000}]),
        "workload.0.quantity",
    ),
    "a name with a bell": (
        "newcomer",
        "enrol_organisation",
        lambda _: enrolment("Vendor \x07"),
        "name",
    ),
}


def quote_of(desk: Desk, quantity: str) -> dict[str, Json]:
    return {
        "listing_id": desk.shop.listing_id,
        "workload": [{"meter": "page", "quantity": quantity}],
    }


def enrolment(name: str, key: dict[str, Json] | None = None) -> dict[str, Json]:
    jwk: dict[str, Json] = dict(signing_key("Nobody").public.jwk())
    return {"kind": "vendor", "name": name, "key": key or jwk, "idempotency_key": KEY}


@pytest.mark.parametrize("case", ARGUMENTS)
async def test_an_argument_without_its_documented_form_is_named(desk: Desk, case: str) -> None:
    role, name, arguments, path = ARGUMENTS[case]
    async with unchanged(desk):
        answer = await desk.call(desk.as_role(Role(role)), name, arguments(desk))
        assert (answer.code, answer.path) == ("invalid_argument", path), answer.text


async def test_an_enormous_quantity_is_quoted_to_nobody(desk: Desk) -> None:
    async with unchanged(desk):
        for quantity, code in ((str(QUANTITY_MAX), "amount_overflow"), ("9" * 16, "usage_invalid")):
            answer = await desk.call(desk.buyer, "get_quote", quote_of(desk, quantity))
            assert (answer.code, answer.path) == (code, "workload")


async def test_the_largest_quantity_is_held_for_nobody(desk: Desk) -> None:
    before = await desk.written(), await desk.accounts()
    workload: Json = [{"meter": "page", "quantity": str(QUANTITY_MAX // 2)}]
    arguments = hold_arguments(desk, workload=workload, idempotency_key="largest-quantity")

    answers = [await desk.call(desk.buyer, "place_hold", arguments) for _ in range(2)]

    assert [each.code for each in answers] == ["amount_overflow"] * 2
    # A final refusal is remembered under its key: one record, and nothing in it moves.
    assert (await desk.written(), await desk.accounts()) == (before[0] + 1, before[1])
    assert await desk.is_healthy()


KEYS: dict[str, dict[str, Json]] = {
    "no base64": {"kty": "OKP", "crv": "Ed25519", "x": "!!!"},
    "too short": {"kty": "OKP", "crv": "Ed25519", "x": "AAAA"},
    "a point that is none": {"kty": "OKP", "crv": "Ed25519", "x": "_" * 42 + "8"},
    "a point of low order": {"kty": "OKP", "crv": "Ed25519", "x": "A" * 43},
    "a curve of another kind": {"kty": "EC", "crv": "Ed25519", "x": "A" * 43},
    "half a point": {"kty": "EC", "crv": "P-256", "x": "A" * 43},
    "beside the curve": {"kty": "EC", "crv": "P-256", "x": "A" * 43, "y": "A" * 43},
    "letters from elsewhere": {"kty": "OKP", "crv": "Ed25519", "x": "é" * 43},
}


@pytest.mark.parametrize("case", KEYS)
async def test_a_key_that_is_none_is_neither_enrolled_nor_rotated_to(desk: Desk, case: str) -> None:
    rotation: dict[str, Json] = {"key": KEYS[case], "possession": "x", "idempotency_key": KEY}
    async with unchanged(desk):
        nobody = desk.as_role(Role.NEWCOMER)
        enrolled = await desk.call(nobody, "enrol_organisation", enrolment("Vendor", KEYS[case]))
        rotated = await desk.call(desk.buyer, "rotate_key", rotation)
        assert enrolled.code == "unknown_key"
        assert (rotated.code, rotated.path.split(".")[0]) == ("invalid_argument", "key")


@pytest.mark.parametrize(
    "name",
    [
        "Acme\u202eyap",
        "Ac\u200bme",
        "Acme\u00ad",
        "Ac\U000e0041me",
        " Acme",
        "Acme ",
        " ",
        "\u3164",
        "Acme\ufe0f",
        "Acme\u034f",
        "Cafe\u0301",
        "\u212bngstrom",
    ],
)
async def test_a_name_that_reads_as_another_or_as_none_is_nobodys(desk: Desk, name: str) -> None:
    key = {"kty": "OKP", "crv": "Ed25519", "x": signing_key("Nobody").public.jwk()["x"]}
    asked = {"kind": "vendor", "name": name, "key": key, "idempotency_key": KEY}
    async with unchanged(desk):
        answer = await desk.call(desk.as_role(Role.NEWCOMER), "enrol_organisation", asked)
        assert (answer.code, answer.path) == ("invalid_argument", "name")
