"""What a buyer and its operator do with the market: search, quote, account, dispute, connect.

Boundary: one call of the platform a command; holds, payments and vendors' tools are for the SDK
and the bridge.
"""

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.text import Text

from farthing.clients.cli.arguments import (
    AgreementOption,
    ChargeArgument,
    CursorOption,
    LimitOption,
    ListingArgument,
    WorkloadOption,
    money_of,
    stated_workload_of,
    workload_of,
)
from farthing.clients.cli.render import (
    UNTRUSTED,
    amount,
    heading,
    percent,
    rows,
    screen,
    table,
    vendor_words,
)
from farthing.clients.cli.session import IdempotencyOption, Session, TrustOption, command
from farthing.protocol.messages.agreements import Line
from farthing.protocol.messages.agreements import Quote as QuoteAnswer
from farthing.protocol.messages.catalog import (
    SEARCH_CATALOG,
    Infeasible,
    Margin,
    Result,
    SearchAnswer,
    SearchCatalog,
)
from farthing.protocol.messages.charges import LIST_CHARGES, Charges, ListCharges
from farthing.protocol.messages.disputes import (
    GET_DISPUTE_STATUS,
    INITIATE_DISPUTE,
    LIST_DISPUTES,
    PREVIEW_DISPUTE,
    SUBMIT_EVIDENCE,
    Disputes,
    GetDisputeStatus,
    InitiateDispute,
    ListDisputes,
    PreviewDispute,
    SubmitEvidence,
)
from farthing.protocol.messages.holds import LIST_HOLDS, Holds, ListHolds

__all__ = ["commands"]

PANEL = "Trade"

commands = typer.Typer()
disputes = typer.Typer(no_args_is_help=True, help="Dispute a charge, or answer a dispute.")
commands.add_typer(disputes, name="disputes", rich_help_panel=PANEL)

ReasonArgument = Annotated[
    Literal["not_delivered", "calculation_error"],
    typer.Argument(
        metavar="REASON", help="not_delivered or calculation_error.", show_default=False
    ),
]
DisputeArgument = Annotated[
    str, typer.Argument(metavar="DISPUTE", help="The dispute's id, dsp_…", show_default=False)
]


@command(
    commands,
    "search",
    example='farthing search "text of PDF pages" --workload page=30 --max-total 0.05',
    panel=PANEL,
)
def search(
    session: Session,
    need: Annotated[
        str,
        typer.Argument(
            metavar="[NEED]", help="What is needed, in your own words.", show_default=False
        ),
    ] = "",
    *,
    workload: WorkloadOption = None,
    max_total: Annotated[
        str | None,
        typer.Option(metavar="AMOUNT", help="The most the whole workload may cost."),
    ] = None,
    asset: Annotated[
        str | None, typer.Option(metavar="ASSET", help="Only prices in this asset (USD, …).")
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TAG",
            help="Only this capability and what is below it; repeat for any of several.",
        ),
    ] = None,
    latency_ms_p95_max: Annotated[
        int | None,
        typer.Option(metavar="MS", help="Only listings whose p95 latency is at most this."),
    ] = None,
    availability_ppm_min: Annotated[
        int | None,
        typer.Option(
            metavar="PPM",
            help="Only listings at least this available, in millionths: 999000 is 99.9 %.",
        ),
    ] = None,
    region: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COUNTRY",
            help="A country where the content may be processed, as de; repeat for all.",
        ),
    ] = None,
    vendor: Annotated[
        list[str] | None,
        typer.Option(metavar="ORG", help="Only this vendor, org_…; repeat for more."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=20, help="How many results at most.")] = 5,
) -> None:
    """Find services for a need, a workload and limits; each with its exact total.

    Needs no key. With one, each result says whether the caller could buy it now.
    """
    ask = SearchCatalog(
        query=need,
        workload=workload_of(workload),
        tags=tuple(tag or ()),
        max_total=None if max_total is None else money_of(max_total, asset or "USD", "--max-total"),
        asset=asset,
        latency_ms_p95_max=latency_ms_p95_max,
        availability_ppm_min=availability_ppm_min,
        regions=tuple(region or ()),
        vendors=tuple(vendor or ()),
        limit=limit,
    )
    answer = session.call(SEARCH_CATALOG, ask)
    if session.as_json or _found(answer) or _found(session.call(SEARCH_CATALOG, SearchCatalog())):
        session.show(answer, _results)
    else:
        heading(screen(), "The market has no listings yet.")


