"""What everybody who has accounts reads of them: balances, statements, the record behind a line.

Boundary: one call of the platform a command.
"""

from typing import Annotated, Literal

import typer
from rich.console import Console

from farthing.clients.cli.arguments import TIME_FORM, AssetOption, CursorOption, time_of
from farthing.clients.cli.audit import OutOption, postings_table, write_receipt
from farthing.clients.cli.render import amount, heading, rows, table
from farthing.clients.cli.session import Session, command
from farthing.protocol.messages.accounts import GET_BALANCE, AccountBalance, Balances, GetBalance
from farthing.protocol.messages.statements import (
    GET_STATEMENT,
    LINES_MAX,
    GetStatement,
    RecordView,
    Statement,
    StatementLine,
)

__all__ = ["commands"]

PANEL = "Trade"

commands = typer.Typer()

OrganisationOption = Annotated[
    str,
    typer.Option(
        "--organisation",
        metavar="ORG",
        help="Whose, as treasurer; else your organisation's.",
        show_default=False,
    ),
]


@command(commands, "balance", example="farthing balance --at 2026-11-21", panel=PANEL)
def balance(
    session: Session,
    *,
    organisation: OrganisationOption = "",
    at: Annotated[
        str,
        typer.Option(parser=time_of, metavar="TIME", help=f"As recorded up to then, {TIME_FORM}."),
    ] = "",
    at_seq: Annotated[int, typer.Option(min=0, help="As recorded up to this record.")] = 0,
    effective_at: Annotated[
        str,
        typer.Option(
            parser=time_of, metavar="TIME", help="Of that, what had taken effect by then."
        ),
    ] = "",
) -> None:
    """Show the organisation's accounts: posted, held and available, now or at an earlier moment."""
    ask = GetBalance(
        organisation_id=organisation or None, at=at, at_seq=at_seq, effective_at=effective_at
    )
    session.show(session.call(GET_BALANCE, ask), _balances)


@command(
    commands,
    "statement",
    example="farthing statement --account prepaid --since 2026-11-01 --until 2026-12-01",
    panel=PANEL,
)
def statement(
    session: Session,
    *,
    organisation: OrganisationOption = "",
    account: Annotated[
        str, typer.Option(metavar="KIND", help="One kind of account, such as prepaid; else all.")
    ] = "",
    asset: AssetOption = "",
    by: Annotated[
        Literal["recorded", "effective"],
        typer.Option(help="Which time the period is of, and the lines are ordered by."),
    ] = "recorded",
    since: Annotated[
        str, typer.Option(parser=time_of, metavar="TIME", help=f"The begin, included, {TIME_FORM}.")
    ] = "",
    until: Annotated[
        str, typer.Option(parser=time_of, metavar="TIME", help="The end, not included.")
    ] = "",
    reference: Annotated[
        str, typer.Option(help="Only what is booked under this outside, such as a wire's number.")
    ] = "",
    limit: Annotated[int, typer.Option(min=1, max=LINES_MAX, help="How many lines at most.")] = 50,
    cursor: CursorOption = "",
) -> None:
    """List the organisation's lines of a period, with balances before, after and at each line."""
    ask = GetStatement(
        organisation_id=organisation or None,
        account=account,
        asset=asset,
        by=by,
        since=since,
        until=until,
        reference=reference,
        limit=limit,
        cursor=cursor,
    )
    session.show_page(session.call(GET_STATEMENT, ask), _statement)


@command(commands, "record", example="farthing record 42 --out receipt.json", panel=PANEL)
def record(
    session: Session,
    seq: Annotated[
        int, typer.Argument(metavar="SEQ", min=1, help="The record's place.", show_default=False)
    ],
    *,
    out: OutOption = None,
) -> None:
    """Open a line of a statement: the record behind it, what it moved, its proof verified."""
    from farthing.clients.statements import AccountHolder  # noqa: PLC0415 - loads cryptography

    view = session.prove(AccountHolder, lambda holder: holder.record(seq))
    if out is None:
        session.show(view, _record)
        return
    write_receipt(out, view.receipt)
    session.show_facts({"seq": str(seq), "operation": view.operation, "receipt": str(out)})


def _balances(console: Console, answer: Balances) -> None:
    heading(console, f"{answer.organisation_id}, as of record {answer.as_of_seq}")
    if not answer.accounts:
        heading(console, "No accounts: nothing has come in yet.")
        return
    table(
        console,
        ("account", "posted", "held", "available"),
        ((each.account, *_figures(each)) for each in answer.accounts),
    )
    if answer.graces:
        table(
            console,
            ("grace", "granted", "chosen"),
            (
                (
                    amount(each.in_force),
                    amount(each.granted),
                    amount(each.chosen) if each.chosen else "",
                )
                for each in answer.graces
            ),
        )
    for each in answer.closed:
        heading(console, f"{each.account} {each.asset} is closed.")


def _statement(console: Console, answer: Statement) -> None:
    heading(console, f"{answer.organisation_id}, by time {answer.by}, record {answer.as_of_seq}")
    if not answer.accounts:
        heading(console, "No accounts, and no lines.")
        return
    ends = (
        (title, each.account, *_figures(each))
        for period in answer.accounts
        for title, each in (("opening", period.opening), ("closing", period.closing))
    )
    table(console, ("", "account", "posted", "held", "available"), ends)
    if not answer.lines:
        heading(console, "No lines.")
        return
    lines = (
        (
            str(each.seq),
            each.recorded_at if answer.by == "recorded" else each.effective_at,
            each.account,
            f"{each.movement} {each.side}",
            amount(each.amount),
            amount(each.after.available),
            each.operation,
            ", ".join(f"{noun} {thing}" for noun, thing in _behind(each)),
        )
        for each in answer.lines
    )
    titles = ("record", "time", "account", "moved", "amount", "available", "operation", "behind it")
    table(console, titles, lines)


def _behind(line: StatementLine) -> list[tuple[str, str]]:
    outside = [("reference", line.reference)] if line.reference else []
    return [*line.ids.items(), *outside]


def _record(console: Console, answer: RecordView) -> None:
    heading(console, f"Record {answer.seq}: {answer.operation}")
    told = (
        ("recorded at", answer.recorded_at),
        ("effective at", answer.effective_at),
        *answer.ids.items(),
        ("proven by", f"{len(answer.receipt.proof)} hashes"),
    )
    rows(console, told)
    postings_table(console, answer.postings)


def _figures(balance: AccountBalance) -> tuple[str, str, str]:
    return amount(balance.posted), amount(balance.held), amount(balance.available)
