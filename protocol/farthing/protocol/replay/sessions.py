"""Spend sessions of a whole journal: set aside, billed from the signed batches, given back.

Boundary: what each record makes of a session, its money and its charge; who may spend is `budgets`,
what a batch comes to `metering`, and what becomes of a charge later `charges`.
Source: spec/sessions.md, spec/metering.md, spec/audit.md.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from farthing.protocol.batches import verify_batch
from farthing.protocol.canonical import Json
from farthing.protocol.documents import DocumentError
from farthing.protocol.faults import FaultKind, RuleBroken, rule
from farthing.protocol.ids import SessionId
from farthing.protocol.keys import PublicKey
from farthing.protocol.ledger import Movement, Transfer
from farthing.protocol.proofs import ProofError, Voucher, read_voucher
from farthing.protocol.rating import (
    CompiledCard,
    line_document,
    rate,
)
from farthing.protocol.records import Record
from farthing.protocol.replay.allowances import Allowances
from farthing.protocol.replay.blocks import (
    amount_of,
    asset_of,
    billed,
    charged,
    end_us,
    opened,
    reserved,
)
from farthing.protocol.replay.budgets import Allowed, Budgets
from farthing.protocol.replay.corrections import Corrections
from farthing.protocol.replay.keys import PLATFORM, KeyHistory
from farthing.protocol.replay.metering import Bounds, Judged, judge
from farthing.protocol.replay.reading import (
    JsonObject,
    integer,
    member,
    quantities,
    text_fact,
    units,
)
from farthing.protocol.replay.shares import drawn_of, payer_parts
from farthing.protocol.sequences import Window
from farthing.protocol.shares import Part, first_of
from farthing.protocol.signatures import InvalidSignature, Typ
from farthing.protocol.usage import REPORT_WINDOW_US, read_batch

__all__ = ["SESSION_OPERATIONS", "Sessions"]

SESSION_OPERATIONS: Final = frozenset(
    {"open_session", "top_up_session", "report_usage", "close_session", "expire_session"}
)
_session = rule(FaultKind.SESSION, "the session")


class Sessions:
    """Sessions, as the records so far leave them.

    Args:
        budgets: Who may spend what; caps count against it.
        allowances: What may be used, and was.
        keys: Who held which key when.
        cards: The rate cards published so far.
    """

    def __init__(
        self,
        budgets: Budgets,
        allowances: Allowances,
        keys: KeyHistory,
        cards: Mapping[str, CompiledCard],
    ) -> None:
        self._budgets = budgets
        self._allowances = allowances
        self._keys = keys
        self._live: dict[str, JsonObject] = {}
        self._payers: dict[str, PublicKey] = {}
        self._cards = cards
        self._corrections = Corrections(allowances, keys, self._cards)

    def follow(self, record: Record) -> None:
        """Judge the next record, and learn from it. Raises `RuleBroken`."""
        match record.operation:
            case "open_session":
                self._open(record)
            case "top_up_session":
                self._top_up(record)
            case "report_usage":
                self._report(record)
            case "close_session" | "expire_session":
                self._end(record)
            case _:
                found = any(change.noun == "session" for change in record.changed)
                _session(not found, f"{record.operation} changes a session")
        self._corrections.follow(record)

    def _open(self, record: Record) -> None:
        buyer_id, asked = record.by.principal_id, record.asked
        agreement = self._budgets.agreement_of(
            buyer_id,
            member(asked, "agreement_id"),
            asset=asset_of(asked, "cap"),
            kind=FaultKind.SESSION,
        )
        cap_units = amount_of(asked, "cap")
        allowed = self._budgets.allow(record, agreement, cap_units, amount_of(asked, "per_call"))
        session = opened(record, agreement)
        session_id = member(session, "session_id")
        _session(session_id not in self._live, "it was opened before")
        payer = self._keys.keys_of(buyer_id, Typ.VOUCHER)(record.by.key_thumbprint)
        assert payer is not None, "who asks holds a key in force"
        self._payers[session_id] = payer
        self._set_aside(record, session, cap_units, allowed)

    def _top_up(self, record: Record) -> None:
        session = self._the_session(record)
        _session(session["buyer_id"] == record.by.principal_id, "another tops it up")
        agreement = self._budgets.agreement_of(
            record.by.principal_id,
            member(session, "agreement_id"),
            asset=asset_of(record.asked, "amount"),
            kind=FaultKind.SESSION,
        )
        in_time = record.at_us < integer(session, "expires_at_us")
        _session(session["status"] == "open" and in_time, "it is topped up when it is over")
        amount_units = amount_of(record.asked, "amount")
        allowed = self._budgets.allow(
            record, agreement, amount_units, units(session, "per_call_units")
        )
        self._set_aside(record, session, amount_units, allowed)

    def _set_aside(
        self, record: Record, session: JsonObject, amount_units: int, allowed: Allowed
    ) -> None:
        """What is set aside is pending, counts on this day, and is all that changes."""
        _session(amount_units > 0, "nothing is set aside")
        self._budgets.count(record, (allowed, amount_units))
        after = _the(record, "session", member(session, "session_id"))
        before_units = {each["lot_id"]: units(each, "amount_units") for each in drawn_of(session)}
        drawn: list[JsonObject] = []
        for each in drawn_of(after):
            more_units = units(each, "amount_units") - before_units.pop(each["lot_id"], 0)
            _session(more_units >= 0, "what it drew on a lot shrinks")
            drawn.append({**each, "amount_units": str(more_units)})
        _session(not before_units, "what it drew on a lot is gone")
        counted = quantities(session["counted"])
        counted[allowed.day] = counted.get(allowed.day, 0) + amount_units
        expected: JsonObject = {
            **session,
            "cap_units": str(units(session, "cap_units") + amount_units),
            "counted": {day: str(each) for day, each in counted.items()},
        }
        _follows(after, _with_drawn(expected, drawn_of(after)))
        aside = payer_parts(
            session, [each for each in drawn if each["amount_units"] != "0"], amount_units
        )
        _moves(record, reserved(session, aside, Movement.PENDING))
        self._live[member(session, "session_id")] = after

    def _report(self, record: Record) -> None:
        session = self._the_session(record)
        _session(session["vendor_id"] == record.by.principal_id, "another than its vendor reports")
        _session(record.at_us < end_us(session) + REPORT_WINDOW_US, "it is reported too late")
        voucher = self._voucher(record, session)
        judged = self._judged(record, session, voucher)
        rated = rate(self._card(session), self._position(session), judged.usage)
        decided: JsonObject = {
            "amounts": [str(each) for each in judged.amounts],
            "billed": len(judged.billed),
            "lines": [line_document(line) for line in rated.lines],
            "rejected": [[place, fault.value, call] for place, fault, call in judged.rejected],
            "span": [min(judged.taken), max(judged.taken)] if judged.taken else [],
        }
        _session(record.decided == decided, "its events are judged otherwise")
        billed_units = judged.spent_units - units(session, "spent_units")
        after = _the(record, "session", member(session, "session_id"))
        drawn, used = _split_drawn(session, billed_units)
        expected = {
            **session,
            "spent_units": str(judged.spent_units),
            "calls": integer(session, "calls") + len(judged.billed),
            "rejected": integer(session, "rejected") + len(judged.rejected),
            "top": judged.window.top,
            "seen": judged.window.text,
            "voucher_seq": max(integer(session, "voucher_seq"), voucher.seq),
            "max_cum_units": str(max(units(session, "max_cum_units"), voucher.max_cum_units)),
        }
        _follows(after, _with_drawn(expected, drawn))
        self._budgets.count(record)
        self._bill(record, session, judged, used)
        self._live[member(session, "session_id")] = after

    def _voucher(self, record: Record, session: JsonObject) -> Voucher:
        session_id = member(session, "session_id")
        try:
            voucher = read_voucher(
                text_fact(record, "voucher"),
                self._payers[session_id],
                member(session, "agreement_id"),
            )
        except ProofError as error:
            raise _unsigned(f"the voucher: {error.reason}") from error
        if voucher.session_id != session_id:
            raise _unsigned("the voucher is of another session")
        return voucher

    def _judged(self, record: Record, session: JsonObject, voucher: Voucher) -> Judged:
        data = text_fact(record, "usage").encode()
        keys = self._keys.keys_of(record.by.principal_id, Typ.USAGE)
        try:
            signed = verify_batch(
                text_fact(record, "usage_signature"), member(session, "session_id"), data, keys
            )
            columns = read_batch(data, SessionId(member(session, "session_id")))
        except (InvalidSignature, DocumentError) as error:
            raise _unsigned(f"the batch: {error}") from error
        counted = record.asked.get("events") == len(columns.seqs)
        _session(counted, "it was asked for another number of events")
        _session(signed.root == text_fact(record, "usage_root"), "its batch has another root")
        return judge(
            columns,
            Bounds(
                opened_at_us=integer(session, "opened_at_us"),
                expires_at_us=integer(session, "expires_at_us"),
                now_us=record.at_us,
                frozen_since_us=self._budgets.frozen_since_us(member(session, "buyer_id")),
                per_call_units=units(session, "per_call_units"),
                cap_units=units(session, "cap_units"),
                voucher_seq=max(integer(session, "voucher_seq"), voucher.seq),
                max_cum_units=max(units(session, "max_cum_units"), voucher.max_cum_units),
            ),
            window=Window.of(integer(session, "top"), member(session, "seen")),
            spent_units=units(session, "spent_units"),
            card=self._card(session),
            position=self._position(session),
            guard=self._allowances.guard(member(session, "agreement_id"), record.at_us),
        )

    def _bill(
        self, record: Record, session: JsonObject, judged: Judged, used: list[JsonObject]
    ) -> None:
        """One charge for all that a batch bills, paid from what was set aside."""
        agreement_id = member(session, "agreement_id")
        moved = [change for change in record.changed if change.noun == "position"]
        if judged.usage:
            found = [(each.id, quantities(each.after)) for each in moved]
            _session(found == [(agreement_id, judged.position)], "the position does not follow")
        else:
            _session(not moved, "the position moves for nothing")
        billed_units = judged.spent_units - units(session, "spent_units")
        charges = [change for change in record.changed if change.noun == "charge"]
        if not billed_units:
            _session(not charges, "a charge is made of nothing")
            _moves(record, [])
            return
        agreement = self._budgets.agreements[agreement_id]
        expected = charged(record, session, agreement, billed_units, judged.usage)
        charge = _the(record, "charge", member(expected, "charge_id"))
        for name, value in expected.items():
            _session(charge.get(name) == value, f"the charge's {name} does not follow")
        before = self._position(session)
        _session(quantities(charge["position"]) == before, "the charge's position does not follow")
        _session(charge.get("drawn", []) == used, "the charge's drawn does not follow")
        _moves(record, billed(charge))
        self._corrections.begin(member(charge, "charge_id"), judged.billed)

    def _end(self, record: Record) -> None:
        """An end leaves time to report, or gives all that is left back."""
        session = self._the_session(record)
        is_expiry = record.operation == "expire_session"
        by = record.by.principal_id
        over = record.at_us >= end_us(session) + REPORT_WINDOW_US
        if is_expiry:
            _session(by == PLATFORM and over, "it expires at the wrong time")
        elif by != session["vendor_id"]:
            _session(by in (session["buyer_id"], session["operator_id"]), "a stranger closes it")
            in_time = record.at_us < integer(session, "expires_at_us")
            _session(session["status"] == "open" and in_time, "it is closed when it is over")
            closing: JsonObject = {**session, "status": "closing", "ended_at_us": record.at_us}
            after = _the(record, "session", member(session, "session_id"))
            _follows(after, closing)
            self._budgets.count(record)
            _moves(record, [])
            self._live[member(session, "session_id")] = after
            return
        self._give_back(record, session, "expired" if is_expiry else "closed")

    def _give_back(self, record: Record, session: JsonObject, status: str) -> None:
        left_units = units(session, "cap_units") - units(session, "spent_units")
        if session["status"] == "closing":
            status = "closed"
        ended_at_us = min(record.at_us, end_us(session))
        after = _the(record, "session", member(session, "session_id"))
        expected: JsonObject = {**session, "status": status, "ended_at_us": ended_at_us}
        _follows(after, _with_drawn(expected, []))
        counts: list[tuple[Allowed, int]] = []
        rest_units = left_units
        for day, day_units in sorted(quantities(session["counted"]).items(), reverse=True):
            back_units = min(day_units, rest_units)
            rest_units -= back_units
            counts.append((Allowed(member(session, "grant_id"), day), -back_units))
        self._budgets.count(record, *counts)
        parts = payer_parts(session, drawn_of(session), left_units)
        _moves(record, reserved(session, parts, Movement.VOID))
        session_id = member(session, "session_id")
        del self._live[session_id], self._payers[session_id]

    def _the_session(self, record: Record) -> JsonObject:
        session = self._live.get(member(record.asked, "session_id"))
        if session is None:
            raise RuleBroken(FaultKind.SESSION, "the session: it is over, or was never opened")
        return session

    def _card(self, session: JsonObject) -> CompiledCard:
        return self._cards[member(session, "rate_card_sha256")]

    def _position(self, session: JsonObject) -> Mapping[str, int]:
        return self._allowances.position(member(session, "agreement_id"))


def _the(record: Record, noun: str, thing_id: str) -> JsonObject:
    """What the record leaves of the one thing of a noun that it changes."""
    found = [change for change in record.changed if change.noun == noun]
    _session([each.id for each in found] == [thing_id], f"it changes another {noun}")
    return found[0].after


def _follows(after: JsonObject, expected: JsonObject) -> None:
    for name in sorted(after.keys() | expected.keys()):
        _session(after.get(name) == expected.get(name), f"its {name} does not follow")


def _moves(record: Record, expected: Iterable[Transfer]) -> None:
    """Require the same money to go the same ways, in whatever parts."""
    _session(_sums(record.moved) == _sums(expected), "its postings do not follow")


def _sums(transfers: Iterable[Transfer]) -> Mapping[tuple[str, ...], int]:
    sums: Counter[tuple[str, ...]] = Counter()
    for each in transfers:
        sums[each.movement.value, each.debit, each.credit, each.asset] += each.units
    return sums


def _split_drawn(
    session: JsonObject, amount_units: int
) -> tuple[list[JsonObject], list[JsonObject]]:
    """What is left of the lots drawn on, and what an amount consumes of them, in their order."""
    drawn = drawn_of(session)
    total_units = sum(units(each, "amount_units") for each in drawn)
    parts = [Part(member(each, "lot_id"), units(each, "amount_units")) for each in drawn]
    taken = [part.units for part in first_of(parts, min(amount_units, total_units))]
    left: list[JsonObject] = []
    used: list[JsonObject] = []
    for each, used_units in zip(drawn, taken, strict=True):
        left_units = units(each, "amount_units") - used_units
        if left_units:
            left.append({**each, "amount_units": str(left_units)})
        if used_units:
            used.append({**each, "amount_units": str(used_units)})
    return left, used


def _with_drawn(session: JsonObject, drawn: list[JsonObject]) -> JsonObject:
    rest = {name: value for name, value in session.items() if name != "drawn"}
    return {**rest, "drawn": list[Json](drawn)} if drawn else rest


def _unsigned(why: str) -> RuleBroken:
    return RuleBroken(FaultKind.SIGNATURE, why)
