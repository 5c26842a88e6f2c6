"""A machine small enough to be checked by eye, so that the journal is tested apart from the engine.

It funds one account per asset, places holds on it, and lets them expire. Some bodies are poison.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from msgspec import structs

from farthing.identity.callers import Caller
from farthing.protocol.authority.standing import Standing
from farthing.protocol.canonical import Json, document_sha256
from farthing.protocol.errors import Broken, Code, Refusal, refuse
from farthing.protocol.keys import PrivateKey, PublicKey
from farthing.protocol.ledger import (
    Account,
    AccountKind,
    Movement,
    Transfer,
    account_name,
    apply,
)
from farthing.protocol.records import Change, Record, Request, Signer
from farthing.settlement.engine.commands import Command, Kept, Question, Seen
from farthing.settlement.engine.questions import AllAccounts, StandingOf
from farthing.settlement.journal.machine import Machine
from farthing.settlement.journal.stepper import Limits, RowsOf, Stepper, no_rows
from farthing.settlement.journal.store import Store
from farthing.settlement.journal.writer import Writer

ORIGIN = "journal.example/farthing"
SIGNER = PrivateKey.from_seed(bytes(32))
STRANGER = PrivateKey.from_seed(bytes(31) + b"\x01")
START_US = 1_800_000_000_000_000
BUYER = "agt_buyer"
PREPAID = account_name("org_buyer", AccountKind.PREPAID, "XTS")
CLEARING = account_name("platform", AccountKind.EXTERNAL_CLEARING, "XTS")
PENDING = account_name("org_vendor", AccountKind.VENDOR_PENDING, "XTS")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """`poison` names the function that chokes on it."""

    units: int
    expires_at_us: int = 0
    poison: str = ""


@dataclass(slots=True)
class Bank:
    seq: int = 0
    at_us: int = 0
    accounts: dict[str, Account] = field(default_factory=dict)
    outcomes: dict[tuple[str, str, str], int] = field(default_factory=dict)
    holds: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def available_units(self) -> int:
        return self.accounts.get(PREPAID, Account()).available_units


def command(operation: str, key: str, ask: Ask, *, kept: tuple[Kept, ...] = ()) -> Command:
    arguments: dict[str, Json] = {"key": key, "poison": ask.poison, "units": str(ask.units)}
    return Command(
        operation=operation,
        by=Caller(principal_id=BUYER),
        idempotency_key=key,
        request_sha256=document_sha256(arguments),
        args_sha256={name: document_sha256(value) for name, value in arguments.items()},
        body=ask,
        kept=kept,
    )


def fund(units: int, key: str = "fund") -> Command:
    return command("fund_account", key, Ask(units=units))


def hold(units: int, key: str, *, expires_at_us: int = 0, poison: str = "") -> Command:
    return command("place_hold", key, Ask(units=units, expires_at_us=expires_at_us, poison=poison))


def decide(bank: Bank, command: Command, now_us: int) -> Record | Refusal | Seen:
    ask = command.body
    assert isinstance(ask, Ask)
    if ask.poison == "decide":
        raise KeyError(ask.poison)
    if ask.poison == "broken":
        raise Broken(ask.poison)
    record = Record(
        seq=bank.seq + 1,
        at_us=max(now_us, bank.at_us),
        operation=command.operation,
        by=Signer(principal_id=command.by.principal_id),
        asked={"units": str(ask.units)},
    )
    if command.operation == "expire_hold":
        return _expiry(bank, record, now_us)
    seen = bank.outcomes.get((command.by.principal_id, command.operation, command.idempotency_key))
    if seen is not None:
        return Seen(seq=seen)
    if ask.units <= 0:
        return refuse(Code.STALE, path="units")
    record = structs.replace(
        record,
        request=Request(
            key=command.idempotency_key,
            sha256=command.request_sha256,
            args_sha256=command.args_sha256,
        ),
    )
    if ask.poison == "bytes":
        return structs.replace(record, asked={"units": 2**60})
    if ask.poison == "evolve":
        return structs.replace(record, changed=(Change(noun="riddle", id="x", after={}),))
    if command.operation == "fund_account":
        return structs.replace(
            record, moved=(_transfer(Movement.POST, CLEARING, PREPAID, ask.units),)
        )
    if command.operation == "place_hold" and ask.units > bank.available_units:
        return structs.replace(
            record, refused=_shape(refuse(Code.INSUFFICIENT_FUNDS, path="units"))
        )
    return structs.replace(
        record,
        moved=(_transfer(Movement.PENDING, PREPAID, PENDING, ask.units),),
        changed=(
            Change(
                noun="hold",
                id=command.idempotency_key,
                after={"expires_at_us": ask.expires_at_us, "units": str(ask.units)},
            ),
        ),
    )


def evolve(bank: Bank, record: Record) -> None:
    if record.seq != bank.seq + 1:
        raise Broken(str(record.seq))
    bank.seq, bank.at_us = record.seq, record.at_us
    if record.request is not None:
        who = (record.by.principal_id, record.operation, record.request.key)
        bank.outcomes[who] = record.seq
    for transfer in record.moved:
        apply(bank.accounts, transfer)
    for change in record.changed:
        put = {"hold": _put_hold}[change.noun]
        put(bank, change)


def answer(bank: Bank, question: Question[Any], now_us: int) -> object:
    del now_us
    match question:
        case StandingOf(principal_id=principal_id):
            available = {"XTS": bank.available_units}
            return Standing(
                principal_id=principal_id, available_units=available, as_of_seq=bank.seq
            )
        case AllAccounts():
            return {name: replace(account) for name, account in bank.accounts.items()}
        case _:
            raise TypeError(type(question).__name__)


def due(bank: Bank, now_us: int) -> Command | None:
    if not any(at_us <= now_us for at_us, _ in bank.holds.values()):
        return None
    expiry = command("expire_hold", "", Ask(units=0))
    return structs.replace(expiry, by=Caller(principal_id="platform"))


def next_due_us(bank: Bank) -> int | None:
    return min((at_us for at_us, _ in bank.holds.values()), default=None)


BANK = Machine(
    new_state=Bank, decide=decide, evolve=evolve, answer=answer, due=due, next_due_us=next_due_us
)


@dataclass(slots=True)
class Clock:
    """Goes on by a tick whenever it is read."""

    now_us: int = START_US
    tick_us: int = 1_000

    def __call__(self) -> int:
        self.now_us += self.tick_us
        return self.now_us


def stepper(
    store: Store,
    *,
    now_us: Clock | None = None,
    rows: RowsOf = no_rows,
    limits: Limits | None = None,
    signer: PrivateKey = SIGNER,
    earlier_keys: Sequence[PublicKey] = (),
) -> Stepper[Bank]:
    return Stepper(
        store,
        BANK,
        signer=signer,
        origin=ORIGIN,
        now_us=now_us or Clock(),
        rows=rows,
        earlier_keys=earlier_keys,
        limits=limits or Limits(),
    )


def writer(
    store: Store,
    *,
    now_us: Callable[[], int] | None = None,
    rows: RowsOf = no_rows,
    limits: Limits | None = None,
) -> Writer[Bank]:
    return Writer(
        store,
        BANK,
        signer=SIGNER,
        origin=ORIGIN,
        now_us=now_us or Clock(),
        rows=rows,
        limits=limits,
    )


def _expiry(bank: Bank, record: Record, now_us: int) -> Record:
    key, (_, units) = next(each for each in sorted(bank.holds.items()) if each[1][0] <= now_us)
    return structs.replace(
        record,
        moved=(_transfer(Movement.VOID, PREPAID, PENDING, units),),
        changed=(Change(noun="hold", id=key, after={"expires_at_us": 0, "units": str(units)}),),
    )


def _put_hold(bank: Bank, change: Change) -> None:
    expires_at_us, units = change.after["expires_at_us"], change.after["units"]
    assert isinstance(expires_at_us, int)
    if expires_at_us:
        bank.holds[change.id] = (expires_at_us, int(str(units)))
    else:
        bank.holds.pop(change.id, None)


def _transfer(movement: Movement, debit: str, credit: str, units: int) -> Transfer:
    return Transfer(movement=movement, debit=debit, credit=credit, asset="XTS", units=units)


def _shape(refusal: Refusal) -> dict[str, Json]:
    return {
        name: value for name, value in refusal.document().items() if isinstance(value, str | bool)
    }