@command(commands, "quote", example="farthing quote lst_… --workload page=30", panel=PANEL)
def quote(
    session: Session,
    listing: ListingArgument,
    *,
    workload: WorkloadOption = None,
    agreement: Annotated[
        str,
        typer.Option(
            metavar="AGREEMENT",
            help="Price from this agreement's rating position, agr_…",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Get an exact, signed price for a workload (agent); it is checked and computed again here."""
    from farthing.clients.buyers import Buyer  # noqa: PLC0415 - loads the transport

    quantities = stated_workload_of(workload)
    keys = session.pinned_keys()
    answer = session.run(
        lambda connection: Buyer(connection, platform_keys=keys).quote(
            listing, quantities, agreement_id=agreement
        )
    )
    session.show(answer, _quote)


@command(commands, "charges", example="farthing charges --limit 10", panel=PANEL)
def charges(
    session: Session,
    *,
    agreement: AgreementOption = "",
    cursor: CursorOption = "",
    limit: LimitOption = 50,
) -> None:
    """List the charges that the caller is a party to, newest first."""
    ask = ListCharges(agreement_id=agreement or None, cursor=cursor, limit=limit)
    session.show_page(session.call(LIST_CHARGES, ask), _charges)


@command(commands, "holds", example="farthing holds --limit 10", panel=PANEL)
def holds(
    session: Session,
    *,
    agreement: AgreementOption = "",
    cursor: CursorOption = "",
    limit: LimitOption = 50,
) -> None:
    """List the holds that the caller is a party to, newest first."""
    ask = ListHolds(agreement_id=agreement or None, cursor=cursor, limit=limit)
    session.show_page(session.call(LIST_HOLDS, ask), _holds)


@command(disputes, "preview", example="farthing disputes preview chg_… not_delivered")
def preview(session: Session, charge: ChargeArgument, reason: ReasonArgument) -> None:
    """Say what a dispute would come to, by which rule; files nothing."""
    session.show(session.call(PREVIEW_DISPUTE, PreviewDispute(charge_id=charge, reason=reason)))


@command(disputes, "file", example="farthing disputes file chg_… calculation_error")
def file(
    session: Session,
    charge: ChargeArgument,
    reason: ReasonArgument,
    *,
    idempotency_key: IdempotencyOption = "",
) -> None:
    """File a dispute (agent, operator); a fixed rule decides, the money is held meanwhile."""
    ask = InitiateDispute(
        charge_id=charge, reason=reason, idempotency_key=idempotency_key or session.new_key()
    )
    session.show(session.call(INITIATE_DISPUTE, ask))


@command(disputes, "status", example="farthing disputes status dsp_…")
def status(session: Session, dispute: DisputeArgument) -> None:
    """Show where a dispute stands and how it was decided."""
    session.show(session.call(GET_DISPUTE_STATUS, GetDisputeStatus(dispute_id=dispute)))


@command(disputes, "list", example="farthing disputes list --limit 10")
def list_(
    session: Session,
    *,
    charge: Annotated[
        str,
        typer.Option(metavar="CHARGE", help="Of one charge alone, chg_…", show_default=False),
    ] = "",
    cursor: CursorOption = "",
    limit: LimitOption = 50,
) -> None:
    """List the disputes that the caller is a party to, newest first."""
    ask = ListDisputes(charge_id=charge or None, cursor=cursor, limit=limit)
    session.show_page(session.call(LIST_DISPUTES, ask), _disputes)


@command(disputes, "answer", example="farthing disputes answer dsp_… --home vendor")
def answer(
    session: Session,
    dispute: DisputeArgument,
    body: Annotated[
        Path | None,
        typer.Argument(
            metavar="BODY",
            help="The file with the very bytes that the delivery record's digest names; else what "
            "the spool of this home keeps.",
            exists=True,
            dir_okay=False,
            readable=True,
            show_default=False,
        ),
    ] = None,
    *,
    idempotency_key: IdempotencyOption = "",
) -> None:
    """Answer a dispute with the delivered body (vendor); digest and schema decide.

    The vendor's server may be running.
    """
    delivered = _kept(session, dispute) if body is None else body.read_bytes()
    ask = SubmitEvidence(
        dispute_id=dispute,
        body=base64.b64encode(delivered).decode(),
        idempotency_key=idempotency_key or session.new_key(),
    )
    session.show(session.call(SUBMIT_EVIDENCE, ask))


def _kept(session: Session, dispute: str) -> bytes:
    """The body of a disputed charge, as the server that sells keeps it in this home."""
    from farthing.clients.spooled import read_body  # noqa: PLC0415 - loads sqlite

    charge = session.call(GET_DISPUTE_STATUS, GetDisputeStatus(dispute_id=dispute)).charge_id
    path = session.home.spool_path
    kept = read_body(path, charge) if path.exists() else None
    if kept is None:
        session.misuse(
            f"{path} holds no body of {charge}. Name the home of the server that delivered it with "
            "--home or FARTHING_HOME, or a file of the very bytes."
        )
    return kept


@command(
    commands,
    "connect",
    example="farthing connect http://127.0.0.1:8321",
    panel=PANEL,
    offline=True,
)
def connect(
    session: Session,
    platform: Annotated[
        str, typer.Argument(metavar="URL", help="The platform.", show_default=False)
    ],
    *,
    trust: TrustOption = "",
) -> None:
    """Run the bridge, for an MCP client's configuration: it holds the agent's key and signs.

    It speaks MCP on standard input and output. The agent's directory is the home where that is an
    agent's, else agents/bridge inside it.
    """
    from farthing.clients.bridge import bridge_home, serve  # noqa: PLC0415 - loads the transport

    if session.key_path is not None:
        session.misuse("The bridge signs with the key of its own home: name that with --home.")
    url = session.checked_url(platform)
    asyncio.run(serve(bridge_home(session.home), url, trust=trust))


def _found(answer: SearchAnswer) -> bool:
    """Whether there is anything that was looked at: without a need and limits, any listing."""
    return bool(answer.results or answer.nearest_infeasible or answer.unpriced)


def _results(console: Console, answer: SearchAnswer) -> None:
    for result in answer.results:
        _result(console, result)
    if not answer.results:
        is_near = answer.nearest_infeasible or answer.unpriced
        heading(console, "Nothing keeps every limit." if is_near else "Nothing matches.")
    for near in answer.nearest_infeasible:
        _near(console, near)
    counts = (
        ("Not shown, though they keep every limit", answer.left_out),
        ("Without a price for this workload", answer.unpriced),
    )
    for says, count in counts:
        if count:
            heading(console, f"{says}: {count}.")


def _result(console: Console, result: Result) -> None:
    total = f", {amount(result.total)}" if result.total else ""
    heading(console, f"{result.rank}. {result.listing_id}{total}")
    lines: list[tuple[str, str | Text]] = [
        (f"name ({UNTRUSTED})", vendor_words(result.vendor_text.name)),
        (f"summary ({UNTRUSTED})", vendor_words(result.vendor_text.summary)),
        ("vendor", result.vendor_id),
        ("capability", result.primary_tag),
        ("meters", ", ".join(result.meters)),
        ("p95 latency", f"{result.latency_ms_p95} ms"),
        ("availability", percent(result.availability_ppm)),
        ("regions", ", ".join(result.regions)),
        ("purchasable", "yes" if result.purchasable.ok else "no"),
        *(("because", f"{each.code}: {each.message}") for each in result.purchasable.reasons),
        *(
            ("matched", f"{each.field}: {', '.join(each.words)}")
            for each in result.why.matched
        ),
        *((each.constraint, _margin(each)) for each in result.why.margins),
    ]  # fmt: skip
    rows(console, lines)


def _near(console: Console, near: Infeasible) -> None:
    heading(console, f"Nearest: {near.listing_id} fails")
    lines: list[tuple[str, str | Text]] = [(each.constraint, _margin(each)) for each in near.fails]
    lines.append((f"name ({UNTRUSTED})", vendor_words(near.vendor_text.name)))
    rows(console, lines)


def _margin(margin: Margin) -> str:
    said = [("limit", margin.limit), ("offered", margin.actual), ("margin", margin.margin)]
    return ", ".join(f"{label} {value} {margin.unit}".rstrip() for label, value in said if value)


def _quote(console: Console, answer: QuoteAnswer) -> None:
    heading(console, f"{answer.quote_id}: {amount(answer.total)}, until {answer.expires_at}")
    table(console, ("rule", "meter", "quantity", "amount"), _lines(answer.lines))
    allowed = "yes" if answer.allowed else f"no: {', '.join(answer.reasons)}"
    heading(console, f"The agent could buy it now: {allowed}")


def _lines(lines: tuple[Line, ...]) -> Iterator[tuple[str, str, str, str]]:
    return ((each.rule_id, each.meter, each.quantity, amount(each.amount)) for each in lines)


def _charges(console: Console, answer: Charges) -> None:
    if not answer.charges:
        heading(console, "No charges.")
        return
    lines = (
        (
            each.charge_id,
            each.status,
            amount(each.amount),
            amount(each.fee),
            amount(each.refunded),
            each.captured_at,
        )
        for each in answer.charges
    )
    table(console, ("charge", "status", "amount", "fee", "refunded", "captured"), lines)


def _holds(console: Console, answer: Holds) -> None:
    if not answer.holds:
        heading(console, "No holds.")
        return
    lines = (
        (each.hold_id, each.status, amount(each.amount), each.expires_at, each.charge_id)
        for each in answer.holds
    )
    table(console, ("hold", "status", "amount", "expires", "charge"), lines)


def _disputes(console: Console, answer: Disputes) -> None:
    if not answer.disputes:
        heading(console, "No disputes.")
        return
    lines = (
        (each.dispute_id, each.charge_id, each.reason, each.status, each.outcome, amount(each.held))
        for each in answer.disputes
    )
    table(console, ("dispute", "charge", "reason", "status", "outcome", "held"), lines)
