"""What a review found, each as the behaviour that holds now."""

from dataclasses import replace

import pytest

from farthing.protocol.errors import Code, Refusal
from farthing.protocol.messages.agents import (
    FREEZE,
    REVOKE_KEY,
    UNFREEZE,
    Freeze,
    RevokeKey,
    Unfreeze,
)
from farthing.protocol.messages.agreements import ACCEPT_TERMS
from farthing.protocol.messages.disputes import (
    INITIATE_DISPUTE,
    SUBMIT_EVIDENCE,
    InitiateDispute,
    SubmitEvidence,
)
from farthing.protocol.messages.holds import RELEASE_HOLD, ReleaseHold
from farthing.protocol.records import Record
from farthing.protocol.times import SECOND_US
from farthing.protocol.wire import Role
from farthing.server.market import command_of
from farthing.settlement.engine.agreements import Acceptance
from farthing.settlement.engine.disputes import Examined
from farthing.settlement.engine.due import due
from tests.construction import Trade
from tests.papers import signing_key, terms_document
from tests.settlement.engine.treasurer import card_of


def test_a_ground_that_the_terms_do_not_list_is_not_disputable() -> None:
    trade = Trade.opened()
    terms = terms_document()
    terms["clauses"]["dispute"]["params"]["tier1"] = ["calculation_error"]  # type: ignore[index,call-overload]
    listing_id = trade.room.publish(trade.vendor, terms=terms, name="Narrow terms")
    trade.agreement_id = trade.room.agree(trade.agent, listing_id)
    ask = InitiateDispute(
        charge_id=trade.captured(1),
        reason="not_delivered",
        idempotency_key=trade.room.key(),
    )
    record = trade.room.submit(trade.agent, INITIATE_DISPUTE, ask)
    assert isinstance(record, Record)
    assert record.code is Code.NOT_DISPUTABLE


def test_a_price_from_an_agreements_position_makes_no_new_agreement() -> None:
    trade = Trade.opened()
    given = trade.room.acceptance(trade.agent, trade.listing_id)
    body = given["body"]
    assert isinstance(body, Acceptance)
    cheaper = replace(body.quote, position={"page": 100})
    given["body"] = replace(body, quote=cheaper)
    refusal = trade.room.submit(trade.agent, ACCEPT_TERMS, **given)
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.path) == (Code.INVALID_ARGUMENT, "quote.agreement_id")


def test_evidence_after_its_time_wins_nothing_even_when_the_clock_is_set_back() -> None:
    trade = Trade.opened()
    charge_id = trade.captured(1)
    filing = InitiateDispute(
        charge_id=charge_id, reason="not_delivered", idempotency_key=trade.room.key()
    )
    filed = trade.room.submit(trade.agent, INITIATE_DISPUTE, filing)
    assert isinstance(filed, Record)
    dispute_id = next(each.id for each in filed.changed if each.noun == "dispute")
    trade.room.now_us += 3600 * SECOND_US
    trade.held(1)
    trade.room.now_us -= 3590 * SECOND_US
    assert due(trade.room.state, trade.room.now_us) is not None
    ask = SubmitEvidence(dispute_id=dispute_id, body="", idempotency_key=trade.room.key())
    body = Examined(ask=ask, body_sha256="b" * 64, schema_valid=True)
    caller = replace(
        trade.vendor, proof_jti="late", proof_expires_at_us=trade.room.state.at_us + SECOND_US
    )
    record = trade.room.run(command_of(caller, SUBMIT_EVIDENCE, ask, body=body))
    assert isinstance(record, Record)
    assert record.code is Code.DISPUTE_WINDOW_CLOSED


@pytest.mark.parametrize("first", ["operator", "platform"])
def test_a_freeze_stays_until_its_own_setter_lifts_it(first: str) -> None:
    trade = Trade.opened()
    setters = [trade.operator, trade.room.staff(Role.ADMIN)]
    if first == "platform":
        setters.reverse()
    for setter in setters:
        ask = Freeze(
            principal_id=trade.agent.principal_id, reason="", idempotency_key=trade.room.key()
        )
        trade.room.done(setter, FREEZE, ask)
    for setter in setters:
        assert trade.room.hold(trade.agent, trade.agreement_id, 1).code is Code.FROZEN
        thaw = Unfreeze(
            principal_id=trade.agent.principal_id, reason="", idempotency_key=trade.room.key()
        )
        trade.room.done(setter, UNFREEZE, thaw)
    assert trade.room.hold(trade.agent, trade.agreement_id, 1).code is None


def test_who_is_frozen_by_two_has_been_since_the_first_until_the_last_lifts_it() -> None:
    trade = Trade.opened()
    setters = [trade.operator, trade.room.staff(Role.ADMIN)]
    agent_id, since_us = trade.agent.principal_id, []
    for operation, ask in ((FREEZE, Freeze), (UNFREEZE, Unfreeze)):
        for setter in setters:
            trade.room.now_us += 1
            named = ask(principal_id=agent_id, reason="", idempotency_key=trade.room.key())
            trade.room.done(setter, operation, named)
            since_us.append(trade.room.state.principals[agent_id].frozen_at_us)
    first_us = trade.room.now_us - 3
    assert since_us == [first_us, first_us, first_us, 0]


def test_admin_can_stop_a_treasurers_key() -> None:
    trade = Trade.opened()
    treasurer = trade.room.staff(Role.TREASURER)
    ask = RevokeKey(
        principal_id=treasurer.principal_id,
        key_thumbprint=signing_key("treasurer").thumbprint,
        idempotency_key=trade.room.key(),
    )
    trade.room.done(trade.room.staff(Role.ADMIN), REVOKE_KEY, ask)
    with pytest.raises(AssertionError, match="key_revoked"):
        trade.room.fund(trade.operator, 1)


def test_more_than_the_workload_is_not_captured_whatever_it_costs() -> None:
    trade = Trade.opened()
    listing_id = trade.room.publish(trade.vendor, card=card_of("0"), name="Free pages")
    trade.agreement_id = trade.room.agree(trade.agent, listing_id)
    record = trade.room.capture(trade.vendor, trade.held(1), 2)
    assert record.code is Code.CAPTURE_EXCEEDS_HOLD


def test_a_proof_past_its_time_is_refused_by_the_clock_that_forgets_it() -> None:
    trade = Trade.opened()
    ask = ReleaseHold(hold_id=trade.held(1), idempotency_key=trade.room.key())
    stale = replace(trade.vendor, proof_jti="stale", proof_expires_at_us=trade.room.now_us)
    refusal = trade.room.run(command_of(stale, RELEASE_HOLD, ask))
    assert isinstance(refusal, Refusal)
    assert refusal.code is Code.PROOF_EXPIRED
