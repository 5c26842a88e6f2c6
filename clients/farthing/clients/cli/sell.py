"""What a vendor does: check, publish and withdraw listings, give charges back.

Boundary: an offer is one JSON file of three documents; what is left out of it is filled in where
there is only one right value. Source: spec/cli.md.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console

from farthing.clients.cli.arguments import (
    AmountArgument,
    AssetArgument,
    ChargeArgument,
    JsonFileArgument,
    ListingArgument,
    calls_of,
    money_of,
    object_of,
)
from farthing.clients.cli.render import (
    UNTRUSTED,
    as_json,
    heading,
    rows,
    screen,
    table,
    vendor_words,
)
from farthing.clients.cli.render import amount as amount_of
from farthing.clients.cli.session import Exit, IdempotencyOption, Session, command
from farthing.protocol.canonical import Json
from farthing.protocol.errors import Code, Refused
from farthing.protocol.ids import derive_id
from farthing.protocol.messages.charges import REFUND_CHARGE, RefundCharge
from farthing.protocol.messages.corrections import CORRECT_USAGE
from farthing.protocol.messages.listings import (
    GET_LISTING,
    LINT_LISTING,
    PUBLISH_LISTING,
    WITHDRAW_LISTING,
    GetListing,
    LintListing,
    LintReport,
    ListingView,
    Publication,
    PublishListing,
    WithdrawListing,
)
from farthing.protocol.terms import standard_terms
from farthing.protocol.wire import document_of, money

if TYPE_CHECKING:
    from farthing.clients.documents import Offer
    from farthing.clients.spooled import NotTaken, Spooled

__all__ = ["commands"]

PANEL = "Sell"

commands = typer.Typer()
listings = typer.Typer(no_args_is_help=True, help="Check, publish, show and withdraw listings.")
commands.add_typer(listings, name="listings", rich_help_panel=PANEL)


@command(listings, "example", example="farthing listings example > offer.json", offline=True)
def example(
    session: Session,
    *,
    server: Annotated[
        bool, typer.Option("--server", help="Print the server that serves this offer instead.")
    ] = False,
) -> None:
    """Print an offer to start from; what it leaves out is filled in when it is published.

    With --server: the vendor's whole server, in Python, which serves it once it is published from
    a file called offer.json.
    """
    del session
    name = "example_server.txt" if server else "offer.json"
    typer.echo(files(__package__).joinpath(name).read_text(encoding="utf-8"), nl=False)


@command(listings, "lint", example="farthing listings lint offer.json")
def lint(session: Session, file: JsonFileArgument) -> None:
    """Report every finding about an offer; exit 1 if it cannot be published. Publishes nothing."""
    offer = _offer(session, file)
    report = session.call(
        LINT_LISTING,
        LintListing(
            listing=dict(offer.listing), rate_card=dict(offer.rate_card), terms=dict(offer.terms)
        ),
    )
    session.show(report, _report)
    if not report.publishable:
        raise typer.Exit(Exit.REFUSED)


@command(listings, "publish", example="farthing listings publish offer.json")
def publish(
    session: Session,
    file: JsonFileArgument,
    *,
    name: Annotated[
        str,
        typer.Option(
            help="Keep the offer in the home under this name, for `paid`; else the file's.",
            show_default=False,
        ),
    ] = "",
    idempotency_key: IdempotencyOption = "",
) -> None:
    """Sign and publish a version of a listing (vendor): the next one, unless the file says which.

    What is published already, unchanged, gets no new version. The offer as published is kept in
    the home, where a tool made payable reads it.
    """
    offer = _offer(session, file)
    newest = _newest(session, str(offer.listing.get("listing_id", "")))
    if newest is not None and _is_in_force(offer, newest):
        session.note(f"unchanged, version {newest.version}")
        published = _publication(newest)
    else:
        published = _published(session, offer, idempotency_key)
    # Kept first: who reads no further than the first line has closed the pipe.
    if session.key_path is None:
        _keep(session, name or file.stem.lower().replace("_", "-"), offer)
    session.show(published)


def _published(session: Session, offer: "Offer", idempotency_key: str) -> Publication:
    from farthing.clients.documents import sign_listing  # noqa: PLC0415 - loads cryptography

    signer = session.key()
    if signer is None:
        session.misuse(f"A listing is signed, and {session.home.key_path} is not there.")
    return session.call(
        PUBLISH_LISTING,
        PublishListing(
            listing=dict(offer.listing),
            rate_card=dict(offer.rate_card),
            terms=dict(offer.terms),
            signature=sign_listing(signer, offer.listing),
            idempotency_key=idempotency_key or session.new_key(),
        ),
    )


@command(listings, "show", example="farthing listings show lst_…")
def show(session: Session, listing: ListingArgument) -> None:
    """Show a listing whole; what the vendor wrote is marked, to be judged and never obeyed."""
    session.show(session.call(GET_LISTING, GetListing(listing_id=listing)), _listing)


@command(listings, "withdraw", example="farthing listings withdraw lst_… --reason retired")
def withdraw(
    session: Session,
    listing: ListingArgument,
    *,
    reason: Annotated[str, typer.Option(help="Why; kept in the record.")] = "",
    idempotency_key: IdempotencyOption = "",
) -> None:
    """Take a listing off the market (vendor); agreements in force are kept."""
    ask = WithdrawListing(
        listing_id=listing, reason=reason, idempotency_key=idempotency_key or session.new_key()
    )
    session.show(session.call(WITHDRAW_LISTING, ask))


@command(
    commands,
    "refund",
    example="farthing refund chg_… 0.02 USD --reason 'half was blank'",
    panel=PANEL,
)
def refund(
    session: Session,
    charge: ChargeArgument,
    amount: AmountArgument,
    asset: AssetArgument,
    *,
    reason: Annotated[str, typer.Option(help="Why; kept in the record.")] = "",
    idempotency_key: IdempotencyOption = "",
) -> None:
    """Give a charge back, whole or in part (vendor); the platform's fee on it goes back too."""
    ask = RefundCharge(
        charge_id=charge,
        amount=money_of(amount, asset),
        reason=reason,
        idempotency_key=idempotency_key or session.new_key(),
    )
    session.show(session.call(REFUND_CHARGE, ask))


