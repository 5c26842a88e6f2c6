"""Ways to spoil a call: in its arguments, in what the platform found, in the state around it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, NamedTuple

from farthing.protocol.errors import Code
from farthing.protocol.ledger import COUNTER_MAX
from farthing.protocol.purposes import KEYS_MAX
from farthing.protocol.wire import Usage
from farthing.settlement.engine.state import scope_of, who_of
from farthing.settlement.engine.things import Allowance, Closure, Limits
from tests.settlement.engine.asks import Call

__all__ = [
    "NOBODY",
    "Wrong",
    "absent",
    "agreement_ended",
    "all_pending",
    "allowed_nothing",
    "amount",
    "burnt",
    "closed",
    "delivered",
    "ended",
    "foreign",
    "found",
    "frozen",
    "full",
    "given",
    "granted",
    "held_on",
    "just_sent",
    "known_key",
    "many_keys",
    "more_meters",
    "no_account",
    "nobodys",
    "overdrawn",
    "own_proposal",
    "poor",
    "too_many",
    "turned",
    "used",
]

NOBODY: Final = "org_00000000000000000000000000"
_PARTIES: Final = ("buyer_id", "operator_id", "vendor_id")


class Wrong(NamedTuple):
    """Something that can be wrong with a call: the code, what it is, and how it comes about."""

    code: Code
    says: str
    spoil: Callable[[Call], object]


def absent(argument: str) -> Wrong:
    """The argument names what never was."""

    def spoil(call: Call) -> None:
        prefix = str(getattr(call.ask, argument))[:4]
        call.give(**{argument: f"{prefix}{NOBODY[4:]}"})

    return Wrong(Code.NOT_FOUND, f"absent {argument}", spoil)


def foreign(nouns: str, argument: str, *members: str) -> Wrong:
    """The argument names what is another house's."""

    def spoil(call: Call) -> None:
        call.turn(nouns, getattr(call.ask, argument), **dict.fromkeys(members, NOBODY))

    return Wrong(Code.NOT_FOUND, f"foreign {argument}", spoil)


def nobodys(nouns: str, argument: str, *members: str) -> tuple[Wrong, Wrong]:
    """The argument names nothing that is the caller's."""
    return absent(argument), foreign(nouns, argument, *(members or _PARTIES))


def given(code: Code, says: str, **arguments: Any) -> Wrong:
    """Arguments are other than they should be."""
    return Wrong(code, says, lambda call: call.give(**arguments))


def found(code: Code, says: str, **members: Any) -> Wrong:
    """What the platform found is other than it should be."""
    return Wrong(code, says, lambda call: call.find(**members))


def turned(code: Code, nouns: str, argument: str, says: str, **after: Any) -> Wrong:
    """What the argument names is no longer as it was."""
    return Wrong(code, says, lambda call: call.turn(nouns, getattr(call.ask, argument), **after))


def agreement_ended(call: Call) -> None:
    """The agreement of the call is over."""
    call.turn("agreements", call.trade.agreement_id, status="terminated")


def frozen(party: str) -> Wrong:
    """A party is frozen."""

    def spoil(call: Call) -> None:
        principal_id = getattr(call.trade, party).principal_id
        call.turn("principals", principal_id, frozen_by=("platform",), frozen_at_us=1)

    return Wrong(Code.FROZEN, f"{party} frozen", spoil)


def granted(code: Code, says: str, **after: Any) -> Wrong:
    """The agent's grant is another."""

    def spoil(call: Call) -> None:
        call.turn("grants", (call.trade.agent.principal_id, "USD"), **after)

    return Wrong(code, says, spoil)


def closed(party: str, kind: str) -> Wrong:
    """An account is closed."""

    def spoil(call: Call) -> None:
        name = f"{getattr(call.trade, party).principal_id}:{kind}:USD"
        call.state.closures[name] = Closure(account=name, seq=1)

    return Wrong(Code.ACCOUNT_CLOSED, f"{party}'s {kind} closed", spoil)


def poor(party: str, kind: str) -> Wrong:
    """Nothing is left on an account."""

    def spoil(call: Call) -> None:
        account = call.account(getattr(call.trade, party).principal_id, kind)
        account.debits_posted = account.credits_posted

    return Wrong(Code.INSUFFICIENT_FUNDS, f"{party}'s {kind} empty", spoil)


def full(party: str, kind: str) -> Wrong:
    """So much has gone through an account that its counters take no more."""

    def spoil(call: Call) -> None:
        account = call.account(getattr(call.trade, party).principal_id, kind)
        more = COUNTER_MAX - account.credits_posted
        account.credits_posted += more
        account.debits_posted += more

    return Wrong(Code.AMOUNT_OVERFLOW, f"{party}'s {kind} full", spoil)


