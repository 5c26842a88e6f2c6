"""The engine's whole state, and `evolve`, the only function that changes it.

Boundary: applies effects, never decides. Live, after a crash and at a take-over the same records
give the same state. Source: spec/journal.md.
"""

import heapq
from collections import defaultdict
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import cast

from farthing.protocol.authority.grant import Grant
from farthing.protocol.canonical import Json, document_sha256
from farthing.protocol.errors import Broken
from farthing.protocol.ledger import Account, apply
from farthing.protocol.rating import RateCard, parse_card
from farthing.protocol.records import Change, Record
from farthing.protocol.terms import Terms, parse_terms
from farthing.protocol.times import DAY_US, SECOND_US, utc_day
from farthing.protocol.usage import REPORT_WINDOW_US
from farthing.settlement.engine.shelf import Shelf
from farthing.settlement.engine.things import (
    Agreement,
    Allowance,
    Charge,
    Closure,
    Dispute,
    Grace,
    Hold,
    Key,
    Listing,
    Lot,
    Partner,
    Payout,
    Principal,
    Session,
    TopUp,
)

__all__ = [
    "State",
    "evolve",
    "learn",
    "scope_of",
    "settles",
    "waits",
    "who_of",
]

# In which status a thing waits for nothing any more, or for nothing but the end of its window.
_SETTLED = {
    "charge": frozenset({"payable", "pending"}),
    "dispute": frozenset({"decided"}),
    "hold": frozenset({"captured", "expired", "released"}),
    "payout": frozenset({"failed", "paid"}),
    "session": frozenset({"closed", "expired"}),
    "top_up": frozenset({"expired", "failed", "posted"}),
}
# Entries of what has moved on are dropped once they are most of the heap, and it is worth it.
_DUE_MIN = 4_096
_NEWCOMERS = frozenset({"enrol_organisation", "register_agent"})


