"""The OpenAPI 3.1 document of `/v1`, made from the declarations.

Boundary: shapes only; the server serves it, the spec keeps a copy, clients can be generated from
it. Source: spec/transport-http.md.
"""

from collections.abc import Iterable
from functools import cache
from http import HTTPStatus
from typing import Any, Final

from pydantic import TypeAdapter

from farthing.protocol.errors import Code
from farthing.protocol.messages.http import LINES_TYPE, MEDIA_TYPE, query_members, status_of
from farthing.protocol.messages.operations import OPERATIONS, AnyOperation
from farthing.protocol.messages.shapes import WireSchemas, error_schema
from farthing.protocol.wire import Effect

__all__ = ["openapi"]

_COMPONENTS: Final = "#/components/schemas/"
_SHARED: Final = "#/components/responses/"
_AT_THE_DOOR: Final = (
    Code.MALFORMED, Code.DUPLICATE_KEY, Code.PROOF_INVALID, Code.PROOF_EXPIRED, Code.UNKNOWN_KEY,
    Code.KEY_REVOKED, Code.NOT_PERMITTED, Code.RATE_LIMITED, Code.OVERLOADED, Code.UNAVAILABLE,
    Code.INVALID_ARGUMENT, Code.INVALID_AMOUNT, Code.INTERNAL_ERROR,
)  # fmt: skip
_OF_WRITES: Final = (
    Code.ASSURANCE_REQUIRED, Code.PROOF_REPLAYED, Code.KEY_EXPIRED, Code.IDEMPOTENCY_CONFLICT,
    Code.STALE,
)  # fmt: skip
_TEXT: Final = {"type": "string"}
# A path item has no place for the answer to a method that it does not have.
_OTHER_METHODS: Final = f"Any other method is answered 405: `{_SHARED}WrongMethod`."
_OF_HEADERS: Final = {
    "accept": "WrongAccept", "content-type": "WrongContentType", "host": "WrongHost",
}  # fmt: skip
# Told with every answer and refusal once the caller, or without a proof its address, is metered.
_METERED: Final = ("RateLimit", "RateLimit-Policy")


@cache
def openapi() -> dict[str, Any]:
    """The whole document; whoever serves it adds where it is served."""
    sides: list[tuple[str, Any, TypeAdapter[Any]]] = [
        (f"{operation.name}.{side}", "validation", TypeAdapter(kind))
        for operation in OPERATIONS.values()
        for side, kind in (("ask", operation.ask), ("answer", operation.answer))
    ]
    references, shared = TypeAdapter.json_schemas(
        sides, schema_generator=WireSchemas, ref_template=f"{_COMPONENTS}{{model}}"
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Farthing",
            "version": "1",
            "description": "Signed HTTP: spec/transport-http.md says how a request is signed.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            path: item
            for operation in OPERATIONS.values()
            for path, item in _paths(
                operation,
                references[f"{operation.name}.ask", "validation"],
                references[f"{operation.name}.answer", "validation"],
                shared["$defs"],
            ).items()
        },
        "components": {
            "schemas": {**shared["$defs"], "Problem": _problem()},
            "headers": _headers(),
            "responses": _everywhere(),
            "securitySchemes": {
                "proof": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "farthing-request+jwt",
                    "description": "A request JWT over method, URL and body (spec/proofs.md).",
                }
            },
        },
    }


def _paths(
    operation: AnyOperation, ask: dict[str, Any], answer: dict[str, Any], shared: dict[str, Any]
) -> dict[str, Any]:
    about: dict[str, Any] = {
        "summary": operation.title,
        "description": operation.says,
        "security": [{}, {"proof": []}] if operation.public else [{"proof": []}],
        "x-roles": sorted(role.value for role in operation.roles),
        "x-effect": operation.effect.value,
    }
    members = shared[ask["$ref"].rpartition("/")[2]]
    methods: dict[str, Any] = {"description": _OTHER_METHODS}
    if query_members(operation.name) is not None:
        methods["get"] = {
            "operationId": f"{operation.name}_by_get",
            **about,
            "parameters": [*_query(members), _if_none_match()],
            "responses": _responses(operation, answer, is_get=True),
        }
    parameters = [_idempotency_key()] if operation.effect is not Effect.READS else []
    methods["post"] = {
        "operationId": operation.name,
        **about,
        "responses": _responses(operation, answer, is_get=False),
        **({"parameters": parameters} if parameters else {}),
        "requestBody": _body(MEDIA_TYPE, ask),
    }
    if (raw := operation.raw) is None:
        return {operation.path: methods}
    in_lines = {
        "operationId": f"{operation.name}_{raw.path}",
        **about,
        "responses": _responses(operation, _each(answer), is_get=False, is_one=False),
        "requestBody": {
            **_body(LINES_TYPE, _TEXT),
            "description": (
                f"Up to {raw.asks_max} asks, two lines each: one with the other members, as a JSON"
                f" object, and one with the `{raw.name}`, at most {raw.characters_max} characters."
            ),
        },
    }
    return {
        operation.path: methods,
        operation.raw_path: {"description": _OTHER_METHODS, "post": in_lines},
    }


