"""Usage that a vendor reports of a session: each event judged in order, all billed as one charge.

Boundary: the batch was read and its signatures verified before; whether the key that signed is in
force, and what each event comes to, is decided here. Source: spec/metering.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

from msgspec.structs import replace

from farthing.protocol.canonical import Json
from farthing.protocol.errors import Code, Refusal, refuse
from farthing.protocol.ids import derive_id
from farthing.protocol.ledger import Movement
from farthing.protocol.messages.sessions import RejectedEvent, UsageReport
from farthing.protocol.money import share_ppm
from farthing.protocol.rating import RateCard, RatingError, line_document, rate
from farthing.protocol.rating.running import Running
from farthing.protocol.records import Record
from farthing.protocol.sequences import Window
from farthing.protocol.signatures import Typ
from farthing.protocol.times import SECOND_US
from farthing.protocol.usage import REPORT_WINDOW_US, SKEW_US, Columns, UsageFault
from farthing.protocol.wire import money
from farthing.settlement.engine import allowances, lots, shares
from farthing.settlement.engine.drafts import Call, Draft, advanced, change
from farthing.settlement.engine.principals import frozen_since_us, signs
from farthing.settlement.engine.sessions import closes_at
from farthing.settlement.engine.state import State
from farthing.settlement.engine.things import Charge, Drawn, Session

__all__ = ["Reported", "report", "report_answer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """A batch as the platform found it.

    Args:
        session_id: the session that it is reported for.
        batch_sha256: the digest of its text.
        events: how many there are in it; 0 where it cannot be read.
        columns: its events, where nothing is wrong with it.
        root: the root of its events, over which it is signed.
        key_thumbprint: the key of the caller's by which its signature verifies.
        voucher_seq: the number of the voucher beside it, which the session's payer signed.
        max_cum_units: the sum of that voucher.
        fault: what is wrong with the batch, its signature or the voucher.
    """

    session_id: str
    batch_sha256: str
    events: int = 0
    columns: Columns | None = None
    root: str = ""
    key_thumbprint: str = ""
    voucher_seq: int = 0
    max_cum_units: int = 0
    fault: Refusal | None = None

    @property
    def asked(self) -> dict[str, Json]:
        """What stands in the record, refused or not; the text of what is taken is a fact."""
        return {
            "batch_sha256": self.batch_sha256,
            "events": self.events,
            "session_id": self.session_id,
        }


class _Judged(NamedTuple):
    """What a batch comes to: the units of each event, why some are not taken, and where it ends."""

    amounts: Sequence[int]
    rejected: Sequence[tuple[int, UsageFault]]
    window: Window
    position: Mapping[str, int]
    billed: Sequence[int]


def report(state: State, call: Call) -> Draft | Refusal:
    """Bill what a batch reports, all of it in one record."""
    body = call.command.body
    assert isinstance(body, Reported)
    session = _reportable(state, call, body)
    if isinstance(session, Refusal):
        return session
    columns = body.columns
    assert columns is not None
    card = state.cards[session.rate_card_sha256]
    position = state.positions.get(session.agreement_id, {})
    session = replace(
        session,
        voucher_seq=max(session.voucher_seq, body.voucher_seq),
        max_cum_units=max(session.max_cum_units, body.max_cum_units),
    )
    desk = _Desk(state, session, card, position, call.now_us)
    judged = desk.all_at_once(columns) or desk.one_by_one(columns)
    units = sum(judged.amounts)
    usage = _total(columns, judged)
    rating = rate(card, position, usage) if usage else None
    assert units == (rating.total_units if rating else 0), "events cost what their sum costs"
    drawn = lots.consumed(session.drawn, units)
    after = replace(
        session,
        spent_units=session.spent_units + units,
        calls=session.calls + len(judged.billed),
        rejected=session.rejected + len(judged.rejected),
        top=judged.window.top,
        seen=judged.window.text,
        drawn=_left(session.drawn, drawn),
    )
    assert after.spent_units <= min(after.cap_units, after.max_cum_units), "no more than was signed"
    changed = [change("session", session.session_id, after)]
    moved = shares.reserve(Movement.VOID, session, drawn, units)
    if units:
        charge = _charge(state, call, session, usage, units)
        moved += shares.capture(charge)
        changed += [
            change("charge", charge.charge_id, charge),
            *lots.ended(state, drawn, drawn),
        ]
    if usage:
        changed.append(advanced(session.agreement_id, judged.position))
        changed += allowances.used(state, session.agreement_id, usage, call.now_us)
    return Draft(
        moved=tuple(moved),
        changed=tuple(changed),
        decided={
            "amounts": [*map(str, judged.amounts)],
            "billed": len(judged.billed),
            "lines": [line_document(line) for line in rating.lines] if rating else [],
            "rejected": [
                [place, fault.value, columns.seqs[place]] for place, fault in judged.rejected
            ],
            "span": _span(columns, judged),
        },
    )


def report_answer(record: Record) -> UsageReport:
    """The answer of a report, from the record alone."""
    session = Session.from_document(record.changed[0].after)
    charges = [each.after for each in record.changed if each.noun == "charge"]
    decided = record.decided
    assert decided is not None
    rejected = cast("list[tuple[int, str, int]]", decided["rejected"])
    events = cast("int", record.asked["events"])
    return UsageReport(
        session_id=session.session_id,
        charge_id=str(charges[0]["charge_id"]) if charges else "",
        amount=money(int(charges[0]["amount_units"]) if charges else 0, session.asset),
        accepted=events - len(rejected),
        billed=cast("int", decided["billed"]),
        rejected=tuple(RejectedEvent(id=str(call), reason=why) for _, why, call in rejected),
        spent=money(session.spent_units, session.asset),
        remaining=money(session.left_units, session.asset),
        max_cum=money(session.max_cum_units, session.asset),
        low=session.left_units <= session.low_water_units,
        closes_at=closes_at(session),
        seq=record.seq,
    )


def _reportable(state: State, call: Call, body: Reported) -> Session | Refusal:
    """The session, where this batch can be billed of it now."""
    session = state.sessions.get(body.session_id)
    if session is None or session.vendor_id != call.principal_id:
        # Remembered, unlike what else is not found: usage that is nobody's is counted.
        return refuse(Code.USAGE_INVALID, path="session_id", message="No session of the caller's.")
    fault = body.fault
    if fault is not None and fault.code is Code.SIGNATURE_INVALID:
        return fault
    if not signs(state, call.principal_id, body.key_thumbprint, Typ.USAGE):
        return refuse(Code.SIGNATURE_INVALID, path="batch_signature")
    if not session.is_live or session.end_us + REPORT_WINDOW_US <= call.now_us:
        return refuse(Code.SESSION_CLOSED, path="session_id")
    return fault or session


class _Desk:
    """What the events of one batch are held against."""

    def __init__(
        self,
        state: State,
        session: Session,
        card: RateCard,
        position: Mapping[str, int],
        now_us: int,
    ) -> None:
        self._session = session
        self._card = card
        self._position = position
        self._window = Window.of(session.top, session.seen)
        self._from_us = session.opened_at_us - SKEW_US
        self._now_us = now_us + SKEW_US
        self._frozen_us = frozen_since_us(state, session.buyer_id)
        self._allowance = allowances.guard_of(state, session.agreement_id, now_us)

    def all_at_once(self, columns: Columns) -> _Judged | None:
        """What the batch comes to if all of its events are taken; None where one may not be."""
        if self._allowance is not None:
            return None
        session = self._session
        until_us = min(self._now_us, session.expires_at_us)
        if self._frozen_us is not None:
            until_us = min(until_us, self._frozen_us)
        if min(columns.at_us) < self._from_us or max(columns.at_us) > until_us:
            return None
        window = self._window.take_all(columns.seqs)
        if window is None or max(columns.seqs) > session.voucher_seq:
            return None
        running = Running(self._card, self._position)
        amounts, billed = _priced(running, columns)
        if amounts is None or max(amounts) > session.per_call_units:
            return None
        if session.spent_units + sum(amounts) > min(session.cap_units, session.max_cum_units):
            return None
        return _Judged(amounts, (), window, running.position, billed)

    def one_by_one(self, columns: Columns) -> _Judged:
        """What the batch comes to, each event judged after all before it."""
        running = Running(self._card, self._position)
        window, spent_units = self._window, self._session.spent_units
        amounts = [0] * len(columns.seqs)
        rejected: list[tuple[int, UsageFault]] = []
        billed: list[int] = []
        for place, seq in enumerate(columns.seqs):
            units: int | UsageFault = 0
            if columns.is_billed(place):
                units = _price(running, columns.usage_of(place))
            priced = units if isinstance(units, UsageFault) else None
            fault = (
                window.fault(seq)
                or self._untimely(columns.at_us[place])
                or (priced if priced is UsageFault.UNKNOWN_METER else None)
                or self._forbidden(columns, place)
                or priced
                or self._uncovered(seq, spent_units, cast("int", units))
            )
            if fault is not None:
                rejected.append((place, fault))
                continue
            assert isinstance(units, int)
            taken = window.take(seq)
            assert taken is not None
            window = taken
            if columns.is_billed(place):
                running.take()
                if self._allowance is not None:
                    self._allowance.take(columns.usage_of(place))
                billed.append(place)
                amounts[place] = units
                spent_units += units
        return _Judged(amounts, rejected, window, running.position, billed)

    def _untimely(self, at_us: int) -> UsageFault | None:
        if at_us < self._from_us:
            return UsageFault.BEFORE_SESSION
        # A buyer that has closed owes what it signs for all the same: its vendor cannot know yet.
        if at_us > self._session.expires_at_us:
            return UsageFault.AFTER_END
        if at_us > self._now_us:
            return UsageFault.IN_FUTURE
        if self._frozen_us is not None and at_us > self._frozen_us:
            return UsageFault.FROZEN
        return None

    def _forbidden(self, columns: Columns, place: int) -> UsageFault | None:
        if self._allowance is None or not columns.is_billed(place):
            return None
        usage, at_us = columns.usage_of(place), columns.at_us[place]
        return UsageFault.OVER_ALLOWANCE if self._allowance.forbids(usage, at_us) else None

    def _uncovered(self, seq: int, spent_units: int, units: int) -> UsageFault | None:
        session = self._session
        if units > session.per_call_units:
            return UsageFault.OVER_PER_CALL
        if spent_units + units > session.cap_units:
            return UsageFault.OVER_CAP
        if seq > session.voucher_seq or spent_units + units > session.max_cum_units:
            return UsageFault.BEYOND_VOUCHER
        return None


def _price(running: Running, usage: Mapping[str, int]) -> int | UsageFault:
    """What a call costs; more than fits an amount is more than any call may cost."""
    try:
        return running.price(usage)
    except RatingError:
        return UsageFault.UNKNOWN_METER if running.lacks(usage) else UsageFault.OVER_PER_CALL


def _priced(running: Running, columns: Columns) -> tuple[list[int] | None, Sequence[int]]:
    """The units of each event and which are billed; None where one cannot be priced."""
    billed = columns.billed
    usage: Mapping[str, Sequence[int]] = columns.usage
    if len(billed) < len(columns.seqs):
        taken = frozenset(billed)
        usage = {
            meter: [each if place in taken else 0 for place, each in enumerate(quantities)]
            for meter, quantities in usage.items()
        }
    usage = {meter: quantities for meter, quantities in usage.items() if any(quantities)}
    if not usage:
        return [0] * len(columns.seqs), billed
    try:
        return running.take_all(usage), billed
    except RatingError:
        return None, ()


def _total(columns: Columns, judged: _Judged) -> dict[str, int]:
    """What the billed events used together, without the meters they used nothing of."""
    places = judged.billed
    totals = {
        meter: sum(each) if len(places) == len(each) else sum([each[place] for place in places])
        for meter, each in columns.usage.items()
    }
    return {meter: quantity for meter, quantity in totals.items() if quantity}


def _charge(
    state: State, call: Call, session: Session, usage: Mapping[str, int], units: int
) -> Charge:
    agreement = state.agreements[session.agreement_id]
    charge = Charge(
        charge_id=derive_id("chg", session.session_id, str(call.seq)),
        hold_id="",
        session_id=session.session_id,
        agreement_id=session.agreement_id,
        buyer_id=session.buyer_id,
        operator_id=session.operator_id,
        vendor_id=session.vendor_id,
        asset=session.asset,
        rate_card_sha256=session.rate_card_sha256,
        amount_units=units,
        fee_units=share_ppm(units, agreement.fee_ppm),
        released_units=0,
        status="pending",
        position=state.positions.get(session.agreement_id, {}),
        usage=usage,
        result_sha256="",
        captured_at_us=call.now_us,
        window_closes_at_us=call.now_us + agreement.dispute_window_s * SECOND_US,
        seq=call.seq,
    )
    return shares.shared(charge, session.drawn, agreement)


def _left(drawn: tuple[Drawn, ...], used: tuple[Drawn, ...]) -> tuple[Drawn, ...]:
    """What of the lots that were drawn on is left after some of it was used."""
    if not used:
        return drawn
    spent = {each.lot_id: each.amount_units for each in used}
    rest = [replace(d, amount_units=d.amount_units - spent.get(d.lot_id, 0)) for d in drawn]
    return tuple(each for each in rest if each.amount_units)


def _span(columns: Columns, judged: _Judged) -> list[Json]:
    """The least and the greatest number that was taken."""
    rejected = {place for place, _ in judged.rejected}
    taken = [seq for place, seq in enumerate(columns.seqs) if place not in rejected]
    return [min(taken), max(taken)] if taken else []
