"""What anybody can fetch by URL: health, the platform's keys, documents by hash, the tree head.

Boundary: asks dispatch like every other door. Source: spec/transport-mcp.md.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Final, cast

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from farthing.identity.callers import Assurance
from farthing.protocol.canonical import Json, canonical_bytes, sha256_hex
from farthing.protocol.errors import Code, Refused, refuse
from farthing.protocol.messages.listings import DocumentAnswer
from farthing.protocol.messages.trails import TreeHead
from farthing.protocol.proofs import REQUEST_LIFETIME_S_MAX
from farthing.protocol.signatures import Typ
from farthing.protocol.terms import standard_terms
from farthing.protocol.wire import EXTENSION
from farthing.server.dispatch import dispatch
from farthing.server.doors.admission import HEALTH, caller_of, request_id_of
from farthing.server.doors.render import METADATA, problem
from farthing.server.doors.tiles import tile_routes
from farthing.server.market import Market

__all__ = ["no_such_page", "refusing", "routes"]

_FOR_EVER: Final = {"cache-control": "public, max-age=31536000, immutable"}
_FOR_NOW: Final = {"cache-control": "no-store"}
_OPERATION: Final = re.compile(r"/v1/[a-z_]{1,64}", re.ASCII)
_TERMS: Final = canonical_bytes(standard_terms())


def routes(market: Market, jwks: Mapping[str, Json], is_healthy: Callable[[], bool]) -> list[Route]:
    """The routes of the public door."""

    async def health(request: Request) -> Response:
        del request
        healthy = is_healthy()
        return _json({"status": "ok" if healthy else "stopped"}, 200 if healthy else 503)

    async def keys(request: Request) -> Response:
        del request
        return _json(jwks)

    async def resource(request: Request) -> Response:
        # RFC 9728, section 3.3: the document names the resource whose well-known URL it is at.
        return _json(_metadata(market, request.url.path.removeprefix(METADATA)))

    async def legal_context(request: Request) -> Response:
        del request
        return _json(_legal_context(market))

    async def terms(request: Request) -> Response:
        del request
        return Response(_TERMS, media_type="application/json")

    async def document(request: Request) -> Response:
        arguments = {"sha256": request.path_params["sha256"]}
        reply = await dispatch(market, caller_of(request.scope), "get_document", arguments)
        found = canonical_bytes(cast("Json", cast("DocumentAnswer", reply.answer).document))
        return Response(found, headers=_FOR_EVER, media_type="application/json")

    async def tree_head(request: Request) -> Response:
        reply = await dispatch(market, caller_of(request.scope), "get_tree_head", {})
        return PlainTextResponse(cast("TreeHead", reply.answer).note, headers=_FOR_NOW)

    return [
        Route(HEALTH, health),
        Route("/.well-known/jwks.json", keys),
        Route(METADATA, resource),
        Route(f"{METADATA}/mcp", resource),
        Route("/.well-known/legal-context.json", legal_context),
        Route("/v1/terms", terms),
        Route("/v1/documents/{sha256}", document),
        Route("/v1/tree-head", tree_head),
        *tile_routes(market),
    ]


def refusing(issuer: str) -> Callable[[Request, Exception], Awaitable[Response]]:
    """What every door says of a refusal that it lets through, in the one shape."""

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        response = problem(error.refusal, request_id_of(request.scope), issuer=issuer)
        if error.replayed:
            response.headers["idempotent-replayed"] = "true"
        return response

    return refused


async def no_such_page(request: Request, error: Exception) -> Response:
    """What the router says where there is nothing, or not by this method, in the one shape."""
    assert isinstance(error, HTTPException)
    code, text = Code.NOT_FOUND, "There is nothing at this URL."
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        text = "This URL takes another method: see Allow."
    elif _OPERATION.fullmatch(request.url.path):
        code, text = Code.UNKNOWN_OPERATION, "/openapi.json has the operations that there are."
    refusal = refuse(code, path="url", message=text)
    response = problem(refusal, request_id_of(request.scope), status=error.status_code)
    response.headers.update(error.headers or {})
    return response


def _metadata(market: Market, path: str) -> dict[str, object]:
    """RFC 9728, with what a request JWT must say beside it: there is no token to ask for."""
    return {
        "resource": f"{market.issuer}{path}",
        "resource_name": "Farthing",
        "bearer_methods_supported": ["header"],
        "jwks_uri": f"{market.issuer}/.well-known/jwks.json",
        EXTENSION: {
            "assurance": Assurance.SIGNED_BODY.value,
            "typ": Typ.REQUEST.value,
            "alg_values_supported": ["EdDSA", "Ed25519", "ES256"],
            "aud": market.issuer,
            "lifetime_s_max": REQUEST_LIFETIME_S_MAX,
        },
    }


def _legal_context(market: Market) -> dict[str, object]:
    """The Legal Context Protocol: the market's standard terms and their hash.

    What binds in a trade is the listing's own document, which differs in its windows alone:
    `get_legal_context` names it.
    """
    return {
        "terms": f"{market.issuer}/v1/terms",
        "termsFormat": "json",
        "atrHash": f"0x{sha256_hex(_TERMS)}",
        "acceptanceRequired": True,
        "disputeResolution": {"method": "deterministic-rules"},
        "api": f"{market.issuer}/mcp",
    }


def _json(value: object, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")
