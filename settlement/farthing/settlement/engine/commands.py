"""What goes into the engine and what comes out: plain, serialisable values.

Boundary: no behaviour but construction. `Command` → `Record` (protocol.records) → `Outcome`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec

from farthing.identity.callers import Caller
from farthing.protocol.authority.standing import Standing
from farthing.protocol.errors import Refusal
from farthing.protocol.records import Record, read_record
from farthing.protocol.wire import document_of

__all__ = [
    "PLATFORM",
    "Command",
    "Committed",
    "Kept",
    "Outcome",
    "Question",
    "Seen",
    "platform_command",
]

Answer = TypeVar("Answer")

# Who acts when nobody asks, and who owns what is nobody else's.
PLATFORM = "platform"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A side row that is committed with the record and is not hashed.

    Erasable things live here: the salt and value of a personal field, a redelivered body.
    """

    table: str
    row: Mapping[str, str | int | bytes]


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """One thing asked of the engine.

    Args:
        operation: the operation's name.
        by: who asks, with the proof to burn.
        idempotency_key: the caller's key; scope is (principal or key, operation, key).
        request_sha256: digest of the whole ask's canonical bytes.
        args_sha256: digest of each top-level argument, so that a conflict can name the field.
        body: the ask itself, or the value that a planner made of it.
        asked: what of it stands in the record; documents stand there as facts, personal fields
            and content of work not at all.
        facts: signed documents as received, kept in the record.
        kept: side rows to commit with it.
    """

    operation: str
    by: Caller
    idempotency_key: str
    request_sha256: str
    args_sha256: Mapping[str, str]
    body: object
    asked: Mapping[str, Any] = {}
    facts: Mapping[str, Any] | None = None
    kept: tuple[Kept, ...] = ()


def platform_command(operation: str, body: object) -> Command:
    """A command of the platform's own: no proof, no key, and never refused."""
    return Command(
        operation=operation,
        by=Caller(principal_id=PLATFORM),
        idempotency_key="",
        request_sha256="",
        args_sha256={},
        body=body,
        asked=document_of(body),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The command's key was used before, by record `seq`; that record holds the answer."""

    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a command, told only once it is durable.

    `record` is the record that the answer is a function of; a remembered refusal has one too.
    `standing` is the caller's, read after the effect.
    """

    record: Record
    replayed: bool = False
    standing: Standing | None = None

    @property
    def seq(self) -> int:
        """The record's position in the journal, from 1."""
        return self.record.seq

    @property
    def refusal(self) -> Refusal | None:
        """The remembered refusal, where the command was refused for good."""
        return self.record.refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Question(Generic[Answer]):
    """A question to the engine, answered when memory equals disk. Subclasses are in `questions`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """A record after it became durable, as its bytes: ten times smaller than as a value."""

    seq: int
    data: bytes = field(repr=False)

    @property
    def record(self) -> Record:
        """The record, read anew at each call."""
        return read_record(self.data)[0]
