"""Each rule of allowances is broken once, in a journal that is chained and signed as it is."""

from typing import Any

import pytest
from msgspec import structs

from farthing.identity.callers import Caller
from farthing.protocol.evidence import gather, verify
from farthing.protocol.faults import FaultKind
from farthing.protocol.messages.allowances import (
    APPROVE_ALLOWANCE,
    PROPOSE_ALLOWANCE,
    ApproveAllowance,
    ProposeAllowance,
)
from farthing.protocol.rating import line_document, parse_card, rate
from farthing.protocol.records import Record, parse_record
from farthing.protocol.replay.reading import quantities
from farthing.protocol.times import format_time
from farthing.protocol.wire import Usage
from tests.construction import Trade
from tests.protocol.evidence_market import JOURNAL_KEY, Told
from tests.protocol.replay.forging import Forge, after, audited, rewritten
from tests.protocol.replay.metered import Metered, events
from tests.protocol.replay.test_sessions import asked, decided, without

PROPOSE, APPROVE = "propose_allowance", "approve_allowance"


def pages(quantity: int) -> tuple[Usage, ...]:
    return (Usage(meter="page", quantity=str(quantity)),)


def put_in_force(trade: Trade, by: Caller, other: Caller, **limits: Any) -> None:
    room = trade.room
    proposal = ProposeAllowance(
        agreement_id=trade.agreement_id, idempotency_key=room.key(), **limits
    )
    record = room.done(by, PROPOSE_ALLOWANCE, proposal)
    proposed: Any = record.changed[0].after["proposed"]
    approval = ApproveAllowance(
        agreement_id=trade.agreement_id,
        allowance_id=proposed["allowance_id"],
        idempotency_key=room.key(),
    )
    room.done(other, APPROVE_ALLOWANCE, approval)


def market() -> Trade:
    """Limits by day and in all, by either side, with holds and sessions under them."""
    trade = Trade.opened()
    room = trade.room
    before = trade.held(4)
    put_in_force(trade, trade.operator, trade.vendor, per_day=pages(10))
    session = Metered.opened(trade)
    session.report(events(1, 3, 4, 3, at_us=room.now_us))
    assert room.hold(trade.agent, trade.agreement_id, 3).refused is not None
    room.capture(trade.vendor, before, 2)
    session.report(events(9, 3, at_us=room.now_us))
    room.advance(13 * 3600)
    session = Metered.opened(trade)
    trade.held(4)
    session.report(events(1, 3, 4, at_us=room.now_us))
    room.advance(10**5)
    put_in_force(trade, trade.vendor, trade.operator, in_all=pages(12), enforcement="report")
    session = Metered.opened(trade)
    session.report(events(1, 9, at_us=room.now_us))
    ends_at = format_time(room.now_us + 60 * 10**6)
    put_in_force(trade, trade.operator, trade.vendor, in_all=pages(99), expires_at=ends_at)
    room.advance(60)
    session.report(events(2, 1, at_us=room.now_us))
    room.advance(10**5)
    return trade


ROOM = market().room
RECORDS = [parse_record(data)[0] for data in ROOM.journal]


def seq_of(operation: str, place: int = 0) -> int:
    return [each.seq for each in RECORDS if each.operation == operation and not each.refused][place]


def limits(which: str, **members: Any) -> Forge:
    def forge(record: Record) -> Record:
        (change,) = record.changed
        inner: Any = change.after[which]
        return after("allowance", **{which: {**inner, **members}})(record)

    return forge


def by_its_own_side(record: Record) -> Record:
    """The proposer approves its own proposal, with a proof of its own."""
    proposer = next(each.by for each in RECORDS if each.operation == PROPOSE)
    by = structs.replace(proposer, proof_jti="another")
    forged = structs.replace(record, by=by)
    return limits("limits", approved_by=proposer.principal_id)(forged)


def over(record: Record) -> Record:
    """A hold of more than is left, priced and counted and set aside as if it were allowed."""
    facts: Any = next(each.facts for each in RECORDS if each.operation == "publish_listing")
    hold: Any = record.changed[0].after
    rating = rate(parse_card(facts["rate_card"]), quantities(hold["position"]), {"page": 40})
    units = rating.total_units
    priced = structs.replace(
        record,
        counted=tuple(structs.replace(each, units=units) for each in record.counted),
        decided={"lines": [line_document(line) for line in rating.lines]},
        moved=tuple(structs.replace(each, units=units) for each in record.moved),
    )
    written = after("hold", workload={"page": "40"}, amount_units=str(units))(priced)
    return asked(workload=[{"meter": "page", "quantity": "40"}])(written)


BROKEN: list[tuple[str, int, Forge]] = [
    ("proposed for more", seq_of(PROPOSE), limits("proposed", per_day={"page": "11"})),
    ("proposed in another's name", seq_of(PROPOSE), limits("proposed", proposed_by="org_x")),
    ("proposed as approved", seq_of(PROPOSE), limits("proposed", approved_by="org_x")),
    ("proposed to be shown only", seq_of(PROPOSE), limits("proposed", enforcement="report")),
    ("approved for more", seq_of(APPROVE), limits("limits", per_day={"page": "11"})),
    ("approved by its own side", seq_of(APPROVE), by_its_own_side),
    ("another proposal is approved", seq_of(APPROVE), asked(allowance_id="alw_x")),
    ("what is held is forgotten", seq_of(APPROVE), after("allowance", held={})),
    ("a hold that does not count", seq_of("place_hold", 1), without("allowance")),
    ("a hold beyond it", seq_of("place_hold", 1), over),
    ("a capture that frees nothing", seq_of("capture_hold"),
     after("allowance", held={"page": "4"})),
    ("a capture that counts otherwise", seq_of("capture_hold"),
     after("allowance", used_today={"page": "6"})),
    ("a report that does not count", seq_of("report_usage"), without("allowance")),
    ("a report of another day", seq_of("report_usage"), after("allowance", day="2026-11-21")),
    ("an expiry that frees nothing", seq_of("expire_hold"), without("allowance")),
]  # fmt: skip


def test_allowances_in_order_break_no_rule() -> None:
    findings = audited(rewritten(RECORDS, 0, lambda record: record))
    assert findings.ok, findings.fault
    forbidden = [
        record.seq
        for record in RECORDS
        if "over_allowance" in str((record.decided or {}).get("rejected", ""))
    ]
    assert len(forbidden) == 4


@pytest.mark.parametrize(("seq", "forge"), [pytest.param(*each[1:], id=each[0]) for each in BROKEN])
def test_a_rule_of_allowances_that_is_broken_is_named(seq: int, forge: Forge) -> None:
    fault = audited(rewritten(RECORDS, seq, forge)).fault
    assert fault is not None
    assert (fault.kind, fault.seq) == (FaultKind.AUTHORITY, seq), fault


def test_an_allowance_is_no_part_of_a_charges_pack() -> None:
    trade = Trade.opened()
    put_in_force(trade, trade.operator, trade.vendor, in_all=pages(40))
    told = Told(trade, trade.captured(12))
    findings = verify(gather(told.evidence()), frozenset({JOURNAL_KEY.thumbprint}))
    assert findings.bad == ""


def test_an_event_that_an_allowance_does_not_forbid_is_billed() -> None:
    first = seq_of("report_usage")
    lie = decided(amounts=["6000000", "0", "0"], rejected=[[1, "over_allowance"], [2, "over_cap"]])
    fault = audited(rewritten(RECORDS, first, lie)).fault
    assert fault is not None
    assert (fault.kind, fault.seq) == (FaultKind.SESSION, first)
