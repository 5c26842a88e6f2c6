"""One call of every operation that the engine decides, with nothing wrong: what `WRONGS` spoils."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Final

from msgspec import structs

from farthing.identity.callers import Caller
from farthing.protocol.canonical import Json, sha256_hex
from farthing.protocol.contracts import DeliveryRecord
from farthing.protocol.corrections import CallBack, Correction
from farthing.protocol.errors import Code, Refusal
from farthing.protocol.ledger import Account
from farthing.protocol.messages.holds import PlaceHold
from farthing.protocol.messages.operations import OPERATIONS
from farthing.protocol.records import Record
from farthing.protocol.usage import batch_bytes, read_batch
from farthing.protocol.wire import Role, Usage, money
from farthing.server.market import command_of
from farthing.settlement.engine.commands import Seen
from farthing.settlement.engine.corrections import Corrected
from farthing.settlement.engine.decide import decide
from farthing.settlement.engine.disputes import Examined
from farthing.settlement.engine.holds import Capture
from farthing.settlement.engine.principals import Named
from farthing.settlement.engine.services import ServiceCall
from farthing.settlement.engine.usage import Reported
from tests.construction import Trade, publishing, vendor_key
from tests.papers import card_document, listing_document, public_jwk, signing_key, terms_document
from tests.protocol.replay.metered import Metered, events
from tests.settlement.engine.treasurer import Treasury, card_of

__all__ = ["ASKS", "PAGE", "Call", "code_of", "refusal_of"]

PAGE: Final = 2_000_000
_DOLLAR = money(10**9, "USD")


@dataclass(slots=True)
class Call:
    """A call that is about to be decided, and the market that it is made in."""

    trade: Trade
    operation: str
    by: Caller
    ask: Any
    body: Any = None
    facts: dict[str, Json] | None = None
    answer: Record | Refusal | Seen | None = None

    @property
    def state(self) -> Any:
        """What is decided by; tests spoil it as they like, for nothing is decided twice."""
        return self.trade.room.state

    @property
    def proven(self) -> Caller:
        """Who asks, with a proof of its own."""
        until_us = self.trade.room.now_us + 1
        return replace(self.by, proof_jti="the proof", proof_expires_at_us=until_us)

    def give(self, **arguments: Any) -> None:
        """Change arguments, in what was planned of them too."""
        self.ask = _given(self.ask, arguments)
        self.body = _given(self.body, arguments)

    def find(self, **found: Any) -> None:
        """Change what the platform found, whatever the arguments say."""
        self.body = _given(self.body, found)

    def turn(self, nouns: str, key: object, **after: Any) -> None:
        """Change a thing of the state."""
        things = getattr(self.state, nouns)
        changed = replace if is_dataclass(things[key]) else structs.replace
        things[key] = changed(things[key], **after)

    def account(self, owner: str, kind: str) -> Account:
        """An account, begun where it is not there."""
        found = self.state.accounts.setdefault(f"{owner}:{kind}:USD", Account())
        assert isinstance(found, Account)
        return found

    def decided(self, by: Caller | None = None) -> Code | None:
        """The code of the decision; None where there is nothing wrong."""
        return code_of(self._decided(by))

    def refused(self) -> Refusal:
        """The refusal, of a call that something is wrong with."""
        return refusal_of(self._decided())

    def _decided(self, by: Caller | None = None) -> Record | Refusal | Seen:
        planned = {"body": self.body, "facts": self.facts}
        command = command_of(by or self.proven, OPERATIONS[self.operation], self.ask, **planned)
        return decide(self.state, command, self.trade.room.now_us)


def code_of(decision: Record | Refusal | Seen) -> Code | None:
    """The code of a decision; a key that was used gives the answer of then, or this conflict."""
    if isinstance(decision, Seen):
        return Code.IDEMPOTENCY_CONFLICT
    refusal = decision if isinstance(decision, Refusal) else decision.refusal
    return refusal.code if refusal else None


def refusal_of(decision: object) -> Refusal:
    """Why a command was refused, remembered or not."""
    refusal = decision.refusal if isinstance(decision, Record) else decision
    assert isinstance(refusal, Refusal), decision
    return refusal


def _given(value: Any, arguments: Mapping[str, Any]) -> Any:
    """A message or a planned body with other members, however deep it has them."""
    if not is_dataclass(value) or isinstance(value, type):
        return value
    own = {field.name: getattr(value, field.name) for field in fields(value)}
    deeper = {
        name: _given(own[name], arguments) for name in ("ask", "delivery", "place") if name in own
    }
    return replace(value, **deeper | {name: arguments[name] for name in own if name in arguments})


def _call(trade: Trade, operation: str, by: Caller, **given: Any) -> Call:
    ask = OPERATIONS[operation].ask(**given, idempotency_key="the-key-of-this-call")
    return Call(trade, operation, by, ask)


def _market() -> Trade:
    return Trade.opened(funds=100 * PAGE)


def _pages(pages: int) -> tuple[Usage, ...]:
    return (Usage(meter="page", quantity=str(pages)),)


def _publish_listing() -> Call:
    trade = _market()
    card, terms = card_document(), terms_document()
    listing = listing_document(trade.vendor.principal_id, card, terms, version=2)
    ask, body, facts = publishing(vendor_key(trade.vendor), listing, card, terms, "k" * 16)
    return Call(trade, "publish_listing", trade.vendor, ask, body, facts)


def _withdraw_listing() -> Call:
    trade = _market()
    given = {"listing_id": trade.listing_id, "reason": ""}
    return _call(trade, "withdraw_listing", trade.vendor, **given)


def _accept_terms() -> Call:
    trade = _market()
    trade.held(1)
    return Call(
        trade, "accept_terms", trade.agent, **trade.room.acceptance(trade.agent, trade.listing_id)
    )


def _terminate_agreement() -> Call:
    trade = _market()
    given = {"agreement_id": trade.agreement_id, "reason": ""}
    return _call(trade, "terminate_agreement", trade.agent, **given)


def _propose_allowance() -> Call:
    trade = _market()
    given = {"agreement_id": trade.agreement_id, "in_all": _pages(5)}
    return _call(trade, "propose_allowance", trade.operator, **given)


def _approve_allowance() -> Call:
    proposal = _propose_allowance()
    trade = proposal.trade
    trade.room.done(proposal.by, OPERATIONS["propose_allowance"], proposal.ask)
    given = {
        "agreement_id": trade.agreement_id,
        "allowance_id": trade.room.state.allowances[trade.agreement_id].proposed.allowance_id,  # type: ignore[union-attr]
    }
    return _call(trade, "approve_allowance", trade.vendor, **given)


def _place_hold() -> Call:
    trade = _market()
    return _call(trade, "place_hold", trade.agent, **_placing(trade))


def _placing(trade: Trade) -> dict[str, Any]:
    return {
        "agreement_id": trade.agreement_id,
        "workload": _pages(2),
        "args_sha256": "a" * 64,
    }


def _call_service() -> Call:
    trade = _market()
    given = {"agreement_id": trade.agreement_id, "workload": _pages(2), "arguments": {}}
    call = _call(trade, "call_service", trade.agent, **given)
    call.body = ServiceCall(place=PlaceHold(**_placing(trade), idempotency_key="k" * 16))
    return call


def _capture_hold() -> Call:
    trade = _market()
    hold_id = trade.held(2)
    given: dict[str, Any] = {"hold_id": hold_id, "delivery": {}, "delivery_signature": ""}
    call = _call(trade, "capture_hold", trade.vendor, **given)
    agreement = trade.room.state.agreements[trade.agreement_id]
    delivery = DeliveryRecord(
        hold_id=hold_id,  # type: ignore[arg-type]
        agreement_id=trade.agreement_id,  # type: ignore[arg-type]
        vendor_id=trade.vendor.principal_id,  # type: ignore[arg-type]
        listing_id=trade.listing_id,  # type: ignore[arg-type]
        args_sha256="a" * 64,
        result_sha256="b" * 64,
        output_schema_sha256=agreement.output_schema_sha256,
        usage={"page": 2},
        delivered_at_us=trade.room.now_us,
    )
    call.body = Capture(ask=call.ask, delivery=delivery)
    return call


def _release_hold() -> Call:
    trade = _market()
    return _call(trade, "release_hold", trade.vendor, hold_id=trade.held(2))


def _open_session() -> Call:
    trade = _market()
    given = {"cap": money(40 * PAGE, "USD"), "per_call": money(10 * PAGE, "USD")}
    return _call(trade, "open_session", trade.agent, agreement_id=trade.agreement_id, **given)


def _in_session(operation: str, party: str, **given: Any) -> Callable[[], Call]:
    def make() -> Call:
        metered = Metered.opened(_market())
        by = getattr(metered.trade, party)
        return _call(metered.trade, operation, by, session_id=metered.session_id, **given)

    return make


def _report_usage() -> Call:
    texts = {"batch": "[]", "batch_signature": "", "voucher": ""}
    call = _in_session("report_usage", "vendor", **texts)()
    trade, session_id = call.trade, call.ask.session_id
    data = batch_bytes(session_id, events(1, 2, at_us=trade.room.now_us))
    call.body = Reported(
        session_id=session_id,
        batch_sha256=sha256_hex(data),
        events=1,
        columns=read_batch(data, session_id),
        key_thumbprint=trade.vendor.key_thumbprint,
        voucher_seq=1,
        max_cum_units=2 * PAGE,
    )
    return call


def _correct_usage() -> Call:
    trade = _market()
    # Every page costs the same, so that what is taken back is worth something.
    listing_id = trade.room.publish(
        trade.vendor, card=card_of(money(PAGE, "USD").amount), name="Flat"
    )
    trade.agreement_id = trade.room.agree(trade.agent, listing_id)
    report = Metered.opened(trade).report(events(1, 2, at_us=trade.room.now_us))
    charge_id = next(each.id for each in report.changed if each.noun == "charge")
    given = {"charge_id": charge_id, "corrections": (), "signature": ""}
    call = _call(trade, "correct_usage", trade.vendor, **given)
    call.body = Corrected(
        charge_id=charge_id,
        sha256="c" * 64,
        correction=Correction(charge_id=charge_id, calls=(CallBack(1, {"page": 1}),)),
        billed={1: {"page": 2}},
        key_thumbprint=trade.vendor.key_thumbprint,
    )
    return call


def _of_charge(operation: str, party: str, **given: Any) -> Callable[[], Call]:
    def make() -> Call:
        trade = _market()
        by = getattr(trade, party)
        return _call(trade, operation, by, charge_id=trade.captured(2), **given)

    return make


def _submit_evidence() -> Call:
    filing = _of_charge("initiate_dispute", "agent", reason="not_delivered")()
    trade = filing.trade
    filed = trade.room.done(filing.by, OPERATIONS["initiate_dispute"], filing.ask)
    dispute_id = next(each.id for each in filed.changed if each.noun == "dispute")
    call = _call(trade, "submit_evidence", trade.vendor, dispute_id=dispute_id, body="")
    call.body = Examined(ask=call.ask, body_sha256="b" * 64, schema_valid=True)
    return call


def _newcomer(operation: str, **given: Any) -> Call:
    trade = _market()
    key = signing_key("Newcomer")
    by = Caller(role=Role.NEWCOMER, key_thumbprint=key.public.thumbprint)
    call = _call(trade, operation, by, name="Ada", key=public_jwk(key), **given)
    call.body = Named(ask=call.ask, name_sha256="c" * 64)
    return call


def _register_agent() -> Call:
    call = _newcomer("register_agent", operator_id="org_00000000000000000000000000")
    call.give(operator_id=call.trade.operator.principal_id)
    return call


def _with_new_key(operation: str, **given: Any) -> Callable[[], Call]:
    def make() -> Call:
        trade, new = _market(), signing_key("Newcomer")
        call = _call(
            trade, operation, trade.vendor, key=public_jwk(new), possession="shown", **given
        )
        call.facts = {"new_thumbprint": new.thumbprint, "possession": "shown"}
        return call

    return make


def _of_agent(operation: str, **given: Any) -> Callable[[], Call]:
    def make() -> Call:
        trade = _market()
        named = {
            "principal_id": trade.agent.principal_id,
            "agent_id": trade.agent.principal_id,
            "key_thumbprint": trade.agent.key_thumbprint,
        }
        names = {field.name for field in fields(OPERATIONS[operation].ask)}
        known = {name: value for name, value in named.items() if name in names}
        return _call(trade, operation, trade.operator, **known, **given)

    return make


def _by_staff(operation: str, role: Role = Role.TREASURER, **given: Any) -> Callable[[], Call]:
    def make() -> Call:
        trade = _market()
        by = trade.room.staff(role)
        return _call(trade, operation, by, organisation_id=trade.operator.principal_id, **given)

    return make


def _close_account() -> Call:
    call = _by_staff("close_account", account="prepaid", asset="USD")()
    account = call.account(call.trade.operator.principal_id, "prepaid")
    account.debits_posted = account.credits_posted
    return call


def _create_top_up() -> Call:
    trade = _market()
    return _call(trade, "create_top_up", trade.operator, amount=_DOLLAR)


def _earned() -> Trade:
    trade = _market()
    trade.captured(2)
    trade.room.advance(100_000)
    return trade


def _request_payout() -> Call:
    trade = _earned()
    return _call(trade, "request_payout", trade.vendor, amount=money(PAGE, "USD"))


def _of_payment(operation: str) -> Callable[[], Call]:
    def make() -> Call:
        trade = _earned()
        treasury = Treasury(trade)
        if operation.endswith("top_up"):
            named: dict[str, Any] = {"top_up_id": treasury.top_up(PAGE)}
        else:
            named = {"payout_id": treasury.payout(PAGE).changed[0].id}
        if operation.startswith("reverse"):
            named["total"] = money(PAGE, "USD")
        by = trade.vendor if operation == "cancel_payout" else treasury.treasurer
        return _call(trade, operation, by, **named)

    return make


def _of_moved(operation: str) -> Callable[[], Call]:
    def make() -> Call:
        call = _of_payment(operation)()
        noun = operation.removeprefix("reverse_")
        status = "posted" if noun == "top_up" else "paid"
        call.turn(f"{noun}s", getattr(call.ask, f"{noun}_id"), status=status)
        return call

    return make


def _withdraw_credit() -> Call:
    trade = _market()
    treasury = Treasury(trade)
    named = {"lot_id": treasury.grant_credit(5 * PAGE), "amount": money(2 * PAGE, "USD")}
    return _call(trade, "withdraw_credit", treasury.treasurer, **named)


def _set_partner() -> Call:
    trade = _market()
    admin = trade.room.staff(Role.ADMIN)
    named = {"subject_id": trade.listing_id, "partner_id": trade.operator.principal_id}
    return _call(trade, "set_partner", admin, **named, ppm=50_000)


ASKS: Final[Mapping[str, Callable[[], Call]]] = {
    "accept_terms": _accept_terms,
    "add_key": _with_new_key("add_key", purpose="metering"),
    "approve_allowance": _approve_allowance,
    "approve_registration": _of_agent("approve_registration"),
    "call_service": _call_service,
    "cancel_payout": _of_payment("cancel_payout"),
    "capture_hold": _capture_hold,
    "close_account": _close_account,
    "close_session": _in_session("close_session", "agent"),
    "confirm_payout": _of_payment("confirm_payout"),
    "confirm_top_up": _of_payment("confirm_top_up"),
    "correct_usage": _correct_usage,
    "create_top_up": _create_top_up,
    "enrol_organisation": lambda: _newcomer("enrol_organisation", kind="vendor"),
    "fail_payout": _of_payment("fail_payout"),
    "fail_top_up": _of_payment("fail_top_up"),
    "freeze": _of_agent("freeze", reason=""),
    "fund_account": _by_staff("fund_account", amount=_DOLLAR, reference=""),
    "grant_credit": _by_staff("grant_credit", amount=_DOLLAR, kind="bought"),
    "initiate_dispute": _of_charge("initiate_dispute", "agent", reason="not_delivered"),
    "open_session": _open_session,
    "place_hold": _place_hold,
    "propose_allowance": _propose_allowance,
    "publish_listing": _publish_listing,
    "refund_charge": _of_charge("refund_charge", "vendor", amount=money(PAGE, "USD")),
    "register_agent": _register_agent,
    "release_hold": _release_hold,
    "report_usage": _report_usage,
    "request_payout": _request_payout,
    "reverse_payout": _of_moved("reverse_payout"),
    "reverse_top_up": _of_moved("reverse_top_up"),
    "revoke_authority": _of_agent("revoke_authority", asset="USD"),
    "revoke_key": _of_agent("revoke_key"),
    "rotate_key": _with_new_key("rotate_key"),
    "send_payout": _of_payment("send_payout"),
    "set_authority": _of_agent("set_authority", per_call_max=_DOLLAR, per_day_max=_DOLLAR),
    "set_grace": _by_staff("set_grace", amount=_DOLLAR),
    "set_partner": _set_partner,
    "submit_evidence": _submit_evidence,
    "terminate_agreement": _terminate_agreement,
    "top_up_session": _in_session("top_up_session", "agent", amount=money(PAGE, "USD")),
    "unfreeze": _of_agent("unfreeze", reason=""),
    "withdraw_credit": _withdraw_credit,
    "withdraw_funds": _by_staff("withdraw_funds", amount=money(PAGE, "USD"), reference=""),
    "withdraw_listing": _withdraw_listing,
}
