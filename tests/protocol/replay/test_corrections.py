"""What was taken back of billed usage is proven anew; a lie in any part of it is found."""

from collections.abc import Iterator
from typing import Any

import pytest

from farthing.protocol.corrections import CallBack, Correction, calls_document
from farthing.protocol.evidence import gather, verify
from farthing.protocol.signatures import Typ
from tests.construction import Trade
from tests.protocol.evidence_market import JOURNAL_KEY, Told
from tests.protocol.forger import Forger, place
from tests.protocol.replay.correcting import charge_of, corrected
from tests.protocol.replay.forging import audited
from tests.protocol.replay.metered import Metered, events
from tests.protocol.replay.test_billing import VENDOR_KEY, other
from tests.protocol.replay.test_sessions import with_credit
from tests.settlement.engine.test_allowances import approved, proposed

DAY_S = 86_400
CORRECT = "correct_usage"


def told(trade: Trade) -> Told:
    """A charge that is corrected before and after its vendor's share is payable."""
    session = Metered.opened(trade, cap=20 * 2_000_000, expires_in_s=600)
    at_us = trade.room.now_us
    charge_id = charge_of(session.report(events(1, 3, 2, 0, 4, 1, at_us=at_us)))
    session.report(events(6, 1, 5, at_us=at_us))
    corrected(trade, charge_id, {1: 1})
    found = Told(trade, charge_id)
    found.refund(1_000_001)
    corrected(trade, charge_id, {4: 1, 5: 1})
    trade.room.advance(10**5)
    corrected(trade, charge_id, {2: 1})
    return found


def allowed() -> Told:
    """The same under an allowance that counts days, of which two go by."""
    trade = with_credit()
    proposed(trade, trade.agent, per_day=40, in_all=60)
    approved(trade, trade.vendor)
    return told(trade)


WHOLE = told(with_credit())
RECORD = Forger(WHOLE).record(CORRECT)


def parts(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every leaf of a document, by its path."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from parts(each, f"{path}.{name}")
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for number, each in enumerate(value):
            yield from parts(each, f"{path}.{number}")
    else:
        yield path, value


# What becomes of a lot is its operator's, and told by no charge.
LOTS = {f"changed.{n}" for n, each in enumerate(RECORD["changed"]) if each["noun"] == "lot"}
LIES = [
    (path, "void" if path.endswith("movement") else other(value))
    for name in ("asked", "changed", "decided", "facts", "moved")
    for path, value in parts(RECORD[name], name)
    if not any(path.startswith(lot) for lot in LOTS)
]


def test_corrections_in_order_break_no_rule() -> None:
    for found in (WHOLE, allowed(), told(Trade.opened())):
        findings = audited(found.trade.room.journal)
        assert findings.ok, findings.fault


@pytest.mark.parametrize(("path", "value"), LIES, ids=[path for path, _ in LIES])
def test_a_lie_about_a_correction_is_found_where_it_stands(path: str, value: Any) -> None:
    forger = Forger(WHOLE)
    forger.lie(CORRECT, path, value)
    fault = audited(forger.journal()).fault
    assert fault is not None
    assert fault.seq == RECORD["seq"], fault
    assert forger.verdict().startswith(place(WHOLE, CORRECT))


def signed_anew(*calls: CallBack, **record: Any) -> Forger:
    """A platform that has the vendor's hand, and says with it what it likes."""
    forger = Forger(WHOLE)
    correction = Correction(charge_id=WHOLE.charge_id, calls=calls)
    forger.lie(CORRECT, "facts.correction", correction.document())
    sha256 = forger.sign(CORRECT, "correction", VENDOR_KEY, Typ.CORRECTION)
    forger.lie(CORRECT, "asked.correction_sha256", sha256)
    forger.lie(CORRECT, "asked.calls", len(calls))
    for path, value in record.items():
        forger.lie(CORRECT, path.replace("__", "."), value)
    return forger


@pytest.mark.parametrize(
    "calls",
    [
        [CallBack(1, {"page": 1})],
        [CallBack(2, {"page": 3})],
        [CallBack(2, {"page": 2})],
        [CallBack(2, {"word": 1})],
        [CallBack(3, {"page": 1})],
        [CallBack(6, {"page": 1})],
        [CallBack(4, {"page": 1}), CallBack(2, {"page": 1})],
        [],
    ],
    ids=["again", "too much", "more", "another meter", "unused", "another charge", "order", "none"],
)
def test_what_the_calls_did_not_use_is_not_taken_back_by_any_signature(
    calls: list[CallBack],
) -> None:
    forger = signed_anew(*calls)
    fault = audited(forger.journal()).fault
    assert fault is not None
    assert fault.seq == RECORD["seq"]
    assert forger.verdict().startswith(place(WHOLE, CORRECT))


def test_calls_that_had_used_more_than_their_charge_says_are_found() -> None:
    billed = [CallBack(1, {"page": 3}), CallBack(2, {"page": 20})]
    forger = signed_anew(CallBack(2, {"page": 9}), facts__billed=calls_document(billed))
    fault = audited(forger.journal()).fault
    assert fault is not None
    assert "the charge's calls had used something else" in fault.why
    assert "the calls had used something else" in forger.verdict()


def test_a_correction_that_another_signed_is_found() -> None:
    forger = Forger(WHOLE)
    forger.sign(CORRECT, "correction", JOURNAL_KEY, Typ.CORRECTION)
    fault = audited(forger.journal()).fault
    assert fault is not None
    assert (fault.kind, fault.seq) == ("signature", RECORD["seq"])
    assert "unknown_key" in forger.verdict()


@pytest.mark.parametrize("found", [WHOLE, allowed()], ids=["with credit", "with an allowance"])
def test_a_pack_proves_what_was_taken_back(found: Told) -> None:
    findings = verify(gather(found.evidence()), frozenset({JOURNAL_KEY.thumbprint}))
    assert findings.bad == ""
    said = " ".join(findings.proved)
    assert "the vendor signed that 2 of the calls had used less" in said
    assert "the vendor signed that 1 of the calls had used less" in said


def test_use_that_is_taken_back_on_its_day_is_free_again_and_counted_so() -> None:
    found = allowed()
    allowance = found.trade.room.state.allowances[found.trade.agreement_id]
    assert found.trade.room.state.positions[found.trade.agreement_id] == {"page": 12}
    forger = Forger(found)
    places = [
        number
        for number, each in enumerate(forger.record(CORRECT)["changed"])
        if each["noun"] == "allowance"
    ]
    forger.lie(CORRECT, f"changed.{places[0]}.after.used_today", {"page": "1"})
    assert allowance.used_today == {}
    fault = audited(forger.journal()).fault
    assert fault is not None
    assert "its allowance does not follow" in fault.why
