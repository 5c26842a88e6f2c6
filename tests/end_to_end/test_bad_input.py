"""Bad input at the real door: each kind has its documented code, and writes nothing.

Arguments and proofs have files of their own.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from farthing.clients.documents import sign_listing
from farthing.clients.operators import Newcomer
from farthing.protocol.canonical import Json
from farthing.protocol.wire import Role
from tests.papers import card_document, listing_document, signing_key, terms_document
from tests.raw import Desk, call_body, hold_arguments, in_a_task, opened, unchanged

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
    "lists without end": (nested(90_000)[:180_000], "malformed"),
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
    async with unchanged(desk):
        proof = desk.proof(desk.buyer, body)
        answer = await desk.post(body, authorization=proof, tool="place_hold")
        assert answer.code == code, answer.text
        assert answer.status == 400


async def test_a_body_of_another_kind_is_refused(desk: Desk) -> None:
    body = call_body("get_balance", {})
    async with unchanged(desk):
        answer = await desk.post(
            body,
            authorization=desk.proof(desk.buyer, body),
            tool="get_balance",
            headers={"content-type": "text/plain"},
        )
        assert (answer.status, answer.code, answer.path) == (415, "malformed", "content-type")


async def test_a_call_that_awaits_no_answer_does_nothing(desk: Desk) -> None:
    call = json.loads(call_body("place_hold", hold_arguments(desk)))
    del call["id"]
    body = json.dumps(call).encode()
    async with unchanged(desk):
        proof = desk.proof(desk.buyer, body)
        answer = await desk.post(body, authorization=proof, tool="place_hold")
        assert answer.status in {202, 400}


async def test_a_body_whose_stated_length_is_too_large_is_not_read(desk: Desk) -> None:
    async def endless() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    async with unchanged(desk):
        answer = await desk.post(endless(), headers={"content-length": str(BODY_BYTES_MAX + 1)})
        assert (answer.code, answer.status) == ("payload_too_large", 413)


async def test_a_body_that_never_ends_is_left_where_it_becomes_too_large(desk: Desk) -> None:
    given = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given
        for _ in range(64):
            given += 64 * 1024
            yield b" " * (64 * 1024)

    async with unchanged(desk):
        answer = await desk.post(endless())
        assert (answer.code, answer.status) == ("payload_too_large", 413)
        assert given <= BODY_BYTES_MAX + 2 * 64 * 1024


@pytest.mark.parametrize(
    ("count", "unproven", "proven"), [(4_000, 200, 200), (5_000, 413, 200), (110_000, 413, 413)]
)
async def test_more_values_than_are_read_of_their_sender_are_refused_unread(
    desk: Desk, count: int, unproven: int, proven: int
) -> None:
    # What stands in a text is no value.
    body = call_body("search_catalog", {"query": "text"})
    body = body.replace(b'"text"', b'["%s"%s]' % (b"," * 500_000, b",[1]" * (count // 2)))

    async def status(by: Role) -> int:
        proof = desk.proof(desk.as_role(by), body)
        return (await desk.post(body, authorization=proof, tool="search_catalog")).status

    assert await status(Role.ANYONE) == unproven
    assert await status(Role.NEWCOMER) == (413 if unproven == 413 else 401)
    assert await status(Role.BUYER) == proven


async def test_a_body_one_byte_too_large_is_refused_and_the_last_that_fits_is_read(
    desk: Desk,
) -> None:
    body = call_body("get_balance", {})
    async with unchanged(desk):
        for size, code in ((BODY_BYTES_MAX, ""), (BODY_BYTES_MAX + 1, "payload_too_large")):
            padded = body + b" " * (size - len(body))
            proof = desk.proof(desk.buyer, padded)
            answer = await desk.post(padded, authorization=proof, tool="get_balance")
            assert answer.code == code


@pytest.mark.parametrize("name", ["drop_tables", "", "place_hold ", "__class__", "x" * 5000])
async def test_a_tool_that_is_not_there_is_unknown(desk: Desk, name: str) -> None:
    async with unchanged(desk):
        # A name is mirrored in a header; what cannot stand there is refused before it is looked up.
        answer = await desk.call(desk.buyer, name, {})
        assert answer.code in {"unknown_operation", -32020}
        assert name.strip() == name or answer.code == -32020


async def test_a_key_used_for_another_body_names_the_field_that_differs(desk: Desk) -> None:
    key = "changed-arguments"
    first = await desk.call(desk.buyer, "place_hold", hold_arguments(desk, idempotency_key=key))
    assert first.code == ""
    changes: dict[str, Json] = {
        "args_sha256": "c" * 64,
        "expires_in_s": 30,
        "workload": [{"meter": "page", "quantity": "2"}],
    }
    async with unchanged(desk):
        for field, value in changes.items():
            answer = await desk.call(
                desk.buyer,
                "place_hold",
                hold_arguments(desk, idempotency_key=key, **{field: value}),
            )
            assert (answer.code, answer.path) == ("idempotency_conflict", field)
        again = await desk.call(desk.buyer, "place_hold", hold_arguments(desk, idempotency_key=key))
        assert again.code == ""
        assert again.shape["hold_id"] == first.shape["hold_id"]


async def test_a_pending_registration_acts_for_nobody(desk: Desk) -> None:
    newcomer = Newcomer(desk.server.connect(signing_key("Pending")))
    pending = newcomer.member(await newcomer.register(desk.operator.principal, "Pending"))
    async with unchanged(desk):
        answer = await desk.call(pending, "place_hold", hold_arguments(desk))
        assert answer.code == "registration_pending"
        # It is not remembered: the same key works once the operator has approved.
        assert (await desk.call(pending, "place_hold", hold_arguments(desk))).code == answer.code


async def test_a_frozen_agent_places_no_hold_and_one_refusal_is_remembered(desk: Desk) -> None:
    await desk.shop.operator.freeze(desk.buyer.principal, "test")
    before = await desk.written(), await desk.accounts()
    arguments = hold_arguments(desk, idempotency_key="while-it-is-frozen")
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
    async with unchanged(desk):
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
