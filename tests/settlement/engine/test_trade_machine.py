"""Any sequence of commands keeps the books, the limits and the prices right.

A hypothesis state machine drives the real engine; an oracle that imports nothing from farthing
folds the same journal and predicts every price.
"""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from farthing.protocol.audit import verify_journal
from farthing.protocol.errors import Code
from farthing.protocol.ledger import fold, imbalances
from farthing.protocol.messages.charges import REFUND_CHARGE, RefundCharge
from farthing.protocol.messages.disputes import INITIATE_DISPUTE, InitiateDispute
from farthing.protocol.messages.holds import RELEASE_HOLD, ReleaseHold
from farthing.protocol.messages.sessions import (
    CLOSE_SESSION,
    OPEN_SESSION,
    TOP_UP_SESSION,
    CloseSession,
    OpenSession,
    TopUpSession,
)
from farthing.protocol.records import Record, parse_record
from farthing.protocol.replay.rulebook import Rulebook
from farthing.protocol.times import SECOND_US, format_time, utc_day
from farthing.protocol.wire import money
from farthing.settlement.engine.state import State, evolve
from tests.construction import Trade
from tests.protocol.replay.correcting import correct
from tests.protocol.replay.metered import PAGE_UNITS, Metered, events
from tests.settlement.engine.treasurer import Treasury
from tests.settlement.oracle import Oracle, graduated_price

PAGES = st.integers(min_value=1, max_value=40)
PER_DAY = 120_000_000
CALLS = st.lists(st.tuples(st.integers(1, 20), st.integers(0, 9)), min_size=1, max_size=6)


