"""For those who keep the server running: whether it is ready, and its figures.

Boundary: reads; decides nothing. Source: spec/transport-http.md#metrics.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import orjson
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from farthing.protocol.errors import FarthingError
from farthing.server.doors.admission import READY
from farthing.server.doors.direct import METRICS, is_direct
from farthing.server.market import Market
from farthing.server.siblings import Siblings, on_one_page
from farthing.settlement.engine.questions import FiguresNow

__all__ = ["figures_of", "operator_routes"]

_ANSWER_S_MAX: Final = 2


async def figures_of(market: Market, is_healthy: Callable[[], bool]) -> bytes:
    """The figures of this front end alone."""
    seq = await _seq(market)
    return market.metrics.page(
        seq=seq,
        # One that hangs, as on a disk that does, is connected and takes nothing.
        healthy=seq is not None and is_healthy(),
        services_in_flight=market.flights.in_flight,
    )


def operator_routes(
    market: Market, is_healthy: Callable[[], bool], siblings: Siblings
) -> list[Route]:
    """`/readyz` and `/metrics`."""

    async def ready(request: Request) -> Response:
        del request
        is_ready = is_healthy() and await _seq(market) is not None
        told = orjson.dumps({"status": "ready" if is_ready else "not_ready"})
        return Response(told, 200 if is_ready else 503, media_type="application/json")

    async def figures(request: Request) -> Response:
        # Whoever else asks is not the one who keeps the server.
        if not is_direct(request.scope):
            raise HTTPException(404)
        own, others = await asyncio.gather(figures_of(market, is_healthy), siblings.pages())
        page = on_one_page((own, *others))
        return Response(page, media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return [Route(READY, ready), Route(METRICS, figures)]


async def _seq(market: Market) -> int | None:
    """The journal's length as the engine tells it, None where it does not answer."""
    try:
        async with asyncio.timeout(_ANSWER_S_MAX):
            return (await market.ask(FiguresNow())).seq
    except (FarthingError, TimeoutError):
        return None
