"""Top-ups and payouts: money on its way in and out."""

from dataclasses import replace
from typing import Final

import structlog

from farthing.identity.callers import Caller
from farthing.protocol.errors import Code, Refused, refuse
from farthing.protocol.ledger import AccountKind, account_name
from farthing.protocol.messages.payments import (
    CANCEL_PAYOUT,
    CONFIRM_PAYOUT,
    CONFIRM_TOP_UP,
    CREATE_TOP_UP,
    FAIL_PAYOUT,
    FAIL_TOP_UP,
    REQUEST_PAYOUT,
    REVERSE_PAYOUT,
    REVERSE_TOP_UP,
    SEND_PAYOUT,
    CancelPayout,
    ConfirmPayout,
    ConfirmTopUp,
    CreateTopUp,
    FailPayout,
    FailTopUp,
    ListPayouts,
    ListTopUps,
    Payouts,
    RequestPayout,
    ReversePayout,
    ReverseTopUp,
    SendPayout,
    TopUps,
    TopUpView,
)
from farthing.protocol.records import Record
from farthing.protocol.wire import money
from farthing.server.market import Market
from farthing.server.operations.pages import page_of_organisation
from farthing.server.operations.replies import Reply, is_frozen, record_at, reply
from farthing.server.ports import PaymentProcessor, ProcessorBusy, ProcessorFailed
from farthing.settlement.engine.commands import platform_command
from farthing.settlement.engine.payments import Processed, top_up_answer, top_up_view
from farthing.settlement.engine.payouts import (
    ASKED_AGAIN_US,
    kept_back,
    payout_answer,
    payout_view,
)
from farthing.settlement.engine.questions import Lookup
from farthing.settlement.engine.things import Payout, TopUp

__all__ = [
    "book",
    "cancel_payout",
    "confirm_payout",
    "confirm_top_up",
    "create_top_up",
    "fail_payout",
    "fail_top_up",
    "list_payouts",
    "list_top_ups",
    "request_payout",
    "reverse_payout",
    "reverse_top_up",
    "send_payout",
]

log = structlog.get_logger(__name__)

_LOOK_IT_UP: Final = (
    "It was sent too long ago to ask again. Look at the processor, then confirm or fail the payout."
)
_SENT: Final = (
    "It was sent before: confirm or fail it, or ask its processor again by the key that it was "
    "sent with."
)


async def create_top_up(market: Market, caller: Caller, ask: CreateTopUp) -> Reply:
    """Announce money from outside, and have the processor ask for it."""
    processor = _processor(market, ask.processor)
    _check_amount(processor, ask)
    outcome = await market.submit(caller, CREATE_TOP_UP, ask)
    top_up = TopUp.from_document(outcome.record.changed[0].after)
    try:
        # A retry asks again in the same words, and the processor gives the same answer; but a
        # processor forgets in time, and what is decided must not be paid for once more.
        is_open = not outcome.replayed or (
            await _status(market, "top_up", top_up.top_up_id) == "pending"
        )
        url = await processor.begin(top_up) if is_open else ""
    except ProcessorFailed as error:
        raise _failed(ask.processor, top_up.top_up_id, error) from error

    def with_url(record: Record) -> TopUpView:
        return replace(top_up_answer(record), url=url)

    return reply(outcome, with_url)


async def confirm_top_up(market: Market, caller: Caller, ask: ConfirmTopUp) -> Reply:
    """The money has come; what of it has gone back meanwhile is booked with it."""
    # The processor tells it for days at most, and a payment may wait for longer.
    gone_back = await _gone_back(market, ask)
    outcome = await market.submit(caller, CONFIRM_TOP_UP, ask)
    if gone_back is None:
        return reply(outcome, top_up_answer)
    top_up = await _top_up(market, ask.top_up_id)
    if top_up is not None and int(gone_back.units) > top_up.reversed_units:
        await book(market, top_up, gone_back)
    back = money(int(gone_back.units), gone_back.asset)

    def with_reversed(record: Record) -> TopUpView:
        return replace(top_up_answer(record), reversed=back)

    return reply(outcome, with_reversed)


async def fail_top_up(market: Market, caller: Caller, ask: FailTopUp) -> Reply:
    """The money will not come."""
    return reply(await market.submit(caller, FAIL_TOP_UP, ask), top_up_answer)


async def reverse_top_up(market: Market, caller: Caller, ask: ReverseTopUp) -> Reply:
    """The money has gone back."""
    return reply(await market.submit(caller, REVERSE_TOP_UP, ask), top_up_answer)


async def list_top_ups(market: Market, caller: Caller, ask: ListTopUps) -> Reply:
    """An organisation's top-ups, newest first."""
    page = await page_of_organisation(market, caller, TopUp, ask, status=ask.status)
    top_ups = tuple(map(top_up_view, page.things))
    return Reply(answer=TopUps(top_ups=top_ups, as_of_seq=page.as_of_seq, cursor=page.cursor))


async def request_payout(market: Market, caller: Caller, ask: RequestPayout) -> Reply:
    """Set money aside that is to be paid out."""
    processor = _processor(market, ask.processor)
    if not processor.knows(ask.destination):
        text = f"The processor {ask.processor} knows no such destination."
        raise Refused(refuse(Code.INVALID_ARGUMENT, path="destination", message=text))
    _check_amount(processor, ask)
    return reply(await market.submit(caller, REQUEST_PAYOUT, ask), payout_answer)


