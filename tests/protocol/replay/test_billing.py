"""The pack of a session's charge proves what was billed; a lie in it is found where it stands."""

from typing import Any

import pytest

from farthing.protocol.batches import sign_batch
from farthing.protocol.evidence import gather, verify
from farthing.protocol.times import SECOND_US
from farthing.protocol.usage import UsageOutcome
from tests.construction import Trade
from tests.papers import signing_key
from tests.protocol.evidence_market import JOURNAL_KEY, Told
from tests.protocol.forger import Forger, place
from tests.protocol.replay.metered import PAGE_UNITS, Metered, events
from tests.protocol.replay.test_sessions import with_credit

VENDOR_KEY = signing_key("Vendor One")


def billed(trade: Trade) -> Told:
    """The second report of a session: some calls billed, some not, some rejected."""
    session = Metered.opened(trade)
    at_us = trade.room.now_us
    session.report(events(1, 2, at_us=at_us), seq=1, max_cum=5 * PAGE_UNITS)
    record = session.report(
        [
            *events(2, 3, 0, 1, at_us=at_us),
            *events(5, 2, at_us=at_us, outcome=UsageOutcome.FAILED_VENDOR),
            *events(1, 2, at_us=at_us),
            *events(6, 40, at_us=at_us),
            *events(7, 2, at_us=at_us),
        ],
        seq=7,
        max_cum=20 * PAGE_UNITS,
    )
    (charge,) = (change.id for change in record.changed if change.noun == "charge")
    return Told(trade, charge)


def refunded() -> Told:
    told = billed(Trade.opened())
    told.refund(1_000_001)
    told.trade.room.advance(10**5)
    return told


def disputed() -> Told:
    told = billed(with_credit())
    told.dispute("calculation_error")
    told.trade.room.advance(10**5)
    return told


WHOLE = refunded()
PAPERS = Forger(WHOLE)
SESSION = PAPERS.record("open_session")["changed"][0]["after"]
CHARGE = PAPERS.record("report_usage")["changed"][1]["after"]
AMOUNTS = PAPERS.record("report_usage")["decided"]["amounts"]


def other(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str):
        return str(int(value) + 1) if value.isdecimal() else f"{value}x"
    if isinstance(value, dict):
        return {name: other(each) for name, each in value.items()} or {"page": "1"}
    return [1] if isinstance(value, list) else None


LIES: tuple[tuple[str, str, Any], ...] = (
    *(("open_session", f"changed.0.after.{name}", other(SESSION[name])) for name in SESSION),
    *(("report_usage", f"changed.1.after.{name}", other(CHARGE[name])) for name in CHARGE),
    ("open_session", "asked.cap.amount", "0.09"),
    ("open_session", "asked.per_call.amount", "0.01"),
    ("open_session", "asked.agreement_id", "agr_" + "0" * 26),
    ("open_session", "moved.0.units", "1"),
    ("open_session", "moved.0.movement", "post"),
    ("open_session", "counted.0.units", "1"),
    ("open_session", "by.principal_id", "org_" + "0" * 26),
    ("report_usage", "asked.session_id", "ses_" + "0" * 26),
    ("report_usage", "facts.usage_root", "0" * 64),
    ("report_usage", "facts.usage_signature", sign_batch(VENDOR_KEY, "ses_" + "0" * 26, b"other")),
    ("report_usage", "facts.voucher", "a.b.c"),
    ("report_usage", "decided.amounts", ["1", *["0"] * 6]),
    ("report_usage", "decided.amounts", ["6000000"]),
    ("report_usage", "decided.amounts", [*reversed(AMOUNTS)]),
    ("report_usage", "decided.rejected", []),
    ("report_usage", "decided.rejected", [[0, "duplicate", 1]]),
    ("report_usage", "decided.span", [1, 2]),
    ("report_usage", "decided.lines.0.units", "1"),
    ("report_usage", "decided.billed", 1),
    ("report_usage", "changed.0.after.max_cum_units", "1"),
    ("report_usage", "changed.0.after.voucher_seq", 1),
    ("report_usage", "changed.0.after.spent_units", str(30 * PAGE_UNITS)),
    ("report_usage", "changed.0.after.per_call_units", "1"),
    ("report_usage", "moved.0.units", "1"),
    ("report_usage", "moved.1.credit", "org_x:vendor_pending:USD"),
    ("report_usage", "counted", [{"day": "2026-11-20", "grant_id": "gnt_x", "units": "1"}]),
    ("report_usage", "by.principal_id", "org_" + "0" * 26),
)  # fmt: skip


@pytest.mark.parametrize("told", [refunded, disputed])
def test_whatever_becomes_of_a_sessions_charge_is_proven(told: Any) -> None:
    found = told()
    findings = verify(gather(found.evidence()), frozenset({JOURNAL_KEY.thumbprint}))
    assert findings.bad == ""
    assert findings.charge_id == found.charge_id
    said = " ".join(findings.proved)
    assert "usage events of session ses_" in said
    assert "a voucher for calls up to 7" in said


@pytest.mark.parametrize(("operation", "member", "value"), LIES)
def test_a_lie_about_a_session_is_found_where_it_stands(
    operation: str, member: str, value: object
) -> None:
    forger = Forger(WHOLE)
    forger.lie(operation, member, value)

    assert forger.verdict().startswith(place(WHOLE, operation))


def test_the_report_of_another_session_is_found() -> None:
    trade = Trade.opened()
    told = billed(trade)
    stranger = Metered.opened(trade)
    stranger.report(events(1, 1, at_us=trade.room.now_us))
    forger = Forger(told)
    opened = [each for each in forger.documents if each["operation"] == "open_session"]
    seqs = told.seqs() - {opened[0]["seq"]} | {opened[1]["seq"]}

    assert forger.verdict(seqs) != ""


def test_a_report_after_its_time_is_found() -> None:
    forger = Forger(WHOLE)
    late_us = SESSION["expires_at_us"] + 300 * SECOND_US
    shift_us = late_us - forger.record("report_usage")["at_us"]
    for each in forger.documents:
        if each["seq"] >= forger.record("report_usage")["seq"]:
            each["at_us"] += shift_us
    forger.lie("report_usage", "changed.1.after.captured_at_us", late_us)
    closes_us = CHARGE["window_closes_at_us"] + shift_us
    forger.lie("report_usage", "changed.1.after.window_closes_at_us", closes_us)

    assert "it is reported too late" in forger.verdict()
