"""A metering key meters and does nothing else, whatever is asked with it and however it is sent."""

from dataclasses import replace
from typing import Any

import pytest

from farthing.identity.callers import Caller
from farthing.protocol.errors import Code, Refusal
from farthing.protocol.messages.holds import RELEASE_HOLD, ReleaseHold
from farthing.protocol.messages.operations import OPERATIONS
from farthing.protocol.purposes import KEYS_MAX, may_call, may_sign
from farthing.protocol.records import Record
from farthing.protocol.signatures import Typ
from farthing.protocol.wire import Effect, KeyPurpose, Role
from farthing.settlement.engine.commands import Command
from farthing.settlement.engine.decide import decide
from farthing.settlement.engine.principals import key_answer
from tests.construction import Room, Trade
from tests.keyholding import add_key, metering_key, revoke, rotate
from tests.protocol.replay.metered import PAGE_UNITS as PAGE
from tests.protocol.replay.metered import Metered, events
from tests.settlement.engine.test_sessions import market

METERING_WRITES = {"report_usage", "capture_hold", "release_hold"}
METERING_READS = {
    "get_agreement",
    "get_allowance",
    "get_hold",
    "get_registration",
    "get_session",
}
PUBLIC = {name for name, operation in OPERATIONS.items() if operation.public}
WRITES = sorted(name for name, each in OPERATIONS.items() if each.effect is not Effect.READS)

MACHINE, OTHER = "Vendor Two", "Vendor Three"


def asked(room: Room, by: Caller, operation: str) -> Any:
    """What the engine says to an ask with nothing in it: what it never reads is never judged."""
    by = replace(by, proof_jti=room.key(), proof_expires_at_us=room.now_us + 1)
    command = Command(
        operation=operation,
        by=by,
        idempotency_key=room.key(),
        request_sha256="",
        args_sha256={},
        body=None,
    )
    return decide(room.state, command, room.now_us)


def code_of(decision: Record | Refusal | Any) -> Code | None:
    refusal = decision if isinstance(decision, Refusal) else decision.refusal
    return refusal.code if refusal else None


def test_the_operations_and_documents_of_a_metering_key_are_a_closed_list() -> None:
    called = {name for name in OPERATIONS if may_call(KeyPurpose.METERING, name)}
    signed = {typ for typ in Typ if may_sign(KeyPurpose.METERING, typ)}

    assert called == METERING_WRITES | METERING_READS | PUBLIC
    assert signed == {Typ.DELIVERY, Typ.GATEWAY, Typ.REQUEST, Typ.USAGE}
    for name in METERING_WRITES | METERING_READS:
        assert Role.VENDOR in OPERATIONS[name].roles


@pytest.mark.parametrize("purpose", ["another", "METERING", " "])
def test_a_purpose_that_nobody_knows_is_for_nothing(purpose: str) -> None:
    assert not any(may_call(purpose, name) for name in OPERATIONS)
    assert not any(may_sign(purpose, typ) for typ in Typ)


@pytest.mark.parametrize("operation", sorted({*WRITES} - METERING_WRITES))
def test_whatever_is_no_metering_is_refused_before_it_is_read(operation: str) -> None:
    trade = Trade.opened()
    machine = metering_key(trade.room, trade.vendor, MACHINE)

    for told in (machine, replace(machine, purpose="")):
        refusal = asked(trade.room, told, operation)
        assert isinstance(refusal, Refusal)
        assert refusal.code is Code.NOT_PERMITTED


@pytest.mark.parametrize("operation", sorted(METERING_WRITES))
def test_what_is_metering_is_not(operation: str) -> None:
    trade = Trade.opened()
    machine = metering_key(trade.room, trade.vendor, MACHINE)

    with pytest.raises(AssertionError):  # its decision found no ask of its own in the command
        asked(trade.room, machine, operation)


def test_a_metering_key_reports_captures_and_releases_for_its_vendor() -> None:
    metered = Metered.opened(market())
    trade, room = metered.trade, metered.trade.room
    machine = metering_key(room, trade.vendor, MACHINE)

    reported = metered.send(events(1, 2, at_us=room.now_us), by=machine)
    captured = room.capture(machine, trade.held(3), 3)
    ask = ReleaseHold(hold_id=trade.held(1), idempotency_key=room.key())
    released = room.submit(machine, RELEASE_HOLD, ask)

    assert [code_of(each) for each in (reported, captured, released)] == [None] * 3
    assert {each.by.key_thumbprint for each in (reported, captured)} == {machine.key_thumbprint}
    assert metered.trade.balance(trade.vendor, "vendor_pending") > 2 * PAGE


def test_a_report_under_one_key_is_not_billed_again_under_another() -> None:
    metered = Metered.opened(market())
    room = metered.trade.room
    machine = metering_key(room, metered.trade.vendor, MACHINE)
    first = metered.report(events(1, 2, at_us=room.now_us), key="k" * 16)

    again = metered.send(events(1, 2, at_us=room.now_us), key="k" * 16, by=machine)

    assert again.seq == first.seq


