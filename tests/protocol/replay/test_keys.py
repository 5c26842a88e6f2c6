"""Who held which key when is proven by the journal, and a lie about it is found."""

from typing import Any

import pytest

from farthing.protocol.signatures import Typ
from tests.papers import signing_key
from tests.protocol.evidence_market import Told
from tests.protocol.forger import Forger, place
from tests.protocol.stories import captured_with_a_rotated_key, everything_that_can_happen

VENDOR_KEY, STRANGER = signing_key("Vendor One"), signing_key("stranger")
WHOLE = everything_that_can_happen()
ROTATED = captured_with_a_rotated_key()

ROTATION_LIES: tuple[tuple[str, Any], ...] = (
    ("by.key_thumbprint", STRANGER.thumbprint),
    ("by.principal_id", "org_" + "0" * 26),
    ("changed.0.id", STRANGER.thumbprint),
    ("changed.0.after.status", "active"),
    ("changed.0.after.until_us", 0),
    ("changed.0.after.jwk", STRANGER.public.jwk()),
    ("changed.0.before.since_us", 1),
    ("changed.1.after.jwk", STRANGER.public.jwk()),
    ("changed.1.after.principal_id", "org_" + "0" * 26),
    ("changed.1.after.status", "retired"),
    ("changed.1.after.seq", 1),
    ("changed.1.before", {}),
    ("changed.1.id", VENDOR_KEY.thumbprint),
)


@pytest.mark.parametrize(("member", "value"), ROTATION_LIES)
def test_a_lie_about_a_rotation_is_found(member: str, value: object) -> None:
    forger = Forger(ROTATED)
    forger.lie("rotate_key", member, value)

    assert forger.verdict().startswith(place(ROTATED, "rotate_key"))


def test_a_retired_key_signs_and_asks_for_nothing_more() -> None:
    for forge in (retired_signature, retired_caller):
        forger = Forger(ROTATED)
        forge(forger)
        assert forger.verdict().startswith(place(ROTATED, "capture_hold"))


def retired_signature(forger: Forger) -> None:
    forger.sign("capture_hold", "delivery", VENDOR_KEY, Typ.DELIVERY)


def retired_caller(forger: Forger) -> None:
    forger.lie("capture_hold", "by.key_thumbprint", VENDOR_KEY.thumbprint)


def test_the_keys_of_a_stranger_are_found() -> None:
    told = Told.of()
    seq = len(told.trade.room.journal) + 1
    told.trade.room.organisation("operator", "Operator Two")

    assert "stranger" in Forger(told).verdict(told.seqs() | {seq})


def test_an_id_that_is_not_made_of_its_first_key_is_found() -> None:
    forger = Forger(WHOLE)
    for member in ("0.id", "0.after.principal_id", "0.after.organisation_id"):
        forger.lie("enrol_organisation", f"changed.{member}", "org_" + "0" * 26)
    forger.lie("enrol_organisation", "changed.1.after.principal_id", "org_" + "0" * 26)

    assert forger.verdict().startswith(place(WHOLE, "enrol_organisation"))


def test_an_agent_that_acts_for_a_stranger_is_found() -> None:
    forger = Forger(WHOLE)
    forger.lie("register_agent", "changed.0.after.organisation_id", "org_" + "0" * 26)

    assert forger.verdict().startswith(place(WHOLE, "accept_terms"))
