"""What an operation gives back, and what nearly every operation does.

Boundary: no money logic; a write's answer is a function of its record alone.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar, cast

from farthing.identity.callers import Caller
from farthing.protocol.authority.standing import Standing
from farthing.protocol.errors import Code, Refusal, Refused, refuse
from farthing.protocol.keys import PublicKey
from farthing.protocol.ledger import Account, split_account
from farthing.protocol.messages.accounts import AccountBalance, StandingNow
from farthing.protocol.messages.charges import Receipt
from farthing.protocol.receipts import make_receipt
from farthing.protocol.records import Record, line_of, parse_record
from farthing.protocol.signatures import read_header
from farthing.protocol.wire import Operation, Role, money
from farthing.server.market import Market
from farthing.settlement.engine.commands import Outcome
from farthing.settlement.engine.questions import KeyOf, Lookup, ProofOf, RecordAt
from farthing.settlement.engine.things import Agreement, Charge, Dispute, Hold, Principal, Session
from farthing.settlement.reports.reads import View

__all__ = [
    "Handler",
    "Reply",
    "balance_of",
    "check_key",
    "checked",
    "foreign_cursor",
    "is_frozen",
    "known",
    "money_reply",
    "not_yet",
    "organisation_asked_for",
    "own",
    "own_key",
    "public_key",
    "receipt_at",
    "record_at",
    "reply",
    "standing_now",
    "unverified",
]

_RETRY_AFTER_S: Final = 1

T = TypeVar("T")
Shared = TypeVar("Shared", Agreement, Charge, Dispute, Hold, Session)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer, whether it was given before, and the record that it comes from (0: none)."""

    answer: object
    replayed: bool = False
    seq: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """An operation bound to what carries it out."""

    operation: Operation[Any, Any]
    call: Callable[[Market, Caller, Any], Awaitable[Reply]]


def reply(outcome: Outcome, answer_of: Callable[[Record], object]) -> Reply:
    """The reply of a write."""
    return Reply(answer=answer_of(outcome.record), replayed=outcome.replayed, seq=outcome.seq)


def money_reply(outcome: Outcome, answer_of: Callable[[Record], object]) -> Reply:
    """The reply of a write that moves money, with what its caller has left now."""
    given = reply(outcome, answer_of)
    if outcome.standing is None:
        return given
    asset = str(outcome.record.changed[0].after["asset"])
    answer = replace(cast("Any", given.answer), standing=standing_now(outcome.standing, asset))
    return replace(given, answer=answer)


def standing_now(standing: Standing, asset: str) -> StandingNow:
    """What a caller has left of one asset."""
    grant = standing.grants.get(asset)
    if grant is not None and grant.revoked:
        grant = None
    spent_units = standing.spent_units.get(asset, 0)
    return StandingNow(
        balance=money(standing.available_units.get(asset, 0), asset),
        pending=money(standing.pending_units.get(asset, 0), asset),
        remaining_today=None
        if grant is None
        else money(max(grant.per_day_units_max - spent_units, 0), asset),
        per_call_max=None if grant is None else money(grant.per_call_units_max, asset),
    )


async def record_at(market: Market, seq: int) -> Record:
    """A record of the journal."""
    data = await market.ask(RecordAt(seq=seq))
    assert data is not None
    return parse_record(data)[0]


async def receipt_at(market: Market, seq: int, path: str, *, in_brief: bool = False) -> Receipt:
    """The receipt of a record, under the newest signed head.

    Args:
        market: the composition.
        seq: the record's place.
        path: the argument that named it.
        in_brief: without the text of a batch.

    Raises:
        Refused: `not_found` where there is no such record.
    """
    proof = await market.ask(ProofOf(seq=seq))
    if proof is None:
        raise Refused(refuse(Code.NOT_FOUND, path=path))
    record = line_of(proof.record) if in_brief else proof.record
    return make_receipt(seq=seq, record=record, path=proof.path, tree_head=proof.note)


