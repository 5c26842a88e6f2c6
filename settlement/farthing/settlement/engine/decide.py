"""`decide`: one command against the state, in the fixed order of checks. Changes nothing.

proof burnt? → key in force, and for this? → key of idempotency seen? → registration approved? → the
noun's own decision. The answer is a record, a refusal that is not remembered, or the place of the
record that answered before. Source: spec/errors.md, spec/idempotency.md.
"""

from collections.abc import Callable, Mapping
from typing import Final

from farthing.protocol.errors import Broken, Code, Refusal, refuse
from farthing.protocol.purposes import may_call
from farthing.protocol.records import Record, Request, Signer
from farthing.protocol.wire import Role
from farthing.settlement.engine import (
    accounts,
    agreements,
    allowances,
    charges,
    corrections,
    disputes,
    genesis,
    grants,
    holds,
    listings,
    lots,
    payments,
    payouts,
    principals,
    reversals,
    services,
    sessions,
    treasury,
    usage,
)
from farthing.settlement.engine.commands import PLATFORM, Command, Seen
from farthing.settlement.engine.drafts import Call, Draft
from farthing.settlement.engine.state import State, scope_of, who_of

__all__ = ["decide"]

Decision = Callable[[State, Call], Draft | Refusal]

_DECISIONS: Final[Mapping[str, Decision]] = {
    "accept_terms": agreements.accept,
    "add_key": principals.add,
    "approve_allowance": allowances.approve,
    "approve_registration": principals.approve,
    "call_service": services.call,
    "cancel_payout": payouts.cancel_payout,
    "capture_hold": holds.capture,
    "close_account": treasury.close,
    "close_session": sessions.close,
    "confirm_payout": payouts.confirm_payout,
    "confirm_top_up": payments.confirm_top_up,
    "correct_usage": corrections.correct,
    "create_top_up": payments.create_top_up,
    "enrol_organisation": principals.enrol,
    "fail_payout": payouts.fail_payout,
    "fail_top_up": payments.fail_top_up,
    "freeze": principals.freeze,
    "fund_account": accounts.fund,
    "grant_credit": lots.grant,
    "initiate_dispute": disputes.initiate,
    "open_session": sessions.open_,
    "place_hold": holds.place,
    "propose_allowance": allowances.propose,
    "publish_listing": listings.publish,
    "refund_charge": charges.refund,
    "register_agent": principals.register,
    "release_hold": holds.release,
    "report_usage": usage.report,
    "request_payout": payouts.request_payout,
    "reverse_payout": reversals.reverse_payout,
    "reverse_top_up": reversals.reverse_top_up,
    "revoke_authority": grants.revoke_authority,
    "revoke_key": principals.revoke,
    "rotate_key": principals.rotate,
    "send_payout": payouts.send_payout,
    "set_authority": grants.set_authority,
    "set_grace": treasury.set_grace,
    "set_partner": treasury.set_partner,
    "submit_evidence": disputes.answer_with_evidence,
    "terminate_agreement": agreements.terminate,
    "top_up_session": sessions.top_up,
    "unfreeze": principals.unfreeze,
    "withdraw_credit": lots.withdraw,
    "withdraw_funds": reversals.withdraw_funds,
    "withdraw_listing": listings.withdraw,
}
_PLATFORMS: Final[Mapping[str, Decision]] = {
    genesis.GENESIS: genesis.genesis,
    "abandon_hold": services.abandon,
    "accept_answer": services.accept,
    "close_evidence": disputes.close_evidence,
    "expire_hold": holds.expire,
    "expire_lot": lots.expire,
    "expire_session": sessions.expire,
    "expire_top_up": payments.expire_top_up,
    "process_event": payments.process_event,
    "settle_charge": charges.settle,
}


def decide(state: State, command: Command, now_us: int) -> Record | Refusal | Seen:
    """Decide a command.

    Args:
        state: read, never changed.
        command: the command.
        now_us: the writer's time; a record is never dated before the one before it.

    Returns:
        A `Record` to append (a remembered refusal is one too), a `Refusal` that leaves no trace,
        or `Seen` where the idempotency key has been used.
    """
    now_us = max(now_us, state.at_us)
    if command.by.principal_id == PLATFORM:
        call = Call(command=command, now_us=now_us, seq=state.seq + 1)
        draft = _PLATFORMS[command.operation](state, call)
        if isinstance(draft, Refusal):
            text = f"the platform's own {command.operation} was refused: {draft.code}"
            raise Broken(text)
        return _record(call, draft)
    if refusal := _speaker(state, command, now_us):
        return refusal
    by = command.by
    who = who_of(command.operation, by.principal_id, by.key_thumbprint)
    seq = state.outcomes.get(scope_of(who, command.operation, command.idempotency_key))
    if seq is not None:
        return Seen(seq=seq)
    if refusal := _pending(state, command):
        return refusal
    call = Call(command=command, now_us=now_us, seq=state.seq + 1)
    decision = _DECISIONS[command.operation](state, call)
    if isinstance(decision, Refusal):
        return _refused(call, decision) if decision.code.remembered else decision
    return _record(call, decision)


def _speaker(state: State, command: Command, now_us: int) -> Refusal | None:
    """Whether the proof can be used and its key speaks for the caller now."""
    by = command.by
    # Burnt proofs are forgotten by this very clock, so none of them is taken again.
    if by.proof_jti and by.proof_expires_at_us <= now_us:
        return refuse(Code.PROOF_EXPIRED)
    if (by.key_thumbprint, by.proof_jti) in state.burnt:
        return refuse(Code.PROOF_REPLAYED)
    if not by.principal_id:
        return None
    key = state.keys.get(by.key_thumbprint)
    if key is None or key.principal_id != by.principal_id or key.status != "active":
        return refuse(Code.KEY_REVOKED)
    if not may_call(key.purpose, command.operation):
        return refuse(Code.NOT_PERMITTED, message=f"A {key.purpose} key does not do this.")
    return None


def _pending(state: State, command: Command) -> Refusal | None:
    """Whether the caller, and the organisation it acts for, have been approved."""
    if command.by.role is Role.NEWCOMER:
        return None
    principal = state.principals[command.by.principal_id]
    organisation = state.principals.get(principal.organisation_id, principal)
    if principal.status == "pending" or organisation.status == "pending":
        return refuse(Code.REGISTRATION_PENDING)
    return None


def _refused(call: Call, refusal: Refusal) -> Record:
    shape = {name: value for name, value in refusal.document().items() if name != "docs"}
    return _record(call, Draft(), refused=shape)


def _record(call: Call, draft: Draft, refused: dict[str, object] | None = None) -> Record:
    command = call.command
    by = command.by
    request = None
    if command.idempotency_key:
        request = Request(
            key=command.idempotency_key,
            sha256=command.request_sha256,
            args_sha256=command.args_sha256,
        )
    return Record(
        seq=call.seq,
        at_us=call.now_us,
        operation=command.operation,
        by=Signer(principal_id=PLATFORM)
        if by.principal_id == PLATFORM
        else Signer(
            principal_id=by.principal_id,
            organisation_id=by.organisation_id,
            role=by.role.value,
            key_thumbprint=by.key_thumbprint,
            assurance=by.assurance.value,
            proof_jti=by.proof_jti,
            proof_expires_at_us=by.proof_expires_at_us,
        ),
        request=request,
        asked=dict(command.asked),
        refused=refused,
        moved=draft.moved,
        counted=draft.counted,
        changed=draft.changed,
        decided=draft.decided,
        facts=None if command.facts is None or refused else dict(command.facts),
    )