def full_clearing(call: Call) -> None:
    """So much has come and gone that the clearing account's counters take no more."""
    account = call.account("platform", "external_clearing")
    account.debits_posted += COUNTER_MAX - account.credits_posted
    account.credits_posted = COUNTER_MAX


def given_up_and_spent(call: Call) -> None:
    """The payout was given up, and its account has been emptied since."""
    call.turn("payouts", call.ask.payout_id, status="failed")
    account = call.account(call.trade.vendor.principal_id, "vendor_payable")
    account.debits_pending = 0
    account.debits_posted = account.credits_posted


def amount(code: Code, argument: str, **members: str) -> Wrong:
    """An amount is other than it should be: nothing, or of another asset."""

    def spoil(call: Call) -> None:
        call.give(**{argument: replace(getattr(call.ask, argument), **members)})

    return Wrong(code, f"{argument} {members}", spoil)


def more_meters(call: Call) -> None:
    """The workload names a meter that the card does not have."""
    # After the meter that is there by name, so that the first fault is not the first meter's.
    call.give(workload=(*call.ask.workload, Usage(meter="quire", quantity="1")))


def too_many(call: Call) -> None:
    """The workload costs more than an amount can be."""
    first, *others = call.ask.workload
    call.give(workload=(replace(first, quantity=str(9 * 10**14)), *others))


def delivered(**usage: int) -> Callable[[Call], None]:
    """The delivery record says other usage."""
    return lambda call: call.give(usage={**call.body.delivery.usage, **usage})


def allowed_nothing(call: Call) -> None:
    """The allowance in force leaves nothing."""
    limits = Limits(
        allowance_id="",
        per_day={},
        in_all={"page": 0},
        enforcement="refuse",
        expires_at_us=0,
        proposed_by="",
        proposed_at_us=0,
    )
    agreement = call.state.agreements[call.trade.agreement_id]
    parties = {name: getattr(agreement, name) for name in _PARTIES}
    call.state.allowances[agreement.agreement_id] = Allowance(
        agreement_id=agreement.agreement_id, **parties, limits=limits
    )


def own_proposal(call: Call) -> None:
    """The allowance was proposed by the side that asks."""
    proposed = call.state.allowances[call.trade.agreement_id].proposed
    own = type(proposed).from_document(
        proposed.document() | {"proposed_by": call.trade.vendor.principal_id}
    )
    call.turn("allowances", call.trade.agreement_id, proposed=own)


def known_key(call: Call) -> None:
    """The new key is somebody's already."""
    thumbprint = call.by.key_thumbprint
    if call.facts is not None:
        call.facts["new_thumbprint"] = thumbprint
    key = call.state.keys[call.trade.operator.key_thumbprint]
    call.state.keys.setdefault(thumbprint, key)


def many_keys(call: Call) -> None:
    """The caller has as many keys of the purpose as there may be."""
    key = call.state.keys[call.by.key_thumbprint]
    for place in range(KEYS_MAX):
        call.state.keys[f"key {place}"] = type(key).from_document(
            key.document() | {"purpose": "metering"}
        )
        call.state.by_party["key", call.by.principal_id].append(f"key {place}")


def overdrawn(call: Call) -> None:
    """The organisation owes more than it is asked to."""
    account = call.account(call.ask.organisation_id, "prepaid")
    account.debits_posted = account.credits_posted + 10**12


def held_on(call: Call) -> None:
    """Something waits on the account."""
    call.account(call.ask.organisation_id, "prepaid").debits_pending += 1


def just_sent(call: Call) -> None:
    """The payout's processor may still be asked for it."""
    call.turn(
        "payouts",
        call.ask.payout_id,
        status="sent",
        processor="stripe",
        sent_at_us=call.trade.room.now_us,
    )


def no_account(call: Call) -> None:
    """The vendor has earned nothing."""
    del call.state.accounts[f"{call.trade.vendor.principal_id}:vendor_payable:USD"]


def all_pending(call: Call) -> None:
    """All that the vendor has earned waits for the windows of its charges."""
    no_account(call)
    call.account(call.trade.vendor.principal_id, "vendor_pending").credits_posted += 10**9


def ended(status: str, code: Code = Code.SESSION_CLOSED) -> Wrong:
    """The session has this status."""
    return turned(code, "sessions", "session_id", f"session {status}", status=status)


def burnt(call: Call) -> None:
    """The proof was used."""
    call.state.burnt.add((call.by.key_thumbprint, call.proven.proof_jti))


def used(call: Call) -> None:
    """The idempotency key was used."""
    who = who_of(call.operation, call.by.principal_id, call.by.key_thumbprint)
    call.state.outcomes[scope_of(who, call.operation, call.ask.idempotency_key)] = 1