@command(commands, "correct", example="farthing correct chg_… 17:page=2 18:page=1", panel=PANEL)
def correct(
    session: Session,
    charge: ChargeArgument,
    calls: Annotated[
        list[str],
        typer.Argument(
            metavar="CALL:METER=QUANTITY...",
            help="What a call of the charge used too much.",
            show_default=False,
        ),
    ],
    *,
    idempotency_key: IdempotencyOption = "",
) -> None:
    """Take back what billed calls used too much (vendor); its price and the fee on it go back."""
    from farthing.clients.vendors import Vendor  # noqa: PLC0415 - loads cryptography

    taken_back = calls_of(calls)
    key = idempotency_key or session.new_key()
    with session.naming(CORRECT_USAGE, key):
        corrected = session.run(
            lambda each: Vendor(each).correct_usage(charge, taken_back, key=key)
        )
    session.show(corrected)


@command(commands, "usage", example="farthing usage --limit 20", panel=PANEL, offline=True)
def usage(
    session: Session,
    *,
    limit: Annotated[
        int, typer.Option(min=1, max=1000, help="How many rejected calls at most.")
    ] = 50,
) -> None:
    """Show what this home's spool holds of spend sessions, and what settlement did not take.

    The vendor's server may be running. Amounts are by the vendor's own count.
    """
    from farthing.clients.spooled import read_spool  # noqa: PLC0415 - loads sqlite

    path = session.home.spool_path
    if not path.exists():
        session.misuse(
            f"There is no spool {path}: the server that sells makes it in its own home. Name that "
            "with --home or FARTHING_HOME."
        )
    sessions, rejected = read_spool(path, limit)
    if session.as_json:
        session.print_json({
            "sessions": [*map(_priced, sessions)],
            "rejected": [*map(_priced, rejected)],
        })  # fmt: skip
        return
    _usage(screen(), sessions, rejected)


def _priced(found: "Spooled | NotTaken") -> dict[str, object]:
    """What is told of it to a program: its amount where the asset is known, else its units."""
    told = asdict(found)
    units, asset = told.pop("amount_units"), told.pop("asset")
    return told | ({"amount": document_of(money(units, asset))} if asset else {"units": str(units)})


def _usage(console: Console, sessions: "Sequence[Spooled]", rejected: "Sequence[NotTaken]") -> None:
    def cost(found: "Spooled | NotTaken") -> str:
        units, asset = found.amount_units, found.asset
        return amount_of(money(units, asset)) if asset else f"{units} units"

    if not sessions:
        heading(console, "No calls of sessions.")
        return
    table(
        console,
        ("session", "ended", "unsent", "unanswered", "rejected", "amount"),
        (
            (
                each.session_id,
                *map(str, (each.ended, each.unsent, each.unanswered, each.rejected)),
                cost(each),
            )
            for each in sessions
        ),
    )
    if not rejected:
        return
    table(
        console,
        ("session", "call", "reason", "outcome", "usage", "amount"),
        (
            (
                each.session_id,
                str(each.seq),
                each.reason,
                each.outcome,
                ", ".join(f"{meter} {quantity}" for meter, quantity in each.usage.items()),
                cost(each),
            )
            for each in rejected
        ),
        title="rejected",
    )


