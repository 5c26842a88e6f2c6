"""What an operation may touch: the engine, the reads, the clock, the platform's key. No more.

Boundary: `submit` is the one place where an ask becomes a command.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar, cast

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from farthing.catalog.cards import CardShelf
from farthing.catalog.vocabulary import Vocabulary
from farthing.identity.callers import Caller
from farthing.identity.directory import Directory
from farthing.protocol.canonical import InvalidJson, Json, canonical_bytes, sha256_hex
from farthing.protocol.errors import Code, Refused, refuse
from farthing.protocol.keys import Signer
from farthing.protocol.wire import Operation, document_of
from farthing.server.flights import Flights
from farthing.server.metrics import Metrics
from farthing.server.ports import PaymentProcessor, VendorCaller
from farthing.server.velocity import Velocity
from farthing.settlement.engine.commands import Command, Kept, Outcome, Question
from farthing.settlement.port import Engine
from farthing.settlement.reports.reads import Reports
from farthing.settlement.reports.trial_balance import Totals
from farthing.settlement.reports.turns import Turns
from farthing.settlement.tables import PERSONAL

__all__ = ["Market"]

Answer = TypeVar("Answer")

# Digests stand in the journal for ever, and whoever guesses a name can try it on its digest.
_PERSONAL: Final = frozenset({"name"})

_AGAIN: Final = "It was answered so before under this key; a new key asks anew."


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """The composition that every operation is given.

    Args:
        engine: the one way to the ledger.
        now_us: the clock of the front end; the engine has its own.
        entropy: random bytes of a length.
        signer: the platform's key for quotes and entitlements.
        issuer: the public URL, which names the platform in everything it signs.
        quote_keys: every public key that quotes were ever signed with, newest last.
        origin: the journal's name in its signed heads.
        journal_jwk: the public key that signs tree heads.
        directory: who holds which key.
        reads: a connection that cannot write.
        reports: statement lines, for reading.
        cards: the shelf of rate cards that searches price with.
        vocabulary: the capability tags in force.
        flights: the calls of vendors' tools that the platform makes.
        vendors: who makes them.
        vendor_timeout_s: how long one attempt may take.
        payer: the platform's key for the vouchers that it pays them with.
        processors: who brings money in and takes it out, by name.
        metrics: what this process counts of itself.
        velocity: how fast callers may call.
        totals: what all accounts add up to, of records that were asked for.
        comparing: turns at comparing what was reported.
    """

    engine: Engine
    now_us: Callable[[], int]
    entropy: Callable[[int], bytes]
    signer: Signer
    issuer: str
    quote_keys: tuple[Mapping[str, str], ...]
    origin: str
    journal_jwk: Mapping[str, str]
    directory: Directory
    reads: Callable[[], AbstractAsyncContextManager[AsyncConnection]]
    reports: Reports
    cards: CardShelf
    vocabulary: Vocabulary
    flights: Flights
    vendors: VendorCaller
    vendor_timeout_s: int
    payer: Signer
    processors: Mapping[str, PaymentProcessor]
    metrics: Metrics
    velocity: Velocity
    totals: Totals
    comparing: Turns

    async def ask(self, question: Question[Answer]) -> Answer:
        """Answer a question from durable state."""
        return await self.engine.ask(question)

    async def names(self, commitments: set[str]) -> dict[str, str]:
        """The names behind salted commitments; an erased name is absent."""
        async with self.reads() as conn:
            rows = await conn.execute(
                select(PERSONAL.c.commitment, PERSONAL.c.value).where(
                    PERSONAL.c.commitment.in_(commitments)
                )
            )
            return {row.commitment: row.value for row in rows}

    async def submit(
        self,
        caller: Caller,
        operation: Operation[Any, Any],
        ask: object,
        *,
        body: object = None,
        facts: Mapping[str, Json] | None = None,
        kept: tuple[Kept, ...] = (),
    ) -> Outcome:
        """Submit an ask as a command.

        Args:
            caller: who asks.
            operation: the operation's declaration.
            ask: the ask as received; its digest is what the idempotency key is bound to.
            body: what a planner made of the ask, where it made something.
            facts: signed documents to keep in the record.
            kept: side rows to commit with the record.

        Raises:
            Refused: any refusal, remembered or not.
        """
        command = command_of(caller, operation, ask, body=body, facts=facts, kept=kept)
        outcome = await self.engine.submit(command)
        refusal = outcome.refusal
        if refusal is not None and outcome.replayed:
            text = f"{refusal.message} {_AGAIN}"
            raise Refused(replace(refusal, message=text), replayed=True)
        if refusal is not None:
            raise Refused(refusal)
        return outcome


def command_of(
    caller: Caller,
    operation: Operation[Any, Any],
    ask: object,
    *,
    body: object = None,
    facts: Mapping[str, Json] | None = None,
    kept: tuple[Kept, ...] = (),
) -> Command:
    """The command of an ask; raises `Refused` where a document in it has no canonical bytes."""
    arguments = document_of(ask)
    key = cast("str", arguments.pop("idempotency_key", ""))
    try:
        args_sha256 = {
            name: _digest(value)
            for name, value in sorted(arguments.items())
            if name not in _PERSONAL
        }
    except InvalidJson as error:
        text = f"A document does not keep to the signed alphabet: {error.reason.value}."
        raise Refused(refuse(Code.INVALID_ARGUMENT, message=text)) from error
    return Command(
        operation=operation.name,
        by=caller,
        idempotency_key=key,
        request_sha256=_digest(args_sha256),
        args_sha256=args_sha256,
        body=ask if body is None else body,
        asked=_asked(arguments, body, facts),
        facts=facts,
        kept=kept,
    )


def _asked(
    arguments: Mapping[str, Json], body: object, facts: Mapping[str, Json] | None
) -> Mapping[str, Json]:
    """What of an ask stands in its record: a planned body may say itself what is left of it."""
    planned = getattr(body, "asked", None)
    if planned is not None:
        return cast("Mapping[str, Json]", planned)
    return {name: value for name, value in arguments.items() if name not in (facts or ())}


def _digest(value: Json | Mapping[str, str]) -> str:
    return sha256_hex(canonical_bytes(value))
