"""Spend sessions: opened and topped up by the buyer, ended by either side or by time.

Boundary: at every moment what is pending of a session is its cap, less what was spent, less what
was given back. What is spent is `usage`. Source: spec/sessions.md.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

from msgspec.structs import replace

from farthing.protocol.authority.decide import Purchase, first_of
from farthing.protocol.errors import Code, Refusal, refuse
from farthing.protocol.ids import derive_id
from farthing.protocol.ledger import Movement
from farthing.protocol.messages.sessions import (
    CloseSession,
    FinalAction,
    OpenSession,
    TopUpSession,
)
from farthing.protocol.messages.sessions import Session as SessionView
from farthing.protocol.money import INT64_MAX
from farthing.protocol.records import Count, Record
from farthing.protocol.times import SECOND_US, format_time, utc_day
from farthing.protocol.usage import REPORT_WINDOW_US
from farthing.protocol.wire import Money, money
from farthing.settlement.engine import grants, lots, shares
from farthing.settlement.engine.accounts import not_covered, of_nothing
from farthing.settlement.engine.drafts import Call, Draft, change
from farthing.settlement.engine.principals import is_frozen
from farthing.settlement.engine.state import State
from farthing.settlement.engine.things import Agreement, Drawn, Session

__all__ = [
    "ExpireSession",
    "close",
    "closes_at",
    "expire",
    "open_",
    "session_answer",
    "session_view",
    "top_up",
]

# Which argument says what of a purchase is refused: of an opening, of a top-up.
_OPENING = {
    "amount": "cap.amount",
    "asset": "agreement_id",
    "per_call": "per_call.amount",
    "primary_tag": "agreement_id",
    "vendor_id": "agreement_id",
}
_TOP_UP = {
    **dict.fromkeys(("agreement_id", *_OPENING), "session_id"),
    "amount": "amount.amount",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpireSession:
    """The platform's command: nothing more can be reported of a session."""

    session_id: str


def open_(state: State, call: Call) -> Draft | Refusal:
    """Set a cap aside for many calls under an agreement."""
    body = call.command.body
    assert isinstance(body, OpenSession)
    if refusal := _misfit(body):
        return refusal
    agreement = state.agreements.get(body.agreement_id)
    if agreement is None or agreement.buyer_id != call.principal_id:
        return refuse(Code.NOT_FOUND, path="agreement_id")
    if agreement.status != "in_force":
        return refuse(Code.AGREEMENT_ENDED, path="agreement_id")
    amounts = {"cap": body.cap, "per_call": body.per_call}
    amounts |= {"low_water": body.low_water} if body.low_water else {}
    amounts |= {"unsigned": body.unsigned} if body.unsigned else {}
    found = _allowed(state, call, agreement, amounts, body.per_call.units, arguments=_OPENING)
    if isinstance(found, Refusal):
        return found
    session = Session(
        session_id=call.new_id("ses"),
        agreement_id=agreement.agreement_id,
        buyer_id=agreement.buyer_id,
        operator_id=agreement.operator_id,
        vendor_id=agreement.vendor_id,
        asset=agreement.asset,
        status="open",
        cap_units=body.cap.units,
        per_call_units=body.per_call.units,
        low_water_units=body.low_water.units if body.low_water else 0,
        unsigned_units=body.unsigned.units if body.unsigned else 0,
        final_action=body.final_action,
        rate_card_sha256=agreement.rate_card_sha256,
        payer_thumbprint=call.command.by.key_thumbprint,
        grant_id=derive_id("gnt", call.principal_id, agreement.asset),
        counted={},
        opened_at_us=call.now_us,
        expires_at_us=call.now_us + body.expires_in_s * SECOND_US,
        seq=call.seq,
    )
    return _set_aside(state, call, session, body.cap.units, found)


def top_up(state: State, call: Call) -> Draft | Refusal:
    """Raise the cap of an open session."""
    body = call.command.body
    assert isinstance(body, TopUpSession)
    if body.amount.units <= 0:
        return of_nothing("amount.amount")
    session = state.sessions.get(body.session_id)
    if session is None or session.buyer_id != call.principal_id:
        return refuse(Code.NOT_FOUND, path="session_id")
    agreement = state.agreements[session.agreement_id]
    if agreement.status != "in_force":
        return refuse(Code.AGREEMENT_ENDED, path="session_id")
    if session.status != "open" or session.expires_at_us <= call.now_us:
        return refuse(Code.SESSION_CLOSED, path="session_id")
    if session.cap_units + body.amount.units > INT64_MAX:
        return refuse(Code.AMOUNT_OVERFLOW, path="amount.amount")
    found = _allowed(
        state,
        call,
        agreement,
        {"amount": body.amount},
        session.per_call_units,
        arguments=_TOP_UP,
        known=len(session.drawn),
    )
    if isinstance(found, Refusal):
        return found
    raised = replace(session, cap_units=session.cap_units + body.amount.units)
    return _set_aside(state, call, raised, body.amount.units, found)


def close(state: State, call: Call) -> Draft | Refusal:
    """End a session: the vendor at once, the buyer's side with time left to report."""
    body = call.command.body
    assert isinstance(body, CloseSession)
    session = state.sessions.get(body.session_id)
    if session is None or call.principal_id not in session.parties:
        return refuse(Code.NOT_FOUND, path="session_id")
    if session.vendor_id == call.principal_id and session.is_live:
        return _give_back(state, call, session, "closed")
    if session.status != "open" or session.expires_at_us <= call.now_us:
        return refuse(Code.SESSION_CLOSED, path="session_id")
    closing = replace(session, status="closing", ended_at_us=call.now_us)
    return Draft(changed=(change("session", session.session_id, closing),))


