"""Countings of the same usage compared from a terminal: this home's own beside the platform's.

Boundary: a buyer's home has books, an operator's its agents' homes, a vendor's a spool; what they
hold is the side's own counting.
Source: spec/metering.md#reconciliation, spec/cli.md.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from farthing.clients.cli.arguments import TIME_FORM, AgreementArgument, object_of, time_of
from farthing.clients.cli.render import amount, heading, percent, rows, table
from farthing.clients.cli.session import Exit, Session, command
from farthing.clients.cli.spending import SessionArgument, book_folders, book_in, sessions
from farthing.protocol.messages.reconciliation import (
    RECONCILE_USAGE,
    ReconcileUsage,
    Tally,
    UsageReconciliation,
)

if TYPE_CHECKING:
    from farthing.protocol.messages.reconciliation import AcknowledgedSession

__all__ = ["commands"]

PANEL = "Trade"

commands = typer.Typer()

GatewayOption = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        help="What a gateway counted: JSON of document and signature.",
        show_default=False,
    ),
]


@command(sessions, "reconcile", example="farthing session reconcile ses_…")
def session_(session: Session, spending: SessionArgument, *, gateway: GatewayOption = "") -> None:
    """Compare what was reported of a session with this home's own counting, call by call.

    Exit 1 where they differ by more than the agreement's terms allow. Without a book or a spool
    here, all that is billed is shown as acknowledged by nobody.
    """
    from farthing.clients.gathering import fitting  # noqa: PLC0415 - loads the transport

    ask = _asked(ReconcileUsage(session_id=spending), gateway)
    book = book_in(session, spending)
    lists = _spooled(session) if book is None else _booked(book)
    own = tuple(fitting(each) for each in lists if each.session_id == spending)
    _show(session, session.call(RECONCILE_USAGE, replace(ask, acknowledged=own)))


@command(commands, "reconcile", panel=PANEL, example="farthing reconcile agr_… --since 2026-11-01")
def agreement_(
    session: Session,
    agreement: AgreementArgument,
    *,
    since: Annotated[
        str,
        typer.Option(
            parser=time_of,
            metavar="TIME",
            help=f"Sessions opened from then on, {TIME_FORM}.",
            show_default=False,
        ),
    ] = "",
    until: Annotated[
        str,
        typer.Option(
            parser=time_of, metavar="TIME", help="Sessions opened before.", show_default=False
        ),
    ] = "",
    gateway: GatewayOption = "",
) -> None:
    """Compare what was reported under an agreement with this home's own counting (its parties).

    A buyer's counting is what its books acknowledged, an operator's that of the agents in its home,
    a vendor's what its spool delivered. Exit 1 where they differ by more than the agreement's terms
    allow.
    """
    from farthing.clients.countings import booked  # noqa: PLC0415 - loads sqlite
    from farthing.clients.gathering import gathered  # noqa: PLC0415 - loads the transport

    ask = ReconcileUsage(agreement_id=agreement, since=since, until=until)
    ask = _asked(ask, gateway)
    lists = tuple(
        each for folder in book_folders(session) for each in booked(folder, agreement)
    ) or _spooled(session)
    _show(session, session.run(lambda connection: gathered(connection, ask, lists)))


def _asked(ask: ReconcileUsage, file: str) -> ReconcileUsage:
    if not file:
        return ask
    given = object_of(f"@{file}", "--gateway")
    document, signature = given.get("document"), given.get("signature")
    if not isinstance(document, dict) or not isinstance(signature, str):
        raise typer.BadParameter("it is an object of document and signature")
    return replace(ask, gateway=dict(document), gateway_signature=signature)


def _booked(path: Path) -> "tuple[AcknowledgedSession, ...]":
    from farthing.clients.countings import listed_in  # noqa: PLC0415 - loads sqlite

    return (listed_in(path),)


def _spooled(session: Session) -> "tuple[AcknowledgedSession, ...]":
    from farthing.clients.countings import spooled  # noqa: PLC0415 - loads sqlite

    return spooled(session.home.spool_path)


def _show(session: Session, answer: UsageReconciliation) -> None:
    session.show(answer, _reconciled)
    if not answer.within:
        raise typer.Exit(Exit.REFUSED)


def _reconciled(console: Console, answer: UsageReconciliation) -> None:
    rows(
        console,
        (
            ("agreement", answer.agreement_id),
            ("within", "yes" if answer.within else "no"),
            ("tolerance", percent(answer.tolerance_ppm)),
            ("billed", amount(answer.billed)),
            ("acknowledged", amount(answer.acknowledged)),
            ("over", amount(answer.over)),
            ("under", amount(answer.under)),
            ("platform's calls", f"{answer.passed.captured} of {answer.passed.asked}"),
        ),
    )
    counts = [("calls", answer.calls), *((each.meter, each.count) for each in answer.meters)]
    table(
        console,
        ("count", "reported", "billed", "acknowledged", "over", "under", "gateway"),
        ((name, *_cells(count)) for name, count in counts),
    )
    left_out = [each.session_id for each in answer.sessions if not each.compared]
    if left_out:
        heading(console, f"Too long to be compared: {', '.join(left_out)}")
    if answer.differences:
        table(
            console,
            ("session", "call", "difference", "direction", "billed", "acknowledged", "fault"),
            (
                (
                    each.session_id,
                    str(each.call),
                    each.kind,
                    each.direction,
                    amount(each.billed),
                    amount(each.acknowledged),
                    each.fault,
                )
                for each in answer.differences
            ),
        )


def _cells(count: Tally) -> tuple[str, ...]:
    return (
        count.reported,
        count.billed,
        count.acknowledged,
        count.over,
        count.under,
        count.gateway,
    )