async def cancel_payout(market: Market, caller: Caller, ask: CancelPayout) -> Reply:
    """Who asked for it wants it no more."""
    return reply(await market.submit(caller, CANCEL_PAYOUT, ask), payout_answer)


async def send_payout(market: Market, caller: Caller, ask: SendPayout) -> Reply:
    """Let a payout go, and have the processor pay it."""
    found = await market.ask(Lookup(noun="payout", id=ask.payout_id))
    if isinstance(found, Payout) and found.status == "requested":
        # Else it would stand as sent, and nobody would have been asked.
        _processor(market, found.processor, path="payout_id")
    try:
        outcome = await market.submit(caller, SEND_PAYOUT, ask)
    except Refused as error:
        resolved = error.code is Code.PAYMENT_RESOLVED
        if resolved and isinstance(found, Payout) and found.status == "sent":
            told = replace(error.refusal, message=_SENT)
            raise Refused(told, replayed=error.replayed) from error
        raise
    payout = Payout.from_document(outcome.record.changed[0].after)
    if outcome.replayed:
        if await _status(market, "payout", payout.payout_id) != "sent":
            # It was paid or given up since: to ask for it again could pay it twice.
            return reply(outcome, payout_answer)
        if await is_frozen(market, payout.organisation_id):
            raise Refused(kept_back("payout_id"))
        if market.now_us() - outcome.record.at_us > ASKED_AGAIN_US:
            raise Refused(refuse(Code.PAYMENT_RESOLVED, path="payout_id", message=_LOOK_IT_UP))
    try:
        await _processor(market, payout.processor, path="payout_id").pay(payout)
    except ProcessorFailed as error:
        raise _failed(payout.processor, payout.payout_id, error) from error
    return reply(outcome, payout_answer)


async def confirm_payout(market: Market, caller: Caller, ask: ConfirmPayout) -> Reply:
    """The money has left."""
    return reply(await market.submit(caller, CONFIRM_PAYOUT, ask), payout_answer)


async def fail_payout(market: Market, caller: Caller, ask: FailPayout) -> Reply:
    """The money has not left."""
    return reply(await market.submit(caller, FAIL_PAYOUT, ask), payout_answer)


async def reverse_payout(market: Market, caller: Caller, ask: ReversePayout) -> Reply:
    """The money has come back."""
    return reply(await market.submit(caller, REVERSE_PAYOUT, ask), payout_answer)


async def list_payouts(market: Market, caller: Caller, ask: ListPayouts) -> Reply:
    """An organisation's payouts, newest first."""
    page = await page_of_organisation(market, caller, Payout, ask, status=ask.status)
    payouts = tuple(map(payout_view, page.things))
    return Reply(answer=Payouts(payouts=payouts, as_of_seq=page.as_of_seq, cursor=page.cursor))


async def book(market: Market, known: TopUp | Payout, said: Processed) -> None:
    """Take what a processor says; what somebody has to see to is told to those who keep it."""
    outcome = await market.engine.submit(platform_command("process_event", said))
    if not outcome.record.changed:
        log.warning("event_without_effect", event_id=said.event_id, payment_id=said.payment_id)
    owing = account_name(known.organisation_id, AccountKind.RECEIVABLE, known.asset)
    if any(each.debit == owing for each in outcome.record.moved):
        log.warning("operator_owes", account=owing, payment_id=said.payment_id)


async def _gone_back(market: Market, ask: ConfirmTopUp) -> Processed | None:
    top_up = await _top_up(market, ask.top_up_id)
    processor = None if top_up is None else market.processors.get(top_up.processor)
    if top_up is None or processor is None:
        return None
    # What was paid again has the processor's own id from the start.
    made = TopUp.from_document((await record_at(market, top_up.seq)).changed[0].after)
    try:
        return await processor.gone_back(top_up, made.reference or ask.reference)
    except ProcessorFailed as error:
        raise _failed(top_up.processor, top_up.top_up_id, error) from error


async def _top_up(market: Market, top_up_id: str) -> TopUp | None:
    found = await market.ask(Lookup(noun="top_up", id=top_up_id))
    return found if isinstance(found, TopUp) else None


async def _status(market: Market, noun: str, payment_id: str) -> str:
    """What has become of a top-up or payout by now."""
    found = await market.ask(Lookup(noun=noun, id=payment_id))
    return found.status if isinstance(found, TopUp | Payout) else ""


def _processor(market: Market, name: str, path: str = "processor") -> PaymentProcessor:
    processor = market.processors.get(name)
    if processor is None:
        text = f"This platform does not use the processor {name}."
        raise Refused(refuse(Code.INVALID_ARGUMENT, path=path, message=text))
    return processor


def _check_amount(processor: PaymentProcessor, ask: CreateTopUp | RequestPayout) -> None:
    if not processor.accepts(ask.amount.asset, ask.amount.units):
        text = f"The processor {ask.processor} takes no such amount of {ask.amount.asset}."
        raise Refused(refuse(Code.INVALID_AMOUNT, path="amount.amount", message=text))


def _failed(processor: str, payment_id: str, error: ProcessorFailed) -> Refused:
    """Whether a key was revoked or the processor is away is told to those who keep the server."""
    log.warning("processor_failed", processor=processor, payment_id=payment_id, why=str(error))
    if isinstance(error, ProcessorBusy):
        text = f"Too many wait for the processor {processor}: the same key asks it again."
        return Refused(refuse(Code.OVERLOADED, message=text, retry_after_s=1))
    return Refused(refuse(Code.PROCESSOR_FAILED))
