"""Of any two things that are wrong with a call, the answer is the first in precedence."""

import ast
import inspect
from collections.abc import Callable, Iterator
from itertools import combinations
from textwrap import dedent
from types import FunctionType, ModuleType
from typing import Any, Final

import pytest

from farthing.protocol.errors import Code
from farthing.protocol.messages.operations import OPERATIONS
from farthing.protocol.wire import Effect, Role
from farthing.settlement.engine import decide
from tests.settlement.engine.asks import ASKS
from tests.settlement.engine.spoiling import Wrong
from tests.settlement.engine.wrongs import APART, ELSEWHERE, FIRST, OF_A_THING, WRONGS

WRITES: Final = sorted(name for name, each in OPERATIONS.items() if each.effect is not Effect.READS)
# Whoever has no principal yet has no key that could be revoked, and waits for nobody.
NEWCOMERS: Final = frozenset({"key revoked", "key for another purpose", "caller pending"})

JUDGES: Final = ("farthing.settlement.engine.", "farthing.protocol.authority.")
# Named by what several operations share, and never given by these.
NEVER: Final = {"accept_terms": {Code.PER_CALL_LIMIT_EXCEEDED, Code.BUDGET_EXCEEDED}}


def decided(operation: str, *wrongs: Wrong) -> Code | None:
    """The answer to a call with all of this wrong; what an argument names is spoilt before it."""
    call = ASKS[operation]()
    for wrong in reversed(wrongs):
        wrong.spoil(call)
    return call.decided()


def pairs(operation: str) -> Iterator[tuple[Wrong, Wrong]]:
    """What can be wrong at once, of different codes."""
    for one, other in combinations(WRONGS[operation], 2):
        if one.code is not other.code and (operation, one.says, other.says) not in APART:
            yield one, other


def first_of(operation: str, one: Wrong, other: Wrong) -> Code:
    """The code that is given of two."""
    if other.says in OF_A_THING and one.code is Code.NOT_FOUND:
        return one.code
    if operation == "report_usage" and one.says.endswith("session_id"):
        # Nobody's usage is told so before all else, and remembered (spec/sessions.md).
        return one.code
    return min(one.code, other.code, key=lambda code: code.precedence)


def named_in(function: Callable[..., Any], seen: set[object]) -> set[Code]:
    """Every code that a decision names, and whatever it calls of the engine or of authority."""
    function = inspect.unwrap(function)
    if not isinstance(function, FunctionType) or function in seen:
        return set()
    seen.add(function)
    known, codes = function.__globals__, set[Code]()
    for node in ast.walk(ast.parse(dedent(inspect.getsource(function)))):
        match node:
            case ast.Attribute(ast.Name("Code"), name):
                codes.add(Code[name])
                continue
            case ast.Attribute(ast.Name(of), name) if isinstance(known.get(of), ModuleType):
                found = getattr(known[of], name)
            case ast.Name(name):
                found = known.get(name)
            case _:
                continue
        if getattr(found, "__module__", "").startswith(JUDGES) and not isinstance(found, type):
            codes |= named_in(found, seen)
    return codes


def looked_at_first(operation: str) -> list[Wrong]:
    """What can be wrong with a caller of an operation."""
    newcomer = Role.NEWCOMER in OPERATIONS[operation].roles
    return [each for each in FIRST if not (newcomer and each.says in NEWCOMERS)]


def test_every_operation_that_is_decided_is_in_the_tables() -> None:
    assert sorted(ASKS) == sorted(WRONGS) == WRITES


@pytest.mark.parametrize("operation", WRITES)
def test_a_call_with_nothing_wrong_is_done(operation: str) -> None:
    assert decided(operation) is None


@pytest.mark.parametrize("operation", WRITES)
def test_each_wrong_by_itself_gives_its_code(operation: str) -> None:
    for wrong in WRONGS[operation]:
        assert decided(operation, wrong) is wrong.code, wrong.says


@pytest.mark.parametrize("operation", WRITES)
def test_of_two_wrongs_the_first_in_precedence_is_the_answer(operation: str) -> None:
    for one, other in pairs(operation):
        both = f"{one.says} + {other.says}"
        assert decided(operation, one, other) is first_of(operation, one, other), both


@pytest.mark.parametrize("operation", WRITES)
def test_the_caller_and_its_key_are_looked_at_before_what_it_asks(operation: str) -> None:
    for first in looked_at_first(operation):
        for wrong in WRONGS[operation]:
            both = f"{first.says} + {wrong.says}"
            assert decided(operation, first, wrong) is first.code, both


@pytest.mark.parametrize("operation", WRITES)
def test_the_caller_and_its_key_are_looked_at_in_order(operation: str) -> None:
    for one, other in combinations(looked_at_first(operation), 2):
        both = f"{one.says} + {other.says}"
        assert one.code.precedence < other.code.precedence, both
        assert decided(operation, other, one) is one.code, both


@pytest.mark.parametrize("operation", WRITES)
def test_every_declared_code_is_brought_about_and_every_given_one_is_declared(
    operation: str,
) -> None:
    given = {each.code for each in WRONGS[operation]} | ELSEWHERE.get(operation, frozenset())

    assert given == set(OPERATIONS[operation].codes)


@pytest.mark.parametrize("operation", WRITES)
def test_every_code_that_a_decision_names_is_in_the_tables(operation: str) -> None:
    given = {each.code for each in WRONGS[operation]}

    decision = vars(decide)["_DECISIONS"][operation]

    assert named_in(decision, set()) - NEVER.get(operation, set()) == given


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_codes_are_declared_in_order_of_precedence(operation: str) -> None:
    codes = OPERATIONS[operation].codes

    assert list(codes) == sorted(codes, key=lambda code: code.precedence)


def test_what_cannot_be_wrong_at_once_is_in_the_tables() -> None:
    for operation, one, other in APART:
        assert {one, other} <= {each.says for each in WRONGS[operation]}
