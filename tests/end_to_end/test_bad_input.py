"""Bad input at the real door: each kind has its documented code, and writes nothing.

What is judged with the effect (a quantity that no ledger holds, a frozen agent) is remembered under
its key: it leaves the record of a refusal, and moves nothing either.
"""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from farthing.clients.documents import sign_listing
from farthing.clients.operators import Newcomer
from farthing.protocol.canonical import Json
from farthing.protocol.rating.card import QUANTITY_MAX
from farthing.protocol.wire import Role
from tests.papers import card_document, listing_document, signing_key, terms_document
from tests.raw import Desk, call_body, in_a_task, opened

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "k" * 16
MALFORMED_JSON_RPC = -32600
INVALID_PARAMS = -32602
BODY_BYTES_MAX = 1024 * 1024


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    folder: Path = tmp_path_factory.mktemp("market")
    async with in_a_task(lambda: opened(folder)) as made:
        yield made


class Watched:
    """What the journal and the accounts were before, to be compared with what they are."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.before: tuple[int, dict[str, str]] = (0, {})

    async def __aenter__(self) -> None:
        self.before = await self.desk.written(), await self.desk.accounts()

    async def __aexit__(self, *_: object) -> None:
        assert (await self.desk.written(), await self.desk.accounts()) == self.before
        assert await self.desk.is_healthy()


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


HOLD = call_body("place_hold", {"marked": 1})
SHAPES: dict[str, tuple[bytes, str | int]] = {
    "half a document": (HOLD[: len(HOLD) // 2], "malformed"),
    "nothing": (b"", "malformed"),
    "a word": (b"hello", "malformed"),
    "a second document": (HOLD + b"{}", "malformed"),
    "bytes that are no UTF-8": (HOLD.replace(b"marked", b"mar\xff\xfeed"), "malformed"),
    "a byte order mark": (b"\xef\xbb\xbf" + HOLD, "malformed"),
    "a lone surrogate": (HOLD.replace(b'"marked"', b'"\\ud800"'), "malformed"),
    "NaN": (HOLD.replace(b'"marked": 1', b'"marked": NaN'), "malformed"),
    "an infinity": (HOLD.replace(b'"marked": 1', b'"marked": -Infinity'), "malformed"),
    "an infinity in digits": (HOLD.replace(b'"marked": 1', b'"marked": 1e999'), "malformed"),
    "an integer of 54 bits": (
        HOLD.replace(b'"marked": 1', b'"marked": 9007199254740992'),
        "malformed",
    ),
    "an integer of a thousand digits": (
        HOLD.replace(b'"marked": 1', b'"marked": ' + b"9" * 1000),
        "malformed",
    ),
    "lists in lists": (HOLD.replace(b'"marked": 1', b'"marked": ' + nested(500)), "malformed"),
    "lists without end": (nested(200_000)[:400_000], "malformed"),
    "a key twice at the top": (
        HOLD.replace(b'"id": 1', b'"id": 1, "id": 2'),
        "duplicate_key",
    ),
    "a key twice in params": (
        HOLD.replace(b'"name": "place_hold"', b'"name": "place_hold", "name": "get_balance"'),
        "duplicate_key",
    ),
    "a key twice in arguments": (
        HOLD.replace(b'"marked": 1', b'"marked": 1, "marked": 1'),
        "duplicate_key",
    ),
    "a key twice deep in arguments": (
        HOLD.replace(b'"marked": 1', b'"marked": [{"amount": "1", "amount": "2"}]'),
        "duplicate_key",
    ),
    "a key twice, once escaped": (
        HOLD.replace(b'"marked": 1', b'"marked": 1, "mark\\u0065d": 1'),
        "duplicate_key",
    ),
    "a batch": (b"[" + HOLD + b"," + HOLD + b"]", MALFORMED_JSON_RPC),
    "an empty batch": (b"[]", MALFORMED_JSON_RPC),
    "a number": (b"1", MALFORMED_JSON_RPC),
    "no method": (b'{"jsonrpc": "2.0", "id": 1}', MALFORMED_JSON_RPC),
    "another JSON-RPC": (HOLD.replace(b'"2.0"', b'"1.0"'), MALFORMED_JSON_RPC),
    "an id of null": (HOLD.replace(b'"id": 1', b'"id": null'), MALFORMED_JSON_RPC),
    "an id with a fraction": (HOLD.replace(b'"id": 1', b'"id": 1.5'), MALFORMED_JSON_RPC),
    "arguments in a list": (HOLD.replace(b'{"marked": 1}', b"[1]"), INVALID_PARAMS),
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_body_that_is_no_call_is_refused_for_its_shape(desk: Desk, shape: str) -> None:
    body, code = SHAPES[shape]
    async with Watched(desk):
        proof = desk.proof(desk.buyer, body)
        answer = await desk.post(body, authorization=proof, tool="place_hold")
        assert answer.code == code, answer.text
        assert answer.status == 400


async def test_a_body_of_another_kind_is_refused(desk: Desk) -> None:
    body = call_body("get_balance", {})
    async with Watched(desk):
        answer = await desk.post(
            body,
            authorization=desk.proof(desk.buyer, body),
            tool="get_balance",
            headers={"content-type": "text/plain"},
        )
        assert (answer.code, answer.path) == ("malformed", "content-type")


async def test_a_call_that_awaits_no_answer_does_nothing(desk: Desk) -> None:
    call = json.loads(call_body("place_hold", hold_of(desk)))
    del call["id"]
    body = json.dumps(call).encode()
    async with Watched(desk):
        proof = desk.proof(desk.buyer, body)
        answer = await desk.post(body, authorization=proof, tool="place_hold")
        assert answer.status in {202, 400}


async def test_a_body_whose_stated_length_is_too_large_is_not_read(desk: Desk) -> None:
    async def endless() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    async with Watched(desk):
        answer = await desk.post(endless(), headers={"content-length": str(BODY_BYTES_MAX + 1)})
        assert (answer.code, answer.status) == ("payload_too_large", 413)


async def test_a_body_that_never_ends_is_left_where_it_becomes_too_large(desk: Desk) -> None:
    given = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given
        while True:
            given += 64 * 1024
            yield b" " * (64 * 1024)

    async with Watched(desk):
        answer = await desk.post(endless())
        assert (answer.code, answer.status) == ("payload_too_large", 413)
        assert given <= BODY_BYTES_MAX + 2 * 64 * 1024


async def test_a_body_one_byte_too_large_is_refused_and_the_last_that_fits_is_read(
    desk: Desk,
) -> None:
    body = call_body("get_balance", {})
    async with Watched(desk):
        for size, code in ((BODY_BYTES_MAX, ""), (BODY_BYTES_MAX + 1, "payload_too_large")):
            padded = body + b" " * (size - len(body))
            proof = desk.proof(desk.buyer, padded)
            answer = await desk.post(padded, authorization=proof, tool="get_balance")
            assert answer.code == code


@pytest.mark.parametrize("name", ["drop_tables", "", "place_hold ", "__class__", "x" * 5000])
async def test_a_tool_that_is_not_there_is_unknown(desk: Desk, name: str) -> None:
    async with Watched(desk):
        # A name is mirrored in a header; what cannot stand there is refused before it is looked up.
        answer = await desk.call(desk.buyer, name, {})
        assert answer.code in {"unknown_operation", -32020}
        assert name.strip() == name or answer.code == -32020


def hold_of(desk: Desk, **changed: Json) -> dict[str, Json]:
    return {
        "agreement_id": desk.agreement.agreement_id,
        "workload": [{"meter": "page", "quantity": "1"}],
        "args_sha256": "a" * 64,
        "idempotency_key": KEY,
        **changed,
    }


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
    async with Watched(desk):
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
    async with Watched(desk):
        answer = await desk.call(by, name, arguments)
        assert (answer.code, answer.path) == ("invalid_amount", "amount.amount")


ARGUMENTS: dict[str, tuple[str, str, Callable[[Desk], dict[str, Json]], str]] = {
    "an unknown field": ("buyer", "place_hold", lambda d: hold_of(d, tip="1"), "tip"),
    "an unknown field in money": (
        "treasurer",
        "fund_account",
        lambda d: funding(d, {"amount": "1", "asset": "USD", "units": 1}),
        "amount.units",
    ),
    "an unknown field in a list": (
        "buyer",
        "place_hold",
        lambda d: hold_of(d, workload=[{"meter": "page", "quantity": "1", "price": "0"}]),
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
        lambda d: hold_of(d, args_sha256=5),
        "args_sha256",
    ),
    "a text for a number": (
        "buyer",
        "place_hold",
        lambda d: hold_of(d, expires_in_s="5"),
        "expires_in_s",
    ),
    "a fraction of a second": (
        "buyer",
        "place_hold",
        lambda d: hold_of(d, expires_in_s=1.5),  # type: ignore[arg-type]
        "expires_in_s",
    ),
    "a truth for a number": (
        "buyer",
        "place_hold",
        lambda d: hold_of(d, expires_in_s=True),
        "expires_in_s",
    ),
    "a key too short": (
        "buyer",
        "place_hold",
        lambda d: hold_of(d, idempotency_key="short"),
        "idempotency_key",
    ),
    "a key with a line's end": (
        "buyer",
        "place_hold",
        lambda d: hold_of(d, idempotency_key=KEY + "\n"),
        "idempotency_key",
    ),
    "an id of another kind": (
        "buyer",
        "place_hold",
        lambda d: hold_of(d, agreement_id=d.charge_id),
        "agreement_id",
    ),
    "an id in capitals": (
        "buyer",
        "place_hold",
        lambda d: hold_of(d, agreement_id=d.agreement.agreement_id.upper()),
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
        lambda d: hold_of(d, workload=[{"meter": "page", "quantity": "9" * 100_000}]),
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
    async with Watched(desk):
        answer = await desk.call(desk.as_role(Role(role)), name, arguments(desk))
        assert (answer.code, answer.path) == ("invalid_argument", path), answer.text


async def test_an_enormous_quantity_is_quoted_to_nobody(desk: Desk) -> None:
    async with Watched(desk):
        for quantity, code in ((str(QUANTITY_MAX), "amount_overflow"), ("9" * 16, "usage_invalid")):
            answer = await desk.call(desk.buyer, "get_quote", quote_of(desk, quantity))
            assert (answer.code, answer.path) == (code, "workload")


async def test_the_largest_quantity_is_held_for_nobody(desk: Desk) -> None:
    before = await desk.written(), await desk.accounts()
    workload: Json = [{"meter": "page", "quantity": str(QUANTITY_MAX // 2)}]
    arguments = hold_of(desk, workload=workload, idempotency_key="largest-quantity")

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
    async with Watched(desk):
        nobody = desk.as_role(Role.NEWCOMER)
        enrolled = await desk.call(nobody, "enrol_organisation", enrolment("Vendor", KEYS[case]))
        rotated = await desk.call(desk.buyer, "rotate_key", rotation)
        assert enrolled.code == "unknown_key"
        assert (rotated.code, rotated.path.split(".")[0]) == ("invalid_argument", "key")


async def test_a_key_used_for_another_body_names_the_field_that_differs(desk: Desk) -> None:
    key = "changed-arguments"
    first = await desk.call(desk.buyer, "place_hold", hold_of(desk, idempotency_key=key))
    assert first.code == ""
    changes: dict[str, Json] = {
        "args_sha256": "c" * 64,
        "expires_in_s": 30,
        "workload": [{"meter": "page", "quantity": "2"}],
    }
    async with Watched(desk):
        for field, value in changes.items():
            answer = await desk.call(
                desk.buyer, "place_hold", hold_of(desk, idempotency_key=key, **{field: value})
            )
            assert (answer.code, answer.path) == ("idempotency_conflict", field)
        again = await desk.call(desk.buyer, "place_hold", hold_of(desk, idempotency_key=key))
        assert again.code == ""
        assert again.shape["hold_id"] == first.shape["hold_id"]


async def test_a_pending_registration_acts_for_nobody(desk: Desk) -> None:
    newcomer = Newcomer(desk.server.connect(signing_key("Pending")))
    pending = newcomer.member(await newcomer.register(desk.operator.principal, "Pending"))
    async with Watched(desk):
        answer = await desk.call(pending, "place_hold", hold_of(desk))
        assert answer.code == "registration_pending"
        # It is not remembered: the same key works once the operator has approved.
        assert (await desk.call(pending, "place_hold", hold_of(desk))).code == answer.code


async def test_a_frozen_agent_places_no_hold_and_one_refusal_is_remembered(desk: Desk) -> None:
    await desk.shop.operator.freeze(desk.buyer.principal, "test")
    before = await desk.written(), await desk.accounts()
    arguments = hold_of(desk, idempotency_key="while-it-is-frozen")
    answers = [await desk.call(desk.buyer, "place_hold", arguments) for _ in range(2)]
    after = await desk.written(), await desk.accounts()
    await desk.shop.operator.unfreeze(desk.buyer.principal, "test")

    assert [each.code for each in answers] == ["frozen"] * 2
    assert after == (before[0] + 1, before[1])
    assert await desk.is_healthy()


UNSEEN = {
    "a bell": "\x07",
    "an escape": "\x1b[31m",
    "a null": "\x00",
    "a line's end": "\n",
    "text turned round": "\u202e",
    "an isolate": "\u2066",
    "no width at all": "\u200b",
    "a soft hyphen": "\u00ad",
    "a tag that nobody sees": "\U000e0041",
    "a private letter": "\ue000",
    "a separator of lines": "\u2028",
}


@pytest.mark.parametrize("field", ["name", "summary"])
@pytest.mark.parametrize("case", UNSEEN)
async def test_a_listing_with_what_nobody_can_see_is_not_published(
    desk: Desk, case: str, field: str
) -> None:
    card, terms = card_document(), terms_document()
    document = listing_document(desk.vendor.principal, card, terms, name="Another listing")
    document[field] = f"Text{UNSEEN[case]} of pages"
    assert desk.vendor.signer is not None
    arguments: dict[str, Json] = {
        "listing": document,
        "rate_card": card,
        "terms": terms,
        "signature": sign_listing(desk.vendor.signer, document),
        "idempotency_key": KEY,
    }
    async with Watched(desk):
        answer = await desk.call(desk.vendor, "publish_listing", arguments)
        report = await desk.call(
            desk.buyer,
            "lint_listing",
            {name: arguments[name] for name in ("listing", "rate_card", "terms")},
        )
        assert (answer.code, answer.path) == ("listing_invalid", f"listing.{field}")
        found = {(each["code"], each["path"]) for each in report.shape["findings"]}
        assert ("text_unseen", f"listing.{field}") in found
        # What is said about it does not show it either.
        assert UNSEEN[case] not in answer.shape["message"]