@pytest.mark.parametrize("end", ["revoked", "retired"])
def test_a_metering_key_that_has_ended_neither_signs_nor_asks(end: str) -> None:
    metered = Metered.opened(market())
    trade, room = metered.trade, metered.trade.room
    machine = metering_key(room, trade.vendor, MACHINE)
    thumbprint = machine.key_thumbprint
    billed = metered.send(events(1, 2, at_us=room.now_us), by=machine)
    if end == "revoked":
        revoke(room, trade.vendor, thumbprint)
    else:
        rotate(room, trade.vendor, OTHER, thumbprint)
    late = events(2, 2, at_us=room.now_us)

    assert code_of(metered.send(late, by=machine)) is Code.KEY_REVOKED
    assert code_of(metered.send(late, key_thumbprint=thumbprint)) is Code.SIGNATURE_INVALID
    assert code_of(room.capture(machine, trade.held(1), 1)) is Code.KEY_REVOKED
    assert room.state.keys[thumbprint].status == end
    assert billed.refused is None


@pytest.mark.parametrize("kind", ["its main key", "its metering key"])
def test_another_vendors_key_signs_no_batch_of_this_one(kind: str) -> None:
    metered = Metered.opened(market())
    room = metered.trade.room
    stranger = room.organisation("vendor", "Operator Three")
    if kind == "its metering key":
        stranger = metering_key(room, stranger, MACHINE)
    listed = events(1, 2, at_us=room.now_us)

    signed = metered.send(listed, key_thumbprint=stranger.key_thumbprint)
    sent = metered.send(listed, by=stranger)

    assert (code_of(signed), code_of(sent)) == (Code.SIGNATURE_INVALID, Code.USAGE_INVALID)


def test_a_delivery_record_under_another_key_is_captured_while_that_key_is_in_force() -> None:
    trade = Trade.opened()
    room = trade.room
    machine = metering_key(room, trade.vendor, MACHINE)

    def capture() -> Code | None:
        return code_of(
            room.capture(trade.vendor, trade.held(1), 1, signed_by=machine.key_thumbprint)
        )

    before = capture()
    revoke(room, trade.vendor, machine.key_thumbprint)

    assert (before, capture()) == (None, Code.SIGNATURE_INVALID)


def test_a_metering_key_is_replaced_by_one_of_the_same_purpose() -> None:
    trade = Trade.opened()
    room = trade.room
    machine = metering_key(room, trade.vendor, MACHINE)

    answer = key_answer(rotate(room, trade.vendor, OTHER, machine.key_thumbprint))
    later = replace(machine, key_thumbprint=answer.key_thumbprint)

    assert (answer.status, answer.purpose) == ("active", "metering")
    assert code_of(asked(room, later, "request_payout")) is Code.NOT_PERMITTED
    assert room.state.keys[trade.vendor.key_thumbprint].status == "active"


@pytest.mark.parametrize("replaces", ["unknown", "another's", "ended"])
def test_no_key_but_ones_own_in_force_is_replaced(replaces: str) -> None:
    trade = Trade.opened()
    room = trade.room
    machine = metering_key(room, trade.vendor, MACHINE)
    revoke(room, trade.vendor, machine.key_thumbprint)
    thumbprint = {
        "unknown": "x" * 43,
        "another's": trade.operator.key_thumbprint,
        "ended": machine.key_thumbprint,
    }[replaces]

    assert code_of(rotate(room, trade.vendor, OTHER, thumbprint)) is Code.NOT_FOUND


def test_a_key_is_registered_once_whatever_it_is_for() -> None:
    trade = Trade.opened()
    metering_key(trade.room, trade.vendor, MACHINE)

    for name in (MACHINE, "Vendor One", "Agent One"):
        assert code_of(add_key(trade.room, trade.vendor, name)) is Code.ALREADY_REGISTERED


def test_there_is_room_for_sixteen_and_for_one_more_once_one_has_ended() -> None:
    trade = Trade.opened()
    room = trade.room
    machines = [metering_key(room, trade.vendor, f"Machine {n}") for n in range(KEYS_MAX)]

    full = add_key(room, trade.vendor, "one more")
    replaced = rotate(room, trade.vendor, "in its place", machines[0].key_thumbprint)
    revoke(room, trade.vendor, machines[1].key_thumbprint)
    again = add_key(room, trade.vendor, "one more")

    assert KEYS_MAX == 16
    assert (code_of(full), full.path) == (Code.NOT_PERMITTED, "purpose")
    assert [code_of(each) for each in (replaced, again)] == [None, None]


def test_a_key_without_a_purpose_is_written_as_if_there_were_none() -> None:
    trade = Trade.opened()
    keys = trade.room.state.keys
    machine = metering_key(trade.room, trade.vendor, MACHINE)

    assert "purpose" not in keys[trade.vendor.key_thumbprint].document()
    assert keys[machine.key_thumbprint].document()["purpose"] == "metering"
