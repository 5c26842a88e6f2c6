"""A platform that lies in its own journal, and seals the lie with its own key, is found out."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.protocol.canonical import canonical_bytes, parse_json
from farthing.protocol.evidence import gather, verify
from farthing.protocol.keys import PrivateKey
from farthing.protocol.rating import line_document, parse_card, rate
from farthing.protocol.signatures import Typ, sign_detached
from tests.construction import EPOCH_US
from tests.papers import signing_key
from tests.protocol.evidence_market import JOURNAL_KEY, QUOTE_KEY, Sealed, Told
from tests.protocol.forger import Forger, place
from tests.protocol.stories import (
    everything_that_can_happen,
    partly_used,
    reversed_for_silence,
    waiting_for_evidence,
)

VENDOR_KEY, AGENT_KEY = signing_key("Vendor One"), signing_key("Agent One")
STRANGER = signing_key("stranger")
A_TRANSFER = {"asset": "USD", "credit": "a", "debit": "b", "movement": "post", "units": "1"}
WHOLE = everything_that_can_happen()
LATE_US = EPOCH_US + 2**40
# What is counted from the time of a record, but for a hold's end, which makes a capture late.
SHIFTED = {"accepted_at_us", "captured_at_us", "evidence_due_at_us", "window_closes_at_us"}

# What it might write: (operation, member, value).
LIES: tuple[tuple[str, str, Any], ...] = (
    ("enrol_organisation", "changed.1.after.jwk.x", STRANGER.public.jwk()["x"]),
    ("enrol_organisation", "changed.1.after.status", "revoked"),
    ("enrol_organisation", "changed.1.after.principal_id", "org_" + "0" * 26),
    ("enrol_organisation", "changed.1.after.since_us", 1),
    ("enrol_organisation", "by.key_thumbprint", STRANGER.thumbprint),
    ("enrol_organisation", "changed.0.id", "org_" + "0" * 26),
    ("publish_listing", "by.organisation_id", "org_" + "0" * 26),
    ("capture_hold", "by.organisation_id", "org_" + "0" * 26),
    ("publish_listing", "moved", [A_TRANSFER]),
    ("accept_terms", "moved", [A_TRANSFER]),
    ("publish_listing", "facts.listing.name", "Another name"),
    ("publish_listing", "facts.signature", sign_detached(VENDOR_KEY, Typ.LISTING, b"other")),
    ("publish_listing", "facts.rate_card.dimensions.0.tiers.0.amount", "0.003"),
    ("publish_listing", "facts.terms.terms_id", "other-terms"),
    ("publish_listing", "changed.0.after.version", 2),
    ("publish_listing", "changed.0.after.terms_sha256", "0" * 64),
    ("publish_listing", "changed.0.after.output_schema_sha256", "0" * 64),
    ("publish_listing", "by.key_thumbprint", STRANGER.thumbprint),
    ("accept_terms", "facts.quote.total_units", "2000001"),
    ("accept_terms", "facts.quote.expires_at_us", 2**52),
    ("accept_terms", "facts.quote_signature", sign_detached(QUOTE_KEY, Typ.QUOTE, b"other")),
    ("accept_terms", "facts.acceptance.nonce", "1" * 32),
    ("accept_terms", "changed.0.after.operator_id", "org_" + "0" * 26),
    ("accept_terms", "changed.0.after.rate_card_sha256", "0" * 64),
    ("accept_terms", "changed.0.after.dispute_window_s", 1),
    ("accept_terms", "changed.0.after.quote_sha256", "0" * 64),
    ("accept_terms", "changed.0.after.acceptance_sha256", "0" * 64),
    ("accept_terms", "changed.0.after.accepted_at_us", 1),
    ("accept_terms", "request.key", "another-key-0000"),
    ("place_hold", "changed.0.after.amount_units", "23000001"),
    ("place_hold", "changed.0.after.position", {"page": "1"}),
    ("place_hold", "changed.0.after.expires_at_us", 2**52),
    ("place_hold", "changed.0.after.args_sha256", "0" * 64),
    ("place_hold", "decided.lines.0.units", "23000001"),
    ("place_hold", "moved.0.units", "23000001"),
    ("place_hold", "moved.0.movement", "post"),
    ("place_hold", "counted.0.units", "1"),
    ("place_hold", "asked.agreement_id", "agr_" + "0" * 26),
    ("capture_hold", "facts.delivery.usage.0.quantity", "11"),
    ("capture_hold", "facts.delivery.result_sha256", "0" * 64),
    ("capture_hold", "facts.delivery_signature", sign_detached(VENDOR_KEY, Typ.DELIVERY, b"")),
    ("capture_hold", "asked.hold_id", "hld_" + "0" * 26),
    ("capture_hold", "decided.lines.0.units", "1"),
    ("capture_hold", "changed.0.after.status", "open"),
    ("capture_hold", "changed.1.after.amount_units", "22999999"),
    ("capture_hold", "changed.1.after.fee_units", "0"),
    ("capture_hold", "changed.1.after.refunded_units", "1"),
    ("capture_hold", "changed.1.after.usage", {"page": "11"}),
    ("capture_hold", "changed.1.after.result_sha256", "0" * 64),
    ("capture_hold", "changed.1.after.window_closes_at_us", 1),
    ("capture_hold", "changed.2.after.page", "11"),
    ("capture_hold", "changed.2.id", "agr_" + "0" * 26),
    ("capture_hold", "moved.1.units", "22424999"),
    ("capture_hold", "moved.2.units", "575001"),
    ("capture_hold", "moved.1.credit", "org_x:vendor_pending:USD"),
    ("refund_charge", "asked.amount.amount", "0.004"),
    ("refund_charge", "decided.units", "3000002"),
    ("refund_charge", "moved.0.units", "1"),
    ("refund_charge", "changed.0.after.refunded_units", "3000002"),
    ("refund_charge", "changed.0.after.fee_returned_units", "0"),
    ("refund_charge", "by.principal_id", "org_" + "0" * 26),
    ("initiate_dispute", "decided.ruling.outcome", "credit"),
    ("initiate_dispute", "decided.case.charged_units", "1"),
    ("initiate_dispute", "asked.charge_id", "chg_" + "0" * 26),
    ("initiate_dispute", "asked.reason", "calculation_error"),
    ("initiate_dispute", "moved.0.units", "1"),
    ("initiate_dispute", "changed.1.after.held_net_units", "1"),
    ("initiate_dispute", "changed.0.after.status", "pending"),
    ("submit_evidence", "decided.case.evidence.schema_valid", False),
    ("submit_evidence", "decided.case.evidence.body_sha256", "b" * 64),
    ("submit_evidence", "decided.ruling.credit_units", "1"),
    ("submit_evidence", "asked.dispute_id", "dsp_" + "0" * 26),
    ("submit_evidence", "asked.body_sha256", "d" * 64),
    ("submit_evidence", "moved.0.credit", "org_x:prepaid:USD"),
    ("submit_evidence", "changed.1.after.outcome", "reject"),
    ("submit_evidence", "changed.0.after.refunded_units", "0"),
    ("settle_charge", "changed.0.after.status", "pending"),
    ("settle_charge", "changed.0.after.trail_seqs", []),
    ("settle_charge", "moved", [A_TRANSFER]),
    ("settle_charge", "at_us", EPOCH_US),
    ("settle_charge", "by.principal_id", "org_" + "0" * 26),
    ("settle_charge", "refused", {"code": "not_found"}),
)


def test_a_journal_written_anew_without_a_lie_is_the_same_journal() -> None:
    forger = Forger(WHOLE)

    assert forger.journal() == WHOLE.trade.room.journal
    assert forger.verdict() == ""


@pytest.mark.parametrize(("operation", "member", "value"), LIES)
def test_a_lie_is_found_where_it_stands(operation: str, member: str, value: object) -> None:
    forger = Forger(WHOLE)
    forger.lie(operation, member, value)

    assert forger.verdict().startswith(place(WHOLE, operation))


# What only the platform knows: its share, and how far other charges have advanced the position.
UNPROVEN = {("accept_terms", "changed.0.after.fee_ppm")}
OPERATIONS = (
    "publish_listing",
    "accept_terms",
    "place_hold",
    "capture_hold",
    "refund_charge",
    "initiate_dispute",
    "submit_evidence",
    "settle_charge",
)


def members() -> Iterator[tuple[str, str, object]]:
    """Every member of every thing that a trade's records leave, and another value for it."""
    for operation in OPERATIONS:
        for number, each in enumerate(Forger(WHOLE).record(operation)["changed"]):
            for name, value in each["after"].items():
                if isinstance(value, dict):
                    other: object = {"page": "99"}
                elif isinstance(value, list):
                    other = [*value, 99]
                else:
                    other = f"{value}0" if isinstance(value, str) else value + 1
                if each["noun"] != "position":
                    yield operation, f"changed.{number}.after.{name}", other


