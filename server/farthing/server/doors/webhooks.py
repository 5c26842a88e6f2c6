"""Where processors say what became of a payment: signed events, at a URL of their own.

Boundary: the signature is the processor's own and is checked over the exact bytes, before anything
is read. What is understood is a command of the platform; what is not is acknowledged and forgotten,
and what came too early, or cannot be looked up now, is to be sent again.
Source: spec/ledger.md.
"""

from dataclasses import replace
from typing import Final

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from farthing.protocol.errors import Code, Refused, refuse
from farthing.server.adapters.manual import MANUAL
from farthing.server.doors.admission import WEBHOOKS, request_id_of
from farthing.server.doors.render import problem
from farthing.server.market import Market
from farthing.server.operations.payments import book
from farthing.server.ports import InvalidEvent, PaymentProcessor, ProcessorFailed
from farthing.settlement.engine.payments import Processed, paid_again_id
from farthing.settlement.engine.questions import Lookup
from farthing.settlement.engine.things import Payout, TopUp

__all__ = ["webhook_routes"]

log = structlog.get_logger(__name__)

_DONE: Final = frozenset({"paid", "posted"})
_GIVEN_UP: Final = frozenset({"expired", "failed"})
_NOUNS: Final = {"pay": "payout", "top": "top_up"}


def webhook_routes(market: Market) -> list[Route]:
    """A route for every processor that sends events."""

    def route(name: str, processor: PaymentProcessor) -> Route:
        async def receive(request: Request) -> Response:
            return await _received(market, name, processor, request)

        return Route(f"{WEBHOOKS}{name}", receive, methods=["POST"])

    return [route(name, each) for name, each in market.processors.items() if name != MANUAL]


async def _received(
    market: Market, name: str, processor: PaymentProcessor, request: Request
) -> Response:
    try:
        said = await processor.event(await request.body(), request.headers)
    except InvalidEvent as error:
        log.warning("event_invalid", processor=name, why=str(error))
        return problem(refuse(Code.PROOF_INVALID), request_id_of(request.scope), status=400)
    except ProcessorFailed as error:
        log.warning("processor_failed", processor=name, why=str(error))
        return problem(refuse(Code.PROCESSOR_FAILED), request_id_of(request.scope))
    if said is None:
        return Response(status_code=204)
    log.info("event", processor=name, event_id=said.event_id, payment_id=said.payment_id)
    # What is refused is not taken, and the processor sends it again.
    await _take(market, name, said)
    return Response(status_code=204)


async def _take(market: Market, name: str, said: Processed) -> None:
    known = await _known(market, said.payment_id)
    if known is None or known.processor != name:
        log.warning("event_of_nothing", processor=name, event_id=said.event_id)
        return
    if said.outcome == "reversed":
        which = await _of_which(market, known, said)
        if which is None:
            log.warning("event_without_effect", event_id=said.event_id, payment_id=said.payment_id)
            return
        if isinstance(which, TopUp):
            known, said = which, replace(said, payment_id=which.top_up_id)
    if not await _is_news(market, known, said):
        return
    await book(market, known, said)


async def _of_which(
    market: Market, known: TopUp | Payout, said: Processed
) -> TopUp | Payout | None:
    """Which payment money has gone back of: what was paid twice the processor's own id tells.

    None where that one was not taken: of it nothing stands here.
    """
    if known.status not in _DONE or said.reference == known.reference:
        return known
    again = await _known(market, paid_again_id(said.payment_id, said.reference))
    if isinstance(known, TopUp) and again is not None:
        return None if again.status in _GIVEN_UP else again
    # What was decided by hand has a reference of its own.
    if not known.event_id:
        return known
    if isinstance(known, TopUp):
        # It came before the event that says so, as below.
        raise Refused(refuse(Code.UNAVAILABLE))
    return None


async def _is_news(market: Market, known: TopUp | Payout, said: Processed) -> bool:
    """Whether it may change something: what is decided can still be paid for once more."""
    if said.outcome == "reversed":
        if known.status not in _DONE:
            # It came before the event that says so, which the processor is still to send, or waits
            # for the treasurer, who may be longer about it than this is sent again.
            log.warning("gone_back_first", payment_id=said.payment_id, event_id=said.event_id)
            raise Refused(refuse(Code.UNAVAILABLE))
        return int(said.units) > known.reversed_units
    if known.status not in _DONE:
        return True
    if said.outcome != "paid" or said.reference == known.reference:
        return False
    log.warning("paid_again", payment_id=said.payment_id, reference=said.reference)
    # Of a payout that left twice nothing can be posted: the log is where it is told.
    if isinstance(known, Payout):
        return False
    return await _known(market, paid_again_id(said.payment_id, said.reference)) is None


async def _known(market: Market, payment_id: str) -> TopUp | Payout | None:
    noun = _NOUNS.get(payment_id.partition("_")[0])
    if noun is None:
        return None
    found = await market.ask(Lookup(noun=noun, id=payment_id))
    return found if isinstance(found, TopUp | Payout) else None
