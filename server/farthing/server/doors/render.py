"""One answer or refusal, in its faces: structured result, a sentence, problem+json, a 401.

Boundary: shapes what was decided; decides nothing.
"""

from typing import Any, Final

import orjson
from mcp_types import CallToolResult, TextContent
from starlette.responses import Response

from farthing.protocol.canonical import Json
from farthing.protocol.errors import Code, Refusal, Refused
from farthing.protocol.messages.http import status_of
from farthing.protocol.wire import REPLAYED, ROOT, Operation, document_of
from farthing.server.operations import Reply

__all__ = ["METADATA", "problem", "problem_document", "refused_result", "result"]

METADATA: Final = "/.well-known/oauth-protected-resource"
SEQ: Final = f"{ROOT}/seq"


def result(operation: Operation[Any, Any], reply: Reply) -> CallToolResult:
    """A reply as a tool result: typed, with a short true sentence beside it."""
    structured = document_of(reply.answer)
    meta: dict[str, Any] = {}
    if reply.seq:
        meta = {REPLAYED: reply.replayed, SEQ: reply.seq}
    return CallToolResult(
        content=[TextContent(type="text", text=_sentence(operation, structured, reply))],
        structured_content=structured,
        _meta=meta or None,
    )


def refused_result(refused: Refused, request_id: str) -> CallToolResult:
    """A refusal as a tool result."""
    shape = {**refused.refusal.document(), "request_id": request_id}
    return CallToolResult(
        content=[TextContent(type="text", text=orjson.dumps(shape).decode())],
        structured_content=shape,
        is_error=True,
        _meta={REPLAYED: True} if refused.replayed else None,
    )


def problem_document(refusal: Refusal, request_id: str, status: int) -> dict[str, Any]:
    """A refusal in the shape of RFC 9457."""
    return {
        "type": f"urn:farthing:error:{refusal.code.value}",
        "title": refusal.code.says,
        "status": status,
        **refusal.document(),
        "request_id": request_id,
    }


def problem(refusal: Refusal, request_id: str, *, status: int = 0, issuer: str = "") -> Response:
    """A refusal at the door, as RFC 9457; a 401 says where to learn how to sign (RFC 9728).

    Args:
        refusal: what is refused.
        request_id: the request's id.
        status: the HTTP status, where it is not the refusal's own.
        issuer: the public URL, whose metadata a 401 points to.
    """
    status = status or status_of(refusal.code, refusal.path)
    shape = problem_document(refusal, request_id, status)
    headers = {"cache-control": "no-store"}
    if status == 401:
        # RFC 6750 section 3.1: who showed no credential is told of no error.
        error = "" if refusal.code is Code.UNAUTHENTICATED else ', error="invalid_token"'
        headers["www-authenticate"] = f'Bearer resource_metadata="{issuer}{METADATA}"{error}'
    if refusal.retry_after_s:
        headers["retry-after"] = str(refusal.retry_after_s)
    return Response(
        orjson.dumps(shape), status, headers=headers, media_type="application/problem+json"
    )


def _sentence(operation: Operation[Any, Any], structured: dict[str, Json], reply: Reply) -> str:
    """What happened, in one line: the facts themselves are in the structured content."""
    facts = [f"{name} {value}" for name, value in structured.items() if name.endswith("_id")][:2]
    amount = structured.get("amount") or structured.get("total")
    if isinstance(amount, dict):
        facts.append(f"{amount['amount']} {amount['asset']}")
    if status := structured.get("status") or structured.get("outcome"):
        facts.append(str(status))
    if isinstance(found := structured.get("results"), list):
        facts.append(f"{len(found)} result{'' if len(found) == 1 else 's'}")
    again = "; answered before under this key" if reply.replayed else ""
    told = f": {', '.join(facts)}" if facts else ""
    return f"{operation.title}{told}{again}."
