"""What may be used and what was reported, from a terminal: allowances, rejections, receipts.

Boundary: one call of the platform a command. Source: spec/metering.md, spec/cli.md.
"""

from typing import Annotated, Literal

import typer
from rich.console import Console

from farthing.clients.cli.arguments import (
    TIME_FORM,
    AgreementArgument,
    CursorOption,
    time_of,
    workload_of,
)
from farthing.clients.cli.audit import OutOption
from farthing.clients.cli.render import amount, heading, rows, table
from farthing.clients.cli.session import IdempotencyOption, Session, command
from farthing.clients.cli.spending import SessionArgument, sessions
from farthing.clients.files import write_whole
from farthing.protocol.canonical import canonical_bytes
from farthing.protocol.messages.allowances import (
    APPROVE_ALLOWANCE,
    GET_ALLOWANCE,
    PROPOSE_ALLOWANCE,
    AllowanceUse,
    ApproveAllowance,
    GetAllowance,
    ProposeAllowance,
)
from farthing.protocol.messages.metering import (
    LIST_REJECTED_USAGE,
    CallReceipt,
    ListRejectedUsage,
    RejectedUsages,
)
from farthing.protocol.wire import document_of

__all__ = ["commands"]

PANEL = "Trade"

commands = typer.Typer()
allowances = typer.Typer(no_args_is_help=True, help="Agree on what may be used under an agreement.")
commands.add_typer(allowances, name="allowance", rich_help_panel=PANEL)

LimitsOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="METER=QUANTITY", help="The most of one meter; repeat it.", show_default=False
    ),
]


@command(sessions, "rejected", example="farthing session rejected ses_… --reason duplicate")
def rejected(
    session: Session,
    spending: Annotated[
        str, typer.Argument(metavar="[SESSION]", help="One session alone.", show_default=False)
    ] = "",
    *,
    reason: Annotated[str, typer.Option(help="One reason alone.", show_default=False)] = "",
    cursor: CursorOption = "",
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many at most.")] = 50,
) -> None:
    """List usage that was reported and not taken, with the reasons (its parties)."""
    ask = ListRejectedUsage(session_id=spending, reason=reason, cursor=cursor, limit=limit)
    session.show_page(session.call(LIST_REJECTED_USAGE, ask), _rejected)


@command(sessions, "receipt", example="farthing session receipt ses_… 17 --out call.json")
def receipt(
    session: Session,
    spending: SessionArgument,
    call: Annotated[
        int, typer.Argument(metavar="CALL", min=1, help="The call's number.", show_default=False)
    ],
    *,
    out: OutOption = None,
) -> None:
    """Get the receipt of one call, proven under the pinned keys (its parties)."""
    from farthing.clients.reconciling import Reconciling  # noqa: PLC0415 - loads cryptography

    answer, _ = session.prove(Reconciling, lambda party: party.call_receipt(spending, call))
    if out is None:
        session.show(answer, _call_receipt)
        return
    document = document_of(answer)
    told = {name: document[name] for name in ("event", "path", "place", "receipt")}
    write_whole(out, canonical_bytes(told) + b"\n")
    cost = amount(answer.cost.amount)
    session.show_facts({"call": str(call), "amount": cost, "receipt": str(out)})


@command(allowances, "show", example="farthing allowance show agr_…")
def show(session: Session, agreement: AgreementArgument) -> None:
    """Show what may be used under an agreement, and what of it was used (its parties)."""
    session.show(session.call(GET_ALLOWANCE, GetAllowance(agreement_id=agreement)), _allowance)


@command(allowances, "propose", example="farthing allowance propose agr_… --per-day page=500")
def propose(
    session: Session,
    agreement: AgreementArgument,
    *,
    per_day: LimitsOption = None,
    in_all: LimitsOption = None,
    enforcement: Annotated[
        Literal["refuse", "report"], typer.Option(help="What becomes of use beyond it.")
    ] = "refuse",
    expires: Annotated[
        str,
        typer.Option(
            parser=time_of,
            metavar="TIME",
            help=f"When nothing more may be used, {TIME_FORM}; else it does not end.",
            show_default=False,
        ),
    ] = "",
    idempotency_key: IdempotencyOption = "",
) -> None:
    """Propose limits to the other side; without any, that there be none (its parties)."""
    ask = ProposeAllowance(
        agreement_id=agreement,
        per_day=workload_of(per_day, "--per-day"),
        in_all=workload_of(in_all, "--in-all"),
        enforcement=enforcement,
        expires_at=expires,
        idempotency_key=idempotency_key or session.new_key(),
    )
    session.show(session.call(PROPOSE_ALLOWANCE, ask))


@command(allowances, "approve", example="farthing allowance approve agr_… alw_…")
def approve(
    session: Session,
    agreement: AgreementArgument,
    allowance: Annotated[
        str, typer.Argument(metavar="ALLOWANCE", help="The proposal's id.", show_default=False)
    ],
    *,
    idempotency_key: IdempotencyOption = "",
) -> None:
    """Put in force what the other side proposed (operator, vendor)."""
    ask = ApproveAllowance(
        agreement_id=agreement,
        allowance_id=allowance,
        idempotency_key=idempotency_key or session.new_key(),
    )
    session.show(session.call(APPROVE_ALLOWANCE, ask))


def _call_receipt(console: Console, answer: CallReceipt) -> None:
    cost = answer.cost
    heading(console, f"Call {cost.call} of {answer.session_id}: {amount(cost.amount)}")
    told = [
        ("charge", answer.charge_id),
        ("at", cost.at),
        ("outcome", cost.outcome),
        ("usage", ", ".join(f"{each.meter} {each.quantity}" for each in cost.usage)),
        ("rejected", cost.rejected),
        ("args sha256", cost.args_sha256),
        ("result sha256", cost.result_sha256),
        ("record", str(answer.receipt.seq)),
        ("proven by", f"{len(answer.path) + len(answer.receipt.proof)} hashes"),
    ]
    rows(console, [(label, text) for label, text in told if text])
    heading(console, "The whole receipt: --json; for the one-file verifier: --out FILE.")


def _rejected(console: Console, answer: RejectedUsages) -> None:
    if not answer.rejected:
        heading(console, "Nothing was rejected.")
        return
    rows(console, ((each.reason, str(each.events)) for each in answer.reasons))
    table(
        console,
        ("session", "call", "reason", "code", "events", "reported"),
        (
            (
                each.session_id,
                str(each.call or ""),
                each.reason,
                each.code,
                str(each.events),
                each.reported_at,
            )
            for each in answer.rejected
        ),
    )


def _allowance(console: Console, answer: AllowanceUse) -> None:
    facts = [("agreement", answer.agreement_id), ("status", answer.status)]
    if answer.in_force is not None:
        ends = answer.in_force.expires_at or "never"
        facts += [("enforcement", answer.in_force.enforcement), ("expires", ends)]
    if answer.proposed is not None:
        facts += [("proposed", answer.proposed.allowance_id)]
        facts += [("proposed by", answer.proposed.proposed_by)]
    rows(console, facts)
    if answer.meters:
        table(
            console,
            ("meter", "period", "limit", "used", "held", "remaining"),
            (
                (each.meter, each.period, each.limit, each.used, each.held, each.remaining)
                for each in answer.meters
            ),
        )
