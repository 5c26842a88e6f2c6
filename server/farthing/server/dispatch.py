"""From a name and arguments to an operation's reply: the one place where every door meets.

Boundary: finds the operation, judges role and proof, validates. It raises `Refused` and nothing
else that was not already broken; doors render it. Source: spec/messages.md.
"""

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Final

import orjson
import structlog
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from farthing.identity.callers import Assurance, Caller
from farthing.protocol.errors import Broken, Code, Refusal, Refused, refuse
from farthing.protocol.messages.operations import AnyOperation
from farthing.protocol.money import AmountFault, InvalidAmount
from farthing.protocol.purposes import may_call
from farthing.protocol.wire import Effect, Money, Role, form_of
from farthing.server.market import Market
from farthing.server.operations import HANDLERS, Handler, Reply
from farthing.server.operations.replies import check_key

__all__ = ["adapter", "dispatch", "may_use"]

log = structlog.get_logger(__name__)

_DETAIL_MAX: Final = 200
# Members that no ask has: of more than so many only the first is looked at.
_UNKNOWN_MAX: Final = 16
# In what is told of a text that is no id: what the id would begin with.
_ID: Final = re.compile(r"\^\(?(?P<of>[a-z|]+)\)?_\[0-7\]")
_ADAPTERS: Final[dict[type, TypeAdapter[Any]]] = {}


async def dispatch(
    market: Market, caller: Caller, name: str, arguments: Mapping[str, object]
) -> Reply:
    """Carry out an operation for a caller.

    Raises:
        Refused: with the first refusal in precedence.
    """
    with market.metrics.call(name):
        return await _dispatch(market, caller, name, arguments)


def adapter(kind: type) -> TypeAdapter[Any]:
    """The strict reader of a message type, compiled once."""
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


async def _dispatch(
    market: Market, caller: Caller, name: str, arguments: Mapping[str, object]
) -> Reply:
    handler = HANDLERS.get(name)
    if handler is None:
        raise Refused(refuse(Code.UNKNOWN_OPERATION, path="name"))
    if refusal := _may_call(caller, handler.operation):
        raise Refused(refusal)
    ask = _ask(handler.operation, arguments)
    try:
        if handler.operation.effect is Effect.READS:
            if caller.principal_id:
                await check_key(market, caller)
            return await handler.call(market, caller, ask)
        return await _written(market, caller, handler, ask)
    except Refused:
        raise
    except Exception as error:
        # The outermost place that knows the operation; nothing of the fault leaves with the answer.
        log.exception("operation_failed", operation=name, broken=isinstance(error, Broken))
        raise Refused(refuse(Code.INTERNAL_ERROR)) from error


async def _written(market: Market, caller: Caller, handler: Handler, ask: object) -> Reply:
    if refusal := market.velocity.refuse_write(caller, market.now_us()):
        raise Refused(refusal)
    try:
        return await handler.call(market, caller, ask)
    except Refused as refused:
        market.velocity.refused(caller, refused.code, market.now_us())
        raise


def may_use(caller: Caller, operation: AnyOperation) -> bool:
    """Whether a caller's role and key are for an operation."""
    return caller.role in operation.roles and may_call(caller.purpose, operation.name)


def _may_call(caller: Caller, operation: AnyOperation) -> Refusal | None:
    if operation.public:
        return None
    if caller.role is Role.ANYONE:
        return refuse(Code.UNAUTHENTICATED)
    if operation.effect is not Effect.READS and caller.assurance is not Assurance.SIGNED_BODY:
        return refuse(Code.ASSURANCE_REQUIRED, required=Assurance.SIGNED_BODY.value)
    if not may_call(caller.purpose, operation.name):
        return refuse(Code.NOT_PERMITTED, message=f"A {caller.purpose} key does not do this.")
    # A key that is registered by now may ask what became of its own registration.
    if caller.role in operation.roles or Role.NEWCOMER in operation.roles:
        return None
    if caller.role is Role.NEWCOMER:
        return refuse(Code.UNKNOWN_KEY)
    return refuse(Code.NOT_PERMITTED, required=", ".join(sorted(operation.roles)))


def _ask(operation: AnyOperation, arguments: Mapping[str, object]) -> object:
    members = fields(operation.ask)
    if len(arguments) > len(members) + _UNKNOWN_MAX:
        known = {member.name for member in members}
        first = next(name for name in arguments if name not in known)
        text = f"{len(arguments)} members are far more than the {len(members)} that there are."
        raise Refused(refuse(Code.INVALID_ARGUMENT, path=first, message=text))
    raw = _raw(operation, arguments)
    try:
        ask = adapter(operation.ask).validate_json(
            orjson.dumps({**arguments, **dict.fromkeys(raw, "")})
        )
    except ValidationError as error:
        raise Refused(_invalid(error)) from error
    except (TypeError, orjson.JSONEncodeError) as error:
        raise Refused(refuse(Code.INVALID_ARGUMENT)) from error
    for member in members:
        _check_amount(member.name, getattr(ask, member.name))
    return replace(ask, **raw) if raw else ask


def _raw(operation: AnyOperation, arguments: Mapping[str, object]) -> dict[str, str]:
    """A long text that has nothing to be judged but its length, which need not be read again."""
    raw = operation.raw
    text = arguments.get(raw.name) if raw is not None else None
    if raw is None or not isinstance(text, str) or len(text) > raw.characters_max:
        return {}
    return {raw.name: text}


def _check_amount(path: str, value: object) -> None:
    """Refuse an amount that has the form of one and is not canonical for its asset."""
    if not isinstance(value, Money):
        return
    try:
        _ = value.units
    except InvalidAmount as error:
        member = "asset" if error.reason is AmountFault.UNKNOWN_ASSET else "amount"
        refusal = refuse(Code.INVALID_AMOUNT, path=f"{path}.{member}", message=str(error))
        raise Refused(refusal) from error


def _invalid(error: ValidationError) -> Refusal:
    """The first fault in precedence, in the order of the fields."""
    faults = error.errors(include_url=False, include_input=False)
    first = min(faults, key=_is_of_an_amount)
    code = Code.INVALID_AMOUNT if _is_of_an_amount(first) else Code.INVALID_ARGUMENT
    path = ".".join(str(step) for step in first["loc"])
    return refuse(code, path=path, message=f"{code.says} {_says(first)[:_DETAIL_MAX]}")


def _says(fault: ErrorDetails) -> str:
    """What an argument is instead: of which form, of an id of which kind."""
    if fault["type"] != "string_pattern_mismatch":
        return fault["msg"].removeprefix("Value error, ")
    if fault["loc"][-1] == "cursor":
        return "It is the cursor of the page before, as that page gave it."
    pattern = fault["ctx"]["pattern"]
    prefixes = _ID.match(pattern)
    if prefixes is None:
        return form_of(pattern) or fault["msg"]
    begins = " or ".join(f"{each}_" for each in prefixes["of"].split("|"))
    return f"It is an id that begins with {begins} and has 26 letters and digits after it."


def _is_of_an_amount(fault: ErrorDetails) -> bool:
    return len(fault["loc"]) > 1 and fault["loc"][-1] == "amount"