@pytest.mark.parametrize(("operation", "member", "value"), list(members()))
def test_every_member_of_every_thing_is_proven(operation: str, member: str, value: object) -> None:
    forger = Forger(WHOLE)
    forger.lie(operation, member, value)
    found = forger.verdict().startswith(place(WHOLE, operation))

    assert found is ((operation, member) not in UNPROVEN)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("vendor_id", "org_" + "0" * 26),
        ("rate_card_sha256", "0" * 64),
        ("terms_sha256", "0" * 64),
    ],
)
def test_a_listing_signed_over_a_lie_is_found(member: str, value: str) -> None:
    forger = Forger(WHOLE)
    forger.lie("publish_listing", f"facts.listing.{member}", value)
    sha256 = forger.sign("publish_listing", "listing", VENDOR_KEY, Typ.LISTING)
    forger.lie("publish_listing", "changed.0.after.listing_sha256", sha256)
    forger.lie("publish_listing", f"changed.0.after.{member}", value)

    assert forger.verdict().startswith(place(WHOLE, "publish_listing"))


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("buyer_id", "agt_" + "0" * 26),
        ("operator_id", "org_" + "0" * 26),
        ("vendor_id", "org_" + "0" * 26),
        ("listing_id", "lst_" + "0" * 26),
        ("listing_version", 2),
        ("listing_sha256", "0" * 64),
        ("rate_card_sha256", "0" * 64),
        ("terms_sha256", "0" * 64),
        ("asset", "EUR"),
        ("expires_at_us", EPOCH_US),
        ("workload", [{"meter": "page", "quantity": "2"}]),
        ("position", [{"meter": "page", "quantity": "1"}]),
    ],
)
def test_a_quote_signed_over_a_lie_is_found(member: str, value: object) -> None:
    """Signed by the platform, accepted by the buyer, recorded: and still not what was offered."""
    forger = Forger(WHOLE)
    record = forger.record("accept_terms")
    quote, acceptance = record["facts"]["quote"], record["facts"]["acceptance"]
    quote["issued_at_us"] -= 1
    acceptance["accepted_at_us"] -= 1
    quote[member] = value
    acceptance["quote_sha256"] = forger.sign("accept_terms", "quote", QUOTE_KEY, Typ.QUOTE)
    if member in acceptance:
        acceptance[member] = value
    acceptance_sha256 = forger.sign("accept_terms", "acceptance", AGENT_KEY, Typ.ACCEPTANCE)
    after = record["changed"][0]["after"]
    after |= {"quote_sha256": acceptance["quote_sha256"], "acceptance_sha256": acceptance_sha256}
    if member in after:
        after[member] = value

    assert forger.verdict().startswith(place(WHOLE, "accept_terms"))


