"""What a metering key may not do is found in a journal and in a charge's pack, whoever wrote it."""

from dataclasses import replace
from typing import Any

import pytest

from farthing.protocol.audit import verify_journal
from farthing.protocol.bundles import verify_bundle
from farthing.protocol.canonical import canonical_bytes
from farthing.protocol.faults import FaultKind
from farthing.protocol.keys import PrivateKey
from farthing.protocol.messages.listings import PUBLISH_LISTING
from farthing.protocol.replay.rulebook import Rulebook
from farthing.protocol.signatures import Typ, sign_detached
from tests.construction import publishing, vendor_key
from tests.keyholding import metering_key, revoke, rotate
from tests.papers import card_document, listing_document, signing_key, terms_document
from tests.protocol.bundling import bundled
from tests.protocol.evidence_market import JOURNAL_KEY, QUOTE_KEY, Told
from tests.protocol.forger import Forger
from tests.protocol.replay.metered import Metered, events

MACHINE, NEXT = "Vendor Two", "Vendor Three"
KEY = signing_key(MACHINE)


def told() -> Told:
    """A vendor sells with a metering key, replaces it, and publishes and refunds with its main."""
    told = Told.of()
    trade, room = told.trade, told.trade.room
    machine = metering_key(room, trade.vendor, MACHINE)
    record = room.capture(machine, trade.held(3), 3)
    told = Told(trade, record.changed[1].id)
    metered = Metered.opened(trade)
    metered.report(events(1, 2, at_us=room.now_us), by=machine)
    told.refund(1)
    card, terms = card_document(), terms_document()
    listing = listing_document(trade.vendor.principal_id, card, terms, name="Another")
    ask, body, facts = publishing(vendor_key(trade.vendor), listing, card, terms, room.key())
    room.done(trade.vendor, PUBLISH_LISTING, ask, body=body, facts=facts)
    assert rotate(room, trade.vendor, NEXT, machine.key_thumbprint).refused is None
    later = replace(machine, key_thumbprint=signing_key(NEXT).thumbprint)
    metered.report(events(2, 2, at_us=room.now_us), by=later)
    assert revoke(room, trade.vendor, later.key_thumbprint).refused is None
    return told


TOLD = told()


def fault_of(forger: Forger) -> tuple[str, FaultKind]:
    """The operation that breaks a rule in a whole journal, and which rule."""
    fault = verify_journal(forger.journal(), follow=Rulebook([QUOTE_KEY.public]).follow).fault
    assert fault is not None
    return forger.documents[fault.seq - 1]["operation"], fault.kind


def test_what_metering_keys_did_stays_proven_after_they_ended() -> None:
    records = TOLD.trade.room.journal

    assert verify_journal(records, follow=Rulebook([QUOTE_KEY.public]).follow).fault is None
    assert verify_bundle(bundled(records), frozenset({JOURNAL_KEY.thumbprint})).verified
    assert Forger(TOLD).verdict() == ""


@pytest.mark.parametrize("operation", ["refund_charge", "publish_listing", "open_session"])
def test_a_metering_key_that_asked_for_more_is_found(operation: str) -> None:
    forger = Forger(TOLD)
    if operation == "open_session":  # no payer, under whosever name
        forger.lie(operation, "by.principal_id", TOLD.trade.vendor.principal_id)
        forger.lie(operation, "by.organisation_id", TOLD.trade.vendor.principal_id)
    forger.lie(operation, "by.key_thumbprint", KEY.thumbprint)

    assert fault_of(forger) == (operation, FaultKind.KEY)
    bundle = verify_bundle(bundled(forger.journal()), frozenset({JOURNAL_KEY.thumbprint}))
    assert not bundle.verified
    assert "a metering key does not ask for it" in bundle.bad


def test_a_metering_key_that_asked_for_more_is_found_in_a_pack() -> None:
    forger = Forger(TOLD)
    forger.lie("refund_charge", "by.key_thumbprint", KEY.thumbprint)

    assert "(refund_charge): a metering key does not ask for it" in forger.verdict()


def test_a_listing_that_a_metering_key_signed_is_found() -> None:
    forger = Forger(TOLD)
    forger.sign("publish_listing", "listing", KEY, Typ.LISTING)

    assert fault_of(forger) == ("publish_listing", FaultKind.SIGNATURE)


ADD_KEY_LIES: tuple[tuple[str, Any], ...] = (
    ("changed.0.after.purpose", ""),
    ("changed.0.after.purpose", "another"),
    ("changed.0.after.principal_id", "org_" + "0" * 26),
    ("changed.0.after.status", "revoked"),
    ("changed.0.before", {}),
    ("asked.purpose", "another"),
    ("by.key_thumbprint", KEY.thumbprint),
)


@pytest.mark.parametrize(("member", "value"), ADD_KEY_LIES)
def test_a_lie_about_a_new_key_is_found(member: str, value: object) -> None:
    forger = Forger(TOLD)
    forger.lie("add_key", member, value)

    assert fault_of(forger) == ("add_key", FaultKind.KEY)
    assert "(add_key)" in forger.verdict()


@pytest.mark.parametrize(
    ("signer", "typ", "purpose"),
    [
        (signing_key("stranger"), Typ.NEW_KEY, "metering"),
        (KEY, Typ.ROTATION, "metering"),
        (KEY, Typ.NEW_KEY, "another"),
    ],
)
def test_a_new_key_that_its_holder_never_showed_is_found(
    signer: PrivateKey, typ: Typ, purpose: str
) -> None:
    forger = Forger(TOLD)
    shown = {
        "new": KEY.thumbprint,
        "principal": TOLD.trade.vendor.principal_id,
        "purpose": purpose,
    }
    possession = sign_detached(signer, typ, canonical_bytes(dict(shown)))
    forger.lie("add_key", "facts.possession", possession)

    assert fault_of(forger) == ("add_key", FaultKind.KEY)


def test_a_metering_key_that_is_replaced_by_a_main_key_is_found() -> None:
    forger = Forger(TOLD)
    del forger.record("rotate_key")["changed"][1]["after"]["purpose"]

    assert fault_of(forger) == ("rotate_key", FaultKind.KEY)


def test_a_replacement_of_another_key_than_was_named_is_found() -> None:
    forger = Forger(TOLD)
    del forger.record("rotate_key")["asked"]["replaces"]

    assert fault_of(forger) == ("rotate_key", FaultKind.KEY)


@pytest.mark.parametrize("operation", ["report_usage", "capture_hold"])
def test_a_metering_key_asks_for_nothing_before_it_began_or_after_it_ended(operation: str) -> None:
    forger = Forger(TOLD)
    thumbprint = KEY.thumbprint if operation == "report_usage" else signing_key(NEXT).thumbprint
    forger.lie(operation, "by.key_thumbprint", thumbprint)

    assert fault_of(forger) == (operation, FaultKind.KEY)
