"""What every door shares: the operation, the role, the arguments, in one order of refusals."""

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from farthing.identity.callers import ANYONE, Assurance, Caller
from farthing.identity.keyring import Purpose
from farthing.protocol.errors import Code, Refusal, Refused
from farthing.protocol.ids import derive_id
from farthing.protocol.messages.operations import OPERATIONS
from farthing.protocol.messages.shapes import ask_schema
from farthing.protocol.wire import Effect, Role, form_of
from farthing.server.dispatch import dispatch
from farthing.server.operations import HANDLERS, Reply
from farthing.settlement.engine.questions import FiguresNow
from tests.server.listening import Wire, held, wire_of
from tests.serving import serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

FUNDING: dict[str, Any] = {
    "organisation_id": "org_00000000000000000000000000",
    "amount": {"amount": "1", "asset": "USD"},
    "reference": "test",
    "idempotency_key": "k" * 16,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wire(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Wire]:
    async with held(serving(tmp_path_factory.mktemp("market"))) as server:
        yield wire_of(server)


def caller(role: Role) -> Caller:
    return Caller(
        principal_id="stf_00000000000000000000000000",
        role=role,
        assurance=Assurance.SIGNED_BODY,
        key_thumbprint="none",
    )


def treasurer(wire: Wire) -> Caller:
    key = wire.server.service.keyring[Purpose.TREASURER]
    return replace(
        caller(Role.TREASURER),
        principal_id=derive_id("stf", key.thumbprint),
        organisation_id="platform",
        key_thumbprint=key.thumbprint,
        proof_jti="proof-of-a-test",
        proof_expires_at_us=wire.server.clock() + 1_000_000,
    )


async def refusal(wire: Wire, by: Caller, name: str, arguments: dict[str, Any]) -> Refusal:
    with pytest.raises(Refused) as refused:
        await dispatch(wire.server.service.market, by, name, arguments)
    return refused.value.refusal


async def records(wire: Wire) -> int:
    return (await wire.server.service.market.ask(FiguresNow())).seq


def amount(value: object, asset: object = "USD") -> dict[str, Any]:
    return {"amount": {"amount": value, "asset": asset}}


@pytest.mark.parametrize(
    ("change", "code", "path"),
    [
        pytest.param(amount("-1"), Code.INVALID_AMOUNT, "amount.amount", id="negative"),
        pytest.param(amount("0"), Code.INVALID_AMOUNT, "amount.amount", id="zero"),
        pytest.param(amount("0.0000000001"), Code.INVALID_AMOUNT, "amount.amount", id="too fine"),
        pytest.param(
            amount("9223372036854775807"), Code.INVALID_AMOUNT, "amount.amount", id="too large"
        ),
        pytest.param(amount("9" * 40), Code.INVALID_AMOUNT, "amount.amount", id="enormous"),
        pytest.param(amount(1), Code.INVALID_AMOUNT, "amount.amount", id="a number"),
        pytest.param(amount(0.5), Code.INVALID_AMOUNT, "amount.amount", id="a float"),
        pytest.param(amount([]), Code.INVALID_AMOUNT, "amount.amount", id="a list"),
        pytest.param(amount(None), Code.INVALID_AMOUNT, "amount.amount", id="null"),
        pytest.param(amount("1e3"), Code.INVALID_AMOUNT, "amount.amount", id="an exponent"),
        pytest.param(amount("01"), Code.INVALID_AMOUNT, "amount.amount", id="a leading zero"),
        pytest.param(amount("1.50"), Code.INVALID_AMOUNT, "amount.amount", id="a trailing zero"),
        pytest.param(amount("1."), Code.INVALID_AMOUNT, "amount.amount", id="a bare point"),
        pytest.param(amount("+1"), Code.INVALID_AMOUNT, "amount.amount", id="a plus"),
        pytest.param(amount("1,5"), Code.INVALID_AMOUNT, "amount.amount", id="a comma"),
        pytest.param(amount("1\n"), Code.INVALID_AMOUNT, "amount.amount", id="a line break"),
        pytest.param(amount("٣"), Code.INVALID_AMOUNT, "amount.amount", id="another script"),
        pytest.param(amount("NaN"), Code.INVALID_AMOUNT, "amount.amount", id="not a number"),
        pytest.param(amount("1", "ABC"), Code.INVALID_AMOUNT, "amount.asset", id="no such asset"),
        pytest.param(amount("1", "usd"), Code.INVALID_ARGUMENT, "amount.asset", id="asset's case"),
        pytest.param({"amount": 0.5}, Code.INVALID_ARGUMENT, "amount", id="no amount at all"),
        pytest.param({"amount": "1"}, Code.INVALID_ARGUMENT, "amount", id="no asset"),
        pytest.param({"tip": "1"}, Code.INVALID_ARGUMENT, "tip", id="an unknown field"),
        pytest.param(
            {"amount": {"amount": "1", "asset": "USD", "scale": 2}},
            Code.INVALID_ARGUMENT,
            "amount.scale",
            id="an unknown field within",
        ),
        pytest.param({"reference": 7}, Code.INVALID_ARGUMENT, "reference", id="another type"),
        pytest.param({"reference": "a\x00b"}, Code.INVALID_ARGUMENT, "reference", id="a control"),
        pytest.param({"reference": "a" * 2001}, Code.INVALID_ARGUMENT, "reference", id="too long"),
        pytest.param(
            {"organisation_id": "agt_00000000000000000000000000"},
            Code.INVALID_ARGUMENT,
            "organisation_id",
            id="another kind of id",
        ),
        pytest.param(
            {"organisation_id": "org_ZZZ"}, Code.INVALID_ARGUMENT, "organisation_id", id="no id"
        ),
        pytest.param(
            {"idempotency_key": "short"}, Code.INVALID_ARGUMENT, "idempotency_key", id="a short key"
        ),
        pytest.param(
            {"idempotency_key": "k" * 129},
            Code.INVALID_ARGUMENT,
            "idempotency_key",
            id="a long key",
        ),
        pytest.param(
            {**amount("-1x"), "reference": 7},
            Code.INVALID_ARGUMENT,
            "reference",
            id="two faults, the first in precedence",
        ),
    ],
)
async def test_an_argument_that_is_none_is_refused_where_it_stands(
    wire: Wire, change: dict[str, Any], code: Code, path: str
) -> None:
    before = await records(wire)

    given = await refusal(wire, treasurer(wire), "fund_account", {**FUNDING, **change})

    assert (given.code, given.path) == (code, path)
    assert await records(wire) == before


@pytest.mark.parametrize(
    ("operation", "given", "begins"),
    [
        ("fund_account", {**FUNDING, "organisation_id": "org_bad"}, "org_"),
        ("get_record", {"seq": 0}, ""),
        ("withdraw_credit", {"lot_id": f"agt_{'0' * 26}"}, "lot_"),
    ],
)
async def test_of_what_is_no_id_it_is_said_what_one_begins_with(
    wire: Wire, operation: str, given: dict[str, Any], begins: str
) -> None:
    said = (await refusal(wire, treasurer(wire), operation, given)).message

    assert (f"begins with {begins} and" in said) is bool(begins)
    assert "[0-7]" not in said


@pytest.mark.parametrize(
    ("operation", "given", "word"),
    [
        ("fund_account", {**FUNDING, "idempotency_key": "short"}, "16 to 128 letters"),
        ("get_statement", {"asset": "usd"}, "such as USD"),
        ("get_statement", {"asset": "GBP"}, "one of USD, EUR"),
        ("get_statement", {"since": "yesterday"}, "such as 2026-11-21T09:30"),
        ("get_statement", {"cursor": "no cursor"}, "cursor of the page before"),
        ("get_statement", {"cursor": "AAAA"}, "very question"),
        ("get_trial_balance", {"at_seq": 1, "cursor": "2-platform:prepaid:USD"}, "very question"),
    ],
)
async def test_of_what_has_not_its_form_it_is_said_what_it_would_be(
    wire: Wire, operation: str, given: dict[str, Any], word: str
) -> None:
    said = await refusal(wire, treasurer(wire), operation, given)

    assert said.code is Code.INVALID_ARGUMENT
    assert word in said.message


async def test_of_every_text_with_a_form_there_is_a_sentence() -> None:
    said = 0
    for operation in OPERATIONS.values():
        for path, pattern in patterns(ask_schema(operation.ask)):
            is_id = re.match(r"\^\(?[a-z|]+\)?_\[0-7\]", pattern)
            assert is_id or path[-1] == "cursor" or form_of(pattern), (operation.name, pattern)
            said += 1
    assert said > 100


def patterns(node: object, path: tuple[str, ...] = ("",)) -> Iterator[tuple[tuple[str, ...], str]]:
    match node:
        case dict():
            if isinstance(pattern := node.get("pattern"), str):
                yield path, pattern
            for name, inner in node.items():
                yield from patterns(inner, (*path, name))
        case list():
            for inner in node:
                yield from patterns(inner, path)
        case _:
            pass


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (amount("-1"), "no sign"),
        (amount("0.0000001", "JPY"), "smallest amount is 0.000001 JPY"),
        (amount("9223372036854775807"), "largest amount is 9223372036.854775807 USD"),
        (amount("1", "ABC"), "one of USD, EUR"),
    ],
)
async def test_what_is_wrong_with_an_amount_is_said_in_a_sentence(
    wire: Wire, given: dict[str, Any], word: str
) -> None:
    refused = await refusal(wire, treasurer(wire), "fund_account", {**FUNDING, **given})

    assert word in refused.message
    assert refused.message.endswith(".")


