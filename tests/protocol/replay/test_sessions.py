"""Each rule of spend sessions is broken once, in a journal that is chained and signed as it is."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from farthing.protocol.canonical import Json, sha256_hex
from farthing.protocol.faults import FaultKind
from farthing.protocol.messages.agents import FREEZE, Freeze
from farthing.protocol.records import Change, Count, Record, parse_record
from farthing.protocol.times import SECOND_US
from farthing.protocol.usage import UsageEvent, UsageOutcome
from tests.construction import Trade
from tests.protocol.replay.forging import Forge, after, audited, rewritten
from tests.protocol.replay.metered import PAGE_UNITS, Metered, events
from tests.settlement.engine.treasurer import Treasury

OPEN, TOP_UP, REPORT, CLOSE, EXPIRE = (
    "open_session",
    "top_up_session",
    "report_usage",
    "close_session",
    "expire_session",
)


def with_credit() -> Trade:
    """A partner has its share, two lots pay first, and money pays the rest."""
    trade = Trade.opened()
    treasury = Treasury(trade)
    treasury.partner(trade.room.organisation("operator", "Operator Two"), 50_001)
    treasury.grant_credit(5_000_001, priority=1)
    treasury.grant_credit(7_000_003, "promotional", priority=2)
    trade.agreement_id = trade.room.agree(trade.agent, trade.listing_id)
    return trade


def market() -> Metered:
    """A market in which everything that can become of a session has happened."""
    trade = with_credit()
    room = trade.room
    first = Metered.opened(trade, cap=20 * PAGE_UNITS)
    first.report(events(1, 3, 0, 2, at_us=room.now_us), seq=3, max_cum=5 * PAGE_UNITS)
    first.report(
        [
            *events(2, 1, at_us=room.now_us),
            *events(4, 1, at_us=room.now_us, outcome=UsageOutcome.TIMED_OUT),
            *events(5, 40, at_us=room.now_us),
            *events(6, 1, at_us=room.now_us - 3600 * SECOND_US),
            *events(7, 1, at_us=room.now_us + 10**8),
            *events(8, 1, at_us=room.now_us + 10**13),
            *events(9, 5, 5, 5, 5, at_us=room.now_us),
            *events(5000, 1, at_us=room.now_us),
        ]
    )
    second = Metered.opened(trade, low_water=None, expires_in_s=600)
    first.top_up(10 * PAGE_UNITS)
    first.report(events(30, 7, 7, at_us=room.now_us))
    second.report(events(1, 9, at_us=room.now_us), seq=1, max_cum=PAGE_UNITS)
    room.advance(60)
    first.close(trade.agent)
    first.report(events(40, 1, 1, at_us=room.now_us - SECOND_US))
    third = Metered.opened(trade)
    third.report(events(1, 4, at_us=room.now_us))
    third.close(trade.vendor)
    room.advance(10**5)
    return first


FIRST = market()
ROOM = FIRST.trade.room
RECORDS = [parse_record(data)[0] for data in ROOM.journal]


def seq_of(operation: str, place: int = 0) -> int:
    found = [each.seq for each in RECORDS if each.operation == operation and not each.refused]
    return found[place]


def fact(name: str, change: Callable[[str], str]) -> Forge:
    def forge(record: Record) -> Record:
        facts: dict[str, Any] = dict(record.facts or {})
        return structs.replace(record, facts={**facts, name: change(facts[name])})

    return forge


def of_another(name: str, place: int) -> Forge:
    """A fact of another report, signed as it is."""
    (other,) = (each.facts for each in RECORDS if each.seq == seq_of(REPORT, place))
    return fact(name, lambda _: str((other or {})[name]))


def batch(change: Callable[[str], str]) -> Forge:
    """Another batch, for which the record was made."""

    def forge(record: Record) -> Record:
        changed = fact("usage", change)(record)
        text = (changed.facts or {})["usage"]
        return asked(batch_sha256=sha256_hex(text.encode()))(changed)

    return forge


def batch_of(place: int) -> str:
    (other,) = (each.facts for each in RECORDS if each.seq == seq_of(REPORT, place))
    return str((other or {})["usage"])


def decided(**members: Json) -> Forge:
    return lambda record: structs.replace(record, decided={**(record.decided or {}), **members})


def asked(**members: Json) -> Forge:
    return lambda record: structs.replace(record, asked={**record.asked, **members})


def without(noun: str) -> Forge:
    return lambda record: structs.replace(
        record, changed=tuple(each for each in record.changed if each.noun != noun)
    )


def cheaper(record: Record) -> Record:
    """A unit less from everybody who gives."""
    moved = tuple(structs.replace(each, units=each.units - 1) for each in record.moved)
    return structs.replace(record, moved=moved)


def counted(units: int) -> Forge:
    def forge(record: Record) -> Record:
        (grant_id, day) = next(
            (each.grant_id, each.day) for other in RECORDS for each in other.counted
        )
        return structs.replace(record, counted=(Count(grant_id=grant_id, day=day, units=units),))

    return forge


def dated(us: int) -> Forge:
    return lambda record: structs.replace(
        record,
        at_us=record.at_us + us,
        by=structs.replace(record.by, proof_expires_at_us=record.by.proof_expires_at_us + us),
    )


def a_session_by_the_way(record: Record) -> Record:
    change = Change(noun="session", id="ses_x", after={})
    return structs.replace(record, changed=(*record.changed, change))


MILLION = 10**6
BROKEN: list[tuple[str, int, Forge, FaultKind]] = [
    ("more than the grant's day", seq_of("set_authority"),
     after("grant", per_day_units_max="39999999"), FaultKind.AUTHORITY),
    ("more than the grant's call", seq_of("set_authority"),
     after("grant", per_call_units_max="19999999"), FaultKind.AUTHORITY),
    ("opened and not counted", seq_of(OPEN),
     lambda record: structs.replace(record, counted=()), FaultKind.AUTHORITY),
    ("opened under no agreement", seq_of(OPEN), asked(agreement_id="agr_x"), FaultKind.SESSION),
    ("opened for another asset", seq_of(OPEN),
     asked(cap={"amount": "0.04", "asset": "XTS"}), FaultKind.SESSION),
    ("opened for more than is set aside", seq_of(OPEN),
     asked(cap={"amount": "0.05", "asset": "USD"}), FaultKind.AUTHORITY),
    ("opened under a key that is another's", seq_of(OPEN),
     after("session", payer_thumbprint="x" * 43), FaultKind.SESSION),
    ("opened for ever", seq_of(OPEN), after("session", expires_at_us=2**52), FaultKind.SESSION),
    ("opened with something spent", seq_of(OPEN),
     after("session", spent_units="1"), FaultKind.SESSION),
    ("opened with more for a call", seq_of(OPEN),
     after("session", per_call_units="1"), FaultKind.SESSION),
    ("opened with more on MACs", seq_of(OPEN),
     after("session", unsigned_units="1"), FaultKind.SESSION),
    ("set aside otherwise", seq_of(OPEN), cheaper, FaultKind.SESSION),
    ("drawn on lots otherwise", seq_of(OPEN), after("session", drawn=[]), FaultKind.SESSION),
    ("topped up by more", seq_of(TOP_UP), after("session", cap_units="1"), FaultKind.SESSION),
    ("topped up and not counted", seq_of(TOP_UP),
     lambda record: structs.replace(record, counted=()), FaultKind.AUTHORITY),
    ("topped up from nowhere", seq_of(TOP_UP), cheaper, FaultKind.SESSION),
    ("another batch", seq_of(REPORT), batch(lambda _: batch_of(1)), FaultKind.SIGNATURE),
    ("a batch that was mended", seq_of(REPORT),
     batch(lambda text: text.replace('"3"', '"2"', 1)), FaultKind.SIGNATURE),
    ("a text that is not its batch", seq_of(REPORT), of_another("usage", 1), FaultKind.RECORD),
    ("no batch", seq_of(REPORT), lambda record: structs.replace(record, facts={
        name: value for name, value in (record.facts or {}).items() if name != "usage"}),
     FaultKind.RECORD),
    ("a batch below a refusal", seq_of(REPORT),
     lambda record: structs.replace(record, refused={"code": "session_closed"}),
     FaultKind.RECORD),
    ("another root", seq_of(REPORT), fact("usage_root", lambda _: "0" * 64), FaultKind.SESSION),
    ("another batch's signature", seq_of(REPORT), of_another("usage_signature", 1),
     FaultKind.SIGNATURE),
    ("a batch of another session", seq_of(REPORT, 3),
     lambda record: of_another("usage_signature", 0)(batch(lambda _: batch_of(0))(record)),
     FaultKind.SIGNATURE),
    ("another session's voucher", seq_of(REPORT), of_another("voucher", 3), FaultKind.SIGNATURE),
    ("a voucher for less", seq_of(REPORT),
     fact("voucher", lambda _: FIRST.voucher(3, PAGE_UNITS)), FaultKind.SESSION),
    ("a voucher for fewer calls", seq_of(REPORT),
     fact("voucher", lambda _: FIRST.voucher(2, 5 * PAGE_UNITS)), FaultKind.SESSION),
    ("a voucher that was mended", seq_of(REPORT),
     fact("voucher", lambda text: text[:-5] + "AAAAA"), FaultKind.SIGNATURE),
    ("no voucher", seq_of(REPORT), lambda record: structs.replace(record, facts={
        name: value for name, value in (record.facts or {}).items() if name != "voucher"}),
     FaultKind.RECORD),
    ("asked for another batch", seq_of(REPORT), asked(batch_sha256="0" * 64), FaultKind.RECORD),
    ("asked for more events", seq_of(REPORT), asked(events=4), FaultKind.SESSION),
    ("a call priced otherwise", seq_of(REPORT),
     decided(amounts=["6000000", "1", "3999999"]), FaultKind.SESSION),
    ("a call that is not rejected", seq_of(REPORT, 1), decided(rejected=[]), FaultKind.SESSION),
    ("a call that is rejected", seq_of(REPORT),
     decided(rejected=[[0, "duplicate"]]), FaultKind.SESSION),
    ("a call that an allowance forbids, and is billed", seq_of(REPORT),
     decided(rejected=[[0, "over_allowance"]]), FaultKind.SESSION),
    ("billed otherwise", seq_of(REPORT), after("charge", amount_units="9999999"),
     FaultKind.SESSION),
    ("another fee", seq_of(REPORT), after("charge", fee_units="0"), FaultKind.SESSION),
    ("another usage", seq_of(REPORT), after("charge", usage={"page": "6"}), FaultKind.SESSION),
    ("another partner's share", seq_of(REPORT),
     after("charge", tail={"amount_units": "1", "partner_id": "x", "returned_units": "0"}),
     FaultKind.SESSION),
    ("rated from elsewhere", seq_of(REPORT), after("charge", position={"page": "1"}),
     FaultKind.SESSION),
    ("a longer window", seq_of(REPORT), after("charge", window_closes_at_us=2**52),
     FaultKind.SESSION),
    ("other lots", seq_of(REPORT), after("charge", drawn=[]), FaultKind.SESSION),
    ("no charge", seq_of(REPORT), without("charge"), FaultKind.SESSION),
    ("spent on nothing", seq_of(REPORT), after("session", spent_units="1"), FaultKind.SESSION),
    ("a window that forgets", seq_of(REPORT), after("session", seen="1"), FaultKind.SESSION),
    ("a voucher that grows", seq_of(REPORT), after("session", max_cum_units="99999999"),
     FaultKind.SESSION),
    ("a position that does not move", seq_of(REPORT), without("position"), FaultKind.SESSION),
    ("a position that moves on", seq_of(REPORT), after("position", page="6"), FaultKind.SESSION),
    ("posted otherwise", seq_of(REPORT), cheaper, FaultKind.SESSION),
    ("a report that counts", seq_of(REPORT), counted(1), FaultKind.AUTHORITY),
    ("a report too late", seq_of(REPORT, 4), dated(300 * SECOND_US), FaultKind.SESSION),
    ("closed and gone", seq_of(CLOSE), after("session", status="closed"), FaultKind.SESSION),
    ("closed at another time", seq_of(CLOSE), after("session", ended_at_us=1), FaultKind.SESSION),
    ("closed and given back less", seq_of(CLOSE, 1), cheaper, FaultKind.SESSION),
    ("given back less", seq_of(EXPIRE),
     lambda record: structs.replace(record, moved=record.moved[:-1]), FaultKind.SESSION),
    ("given back and not counted", seq_of(EXPIRE), counted(-1), FaultKind.AUTHORITY),
    ("another end", seq_of(EXPIRE, 1), after("session", status="closed"), FaultKind.SESSION),
    ("a session by the way", seq_of("fund_account"), a_session_by_the_way, FaultKind.SESSION),
]  # fmt: skip


def test_sessions_in_order_break_no_rule() -> None:
    findings = audited(ROOM.journal)
    assert findings.ok, findings.fault
    assert findings.records == len(RECORDS)
    reasons = {
        why
        for record in RECORDS
        if record.operation == REPORT
        for _, why, _ in (record.decided or {})["rejected"]
    }
    assert reasons == {
        *("duplicate", "over_per_call", "before_session", "in_future", "after_end"),
        *("over_cap", "out_of_window", "beyond_voucher"),
    }


@pytest.mark.parametrize(
    ("seq", "forge", "kind"), [pytest.param(*each[1:], id=each[0]) for each in BROKEN]
)
def test_a_rule_of_sessions_that_is_broken_is_named(
    seq: int, forge: Forge, kind: FaultKind
) -> None:
    fault = audited(rewritten(RECORDS, seq, forge)).fault
    assert fault is not None
    # A record that is not expected is found where it stands, one that lacks where it is missed.
    assert (fault.kind, fault.seq >= seq) == (kind, True), fault
    if RECORDS[seq - 1].operation in {OPEN, TOP_UP, REPORT, CLOSE, EXPIRE}:
        assert fault.seq == seq


def test_a_frozen_buyers_calls_are_not_billed_from_then_on() -> None:
    trade = Trade.opened()
    room = trade.room
    session = Metered.opened(trade)
    room.advance(10)
    room.done(
        trade.operator,
        FREEZE,
        Freeze(principal_id=trade.agent.principal_id, reason="", idempotency_key=room.key()),
    )
    room.advance(10)
    frozen_us = room.now_us - 10 * SECOND_US
    record = session.report(
        [*events(1, 1, at_us=frozen_us), *events(2, 1, at_us=frozen_us + 1)],
    )
    assert (record.decided or {})["rejected"] == [[1, "frozen", 2]]
    assert audited(room.journal).ok


pages = st.integers(0, 6)


@st.composite
def batches(draw: st.DrawFn) -> list[tuple[list[UsageEvent], int, int]]:
    """Reports of any calls in any order, under vouchers of any strength."""
    start_us = Trade.opened().room.now_us
    made = []
    for _ in range(draw(st.integers(1, 5))):
        listed: list[UsageEvent] = []
        for _ in range(draw(st.integers(1, 6))):
            listed += events(
                draw(st.integers(1, 12) | st.sampled_from((1024, 1025, 3000))),
                draw(pages),
                at_us=start_us + draw(st.sampled_from((-6, -5, 0, 5, 6, 3600, 3601))) * SECOND_US,
                outcome=draw(st.sampled_from(UsageOutcome)),
            )
        made.append((listed, draw(st.integers(1, 12)), draw(st.integers(0, 30)) * PAGE_UNITS))
    return made


@settings(max_examples=60)
@given(batches(), st.integers(5, 20), st.integers(1, 5))
def test_the_auditor_judges_every_batch_as_the_engine_does(
    made: list[tuple[list[UsageEvent], int, int]], cap: int, per_call: int
) -> None:
    session = Metered.opened(with_credit(), cap=cap * PAGE_UNITS, per_call=per_call * PAGE_UNITS)
    for listed, seq, max_cum in made:
        session.report(listed, seq=seq, max_cum=max_cum)
    session.trade.room.advance(10**5)
    findings = audited(session.trade.room.journal)
    assert findings.ok, findings.fault
