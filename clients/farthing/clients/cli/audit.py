"""What anybody does who wants to know: explain, prove, verify, ask what became of a call.

Boundary: reads; a file is written only where it is named. Verifying needs no platform at all.
"""

import shlex
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console

from farthing.clients.cli.arguments import ChargeArgument, object_of, thumbprint_of
from farthing.clients.cli.render import amount, heading, rows, screen, table
from farthing.clients.cli.session import Exit, Session, command
from farthing.clients.files import write_whole
from farthing.protocol.canonical import Json, canonical_bytes
from farthing.protocol.errors import Unverified
from farthing.protocol.ledger import Transfer
from farthing.protocol.messages.charges import (
    EXPLAIN_CHARGE,
    CallCost,
    ExplainCharge,
    Explanation,
    Receipt,
)
from farthing.protocol.messages.operations import OPERATIONS, AnyOperation
from farthing.protocol.messages.trails import GET_OUTCOME, GetOutcome
from farthing.protocol.rating import InvalidLine, Line, parse_line
from farthing.protocol.records import head_of
from farthing.protocol.wire import Effect, document_of, money

if TYPE_CHECKING:
    from farthing.clients.http_api import Sendable
    from farthing.clients.transport import Connection

__all__ = ["OutOption", "commands", "postings_table", "write_receipt"]

PANEL = "Audit"

commands = typer.Typer()

OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FILE",
        help="Write the receipt here, for the one-file verifier.",
        show_default=False,
    ),
]


@command(commands, "explain", example="farthing explain chg_…", panel=PANEL)
def explain(session: Session, charge: ChargeArgument) -> None:
    """Show how a charge came about: every line's trace and every posting (its parties)."""
    answer = session.call(EXPLAIN_CHARGE, ExplainCharge(charge_id=charge))
    _lines(answer)
    session.show(answer, _explanation)


@command(commands, "receipts", example="farthing receipts chg_… --out receipt.json", panel=PANEL)
def receipts(session: Session, charge: ChargeArgument, *, out: OutOption = None) -> None:
    """Get the receipt of a charge: its record, proven under a signed tree head (its parties)."""
    from farthing.clients.charges import ChargeParty  # noqa: PLC0415 - loads cryptography

    receipt = session.prove(ChargeParty, lambda party: party.receipt(charge))
    if out is None:
        session.show(receipt, _receipt)
        return
    write_receipt(out, receipt)
    session.show_facts({"charge_id": charge, "seq": str(receipt.seq), "receipt": str(out)})


@command(commands, "head", example="farthing head", panel=PANEL)
def head(session: Session) -> None:
    """Keep the journal's newest signed head, proven to only add to the one kept before."""
    from farthing.clients.heads import Watcher  # noqa: PLC0415 - loads cryptography

    path = session.home.head_path
    kept = path.read_text(encoding="utf-8") if path.exists() else ""
    note = session.prove(Watcher, lambda watcher: watcher.newest_head(kept))
    write_whole(path, note.encode())
    origin, records, root = note.split("\n")[:3]
    _, before, *_ = [*kept.split("\n"), "", ""]
    session.show_facts({
        "origin": origin,
        "records": records,
        "root": root,
        "grown_from": before,
        "kept": str(path),
    })  # fmt: skip


@command(commands, "evidence", example="farthing evidence chg_… --out charge.pack", panel=PANEL)
def evidence(
    session: Session,
    charge: ChargeArgument,
    *,
    out: Annotated[
        Path, typer.Option("--out", metavar="PACK", help="The pack to write.", show_default=False)
    ],
) -> None:
    """Write everything that proves a charge into one file, for farthing verify (its parties)."""
    from farthing.clients.charges import ChargeParty  # noqa: PLC0415 - loads cryptography

    pack = session.prove(ChargeParty, lambda party: party.evidence(charge))
    write_whole(out, pack)
    session.show_facts({"charge_id": charge, "pack": str(out), "size_bytes": str(len(pack))})