@pytest.mark.parametrize("name", sorted(FUNDING))
async def test_an_argument_that_is_missing_is_named(wire: Wire, name: str) -> None:
    rest = {each: value for each, value in FUNDING.items() if each != name}

    given = await refusal(wire, caller(Role.TREASURER), "fund_account", rest)

    assert (given.code, given.path) == (Code.INVALID_ARGUMENT, name)


async def test_of_many_members_that_no_ask_has_the_first_is_named_and_no_other_looked_at(
    wire: Wire,
) -> None:
    bad = {**FUNDING, **dict.fromkeys(map("a{}".format, range(20)), 1)}

    given = await refusal(wire, treasurer(wire), "fund_account", bad)

    assert (given.code, given.path) == (Code.INVALID_ARGUMENT, "a0")
    assert "far more" in given.message


async def test_what_is_no_operation_is_refused_before_anything_else(wire: Wire) -> None:
    for name in ("", "transfer", "__class__", "place_hold "):
        given = await refusal(wire, ANYONE, name, {"amount": "-1"})

        assert (given.code, given.path) == (Code.UNKNOWN_OPERATION, "name")


@pytest.mark.parametrize(
    ("role", "code"),
    [
        (Role.ANYONE, Code.UNAUTHENTICATED),
        (Role.NEWCOMER, Code.UNKNOWN_KEY),
        *((role, Code.NOT_PERMITTED) for role in Role if role not in {"anyone", "newcomer"}),
    ],
)
async def test_an_operation_is_for_its_roles_alone(wire: Wire, role: Role, code: Code) -> None:
    by = ANYONE if role is Role.ANYONE else caller(role)
    # A registered key may ask again what became of its own registration: the engine answers.
    again = {Role.NEWCOMER} if role is not Role.ANYONE else set()
    others = [
        operation.name
        for operation in OPERATIONS.values()
        if not operation.public and not operation.roles & ({role} | again)
    ]

    given = {name: (await refusal(wire, by, name, {"nonsense": 1})).code for name in others}

    assert len(others) > 10
    assert given == dict.fromkeys(others, code)


@pytest.mark.parametrize("assurance", [each for each in Assurance if each != "A4"])
async def test_whatever_writes_needs_a_signature_over_the_body(
    wire: Wire, assurance: Assurance
) -> None:
    for operation in OPERATIONS.values():
        if operation.effect is Effect.READS:
            continue
        by = replace(caller(next(iter(operation.roles))), assurance=assurance)

        given = await refusal(wire, by, operation.name, {})

        assert (given.code, given.required) == (Code.ASSURANCE_REQUIRED, "A4")


async def test_what_fails_inside_leaves_without_its_reason(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing(*_: object) -> Reply:
        raise RuntimeError("the inside of the server")

    broken = replace(HANDLERS["get_tree_head"], call=failing)
    monkeypatch.setattr("farthing.server.dispatch.HANDLERS", {"get_tree_head": broken})

    given = await refusal(wire, ANYONE, "get_tree_head", {})

    assert given.code is Code.INTERNAL_ERROR
    assert "inside" not in given.message


async def test_every_operation_is_carried_out_by_something() -> None:
    assert {name: handler.operation for name, handler in HANDLERS.items()} == dict(OPERATIONS)
