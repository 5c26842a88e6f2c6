"""What the treasurer books against the outside: done, shown, and held against its reference.

Boundary: the call that books and one reading after it, which changes nothing of what was booked.
"""

from shlex import quote

from farthing.clients.cli.session import Session
from farthing.protocol.errors import Code, FarthingError, Refused
from farthing.protocol.ledger import AccountKind
from farthing.protocol.messages.statements import GET_STATEMENT, LINES_MAX, GetStatement
from farthing.protocol.wire import Answer, Ask, Operation

__all__ = ["book", "book_gone"]


def book(
    session: Session, operation: Operation[Ask, Answer], ask: Ask, *, reference: str = ""
) -> None:
    """Book it, show it, and say where something was booked under its reference before."""
    session.show(session.call(operation, ask))
    if reference:
        _note_others(session, reference)


def book_gone(
    session: Session, operation: Operation[Ask, Answer], ask: Ask, *, reference: str = ""
) -> None:
    """Book what goes; where too little is there, say what to do if it has gone already."""
    try:
        book(session, operation, ask, reference=reference)
    except Refused as refused:
        if refused.code is Code.INSUFFICIENT_FUNDS:
            text = "the same command with --may-owe, under another key or none"
            session.note(f"Where it has gone already: {text}.")
        raise


def _note_others(session: Session, reference: str) -> None:
    account = AccountKind.EXTERNAL_CLEARING.value
    ask = GetStatement(account=account, reference=reference, limit=LINES_MAX)
    try:
        lines = session.call(GET_STATEMENT, ask).lines
    except FarthingError:
        # It is booked, whatever became of looking.
        return
    booked = {line.seq for line in lines if line.movement == "post"}
    if len(booked) > 1:
        command = f"farthing statement --account {account} --reference {quote(reference)}"
        session.note(f"{len(booked)} records are booked under {reference}: {command}")
