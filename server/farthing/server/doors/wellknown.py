"""What anybody can fetch by URL: health, the platform's keys, documents by hash, the tree head."""

from collections.abc import Callable

import orjson
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from farthing.identity.callers import ANYONE
from farthing.protocol.canonical import Json, canonical_bytes
from farthing.protocol.errors import Refused
from farthing.protocol.messages.listings import GetDocument
from farthing.server.dispatch import dispatch
from farthing.server.doors.admission import request_id_of
from farthing.server.doors.render import problem
from farthing.server.market import Market
from farthing.server.operations.listings import document_at

__all__ = ["routes"]

_FOR_EVER = {"cache-control": "public, max-age=31536000, immutable"}


def routes(
    market: Market, jwks: dict[str, list[dict[str, str]]], is_healthy: Callable[[], bool]
) -> list[Route]:
    """The routes of the public door."""

    async def health(request: Request) -> Response:
        del request
        healthy = is_healthy()
        return _json({"status": "ok" if healthy else "stopped"}, 200 if healthy else 503)

    async def keys(request: Request) -> Response:
        del request
        return _json(jwks)

    async def resource(request: Request) -> Response:
        del request
        return _json(
            {
                "resource": market.issuer,
                "bearer_methods_supported": ["header"],
                "resource_documentation": f"{market.issuer}/.well-known/legal-context.json",
                "jwks_uri": f"{market.issuer}/.well-known/jwks.json",
            }
        )

    async def legal_context(request: Request) -> Response:
        del request
        return _json(
            {
                "terms": f"{market.issuer}/v1/documents/{{sha256}}",
                "termsFormat": "json",
                "acceptanceRequired": True,
                "disputeResolution": {"method": "deterministic-rules"},
                "api": f"{market.issuer}/mcp",
            }
        )

    async def document(request: Request) -> Response:
        try:
            ask = GetDocument(sha256=request.path_params["sha256"])
            await dispatch(market, ANYONE, "get_document", {"sha256": ask.sha256})
            found: dict[str, Json] = await document_at(market, ask.sha256)
        except Refused as refused:
            return problem(refused.refusal, request_id_of(request.scope))
        return Response(canonical_bytes(found), headers=_FOR_EVER, media_type="application/json")

    async def tree_head(request: Request) -> Response:
        del request
        reply = await dispatch(market, ANYONE, "get_tree_head", {})
        return PlainTextResponse(reply.answer.note)  # type: ignore[attr-defined]

    return [
        Route("/healthz", health),
        Route("/.well-known/jwks.json", keys),
        Route("/.well-known/oauth-protected-resource", resource),
        Route("/.well-known/legal-context.json", legal_context),
        Route("/v1/documents/{sha256}", document),
        Route("/v1/tree-head", tree_head),
    ]


def _json(value: object, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")