@dataclass(slots=True)
class State:
    """Everything a money decision depends on."""

    seq: int = 0
    at_us: int = 0
    fee_ppm: int = 0
    open_enrolment: bool = False
    accounts: dict[str, Account] = field(default_factory=dict)
    counters: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    principals: dict[str, Principal] = field(default_factory=dict)
    keys: dict[str, Key] = field(default_factory=dict)
    grants: dict[tuple[str, str], Grant] = field(default_factory=dict)
    listings: dict[str, Listing] = field(default_factory=dict)
    agreements: dict[str, Agreement] = field(default_factory=dict)
    positions: dict[str, dict[str, int]] = field(default_factory=dict)
    holds: Shelf[str, Hold] = field(default_factory=Shelf)
    charges: Shelf[str, Charge] = field(default_factory=Shelf)
    disputes: Shelf[str, Dispute] = field(default_factory=Shelf)
    cards: dict[str, RateCard] = field(default_factory=dict)
    terms: dict[str, Terms] = field(default_factory=dict)
    document_seqs: dict[str, int] = field(default_factory=dict)
    outcomes: Shelf[bytes, int] = field(default_factory=Shelf)
    burnt: set[tuple[str, str]] = field(default_factory=set)
    # By the second in which they end: a heap of half a million costs more than all the rest.
    burnt_until: dict[int, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    due: list[tuple[int, str, str]] = field(default_factory=list)
    # Charges by the end of their window; they are many, so that none of them is kept for it.
    windows: list[tuple[int, str]] = field(default_factory=list)
    # Agreements, keys and agents, and those of them that are members; what else a party has is
    # listed beside the engine.
    by_party: dict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    partners: dict[str, Partner] = field(default_factory=dict)
    closures: dict[str, Closure] = field(default_factory=dict)
    graces: dict[str, Grace] = field(default_factory=dict)
    grace_units: dict[str, int] = field(default_factory=dict)
    lots: dict[str, Lot] = field(default_factory=dict)
    free_lots: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    top_ups: Shelf[str, TopUp] = field(default_factory=Shelf)
    payouts: Shelf[str, Payout] = field(default_factory=Shelf)
    sessions: Shelf[str, Session] = field(default_factory=Shelf)
    allowances: dict[str, Allowance] = field(default_factory=dict)


@lru_cache(maxsize=4096)  # asked for by the decision, and again when its record is applied
def scope_of(principal_or_key: str, operation: str, key: str) -> bytes:
    """What an idempotency key is remembered under: 16 bytes for (principal, operation, key)."""
    return sha256(f"{principal_or_key}\n{operation}\n{key}".encode()).digest()[:16]


def who_of(operation: str, principal_id: str, key_thumbprint: str) -> str:
    """Whose idempotency keys an operation's are: the principal's, a newcomer's the key's own."""
    return key_thumbprint if operation in _NEWCOMERS else principal_id


def evolve(state: State, record: Record) -> None:
    """Apply a record's effects. A record that does not follow the last one is a defect."""
    if record.seq != state.seq + 1 or record.at_us < state.at_us:
        text = f"record {record.seq} does not follow {state.seq}"
        raise Broken(text)
    second = record.at_us // SECOND_US
    if second != state.at_us // SECOND_US:
        _forget_proofs(state, second)
        if record.at_us // DAY_US != state.at_us // DAY_US:
            _forget_days(state, utc_day(record.at_us - DAY_US))
    state.seq = record.seq
    state.at_us = record.at_us
    _remember(state, record)
    for transfer in record.moved:
        apply(state.accounts, transfer, state.grace_units)
    for count in record.counted:
        state.counters[count.grant_id, count.day] += count.units
    if record.facts is not None and record.refused is None:
        learn(state, record.facts, record.seq)
    for change in record.changed:
        _put(state, change, record.seq)


def _forget_days(state: State, first_day: str) -> None:
    """Drop the counters of days before `first_day`: nothing is judged by them any more."""
    for key in [key for key in state.counters if key[1] < first_day]:
        del state.counters[key]


def _forget_proofs(state: State, second: int) -> None:
    """Drop the proofs that ended before `second`: they are refused for that reason."""
    for each in [each for each in state.burnt_until if each < second]:
        state.burnt.difference_update(state.burnt_until.pop(each))


def _remember(state: State, record: Record) -> None:
    by = record.by
    if by.proof_jti:
        proof = (by.key_thumbprint, by.proof_jti)
        state.burnt.add(proof)
        state.burnt_until[by.proof_expires_at_us // SECOND_US].append(proof)
    if record.request is not None:
        who = who_of(record.operation, by.principal_id, by.key_thumbprint)
        scope = scope_of(who, record.operation, record.request.key)
        state.outcomes.put(scope, record.seq, settled_by=record.seq)


def learn(state: State, facts: dict[str, Json], seq: int) -> None:
    """Keep the documents of the law that record `seq` holds."""
    card, terms, listing = facts.get("rate_card"), facts.get("terms"), facts.get("listing")
    if card is not None:
        parsed = parse_card(card)
        state.cards[parsed.card_sha256] = parsed
        state.document_seqs.setdefault(parsed.card_sha256, seq)
    if terms is not None:
        sha256_ = document_sha256(terms)
        state.terms[sha256_] = parse_terms(terms)
        state.document_seqs.setdefault(sha256_, seq)
    if listing is not None:
        state.document_seqs.setdefault(document_sha256(listing), seq)


def _put(state: State, change: Change, seq: int) -> None:
    after = change.after
    match change.noun:
        case "hold":
            hold = Hold.from_document(after)
            state.holds.put(change.id, hold, settled_by=_settled_by("hold", hold.status, seq))
            if hold.status == "open":
                _await(state, hold.expires_at_us, "hold", hold.hold_id)
        case "charge":
            _put_charge(state, Charge.from_document(after), seq)
        case "session":
            _put_session(state, Session.from_document(after), seq)
        case "agreement":
            known = change.id in state.agreements
            agreement = state.agreements[change.id] = Agreement.from_document(after)
            if not known:
                _party(state, "agreement", change.id, *agreement.parties)
        case "allowance":
            state.allowances[change.id] = Allowance.from_document(after)
        case "position":
            state.positions[change.id] = {meter: int(str(n)) for meter, n in after.items()}
        case "dispute":
            _put_dispute(state, Dispute.from_document(after), seq)
        case "grant":
            grant = Grant.from_document(after)
            state.grants[grant.agent_id, grant.asset] = grant
        case "principal":
            before = state.principals.get(change.id)
            principal = state.principals[change.id] = Principal.from_document(after)
            if principal.organisation_id != principal.principal_id:
                _put_agent(state, before, principal)
        case "key":
            known = change.id in state.keys
            key = state.keys[change.id] = Key.from_document(after)
            if not known:
                _party(state, "key", change.id, key.principal_id)
        case "listing":
            state.listings[change.id] = Listing.from_document(after)
        case "platform":
            state.fee_ppm = cast("int", after["fee_ppm"])
            state.open_enrolment = cast("bool", after["open_enrolment"])
        case _:
            _put_treasury(state, change, seq)


def _put_agent(state: State, before: Principal | None, now: Principal) -> None:
    """Anybody can ask to be an agent of an operator; its members are those that it approved."""
    if before is None:
        _party(state, "principal", now.principal_id, now.organisation_id)
    if now.status == "active" and (before is None or before.status != "active"):
        _party(state, "member", now.principal_id, now.organisation_id)


def _put_treasury(state: State, change: Change, seq: int) -> None:
    after = change.after
    match change.noun:
        case "lot":
            _put_lot(state, Lot.from_document(after))
        case "top_up":
            _put_top_up(state, TopUp.from_document(after), seq)
        case "payout":
            _put_payout(state, Payout.from_document(after), seq)
        case "grace":
            _put_grace(state, Grace.from_document(after))
        case "closure":
            state.closures[change.id] = Closure.from_document(after)
        case "partner":
            state.partners[change.id] = Partner.from_document(after)
        case _:
            text = f"a record changes an unknown noun: {change.noun}"
            raise Broken(text)


def _put_charge(state: State, charge: Charge, seq: int) -> None:
    settled_by = _settled_by("charge", charge.status, seq)
    state.charges.put(charge.charge_id, charge, settled_by=settled_by)
    if charge.status == "pending":
        heapq.heappush(state.windows, (charge.window_closes_at_us, charge.charge_id))
    elif charge.status == "payable":
        _drop_windows(state)


def _drop_windows(state: State) -> None:
    """Drop the first windows, of charges that have just settled and of disputed ones before them.

    Charges settle in this order, so that whoever only reads records keeps no window that is over.
    """
    windows, kept = state.windows, state.charges.kept
    while windows and (first := kept(windows[0][1])) is not None and first.status != "pending":
        heapq.heappop(windows)


def _put_session(state: State, session: Session, seq: int) -> None:
    known = state.sessions.kept(session.session_id)
    settled_by = _settled_by("session", session.status, seq)
    state.sessions.put(session.session_id, session, settled_by=settled_by)
    if session.is_live and (known is None or known.end_us != session.end_us):
        _await(state, session.end_us + REPORT_WINDOW_US, "session", session.session_id)


def _put_dispute(state: State, dispute: Dispute, seq: int) -> None:
    settled_by = _settled_by("dispute", dispute.status, seq)
    state.disputes.put(dispute.dispute_id, dispute, settled_by=settled_by)
    if dispute.status == "needs_evidence":
        _await(state, dispute.evidence_due_at_us, "dispute", dispute.dispute_id)


def _put_grace(state: State, grace: Grace) -> None:
    """Keep a grace, and what it lets the ledger do."""
    state.graces[grace.account] = grace
    state.grace_units[grace.account] = grace.units


def _put_lot(state: State, lot: Lot) -> None:
    """Keep a lot, its place in the order of spending, and its end."""
    known = state.lots.get(lot.lot_id)
    state.lots[lot.lot_id] = lot
    scope = (lot.operator_id, lot.asset)
    free = [each for each in state.free_lots.pop(scope, ()) if each != lot.lot_id]
    if lot.free_units:
        free.append(lot.lot_id)
        free.sort(key=lambda each: _spent_in(state.lots[each]))
    if free:
        state.free_lots[scope] = free
    if lot.expires_at_us and lot.free_units and (known is None or not known.free_units):
        _await(state, lot.expires_at_us, "lot", lot.lot_id)


def _spent_in(lot: Lot) -> tuple[int, int, int, int, str]:
    """Priority, then the earliest end, then the oldest; what never ends comes last."""
    never = int(not lot.expires_at_us)
    return lot.priority, never, lot.expires_at_us, lot.created_at_us, lot.lot_id


def _put_top_up(state: State, top_up: TopUp, seq: int) -> None:
    settled_by = _settled_by("top_up", top_up.status, seq)
    state.top_ups.put(top_up.top_up_id, top_up, settled_by=settled_by)
    if top_up.seq == seq:
        _await(state, top_up.expires_at_us, "top_up", top_up.top_up_id)


def _put_payout(state: State, payout: Payout, seq: int) -> None:
    settled_by = _settled_by("payout", payout.status, seq)
    state.payouts.put(payout.payout_id, payout, settled_by=settled_by)


def settles(noun: str, status: str) -> bool:
    """Whether a thing of this status can be read back from its record instead of being kept."""
    return status in _SETTLED[noun]


def _settled_by(noun: str, status: str, seq: int) -> int:
    return seq if settles(noun, status) else 0


def waits(state: State, due_us: int, noun: str, thing_id: str) -> bool:
    """Whether an entry of `state.due` still stands; most holds are captured before their time."""
    match noun:
        case "hold":
            hold = state.holds.kept(thing_id)
            return hold is not None and hold.status == "open"
        case "session":
            session = state.sessions.kept(thing_id)
            if session is None or not session.is_live:
                return False
            return session.end_us + REPORT_WINDOW_US == due_us
        case "lot":
            return state.lots[thing_id].free_units > 0
        case "top_up":
            top_up = state.top_ups.kept(thing_id)
            return top_up is not None and top_up.status == "pending"
        case _:
            dispute = state.disputes.kept(thing_id)
            if dispute is None or dispute.status != "needs_evidence":
                return False
            return dispute.evidence_due_at_us == due_us


def _await(state: State, due_us: int, noun: str, thing_id: str) -> None:
    heapq.heappush(state.due, (due_us, noun, thing_id))
    waiting = len(state.holds) + len(state.disputes) + len(state.sessions)
    if len(state.due) > 4 * waiting + _DUE_MIN:
        state.due = [entry for entry in state.due if waits(state, *entry)]
        heapq.heapify(state.due)


def _party(state: State, noun: str, thing_id: str, *parties: str) -> None:
    for party in parties:
        state.by_party[noun, party].append(thing_id)
