"""How an operation looks over signed HTTP: statuses of refusals, and asks that fit a query string.

Boundary: rules both sides share; nothing is sent here. Source: spec/transport-http.md.
"""

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Final

import orjson

from farthing.protocol.errors import Code
from farthing.protocol.messages.operations import OPERATIONS
from farthing.protocol.messages.shapes import ask_schema
from farthing.protocol.wire import Effect, RawMember

__all__ = [
    "BODY_BYTES_MAX",
    "LINES_TYPE",
    "MEDIA_TYPE",
    "lines_of",
    "media_type_at",
    "named_by",
    "query_members",
    "raw_of",
    "status_of",
]

BODY_BYTES_MAX: Final = 1024 * 1024
MEDIA_TYPE: Final = "application/json"
LINES_TYPE: Final = "application/jsonl"
_NAMES: Final = {
    path: name
    for name, operation in OPERATIONS.items()
    for path in (operation.path, operation.raw_path)
    if path
}
_REFUSED: Final = 400
# A well-formed ask to which the answer is no.
_NO: Final = 422
_STATUS: Final = {
    Code.PAYLOAD_TOO_LARGE: 413,
    Code.UNKNOWN_OPERATION: 404,
    Code.UNAUTHENTICATED: 401,
    Code.PROOF_INVALID: 401,
    Code.PROOF_EXPIRED: 401,
    Code.UNKNOWN_KEY: 401,
    Code.ASSURANCE_REQUIRED: 403,
    Code.RATE_LIMITED: 429,
    Code.OVERLOADED: 503,
    Code.UNAVAILABLE: 503,
    Code.PROOF_REPLAYED: 401,
    Code.KEY_REVOKED: 401,
    Code.NOT_PERMITTED: 403,
    Code.KEY_EXPIRED: 409,
    Code.IDEMPOTENCY_CONFLICT: 409,
    Code.NOT_FOUND: 404,
    Code.STALE: 409,
    Code.REGISTRATION_PENDING: 409,
    Code.ALREADY_REGISTERED: 409,
    Code.ANSWER_AWAITED: 409,
    Code.FROZEN: 403,
    Code.AUTHORITY_MISSING: 403,
    Code.AUTHORITY_EXPIRED: 403,
    Code.VENDOR_NOT_ALLOWED: 403,
    Code.CAPABILITY_NOT_ALLOWED: 403,
    Code.PER_CALL_LIMIT_EXCEEDED: 403,
    Code.BUDGET_EXCEEDED: 403,
    Code.ALLOWANCE_EXCEEDED: 403,
    Code.INSUFFICIENT_FUNDS: 402,
    Code.VENDOR_FAILED: 502,
    Code.RESULT_EXPIRED: 410,
    Code.PROCESSOR_FAILED: 502,
    Code.INTERNAL_ERROR: 500,
}
# The header at fault of a request that is malformed: HTTP has a status of its own for each.
_STATUS_OF_HEADER: Final = {
    "accept": 406,
    "content-encoding": 415,
    "content-type": 415,
    "host": 421,
}
_SCALARS: Final = frozenset({"string", "integer"})


def status_of(code: Code, path: str = "") -> int:
    """The HTTP status of a refusal; `path` is what is at fault, which may be a header."""
    if code is Code.MALFORMED and path in _STATUS_OF_HEADER:
        return _STATUS_OF_HEADER[path]
    return _STATUS.get(code, _NO if code.is_business else _REFUSED)


@cache
def query_members(name: str) -> Mapping[str, str] | None:
    """The members of an ask with their JSON types, where it is a read that fits a query string.

    None for what writes and for an ask with a member that is neither text nor integer: those are
    sent as POST alone.
    """
    operation = OPERATIONS[name]
    if operation.effect is not Effect.READS:
        return None
    members = ask_schema(operation.ask).get("properties", {})
    types = {member: schema.get("type", "") for member, schema in members.items()}
    if any(kind not in _SCALARS for kind in types.values()):
        return None
    return MappingProxyType(types)


def raw_of(name: str) -> RawMember | None:
    """The member that may stand on a line of its own, of the operation of this name."""
    operation = OPERATIONS.get(name)
    return None if operation is None else operation.raw


def media_type_at(path: str) -> str:
    """What a body is that is sent to this path."""
    operation = OPERATIONS.get(named_by(path))
    return LINES_TYPE if operation is not None and path == operation.raw_path else MEDIA_TYPE


def lines_of(raw: RawMember, ask: Mapping[str, object]) -> bytes | None:
    """The two lines of an ask, parted by a line feed; None where its text has one in itself."""
    text = ask.get(raw.name)
    if not isinstance(text, str) or "\n" in text:
        return None
    # In the order of canonical JSON, for which the strict reader has a short way.
    rest = {member: value for member, value in ask.items() if member != raw.name}
    return b"%b\n%b" % (orjson.dumps(rest, option=orjson.OPT_SORT_KEYS), text.encode())


def named_by(path: str) -> str:
    """The operation whose path this is, empty where it is none's."""
    return _NAMES.get(path, "")