def balance_of(name: str, account: Account) -> AccountBalance:
    """An account as its owner sees it."""
    _, kind, asset = split_account(name)
    return AccountBalance(
        account=kind.value,
        posted=money(account.posted_units, asset),
        held=money(account.debits_pending, asset),
        available=money(account.available_units, asset),
    )


def checked(read: T | Refusal) -> T:
    """What the law read, or its refusal raised."""
    if isinstance(read, Refusal):
        raise Refused(read)
    return read


def unverified(path: str, error: Exception) -> Refusal:
    """That a signature is not what it should be, and why."""
    return refuse(Code.SIGNATURE_INVALID, path=path, message=f"It does not verify: {error}.")


async def known(market: Market, kind: type[T], thing_id: str) -> T:
    """A thing that must be there, since another names it."""
    thing = await market.ask(Lookup(noun=kind.__name__.lower(), id=thing_id))
    assert isinstance(thing, kind)
    return thing


async def own(
    market: Market, caller: Caller, kind: type[Shared], path: str, thing_id: str
) -> Shared:
    """A thing that the caller is party to; a foreign one is as absent as one that never was."""
    noun = kind.__name__.lower()
    thing = await market.ask(Lookup(noun=noun, id=thing_id))
    if isinstance(thing, kind):
        parties = (thing.buyer_id, thing.operator_id, thing.vendor_id)
        if caller.principal_id in parties:
            return thing
    raise Refused(refuse(Code.NOT_FOUND, path=path))


async def organisation_asked_for(market: Market, caller: Caller, named: str | None) -> str:
    """The organisation that a reading is of: the caller's own, or for the treasurer any.

    Raises:
        Refused: `not_found` where it is not the caller's, or nobody's.
    """
    if named is None or named == caller.organisation_id:
        return caller.organisation_id
    if caller.role is Role.TREASURER and (
        await market.ask(Lookup(noun="principal", id=named)) is not None
    ):
        return named
    raise Refused(refuse(Code.NOT_FOUND, path="organisation_id"))


async def is_frozen(market: Market, principal_id: str) -> bool:
    """Whether a principal is frozen now."""
    principal = await market.ask(Lookup(noun="principal", id=principal_id))
    return isinstance(principal, Principal) and bool(principal.frozen_by)


async def check_key(market: Market, caller: Caller) -> None:
    """Refuse a key that is no longer in force; for a command the engine does, with the effect."""
    facts = await market.ask(KeyOf(thumbprint=caller.key_thumbprint))
    if facts is None or facts.status != "active":
        raise Refused(refuse(Code.KEY_REVOKED))


async def own_key(market: Market, caller: Caller, signature: str) -> tuple[str, PublicKey | None]:
    """The thumbprint that a signature names, and the key where it is one of the caller's.

    Whether it is in force the engine says, with the effect.

    Raises:
        InvalidSignature: it names none.
    """
    thumbprint = read_header(signature).kid
    holder = await market.directory.holder(thumbprint)
    if holder is None or holder.principal_id != caller.principal_id:
        return thumbprint, None
    return thumbprint, holder.key


async def public_key(market: Market, thumbprint: str) -> PublicKey:
    """The registered public key of a thumbprint."""
    holder = await market.directory.holder(thumbprint)
    if holder is None:
        raise Refused(refuse(Code.UNKNOWN_KEY))
    return holder.key


def foreign_cursor() -> Refusal:
    """The refusal of a cursor that no page of this question gave."""
    text = "A cursor goes on with the very question whose page gave it; this one does not."
    return refuse(Code.INVALID_ARGUMENT, path="cursor", message=text)


def not_yet(view: View, seq: int = 0, path: str = "") -> Refused:
    """Why a record cannot be read of: it has not been, or the read model is not there yet.

    Args:
        view: what was to be read.
        seq: the record, where one is named.
        path: the argument that names it.
    """
    if seq > view.until_seq:
        text = f"There is no record {seq}; the last is {view.until_seq}."
        return Refused(refuse(Code.INVALID_ARGUMENT, path=path, message=text))
    return Refused(refuse(Code.UNAVAILABLE, retry_after_s=_RETRY_AFTER_S))
