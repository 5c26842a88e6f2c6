"""A thousand simulated lives without a finding, each the same whenever it is lived again.

`python -m tests.simulation --seed N --verbose` lives one of them step by step.
"""

import logging
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.simulation.auditor import Auditor, Json
from tests.simulation.disk import drive_missing, plugged
from tests.simulation.life import live
from tests.simulation.lives import ON_DISK, WITH_INDEX, Lives, one, smallest
from tests.simulation.rules import judge
from tests.simulation.sessions_rules import part_of
from tests.simulation.weather import Attic

LIVES = 1_000
LOT = 50
FEW = 40
# What that many lives must have met, or they are not what they were.
OPERATIONS = frozenset({
    "accept_terms", "approve_registration", "cancel_payout", "capture_hold",
    "close_account", "close_evidence",
    "confirm_payout", "confirm_top_up", "create_top_up", "enrol_organisation", "expire_hold",
    "expire_top_up", "fail_top_up", "freeze", "fund_account", "initiate_dispute", "place_hold",
    "process_event", "publish_listing", "refund_charge", "register_agent", "release_hold",
    "request_payout", "reverse_payout", "reverse_top_up", "revoke_authority", "revoke_key",
    "rotate_key", "send_payout", "set_authority", "settle_charge", "submit_evidence",
    "terminate_agreement", "unfreeze",
    "withdraw_credit", "withdraw_funds", "withdraw_listing",
    "approve_allowance", "propose_allowance", "close_session", "expire_session",
    "open_session", "report_usage", "top_up_session", "correct_usage", "add_key",
    "abandon_hold", "accept_answer", "call_service",
})  # fmt: skip
REFUSALS = frozenset({
    "capture_hold:capture_exceeds_hold", "capture_hold:hold_expired", "capture_hold:hold_resolved",
    "capture_hold:idempotency_conflict", "capture_hold:answer_awaited",
    "call_service:budget_exceeded", "initiate_dispute:already_disputed",
    "initiate_dispute:dispute_window_closed", "place_hold:agreement_ended",
    "place_hold:authority_missing", "place_hold:budget_exceeded", "place_hold:frozen",
    "place_hold:insufficient_funds", "place_hold:key_revoked",
    "place_hold:per_call_limit_exceeded", "place_hold:proof_expired", "place_hold:proof_replayed",
    "place_hold:unavailable", "refund_charge:refund_exceeds_charge", "request_payout:frozen",
    "request_payout:insufficient_funds", "reverse_top_up:insufficient_funds",
    "submit_evidence:dispute_decided",
    "close_session:session_closed", "open_session:agreement_ended", "open_session:asset_mismatch",
    "open_session:budget_exceeded", "open_session:frozen", "open_session:insufficient_funds",
    "open_session:per_call_limit_exceeded", "report_usage:idempotency_conflict",
    "report_usage:session_closed", "report_usage:signature_invalid", "report_usage:usage_invalid",
    "initiate_dispute:not_disputable", "top_up_session:asset_mismatch",
    "top_up_session:session_closed", "place_hold:allowance_exceeded",
    "correct_usage:refund_exceeds_charge", "correct_usage:signature_invalid",
    "correct_usage:usage_invalid",
    # Events of batches that were taken.
    "report_usage:after_end", "report_usage:before_session", "report_usage:beyond_voucher",
    "report_usage:duplicate", "report_usage:frozen", "report_usage:in_future",
    "report_usage:out_of_window", "report_usage:over_allowance", "report_usage:over_cap",
    "report_usage:over_per_call", "report_usage:unknown_meter",
})  # fmt: skip

# And so often at least, in a hundred.
MEETINGS = {
    "accept_answer of 2 meters": 5,
    "by mac": 50,
    "capture_hold of 2 meters": 5,
    "ceiling": 10,
    "correct_usage of 2 meters": 2,
    "floor": 10,
    "half_even": 10,
    "half_up": 10,
    "report_usage of 2 meters": 20,
    "report_usage of 3 meters": 3,
}


@pytest.fixture(autouse=True)
def _nothing_is_logged() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("first", range(1, LIVES + 1, LOT))
def test_lives_without_a_finding(first: int) -> None:
    lives = Lives()
    for seed in range(first, first + LOT):
        lives.live(seed, one(seed))

    assert lives.findings == []
    assert lives.crashes > LOT
    assert lives.records > 30 * LOT


def test_a_few_lives_without_a_finding() -> None:
    """What `make faults` breaks lines under: few enough for a test of its own."""
    findings = [told.finding for told in map(one, range(FEW)) if told.finding]

    assert findings == []


def test_lives_meet_all_that_there_is_to_meet() -> None:
    told = [live(seed, Attic()) for seed in range(1, 161)]

    assert frozenset().union(*(each.operations for each in told)) >= OPERATIONS
    assert frozenset().union(*(each.codes for each in told)) >= REFUSALS


def test_lives_meet_several_meters_and_calls_paid_by_macs(monkeypatch: pytest.MonkeyPatch) -> None:
    met: Counter[str] = Counter()

    def watched(books: Auditor, record: Json) -> None:
        judge(books, record)
        met.update(_met_in(record))

    monkeypatch.setattr("tests.simulation.life.judge", watched)
    for seed in range(1, 101):
        live(seed, Attic())

    assert met >= Counter(MEETINGS)


def _met_in(record: Json) -> Iterator[str]:
    if "refused" in record:
        return
    operation = record["operation"]
    charges = [each["after"] for each in record.get("changed", ()) if each["noun"] == "charge"]
    for charge in charges:
        meters = sum(quantity != "0" for quantity in charge["usage"].values())
        if operation in {"accept_answer", "capture_hold", "report_usage"} and meters > 1:
            yield f"{operation} of {meters} meters"
    if operation == "correct_usage":
        calls = record["facts"]["correction"]["corrections"]
        yield f"correct_usage of {max(len(each['usage']) for each in calls)} meters"
    if operation == "report_usage":
        yield from ["by mac"] * ("mac_sha256" in part_of(record["facts"]["voucher"], 1))
    if operation == "publish_listing":
        yield str(record["facts"]["rate_card"]["rounding"])


@pytest.mark.parametrize("seed", [7, ON_DISK, WITH_INDEX])
def test_the_same_seed_is_the_same_life_to_the_byte(seed: int) -> None:
    first, second = one(seed), one(seed)

    assert first == second
    assert first.records > 30


def test_a_disk_can_be_simulated_here() -> None:
    if reason := drive_missing():
        pytest.skip(reason)
    with plugged() as drive:
        told = live(ON_DISK, drive)

    assert told.finding == ""
    assert told.crashes > 0


def test_a_finding_comes_with_the_steps_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.simulation.rules.share", lambda units, ppm: units * ppm)
    told = next(each for each in map(one, range(1, 50)) if each.finding)

    skip = smallest(told)
    again = one(told.seed, steps=told.step, skip=skip)

    assert "the fee is another one" in told.finding
    assert 0 < len(skip) < told.step
    assert (again.step, bool(again.finding)) == (told.step, True)
