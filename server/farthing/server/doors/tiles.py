"""The journal's tree for whoever watches it: the newest signed head, tiles of hashes, a verifier.

Boundary: hashes only. Records are private business of their parties and reach them through
receipts; a tile lets anybody follow and prove the tree without reading one.
Source: spec/merkle.md, spec/design/10-public-hashes.md, https://c2sp.org/tlog-tiles.
"""

from importlib.resources import files
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from farthing.protocol.checkpoints import verifier_key
from farthing.protocol.keys import PublicKey
from farthing.protocol.tiles import TILE_WIDTH, parse_tile
from farthing.server.market import Market
from farthing.settlement.engine.questions import TileAt, TreeHeadNow

__all__ = ["tile_routes"]

_COMPLETE: Final = {"cache-control": "public, max-age=31536000, immutable"}
_FOR_NOW: Final = {"cache-control": "no-store"}
_VERIFIER: Final = (files("farthing.spec") / "farthing_verify.py").read_bytes()


def tile_routes(market: Market) -> list[Route]:
    """`/checkpoint` and its key, `/tile/LEVEL/NUMBER` or `.p/WIDTH`, the one-file verifier."""

    async def checkpoint(request: Request) -> Response:
        del request
        return PlainTextResponse(await market.ask(TreeHeadNow()), headers=_FOR_NOW)

    async def key(request: Request) -> Response:
        del request
        line = verifier_key(market.origin, PublicKey.from_jwk(market.journal_jwk))
        return PlainTextResponse(f"{line}\n", headers=_FOR_NOW)

    async def tile(request: Request) -> Response:
        named = parse_tile(request.path_params["path"])
        if named is None:
            raise HTTPException(404)
        hashes = await market.ask(TileAt(level=named.level, index=named.index, width=named.width))
        if hashes is None:
            raise HTTPException(404)
        # A partial tile is as final as a complete one: the journal only grows.
        assert len(hashes) == named.width * 32 <= TILE_WIDTH * 32
        return Response(hashes, headers=_COMPLETE, media_type="application/octet-stream")

    async def verifier(request: Request) -> Response:
        del request
        return PlainTextResponse(_VERIFIER, headers=_FOR_NOW, media_type="text/x-python")

    return [
        Route("/checkpoint", checkpoint),
        Route("/checkpoint.vkey", key),
        Route("/tile/{path:path}", tile),
        Route("/farthing_verify.py", verifier),
    ]
