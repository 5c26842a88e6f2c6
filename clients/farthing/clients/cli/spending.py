"""Spend sessions from a terminal: opened, looked at, topped up, closed; their book in this home.

Boundary: one call of the platform a command. The calls made through a session are for the SDK and
the bridge; what is shown of them was kept by those. Source: spec/cli.md.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from farthing.clients.cli.arguments import (
    AgreementArgument,
    AgreementOption,
    AmountArgument,
    AssetArgument,
    AssetOption,
    CursorOption,
    LimitOption,
    money_of,
)
from farthing.clients.cli.render import amount as amount_of
from farthing.clients.cli.render import heading, screen, table, things
from farthing.clients.cli.session import IdempotencyOption, Session, command
from farthing.protocol.messages.sessions import (
    CLOSE_SESSION,
    GET_SESSION,
    LIST_SESSIONS,
    OPEN_SESSION,
    TOP_UP_SESSION,
    CloseSession,
    GetSession,
    ListSessions,
    OpenSession,
    Sessions,
    TopUpSession,
)
from farthing.protocol.wire import Money, document_of, money

__all__ = ["SessionArgument", "book_folders", "book_in", "commands", "sessions"]

PANEL = "Trade"

commands = typer.Typer()
sessions = typer.Typer(
    no_args_is_help=True, help="Set money aside for many calls, and look after it."
)
commands.add_typer(sessions, name="session", rich_help_panel=PANEL)

SessionArgument = Annotated[
    str, typer.Argument(metavar="SESSION", help="The session's id, ses_…", show_default=False)
]


@command(
    sessions,
    "open",
    example="farthing session open agr_… --cap 0.5 --per-call 0.01 --low-water 0.1",
)
def open_(
    session: Session,
    agreement: AgreementArgument,
    *,
    cap: Annotated[str, typer.Option(metavar="AMOUNT", help="All that may be spent.")],
    per_call: Annotated[str, typer.Option(metavar="AMOUNT", help="The most one call may cost.")],
    asset: AssetOption = "USD",
    expires_in_s: Annotated[
        int, typer.Option(min=1, max=86_400, help="How long calls can be made.")
    ] = 3600,
    low_water: Annotated[
        str | None,
        typer.Option(metavar="AMOUNT", help="Say so when no more than this remains."),
    ] = None,
    final_action: Annotated[
        Literal["refuse", "top_up", "request_approval"],
        typer.Option(help="What is to be done when the cap is reached."),
    ] = "refuse",
    unsigned: Annotated[
        str | None,
        typer.Option(
            metavar="AMOUNT", help="How far the vendor may trust MACs beyond the last signature."
        ),
    ] = None,
    idempotency_key: IdempotencyOption = "",
) -> None:
    """Set money aside for many calls under an agreement (agent)."""
    ask = OpenSession(
        agreement_id=agreement,
        cap=money_of(cap, asset, "--cap"),
        per_call=money_of(per_call, asset, "--per-call"),
        expires_in_s=expires_in_s,
        low_water=None if low_water is None else money_of(low_water, asset, "--low-water"),
        final_action=final_action,
        unsigned=None if unsigned is None else money_of(unsigned, asset, "--unsigned"),
        idempotency_key=idempotency_key or session.new_key(),
    )
    session.show(session.call(OPEN_SESSION, ask))


@command(sessions, "show", example="farthing session show ses_…")
def show(session: Session, spending: SessionArgument) -> None:
    """Show a session: what is set aside, spent and left, and by which voucher (its parties)."""
    session.show(session.call(GET_SESSION, GetSession(session_id=spending)))


@command(sessions, "list", example="farthing session list --limit 10")
def list_(
    session: Session,
    *,
    agreement: AgreementOption = "",
    cursor: CursorOption = "",
    limit: LimitOption = 50,
) -> None:
    """List the sessions that the caller is a party to, newest first."""
    ask = ListSessions(agreement_id=agreement or None, cursor=cursor, limit=limit)
    session.show_page(session.call(LIST_SESSIONS, ask), _sessions)


@command(sessions, "top-up", example="farthing session top-up ses_… 0.5 USD")
def top_up(
    session: Session,
    spending: SessionArgument,
    amount: AmountArgument,
    asset: AssetArgument,
    *,
    idempotency_key: IdempotencyOption = "",
) -> None:
    """Set more money aside in an open session (agent); its book in this home is told."""
    from farthing.clients.callbooks import SessionInUse, note_top_up  # noqa: PLC0415 - sqlite

    ask = TopUpSession(
        session_id=spending,
        amount=money_of(amount, asset),
        idempotency_key=idempotency_key or session.new_key(),
    )
    answer = session.call(TOP_UP_SESSION, ask)
    try:
        if (path := book_in(session, spending)) is not None:
            note_top_up(path, ask.amount.units, answer.cap.units)
    except SessionInUse:
        session.note(
            "A running process has the session's book: it spends this once it asks for the same "
            f"top-up itself, under the key {ask.idempotency_key}."
        )
    session.show(answer)


@command(sessions, "close", example="farthing session close ses_…")
def close(
    session: Session, spending: SessionArgument, *, idempotency_key: IdempotencyOption = ""
) -> None:
    """Close a session (its parties): what was done is still billed, the rest is given back."""
    ask = CloseSession(session_id=spending, idempotency_key=idempotency_key or session.new_key())
    session.show(session.call(CLOSE_SESSION, ask))


@command(sessions, "calls", example="farthing session calls ses_… --wrong", offline=True)
def calls(
    session: Session,
    spending: SessionArgument,
    *,
    wrong: Annotated[
        bool, typer.Option("--wrong", help="Only those whose answer did not hold.")
    ] = False,
) -> None:
    """List the calls of a session by this home's own book, or an agent's in it; what was wrong.

    Those that were answered, by their place, are the chain that the vouchers acknowledge.
    """
    from farthing.clients.callbooks import read_book  # noqa: PLC0415 - loads sqlite

    path = book_in(session, spending)
    if path is None:
        session.misuse(
            f"{session.home.path} has no book of {spending}, nor has an agent in it: name the "
            "home of the agent that called with --home."
        )
    book, kept = read_book(path)
    asset = str(book.get("asset", ""))
    found = [
        {
            "seq": str(each.seq),
            "state": each.state.value,
            "place": str(each.place or ""),
            "usage": ", ".join(f"{meter} {quantity}" for meter, quantity in each.usage.items()),
            "amount": money(each.units, asset),
            "vendor_says": money(each.said_units, asset),
            "result_sha256": each.result_sha256,
            "fault": each.fault,
        }
        for each in kept
        if each.fault or not wrong
    ]
    if session.as_json:
        session.print_json(
            [
                {
                    name: document_of(it) if isinstance(it, Money) else it
                    for name, it in each.items()
                }
                for each in found
            ]
        )
    elif found:
        things(screen(), "calls", found)
    else:
        heading(screen(), "No calls.")


def book_folders(session: Session) -> Iterator[Path]:
    """Where books of sessions are: this home's, and those of the agents in it."""
    yield session.home.books_path
    yield from sorted(session.home.path.glob("agents/*/sessions"))


def book_in(session: Session, session_id: str) -> Path | None:
    """The book of a session, None where neither this home nor an agent's in it has one."""
    paths = (folder / f"{session_id}.sqlite" for folder in book_folders(session))
    return next((path for path in paths if path.exists()), None)


def _sessions(console: Console, answer: Sessions) -> None:
    if not answer.sessions:
        heading(console, "No sessions.")
        return
    table(
        console,
        ("session", "status", "cap", "spent", "remaining", "calls", "expires"),
        (
            (
                each.session_id,
                each.status,
                amount_of(each.cap),
                amount_of(each.spent),
                amount_of(each.remaining),
                str(each.calls),
                each.expires_at,
            )
            for each in answer.sessions
        ),
    )