def expire(state: State, call: Call) -> Draft | Refusal:
    """End a session of which nothing more can be reported; the platform's own command."""
    body = call.command.body
    assert isinstance(body, ExpireSession)
    session = state.sessions[body.session_id]
    assert session.is_live
    assert session.end_us + REPORT_WINDOW_US <= call.now_us
    return _give_back(state, call, session, "closed" if session.ended_at_us else "expired")


def session_answer(record: Record) -> SessionView:
    """The answer of opening, top-up and close, from the record alone."""
    return session_view(Session.from_document(record.changed[0].after))


def closes_at(session: Session) -> str:
    """Until when usage of a session that its buyer has closed is taken; empty for others."""
    is_closing = session.status == "closing"
    return format_time(session.end_us + REPORT_WINDOW_US) if is_closing else ""


def session_view(session: Session) -> SessionView:
    """A session as its parties see it."""
    asset = session.asset

    def given(units: int) -> Money | None:
        return money(units, asset) if units else None

    return SessionView(
        session_id=session.session_id,
        agreement_id=session.agreement_id,
        status=session.status,
        cap=money(session.cap_units, asset),
        per_call=money(session.per_call_units, asset),
        spent=money(session.spent_units, asset),
        remaining=money(session.left_units if session.is_live else 0, asset),
        calls=session.calls,
        rejected=session.rejected,
        top_seq=session.top,
        voucher_seq=session.voucher_seq,
        max_cum=money(session.max_cum_units, asset),
        low_water=given(session.low_water_units),
        final_action=cast("FinalAction", session.final_action),
        unsigned=given(session.unsigned_units),
        opened_at=format_time(session.opened_at_us),
        expires_at=format_time(session.expires_at_us),
        closes_at=closes_at(session),
        rate_card_sha256=session.rate_card_sha256,
    )


def _misfit(body: OpenSession) -> Refusal | None:
    """What is wrong with the amounts by themselves."""
    for name, amount in (("cap", body.cap), ("per_call", body.per_call)):
        if amount.units <= 0:
            return of_nothing(f"{name}.amount")
    if body.per_call.asset == body.cap.asset and body.per_call.units > body.cap.units:
        return refuse(
            Code.INVALID_AMOUNT,
            path="per_call.amount",
            required=body.per_call.amount,
            remaining=body.cap.amount,
            asset=body.cap.asset,
            message="One call may not cost more than the session's cap.",
        )
    return None


def _allowed(
    state: State,
    call: Call,
    agreement: Agreement,
    amounts: Mapping[str, Money],
    per_call_units: int,
    *,
    arguments: Mapping[str, str],
    known: int = 0,
) -> tuple[Drawn, ...] | Refusal:
    """What of credit lots is drawn for the first of the amounts, or every reason against it."""
    asset = agreement.asset
    foreign = next((name for name, each in amounts.items() if each.asset != asset), "")
    # An amount of another asset is held against no limit of this one.
    units = 0 if foreign else next(iter(amounts.values())).units
    purchase = Purchase(
        vendor_id=agreement.vendor_id,
        tags=agreement.tags,
        asset=asset,
        units=units,
        per_call_units=0 if foreign else per_call_units,
        vendor_frozen=is_frozen(state, agreement.vendor_id),
    )
    reasons = grants.not_authorised(state, call, purchase)
    if foreign:
        mismatch = refuse(Code.ASSET_MISMATCH, path=f"{foreign}.asset", required=asset)
        return first_of((*reasons, mismatch), arguments)
    drawn = lots.draw(state, agreement.operator_id, asset, units, call.now_us, known=known)
    money_units = units - sum(each.amount_units for each in drawn)
    reasons = (*reasons, *not_covered(state, agreement, money_units))
    return first_of(reasons, arguments) if reasons else drawn


def _set_aside(
    state: State, call: Call, session: Session, units: int, drawn: tuple[Drawn, ...]
) -> Draft:
    day = utc_day(call.now_us)
    after = replace(
        session,
        counted={**session.counted, day: session.counted.get(day, 0) + units},
        drawn=_together(session.drawn, drawn),
    )
    return Draft(
        moved=tuple(shares.reserve(Movement.PENDING, session, drawn, units)),
        counted=(Count(grant_id=session.grant_id, day=day, units=units),),
        changed=(change("session", session.session_id, after), *lots.held(state, drawn)),
    )


def _give_back(state: State, call: Call, session: Session, status: str) -> Draft:
    """The end of a session: what was not spent is free again, and counts on no day."""
    ended_at_us = session.ended_at_us or min(call.now_us, session.expires_at_us)
    after = replace(session, status=status, ended_at_us=ended_at_us, drawn=())
    return Draft(
        moved=tuple(shares.reserve(Movement.VOID, session, session.drawn, session.left_units)),
        counted=tuple(_uncounted(session)),
        changed=(
            change("session", session.session_id, after),
            *lots.ended(state, session.drawn),
        ),
    )


def _uncounted(session: Session) -> Iterable[Count]:
    """What was set aside last is given back first, so that no day counts less than nothing."""
    left_units = session.left_units
    for day in sorted(session.counted, reverse=True):
        units = min(session.counted[day], left_units)
        left_units -= units
        if units:
            yield Count(grant_id=session.grant_id, day=day, units=-units)


def _together(drawn: tuple[Drawn, ...], more: tuple[Drawn, ...]) -> tuple[Drawn, ...]:
    """One part for each lot, in the order of consumption."""
    parts = {each.lot_id: each for each in drawn}
    for each in more:
        known = parts.get(each.lot_id)
        amount_units = each.amount_units + (known.amount_units if known else 0)
        parts[each.lot_id] = replace(each, amount_units=amount_units)
    return tuple(parts.values())
