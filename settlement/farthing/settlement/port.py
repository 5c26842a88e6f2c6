"""The engine's port: three methods, whoever implements it and wherever it runs."""

from collections.abc import AsyncIterator
from typing import Protocol, TypeVar

from farthing.settlement.engine.commands import Command, Committed, Outcome, Question

__all__ = ["Engine"]

Answer = TypeVar("Answer")


class Engine(Protocol):
    """The one way to the ledger."""

    async def submit(self, command: Command) -> Outcome:
        """Decide a command, make it durable, then tell.

        A final refusal is an outcome like any other (`outcome.refusal`), remembered under its key.

        Raises:
            Refused: a refusal that is not remembered (spec/errors.md); nothing was written.
        """

    async def ask(self, question: Question[Answer]) -> Answer:
        """Answer a question from state that is durable."""

    def follow(self, after_seq: int) -> AsyncIterator[Committed]:
        """All records after `after_seq`, then each new one once it is durable.

        The batch below a record may be missing; it is there where the record is asked for.
        """