@pytest.mark.parametrize("member", ["quote_sha256", "listing_sha256", "terms_sha256"])
def test_an_acceptance_of_something_else_is_found(member: str) -> None:
    forger = Forger(WHOLE)
    forger.lie("accept_terms", f"facts.acceptance.{member}", "0" * 64)
    sha256 = forger.sign("accept_terms", "acceptance", AGENT_KEY, Typ.ACCEPTANCE)
    forger.lie("accept_terms", "changed.0.after.acceptance_sha256", sha256)

    assert forger.verdict().startswith(place(WHOLE, "accept_terms"))


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("hold_id", "hld_" + "0" * 26),
        ("agreement_id", "agr_" + "0" * 26),
        ("vendor_id", "org_" + "0" * 26),
        ("listing_id", "lst_" + "0" * 26),
        ("args_sha256", "0" * 64),
        ("output_schema_sha256", "0" * 64),
        ("usage", [{"meter": "page", "quantity": "11"}]),
        ("usage", [{"meter": "page", "quantity": "13"}]),
        ("usage", [{"meter": "word", "quantity": "1"}]),
        ("result_sha256", "0" * 64),
    ],
)
def test_a_delivery_record_signed_for_something_else_is_found(member: str, value: object) -> None:
    forger = Forger(WHOLE)
    forger.lie("capture_hold", f"facts.delivery.{member}", value)
    forger.sign("capture_hold", "delivery", VENDOR_KEY, Typ.DELIVERY)

    assert forger.verdict().startswith(place(WHOLE, "capture_hold"))


def test_more_than_was_held_is_found_however_well_it_is_rated() -> None:
    forger = Forger(WHOLE)
    usage: Any = [{"meter": "page", "quantity": "13"}]
    card = parse_card(forger.record("publish_listing")["facts"]["rate_card"])
    lines = [line_document(line) for line in rate(card, {}, {"page": 13}).lines]
    forger.lie("capture_hold", "facts.delivery.usage", usage)
    forger.sign("capture_hold", "delivery", VENDOR_KEY, Typ.DELIVERY)
    forger.lie("capture_hold", "decided.lines", lines)

    assert "more is captured than was held" in forger.verdict()


@pytest.mark.parametrize(
    ("operation", "fact", "typ"),
    [
        ("publish_listing", "listing", Typ.LISTING),
        ("accept_terms", "quote", Typ.QUOTE),
        ("accept_terms", "acceptance", Typ.ACCEPTANCE),
        ("capture_hold", "delivery", Typ.DELIVERY),
    ],
)
@pytest.mark.parametrize("key", [STRANGER, JOURNAL_KEY], ids=["stranger", "journal"])
def test_a_signature_by_anothers_key_is_found(
    operation: str, fact: str, typ: Typ, key: PrivateKey
) -> None:
    forger = Forger(WHOLE)
    forger.sign(operation, fact, key, typ)
    sealed = Sealed(forger.journal())
    evidence = sealed.evidence(WHOLE.charge_id, WHOLE.seqs(), also=key)

    assert verify(gather(evidence)).bad.startswith(place(WHOLE, operation)) is (fact != "quote")