@command(
    commands,
    "verify",
    example="farthing verify charge.pack --trust THUMBPRINT",
    panel=PANEL,
    offline=True,
)
def verify(
    session: Session,
    pack: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A pack that farthing evidence wrote, or the bundle of a whole journal.",
            exists=True,
            dir_okay=False,
            readable=True,
            show_default=False,
        ),
    ],
    *,
    trust: Annotated[
        list[str] | None,
        typer.Option(
            metavar="THUMBPRINT",
            parser=thumbprint_of,
            help="The platform's journal key as you learnt it elsewhere; repeat for more.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Verify a pack or a bundle with no server and no network; says what it cannot prove.

    Exit 0: everything holds. Exit 1: something does not. Without --trust the file can only be
    shown to agree with itself, and the verdict says "integrity only".
    """
    from farthing.clients.verify import report, verify_file  # noqa: PLC0415 - as above

    findings = verify_file(pack, None if trust is None else frozenset(trust))
    if session.as_json:
        session.print_json({"verified": findings.verified, **document_of(findings)})
    else:
        typer.echo(report(findings))
    raise typer.Exit(Exit.OK if findings.verified else Exit.REFUSED)


@command(
    commands,
    "outcome",
    example="farthing outcome fund_account KEY",
    panel=PANEL,
    dashes=True,
)
def outcome(
    session: Session,
    operation: Annotated[
        str,
        typer.Argument(metavar="OPERATION", help="The operation's name.", show_default=False),
    ],
    idempotency_key: Annotated[
        str, typer.Argument(metavar="KEY", help="The call's idempotency key.", show_default=False)
    ],
) -> None:
    """Say what became of a call of yours whose reply was lost: done, refused or unknown."""
    name = _operation(operation).name
    session.show(session.call(GET_OUTCOME, GetOutcome(operation=name, key=idempotency_key)))


@command(commands, "call", example="""farthing call list_agreements '{"limit": 5}'""", panel=PANEL)
def call(
    session: Session,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="An operation; farthing operations lists them.",
            show_default=False,
        ),
    ],
    arguments: Annotated[
        str,
        typer.Argument(
            metavar="JSON", help="Its arguments: an object, @FILE, or - for standard input."
        ),
    ] = "{}",
    *,
    curl: Annotated[
        bool, typer.Option("--curl", help="Print it as a curl command, signed, and send nothing.")
    ] = False,
) -> None:
    """Call any operation by its name; the answer is printed as JSON.

    A write without an idempotency_key is given a fresh one, which is printed first.
    """
    operation = _operation(name)
    asked: dict[str, Any] = dict(object_of(arguments, "JSON"))
    takes_key = any(field.name == "idempotency_key" for field in fields(operation.ask))
    if takes_key and "idempotency_key" not in asked:
        asked["idempotency_key"] = session.new_key()
        session.note(f"idempotency_key: {asked['idempotency_key']}")
    if curl:
        _show_curl(session, name, asked, signed=not operation.public)
        return
    result = session.run(
        lambda connection: connection.send_raw(
            name, asked, repeatable=takes_key or operation.effect is Effect.READS
        ),
        signed=not operation.public,
    )
    session.print_json(result.structured)


def _show_curl(session: Session, name: str, asked: dict[str, Any], *, signed: bool) -> None:
    async def made(connection: "Connection") -> "Sendable":
        return connection.request(name, asked)

    request = session.run(made, signed=signed)
    if session.as_json:
        session.print_json(
            {
                "method": request.method,
                "url": request.url,
                "headers": dict(request.headers),
                "body": request.body.decode(),
            }
        )
        return
    words = ["curl", "--request", request.method, request.url]
    for header, value in request.headers.items():
        words += ["--header", f"{header}: {value}"]
    typer.echo(shlex.join([*words, "--data-raw", request.body.decode()]))
    session.note("It is signed for half a minute, and a write for once: a retry is printed anew.")


@command(
    commands, "operations", example="farthing operations place_hold", panel=PANEL, offline=True
)
def operations(
    session: Session,
    name: Annotated[
        str,
        typer.Argument(
            metavar="[NAME]",
            help="One of them: show the schema of its arguments.",
            show_default=False,
        ),
    ] = "",
) -> None:
    """List every operation of the protocol, or show what one takes and answers."""
    if not name:
        listed = [
            {
                "name": each.name,
                "effect": each.effect.value,
                "roles": ", ".join(sorted(each.roles)),
                "says": each.says,
            }
            for each in OPERATIONS.values()
        ]
        if session.as_json:
            session.print_json(listed)
        else:
            table(screen(), ("name", "effect", "roles", "says"), [[*e.values()] for e in listed])
        return
    from pydantic import TypeAdapter  # noqa: PLC0415 - used here alone

    operation = _operation(name)
    session.print_json({
        "name": operation.name,
        "says": operation.says,
        "effect": operation.effect.value,
        "roles": sorted(operation.roles),
        "refusals": [code.value for code in operation.codes],
        "ask": TypeAdapter(operation.ask).json_schema(),
        "answer": TypeAdapter(operation.answer).json_schema(),
    })  # fmt: skip


def _operation(name: str) -> AnyOperation:
    operation = OPERATIONS.get(name)
    if operation is None:
        raise typer.BadParameter(f"{name} is no operation: farthing operations lists them")
    return operation


def postings_table(console: Console, postings: Iterable[dict[str, object]]) -> None:
    """Show postings as they are in a record, each read strictly.

    Raises:
        Unverified: one has not their form.
    """
    try:
        read = [Transfer.from_document(cast("dict[str, Json]", each)) for each in postings]
    except (KeyError, ValueError) as error:
        raise Unverified(f"a posting: {error}") from None
    table(
        console,
        ("movement", "debit", "credit", "amount"),
        (
            (each.movement.value, each.debit, each.credit, _amount(each.units, each.asset))
            for each in read
        ),
    )


def _explanation(console: Console, answer: Explanation) -> None:
    charge = answer.charge
    heading(console, f"{charge.charge_id}: {amount(charge.amount)}, {charge.status}")
    rows(
        console,
        (
            ("agreement", charge.agreement_id),
            *(
                [("session", charge.session_id)]
                if charge.session_id
                else [("hold", charge.hold_id)]
            ),
            ("released", amount(charge.released)),
            ("fee", amount(charge.fee)),
            ("refunded", amount(charge.refunded)),
            ("captured at", charge.captured_at),
            ("window closes at", charge.window_closes_at),
            *([("result sha256", charge.result_sha256)] if charge.result_sha256 else []),
            ("rate card sha256", answer.rate_card_sha256),
        ),
    )
    asset = charge.amount.asset
    titles = ("rule", "meter", "from", "to", "price", "amount")
    table(console, titles, [each for line in _lines(answer) for each in _shown_line(line, asset)])
    if answer.calls:
        told = f"{len(answer.calls)} of {answer.calls_in_all} calls"
        columns = ("call", "at", "outcome", "usage", "amount", "rejected", "taken back")
        table(console, columns, map(_shown_call, answer.calls), title=told)
    if answer.corrections:
        table(
            console,
            ("correction", "calls", "given back", "fee returned"),
            (
                (
                    each.correction_id,
                    str(each.calls),
                    amount(each.amount),
                    amount(each.fee_returned),
                )
                for each in answer.corrections
            ),
        )
    postings_table(console, answer.postings)


def _shown_call(call: CallCost) -> tuple[str, ...]:
    used, taken_back = (
        ", ".join(f"{each.meter} {each.quantity}" for each in usages)
        for usages in (call.usage, call.taken_back)
    )
    shown = (call.outcome, used, amount(call.amount), call.rejected, taken_back)
    return (str(call.call), call.at, *shown)


def _lines(answer: Explanation) -> list[Line]:
    """The lines of a charge, each read strictly; they must add up to the charge."""
    try:
        lines = [parse_line(cast("Json", each)) for each in answer.trace]
    except InvalidLine as error:
        raise Unverified(f"a line of the charge: {error}") from None
    if sum(line.amount_units for line in lines) != answer.charge.amount.units:
        raise Unverified("the lines do not add up to the charge")
    return lines


def _shown_line(line: Line, asset: str) -> list[tuple[str, ...]]:
    """A row for each tier that the line lies in, and one for the whole, rounded."""
    tiers = [
        (
            line.rule_id,
            line.meter,
            str(each.from_quantity),
            str(each.to_quantity),
            f"{_amount(each.amount_units, asset)} per {each.per_quantity}",
            "",
        )
        for each in line.portions
    ]
    ends = (str(line.from_quantity), str(line.to_quantity), f"rounded {line.rounding.value}")
    return [*tiers, (line.rule_id, line.meter, *ends, _amount(line.amount_units, asset))]


def _amount(units: int, asset: str) -> str:
    return amount(money(units, asset))


def write_receipt(out: Path, receipt: Receipt) -> None:
    """Write a receipt as the one-file verifier reads it."""
    write_whole(out, canonical_bytes(document_of(receipt)) + b"\n")


def _receipt(console: Console, receipt: Receipt) -> None:
    heading(console, f"Record {receipt.seq}, proven by {len(receipt.proof)} hashes")
    lines = [("record sha256", head_of(receipt.record.encode()))]
    lines += [("tree head", line) for line in receipt.tree_head.splitlines() if line]
    rows(console, lines)
    heading(console, "The whole receipt: --json; for the one-file verifier: --out FILE.")