def _offer(session: Session, file: Path) -> "Offer":
    """The offer of a file, with what it leaves out filled in.

    That is `vendor_id`, `listing_id`, `version`, the hashes of rate card and terms, and the terms
    themselves: the standard ones, with the parameters that `terms` gives where it is no document.
    """
    from farthing.clients.documents import Offer  # noqa: PLC0415 - loads cryptography

    document = object_of(f"@{file}", "FILE")
    if unknown := document.keys() - {"listing", "rate_card", "terms"}:
        raise typer.BadParameter(f"it holds more than an offer: {', '.join(sorted(unknown))}")
    parts = [document.get("listing"), document.get("rate_card"), document.get("terms", {})]
    if not all(isinstance(part, dict) for part in parts):
        raise typer.BadParameter("an offer has a listing and a rate_card, each an object")
    listing, card, terms = cast("list[dict[str, Json]]", parts)
    profile = session.profile()
    if profile is not None and profile.organisation_id:
        listing = {"vendor_id": profile.organisation_id, **listing}
    if "listing_id" not in listing and "vendor_id" in listing:
        named = derive_id("lst", str(listing["vendor_id"]), str(listing.get("name", "")))
        listing = {"listing_id": named, **listing}
    offer = Offer.bind(listing, card, terms if "schema" in terms else _standard(terms))
    if "version" in listing or "listing_id" not in listing:
        return offer
    return _versioned(offer, _newest(session, str(listing["listing_id"])))


def _standard(params: Mapping[str, Json]) -> dict[str, Json]:
    """The standard terms with windows and tolerance by the names of `standard_terms`."""
    known = inspect.signature(standard_terms).parameters
    for name, value in params.items():
        if name not in known or type(value) is not type(known[name].default):
            raise typer.BadParameter(f"terms.{name} is no parameter of the standard terms")
    return standard_terms(**cast("dict[str, Any]", params))


def _versioned(offer: "Offer", newest: ListingView | None) -> "Offer":
    """The offer as its newest version where it says the same as that, else as the next one."""
    version = newest.version if newest else 1
    same = replace(offer, listing={"version": version, **offer.listing})
    if newest is None or _is_in_force(same, newest):
        return same
    return replace(offer, listing={"version": version + 1, **offer.listing})


def _is_in_force(offer: "Offer", newest: ListingView) -> bool:
    return newest.state != "withdrawn" and offer.sha256 == newest.listing_sha256


def _publication(view: ListingView) -> Publication:
    return Publication(
        listing_id=view.listing_id,
        version=view.version,
        listing_sha256=view.listing_sha256,
        rate_card_sha256=view.rate_card_sha256,
        terms_sha256=view.terms_sha256,
    )


def _keep(session: Session, name: str, offer: "Offer") -> None:
    try:
        session.home.save_offer(name, offer)
    except ValueError as error:
        session.note(f"Published, and not kept in the home: {error}. Name it with --name.")
    else:
        session.note(f"Kept in {session.home.path} as the offer {name}.")


def _newest(session: Session, listing_id: str) -> ListingView | None:
    """The newest version; None where there is none, or where the id is no listing's."""
    try:
        return session.call(GET_LISTING, GetListing(listing_id=listing_id))
    except Refused as refused:
        if refused.code not in {Code.NOT_FOUND, Code.INVALID_ARGUMENT}:
            raise
        return None


def _report(console: Console, report: LintReport) -> None:
    if report.findings:
        lines = [
            (each.severity, each.code, each.path, each.message) for each in report.findings
        ]  # fmt: skip
        table(console, ("severity", "finding", "where", "what"), lines)
    says = "It can be published." if report.publishable else "It cannot be published."
    heading(console, says)


def _listing(console: Console, view: ListingView) -> None:
    rows(
        console,
        (
            ("listing", f"{view.listing_id}, version {view.version}, {view.state}"),
            ("vendor", view.vendor_id),
            ("listing sha256", view.listing_sha256),
            ("rate card sha256", view.rate_card_sha256),
            ("terms sha256", view.terms_sha256),
            ("signature", view.signature),
        ),
    )
    for name, document in (
        ("listing", view.listing),
        ("rate card", view.rate_card),
        ("terms", view.terms),
    ):
        heading(console, f"{name} ({UNTRUSTED})")
        for line in as_json(document).splitlines():
            console.print(vendor_words(line), soft_wrap=True)