def _each(answer: dict[str, Any]) -> dict[str, Any]:
    """The answers of several asks, in their order: each an answer, or what refuses it."""
    replayed = {"const": True, "description": "It was given before under the same key."}
    answered = {
        "type": "object",
        "required": ["answer", "seq"],
        "additionalProperties": False,
        "properties": {
            "answer": answer,
            "seq": {"type": "integer", "description": "The journal record that it comes from."},
            "replayed": replayed,
        },
    }
    refused = {
        "type": "object",
        "required": ["problem"],
        "additionalProperties": False,
        "properties": {"problem": {"$ref": f"{_COMPONENTS}Problem"}, "replayed": replayed},
    }
    return {
        "type": "object",
        "required": ["answers"],
        "additionalProperties": False,
        "properties": {"answers": {"type": "array", "items": {"oneOf": [answered, refused]}}},
    }


def _body(media_type: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {media_type: {"schema": schema}}}


def _query(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The members of an ask as a query."""
    required = schema.get("required", ())
    return [
        {"name": name, "in": "query", "required": name in required, "schema": member}
        for name, member in schema.get("properties", {}).items()
    ]


def _if_none_match() -> dict[str, Any]:
    says = "Entity tags that the caller has; 304 where the answer is one of them."
    return {"name": "If-None-Match", "in": "header", "description": says, "schema": _TEXT}


def _idempotency_key() -> dict[str, Any]:
    says = "May be sent; then it equals the key in the body, which alone is signed."
    return {"name": "Idempotency-Key", "in": "header", "description": says, "schema": _TEXT}


def _responses(
    operation: AnyOperation, answer: dict[str, Any], *, is_get: bool, is_one: bool = True
) -> dict[str, Any]:
    """The answer and every refusal by its status; of several asks each has its own."""
    names = ["Request-Id", *_METERED]
    is_write = is_one and operation.effect is not Effect.READS
    if is_get:
        names += ["ETag", "Link"]
    elif is_write:
        names += ["Farthing-Seq", "Idempotent-Replayed"]
    answered = {
        "description": "The answer.",
        "headers": _shown(*names),
        "content": {"application/json": {"schema": answer}},
    }
    codes = {*_AT_THE_DOOR, *(operation.codes if is_one else ())}
    if not operation.public:
        codes.add(Code.UNAUTHENTICATED)
    if is_write:
        codes |= {*_OF_WRITES}
    if not is_get:
        codes.add(Code.PAYLOAD_TOO_LARGE)
    responses: dict[str, Any] = {"200": answered}
    if is_get:
        responses["304"] = {
            "description": "The caller has this answer.",
            "headers": _shown("Request-Id", "ETag", *_METERED),
        }
    for header, name in _OF_HEADERS.items():
        if header != "content-type" or not is_get:
            status = status_of(Code.MALFORMED, header)
            responses[str(status)] = {"$ref": f"{_SHARED}{name}"}
    return responses | _by_status(codes, *(["Idempotent-Replayed"] if is_write else []))


def _by_status(codes: Iterable[Code], *headers: str) -> dict[str, Any]:
    found: dict[int, list[Code]] = {}
    for code in sorted(codes, key=lambda code: code.precedence):
        found.setdefault(status_of(code), []).append(code)
    return {
        str(status): _refused(
            f"Refused: {', '.join(code.value for code in found[status])}.", status, *headers
        )
        for status in sorted(found)
    }


def _everywhere() -> dict[str, Any]:
    """What is answered alike whatever the operation."""
    wrong = {
        name: _refused(
            f"Refused: malformed; `path` is `{header}`.", status_of(Code.MALFORMED, header)
        )
        for header, name in _OF_HEADERS.items()
    }
    text = "Refused: not_found; the URL takes other methods."
    return {**wrong, "WrongMethod": _refused(text, HTTPStatus.METHOD_NOT_ALLOWED)}


def _refused(says: str, status: int, *headers: str) -> dict[str, Any]:
    names = ["Request-Id", "Retry-After", *_METERED, *headers]
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        names.append("Allow")
    if status == HTTPStatus.UNAUTHORIZED:
        names.append("WWW-Authenticate")
    return {
        "description": says,
        "headers": _shown(*names),
        "content": {"application/problem+json": {"schema": {"$ref": f"{_COMPONENTS}Problem"}}},
    }


def _problem() -> dict[str, Any]:
    """The one error shape with the members of RFC 9457 before it."""
    shape = error_schema()
    codes = shape["$defs"]["code"]
    members = {
        **shape["properties"],
        "code": codes | {"description": shape["properties"]["code"]["description"]},
        "reasons": shape["properties"]["reasons"] | {"items": codes},
    }
    return {
        "type": "object",
        "description": "A refusal (spec/errors.md, RFC 9457); `code` is what to branch on.",
        "additionalProperties": False,
        "required": ["type", "title", "status", *shape["required"], "request_id"],
        "properties": {"type": _TEXT, "title": _TEXT, "status": {"type": "integer"}, **members},
    }


def _shown(*names: str) -> dict[str, dict[str, str]]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _headers() -> dict[str, Any]:
    says = {
        "Allow": "The methods that the URL takes.",
        "ETag": "The digest of this answer.",
        "Farthing-Seq": "The journal record that the answer of a write comes from.",
        "Idempotent-Replayed": "`true` where the answer was given before under the same key.",
        "Link": 'The next page, `rel="next"` (RFC 8288), where there is one.',
        "RateLimit": "What is left to the caller, or to its address without a proof (IETF draft).",
        "RateLimit-Policy": "The quotas of such a caller (IETF draft).",
        "Request-Id": "What the server's log knows the call by.",
        "Retry-After": "Seconds to wait before the next try.",
        "WWW-Authenticate": "Where to learn how to sign (RFC 9728).",
    }
    return {name: {"description": text, "schema": _TEXT} for name, text in says.items()}