PLATFORM = {"principal_id": "platform"}
AGENT = Forger(WHOLE).record("place_hold")["by"]
VENDOR = Forger(WHOLE).record("capture_hold")["by"]


@pytest.mark.parametrize(
    ("operation", "impostor"),
    [
        ("publish_listing", AGENT),
        ("accept_terms", VENDOR),
        ("place_hold", VENDOR),
        ("capture_hold", AGENT),
        ("refund_charge", AGENT),
        ("refund_charge", PLATFORM),
        ("initiate_dispute", VENDOR),
        ("submit_evidence", AGENT),
        ("settle_charge", VENDOR),
    ],
)
def test_what_another_party_asked_for_is_found(operation: str, impostor: object) -> None:
    forger = Forger(WHOLE)
    forger.lie(operation, "by", impostor)

    assert forger.verdict().startswith(place(WHOLE, operation))


def test_a_case_that_is_closed_early_or_by_another_is_found() -> None:
    told = reversed_for_silence()
    for member, value in (("at_us", EPOCH_US), ("by", VENDOR)):
        forger = Forger(told)
        forger.lie("close_evidence", member, value)
        assert forger.verdict().startswith(place(told, "close_evidence"))


def test_a_grant_charged_for_more_than_was_used_is_found() -> None:
    told = partly_used()
    forger = Forger(told)
    forger.lie("capture_hold", "counted.0.units", "-1")

    assert forger.verdict().startswith(place(told, "capture_hold"))


def test_an_operation_under_another_name_is_found() -> None:
    forger = Forger(WHOLE)
    seq = forger.record("settle_charge")["seq"]
    forger.lie("settle_charge", "operation", "close_evidence")

    assert forger.verdict().startswith(f"record {seq} ")


def test_a_record_dated_before_the_one_before_it_is_found() -> None:
    forger = Forger(WHOLE)
    forger.lie("settle_charge", "at_us", 1)

    assert "dated before" in forger.verdict()


def test_a_record_that_names_another_predecessor_is_found() -> None:
    forger = Forger(WHOLE)
    journal = forger.journal()
    last = parse_json(journal[-1])
    assert isinstance(last, dict)
    last["prev"] = "0" * 64
    sealed = Sealed([*journal[:-1], canonical_bytes(last)])

    assert "does not follow" in verify(gather(sealed.evidence(WHOLE.charge_id, WHOLE.seqs()))).bad


@pytest.mark.parametrize(
    ("story", "operation"),
    [
        (Told.of, "accept_terms"),
        (Told.of, "capture_hold"),
        (waiting_for_evidence, "initiate_dispute"),
    ],
    ids=["agreement", "capture", "dispute"],
)
def test_what_came_too_late_is_found(story: Callable[[], Told], operation: str) -> None:
    forger = Forger(story())
    late = forger.record(operation)["seq"]
    for each in forger.documents[late - 1 :]:
        by_us = LATE_US - each["at_us"]
        each["at_us"] = LATE_US
        for after in (change["after"] for change in each["changed"]):
            for name in SHIFTED & after.keys():
                after[name] += by_us

    assert forger.verdict().startswith(place(forger.told, operation))


@settings(max_examples=40)
@given(
    fee_ppm=st.integers(0, 1_000_000),
    held=st.integers(1, 40),
    data=st.data(),
)
def test_whatever_becomes_of_a_charge_is_proven(
    fee_ppm: int, held: int, data: st.DataObject
) -> None:
    told = Told.of(pages=data.draw(st.integers(0, held)), held=held, room={"fee_ppm": fee_ppm})
    for _ in range(data.draw(st.integers(0, 2))):
        charge = told.trade.room.state.charges[told.charge_id]
        left_units = charge.amount_units - charge.refunded_units
        if left_units:
            told.refund(data.draw(st.integers(1, left_units)))
    charge = told.trade.room.state.charges[told.charge_id]
    if charge.amount_units > charge.refunded_units:
        reason = data.draw(st.sampled_from(["", "not_delivered", "calculation_error"]))
        dispute_id = told.dispute(reason) if reason else ""
        answer = data.draw(st.sampled_from(["", "b" * 64, "c" * 64]))
        if reason == "not_delivered" and answer:
            told.answer(dispute_id, answer, schema_valid=data.draw(st.booleans()))
    told.trade.room.advance(data.draw(st.sampled_from([0, 61, 601])))

    assert Forger(told).verdict() == ""
