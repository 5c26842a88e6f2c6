"""Top-ups, payouts, credit lots, grace, partners, closing an account."""

from dataclasses import replace
from typing import Final, TypeVar

import structlog

from farthing.identity.callers import Caller
from farthing.protocol.errors import Code, Refused, refuse
from farthing.protocol.messages.treasury import (
    CLOSE_ACCOUNT,
    CONFIRM_PAYOUT,
    CONFIRM_TOP_UP,
    CREATE_TOP_UP,
    FAIL_PAYOUT,
    FAIL_TOP_UP,
    GRANT_CREDIT,
    REQUEST_PAYOUT,
    SEND_PAYOUT,
    SET_GRACE,
    SET_PARTNER,
    CloseAccount,
    ConfirmPayout,
    ConfirmTopUp,
    CreateTopUp,
    CreditLots,
    FailPayout,
    FailTopUp,
    GrantCredit,
    ListCreditLots,
    ListPayouts,
    ListTopUps,
    Payouts,
    RequestPayout,
    SendPayout,
    SetGrace,
    SetPartner,
    TopUps,
    TopUpView,
)
from farthing.protocol.records import Record
from farthing.protocol.wire import Role
from farthing.server.market import Market
from farthing.server.operations.listings import is_frozen
from farthing.server.operations.pages import Page, page_of
from farthing.server.operations.replies import Reply, reply
from farthing.server.ports import PaymentProcessor, ProcessorFailed
from farthing.settlement.engine.commands import PLATFORM
from farthing.settlement.engine.lots import lot_answer, lot_view
from farthing.settlement.engine.payments import (
    ASKED_AGAIN_US,
    kept_back,
    payout_answer,
    payout_view,
    top_up_answer,
    top_up_view,
)
from farthing.settlement.engine.questions import Lookup
from farthing.settlement.engine.things import Lot, Payout, TopUp
from farthing.settlement.engine.treasury import close_answer, grace_answer, partner_answer

__all__ = [
    "close_account",
    "confirm_payout",
    "confirm_top_up",
    "create_top_up",
    "fail_payout",
    "fail_top_up",
    "grant_credit",
    "list_credit_lots",
    "list_payouts",
    "list_top_ups",
    "request_payout",
    "send_payout",
    "set_grace",
    "set_partner",
]

log = structlog.get_logger(__name__)

_LOOK_IT_UP: Final = (
    "It was sent too long ago to ask again. Look at the processor, then confirm or fail the payout."
)
Kind = TypeVar("Kind", Lot, Payout, TopUp)


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
        _log_failure(ask.processor, top_up.top_up_id, error)
        raise Refused(refuse(Code.PROCESSOR_FAILED)) from error

    def with_url(record: Record) -> TopUpView:
        return replace(top_up_answer(record), url=url)

    return reply(outcome, with_url)


async def confirm_top_up(market: Market, caller: Caller, ask: ConfirmTopUp) -> Reply:
    """The money has come."""
    return reply(await market.submit(caller, CONFIRM_TOP_UP, ask), top_up_answer)


async def fail_top_up(market: Market, caller: Caller, ask: FailTopUp) -> Reply:
    """The money will not come."""
    return reply(await market.submit(caller, FAIL_TOP_UP, ask), top_up_answer)


async def list_top_ups(market: Market, caller: Caller, ask: ListTopUps) -> Reply:
    """An organisation's top-ups, newest first."""
    page = await _of(market, caller, TopUp, ask)
    top_ups = tuple(map(top_up_view, page.things))
    return Reply(answer=TopUps(top_ups=top_ups, as_of_seq=page.as_of_seq, cursor=page.cursor))


async def request_payout(market: Market, caller: Caller, ask: RequestPayout) -> Reply:
    """Set money aside that is to be paid out."""
    processor = _processor(market, ask.processor)
    if not processor.knows(ask.destination):
        raise Refused(refuse(Code.INVALID_ARGUMENT, path="destination"))
    _check_amount(processor, ask)
    return reply(await market.submit(caller, REQUEST_PAYOUT, ask), payout_answer)


async def send_payout(market: Market, caller: Caller, ask: SendPayout) -> Reply:
    """Let a payout go, and have the processor pay it."""
    found = await market.ask(Lookup(noun="payout", id=ask.payout_id))
    if isinstance(found, Payout) and found.status == "requested":
        # Else it would stand as sent, and nobody would have been asked.
        _processor(market, found.processor, path="payout_id")
    outcome = await market.submit(caller, SEND_PAYOUT, ask)
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
        _log_failure(payout.processor, payout.payout_id, error)
        raise Refused(refuse(Code.PROCESSOR_FAILED)) from error
    return reply(outcome, payout_answer)


async def confirm_payout(market: Market, caller: Caller, ask: ConfirmPayout) -> Reply:
    """The money has left."""
    return reply(await market.submit(caller, CONFIRM_PAYOUT, ask), payout_answer)


async def fail_payout(market: Market, caller: Caller, ask: FailPayout) -> Reply:
    """The money has not left."""
    return reply(await market.submit(caller, FAIL_PAYOUT, ask), payout_answer)


async def list_payouts(market: Market, caller: Caller, ask: ListPayouts) -> Reply:
    """An organisation's payouts, newest first."""
    page = await _of(market, caller, Payout, ask)
    payouts = tuple(map(payout_view, page.things))
    return Reply(answer=Payouts(payouts=payouts, as_of_seq=page.as_of_seq, cursor=page.cursor))


async def grant_credit(market: Market, caller: Caller, ask: GrantCredit) -> Reply:
    """Give an operator a credit lot."""
    return reply(await market.submit(caller, GRANT_CREDIT, ask), lot_answer)


async def list_credit_lots(market: Market, caller: Caller, ask: ListCreditLots) -> Reply:
    """An operator's credit lots, newest first."""
    page = await _of(market, caller, Lot, ask)
    lots = tuple(map(lot_view, page.things))
    return Reply(answer=CreditLots(lots=lots, as_of_seq=page.as_of_seq, cursor=page.cursor))


async def set_grace(market: Market, caller: Caller, ask: SetGrace) -> Reply:
    """Set how far a prepaid account may be below zero."""
    return reply(await market.submit(caller, SET_GRACE, ask), grace_answer)


async def set_partner(market: Market, caller: Caller, ask: SetPartner) -> Reply:
    """Name the partner of a vendor or listing."""
    return reply(await market.submit(caller, SET_PARTNER, ask), partner_answer)


async def close_account(market: Market, caller: Caller, ask: CloseAccount) -> Reply:
    """Close an empty account."""
    return reply(await market.submit(caller, CLOSE_ACCOUNT, ask), close_answer)


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


def _log_failure(processor: str, payment_id: str, error: ProcessorFailed) -> None:
    """Whether a key was revoked or the processor is away is told to those who keep the server."""
    log.warning("processor_failed", processor=processor, payment_id=payment_id, why=str(error))


async def _of(
    market: Market,
    caller: Caller,
    kind: type[Kind],
    ask: ListTopUps | ListPayouts | ListCreditLots,
) -> Page[Kind]:
    """A page of an organisation's things: the treasurer may name any, others have their own."""
    organisation_id = ask.organisation_id or caller.organisation_id
    if caller.role is not Role.TREASURER and organisation_id != caller.organisation_id:
        raise Refused(refuse(Code.NOT_FOUND, path="organisation_id"))
    if await market.ask(Lookup(noun="principal", id=organisation_id)) is None and (
        organisation_id != PLATFORM
    ):
        raise Refused(refuse(Code.NOT_FOUND, path="organisation_id"))
    return await page_of(market, kind, organisation_id, ask)