class TradeMachine(RuleBasedStateMachine):
    """Trade, corrections, refunds, disputes, credit, grace, payments and time, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.trade = Trade.opened(funds=200_000_000, per_call=50_000_000, per_day=PER_DAY)
        self.treasury = Treasury(self.trade)
        partner = self.trade.room.organisation("operator", "Operator Two")
        self.treasury.partner(partner, 33_333)
        self.trade.agreement_id = self.trade.room.agree(self.trade.agent, self.trade.listing_id)
        self.payments: list[str] = []
        self.oracle = Oracle()
        self.read = 0
        self.open: dict[str, tuple[int, int]] = {}
        self.charges: dict[str, int] = {}
        self.sessions: list[str] = []
        # Charges of sessions, with the billed calls and the pages of each.
        self.batches: list[tuple[str, list[tuple[int, int]]]] = []
        self.position = 0

    @rule(pages=PAGES)
    def place_a_hold(self, pages: int) -> None:
        units = graduated_price(self.position, pages)
        available = self.trade.balance(self.trade.operator, "prepaid")
        available += sum(self.oracle.grace.values())
        state = self.trade.room.state
        ordered = state.free_lots.get((self.trade.operator.principal_id, "USD"), [])
        available += sum(state.lots[each].free_units for each in ordered[:16])
        record = self.trade.room.hold(self.trade.agent, self.trade.agreement_id, pages)
        assert isinstance(record, Record)
        expected = units <= 50_000_000 and units <= PER_DAY - self._spent_today()
        assert (record.refusal is None) == (expected and units <= available)
        if record.refusal is None:
            assert sum(moved.units for moved in record.moved) == units
            self.open[record.changed[0].id] = (self.position, pages)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def capture_a_hold(self, data: st.DataObject) -> None:
        hold_id = data.draw(st.sampled_from(sorted(self.open)))
        position, held = self.open[hold_id]
        pages = data.draw(st.integers(min_value=1, max_value=held + 3))
        record = self.trade.room.capture(self.trade.vendor, hold_id, pages)
        if graduated_price(position, pages) > graduated_price(position, held):
            assert record.code is Code.CAPTURE_EXCEEDS_HOLD
            return
        charge = self.trade.room.state.charges[record.changed[1].id]
        assert charge.amount_units == graduated_price(position, pages)
        del self.open[hold_id]
        self.charges[charge.charge_id] = charge.amount_units
        self.position += pages

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def release_a_hold(self, data: st.DataObject) -> None:
        hold_id = data.draw(st.sampled_from(sorted(self.open)))
        ask = ReleaseHold(hold_id=hold_id, idempotency_key=self.trade.room.key())
        self.trade.room.done(self.trade.vendor, RELEASE_HOLD, ask)
        del self.open[hold_id]

    @precondition(lambda self: self.charges)
    @rule(data=st.data(), share=st.integers(min_value=1, max_value=4))
    def refund_a_charge(self, data: st.DataObject, share: int) -> None:
        charge_id = data.draw(st.sampled_from(sorted(self.charges)))
        charge = self.trade.room.state.charges[charge_id]
        units = max(charge.amount_units // share, 1)
        ask = RefundCharge(
            charge_id=charge_id,
            amount=money(units, "USD"),
            idempotency_key=self.trade.room.key(),
        )
        record = self.trade.room.submit(self.trade.vendor, REFUND_CHARGE, ask)
        assert isinstance(record, Record)
        left = charge.amount_units - charge.refunded_units
        possible = units <= left and charge.status != "disputed"
        # What the vendor or its partner was paid out cannot be taken back from it.
        if record.code is not Code.INSUFFICIENT_FUNDS:
            assert (record.refusal is None) == possible

    @precondition(lambda self: self.charges)
    @rule(data=st.data(), reason=st.sampled_from(["not_delivered", "calculation_error"]))
    def dispute_a_charge(self, data: st.DataObject, reason: str) -> None:
        charge_id = data.draw(st.sampled_from(sorted(self.charges)))
        ask = InitiateDispute(
            charge_id=charge_id,
            reason=reason,  # type: ignore[arg-type]
            idempotency_key=self.trade.room.key(),
        )
        record = self.trade.room.submit(self.trade.agent, INITIATE_DISPUTE, ask)
        assert isinstance(record, Record)

    @rule(cap=PAGES, per_call=st.integers(1, 10), life_s=st.sampled_from([1, 600, 86_400]))
    def open_a_session(self, cap: int, per_call: int, life_s: int) -> None:
        ask = OpenSession(
            agreement_id=self.trade.agreement_id,
            cap=money(cap * PAGE_UNITS, "USD"),
            per_call=money(min(cap, per_call) * PAGE_UNITS, "USD"),
            expires_in_s=life_s,
            idempotency_key=self.trade.room.key(),
        )
        record = self.trade.room.submit(self.trade.agent, OPEN_SESSION, ask)
        assert isinstance(record, Record)
        if record.refusal is None:
            self.sessions.append(record.changed[0].id)

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), calls=CALLS, voucher=st.tuples(st.integers(1, 20), st.integers(0, 60)))
    def report_usage(
        self, data: st.DataObject, calls: list[tuple[int, int]], voucher: tuple[int, int]
    ) -> None:
        metered = Metered(self.trade, data.draw(st.sampled_from(self.sessions)))
        at_us = self.trade.room.now_us
        listed = [each for seq, pages in calls for each in events(seq, pages, at_us=at_us)]
        record = metered.send(listed, seq=voucher[0], max_cum=voucher[1] * PAGE_UNITS)
        if record.refusal is not None:
            assert record.code is Code.SESSION_CLOSED
            return
        rejected = {place for place, *_ in record.decided["rejected"]}
        pages = sum(p for place, (_, p) in enumerate(calls) if place not in rejected)
        charges = [each for each in record.changed if each.noun == "charge"]
        assert bool(charges) == (pages > 0)
        for each in charges:
            units = self.trade.room.state.charges[each.id].amount_units
            assert units == graduated_price(self.position, pages)
            self.charges[each.id] = units
            taken = [call for place, call in enumerate(calls) if place not in rejected]
            self.batches.append((each.id, taken))
        self.position += pages

    @precondition(lambda self: self.batches)
    @rule(data=st.data(), less=st.integers(-1, 3))
    def correct_a_call(self, data: st.DataObject, less: int) -> None:
        charge_id, calls = data.draw(st.sampled_from(self.batches))
        seq, used = data.draw(st.sampled_from(calls))
        before = self.trade.room.state.charges[charge_id]
        left_units = before.amount_units - before.refunded_units
        pages = max(used - less, 1)
        record = correct(self.trade, charge_id, {seq: {"page": pages}})
        if pages > used or seq in before.corrected:
            assert record.code is Code.USAGE_INVALID
            return
        units = graduated_price(self.position - pages, pages)
        if units > left_units or not left_units or before.status == "disputed":
            assert record.code is Code.REFUND_EXCEEDS_CHARGE
        elif record.refusal is not None:
            assert record.code is Code.INSUFFICIENT_FUNDS
        else:
            self.position -= pages
            after = self.trade.room.state.charges[charge_id]
            assert after.refunded_units - before.refunded_units == units

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), pages=PAGES)
    def top_a_session_up(self, data: st.DataObject, pages: int) -> None:
        ask = TopUpSession(
            session_id=data.draw(st.sampled_from(self.sessions)),
            amount=money(pages * PAGE_UNITS, "USD"),
            idempotency_key=self.trade.room.key(),
        )
        assert isinstance(self.trade.room.submit(self.trade.agent, TOP_UP_SESSION, ask), Record)

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), by=st.sampled_from(["agent", "operator", "vendor"]))
    def close_a_session(self, data: st.DataObject, by: str) -> None:
        session_id = data.draw(st.sampled_from(self.sessions))
        ask = CloseSession(session_id=session_id, idempotency_key=self.trade.room.key())
        record = self.trade.room.submit(getattr(self.trade, by), CLOSE_SESSION, ask)
        assert isinstance(record, Record)

    @rule(
        units=st.integers(1, 30_000_000),
        kind=st.sampled_from(["bought", "promotional"]),
        priority=st.integers(0, 2),
        life_s=st.sampled_from([0, 20, 300, 100_000]),
    )
    def give_credit(self, units: int, kind: Any, priority: int, life_s: int) -> None:
        ends_us = self.trade.room.now_us + life_s * SECOND_US
        expires_at = format_time(ends_us) if life_s else ""
        self.treasury.grant_credit(units, kind, priority=priority, expires_at=expires_at)

    @rule(units=st.integers(0, 50_000_000))
    def set_the_grace(self, units: int) -> None:
        used = -min(self.trade.balance(self.trade.operator, "prepaid"), 0)
        record = self.treasury.grace(units)
        assert (record.refusal is None) == (units >= used)

    @rule(units=st.integers(1, 10_000_000))
    def announce_money(self, units: int) -> None:
        self.payments.append(self.treasury.top_up(units))

    @rule(share=st.integers(1, 3))
    def ask_to_be_paid(self, share: int) -> None:
        available = self.trade.balance(self.trade.vendor, "vendor_payable")
        record = self.treasury.payout(max(available // share, 1))
        assert (record.refusal is None) == (available > 0)
        if record.refusal is None:
            self.payments.append(record.changed[0].id)

    @precondition(lambda self: self.payments)
    @rule(data=st.data(), outcome=st.sampled_from(["paid", "failed"]))
    def hear_of_a_payment(self, data: st.DataObject, outcome: Any) -> None:
        payment_id = data.draw(st.sampled_from(sorted(self.payments)))
        self.treasury.event(payment_id, outcome, f"evt_{self.read}")

    @rule(seconds=st.sampled_from([1, 30, 61, 700, 86_400]))
    def let_time_pass(self, seconds: int) -> None:
        self.trade.room.advance(seconds)
        holds = self.trade.room.state.holds
        self.open = {each: at for each, at in self.open.items() if holds[each].status == "open"}

    @invariant()
    def the_books_balance(self) -> None:
        lines = self.trade.room.journal
        self.oracle.read(lines[self.read :])
        self.read = len(lines)
        accounts = self.trade.room.state.accounts
        assert not imbalances(accounts)
        for name, account in accounts.items():
            assert account.posted_units == self.oracle.posted[name]
        self._what_is_open_is_what_is_set_aside()
        # No limit is passed, whatever the order of commands.
        assert all(units <= PER_DAY for units in self.oracle.spent.values())

    def _what_is_open_is_what_is_set_aside(self) -> None:
        state = self.trade.room.state
        open_ = [hold for hold in state.holds.values() if hold.status == "open"]
        live = [session for session in state.sessions.values() if session.is_live]
        assert all(
            each.spent_units <= min(each.cap_units, each.max_cum_units)
            for each in state.sessions.values()
        )
        drawn = [each for hold in open_ for each in hold.drawn]
        drawn += [each for session in live for each in session.drawn]
        held = sum(hold.amount_units for hold in open_)
        held += sum(session.cap_units - session.spent_units for session in live)
        held -= sum(each.amount_units for each in drawn)
        for kind in ("deferred_revenue", "promotional_credit"):
            lots = [lot for lot in state.lots.values() if lot.kind == kind]
            credit = f"{self.trade.operator.principal_id}:{kind}:USD"
            aside = sum(each.amount_units for each in drawn if each.kind == kind)
            assert sum(lot.held_units for lot in lots) == aside == -self.oracle.pending[credit]
            left = sum(lot.free_units + lot.held_units for lot in lots)
            assert left == self.oracle.posted[credit]
        name = f"{self.trade.operator.principal_id}:prepaid:USD"
        announced = sum(t.amount_units for t in state.top_ups.values() if t.status == "pending")
        assert state.accounts[name].debits_pending == held
        assert state.accounts[name].credits_pending == announced
        assert self.oracle.pending[name] == announced - held

    def teardown(self) -> None:
        """The journal alone gives the same state."""
        state = State()
        records = [parse_record(line)[0] for line in self.trade.room.journal]
        for record in records:
            evolve(state, record)
        live = self.trade.room.state
        assert state.accounts == live.accounts
        assert state.holds == live.holds
        assert state.sessions == live.sessions
        assert state.charges == live.charges
        assert state.disputes == live.disputes
        assert state.outcomes == live.outcomes
        assert state.counters == live.counters
        assert state.lots == live.lots
        assert state.free_lots == live.free_lots
        assert state.top_ups == live.top_ups
        assert state.payouts == live.payouts
        assert state.positions == live.positions
        moved = (moved for record in records for moved in record.moved)
        assert fold(moved, None) == live.accounts
        findings = verify_journal(self.trade.room.journal, follow=Rulebook().follow)
        assert findings.fault is None, findings.fault

    def _spent_today(self) -> int:
        today = utc_day(self.trade.room.now_us)
        return sum(units for (_, day), units in self.oracle.spent.items() if day == today)


TradeMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
test_any_sequence_of_commands_keeps_the_books = TradeMachine.TestCase
