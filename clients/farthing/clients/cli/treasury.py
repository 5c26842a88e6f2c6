"""Money in, credit, grace, partners: what the treasurer does, and what it is asked for.

Boundary: one call of the platform a command; what leaves is in `payouts`. An operator announces
money and the admin names partners; all else needs the treasurer's key.
"""

from typing import Annotated, Literal

import typer

from farthing.clients.cli import operate, payouts
from farthing.clients.cli.arguments import (
    TIME_FORM,
    AmountArgument,
    AssetArgument,
    BookedAsOption,
    CursorOption,
    LimitOption,
    money_of,
    time_of,
)
from farthing.clients.cli.booking import book, book_gone
from farthing.clients.cli.payouts import (
    KEY,
    OrganisationOption,
    ProcessorOption,
    ReferenceOption,
    TotalArgument,
)
from farthing.clients.cli.session import IdempotencyOption, Session, command
from farthing.protocol.messages.accounts import WITHDRAW_FUNDS, WithdrawFunds
from farthing.protocol.messages.payments import (
    CONFIRM_TOP_UP,
    CREATE_TOP_UP,
    FAIL_TOP_UP,
    LIST_TOP_UPS,
    REVERSE_TOP_UP,
    ConfirmTopUp,
    CreateTopUp,
    FailTopUp,
    ListTopUps,
    ReverseTopUp,
    TopUpStatus,
)
from farthing.protocol.messages.treasury import (
    CLOSE_ACCOUNT,
    GET_PARTNER,
    GRANT_CREDIT,
    LIST_CREDIT_LOTS,
    SET_GRACE,
    SET_PARTNER,
    WITHDRAW_CREDIT,
    CloseAccount,
    GetPartner,
    GrantCredit,
    ListCreditLots,
    SetGrace,
    SetPartner,
    WithdrawCredit,
)
from farthing.protocol.money import PPM

__all__ = ["commands"]

_ADMINS_KEY = "--key farthing-data/keys/admin.jwk"

commands = typer.Typer()
treasury = typer.Typer(
    no_args_is_help=True, help="Money in and out, credit, grace, partners, the books."
)
commands.add_typer(treasury, name="treasury", rich_help_panel=operate.PANEL)
treasury.add_typer(payouts.commands)

OrganisationArgument = Annotated[
    str, typer.Argument(metavar="ORG", help="The organisation's id, org_…", show_default=False)
]
MayOweOption = Annotated[
    bool,
    typer.Option(
        "--may-owe", help="Its operator owes what it has not any more, as by a chargeback."
    ),
]
LotArgument = Annotated[
    str, typer.Argument(metavar="LOT", help="The credit lot's id, lot_…", show_default=False)
]
TopUpArgument = Annotated[
    str, typer.Argument(metavar="TOP_UP", help="The top-up's id, top_…", show_default=False)
]
command(
    treasury,
    "fund",
    example=f"farthing treasury fund org_… 5 USD --reference wire-42 {KEY}",
)(operate.fund)
command(treasury, "trial-balance", example=f"farthing treasury trial-balance --at-seq 1000 {KEY}")(
    operate.trial_balance
)


@command(treasury, "create-top-up", example="farthing treasury create-top-up 20 USD")
def create_top_up(
    session: Session,
    amount: AmountArgument,
    asset: AssetArgument,
    *,
    processor: ProcessorOption = "manual",
    idempotency_key: IdempotencyOption = "",
) -> None:
    """Announce money for the operator's prepaid account; Stripe's answer says where to pay."""
    ask = CreateTopUp(
        amount=money_of(amount, asset),
        processor=processor,
        idempotency_key=idempotency_key or session.new_key(),
    )
    session.show(session.call(CREATE_TOP_UP, ask))


@command(treasury, "top-ups", example=f"farthing treasury top-ups {KEY}")
def top_ups(
    session: Session,
    *,
    organisation: OrganisationOption = "",
    status: Annotated[
        TopUpStatus | None, typer.Option(help="Only those that stand so.", show_default=False)
    ] = None,
    cursor: CursorOption = "",
    limit: LimitOption = 50,
) -> None:
    """List top-ups, newest first."""
    ask = ListTopUps(
        organisation_id=organisation or None, status=status, cursor=cursor, limit=limit
    )
    session.show_page(session.call(LIST_TOP_UPS, ask))


@command(
    treasury,
    "confirm-top-up",
    example=f"farthing treasury confirm-top-up top_… --reference wire-42 {KEY}",
)
def confirm_top_up(
    session: Session,
    top_up: TopUpArgument,
    *,
    reference: ReferenceOption = "",
    idempotency_key: IdempotencyOption = "",
) -> None:
    """Say that the money of a top-up has come."""
    ask = ConfirmTopUp(
        top_up_id=top_up,
        reference=reference,
        idempotency_key=idempotency_key or session.new_key(),
    )
    book(session, CONFIRM_TOP_UP, ask, reference=reference)


@command(treasury, "fail-top-up", example=f"farthing treasury fail-top-up top_… {KEY}")
def fail_top_up(
    session: Session,
    top_up: TopUpArgument,
    *,
    reference: ReferenceOption = "",
    idempotency_key: IdempotencyOption = "",
) -> None:
    """Say that the money of a top-up will not come."""
    ask = FailTopUp(
        top_up_id=top_up,
        reference=reference,
        idempotency_key=idempotency_key or session.new_key(),
    )
    session.show(session.call(FAIL_TOP_UP, ask))


@command(
    treasury,
    "reverse-top-up",
    example=f"farthing treasury reverse-top-up top_… 5 USD --may-owe --reference dp-7 {KEY}",
)
def reverse_top_up(
    session: Session,
    top_up: TopUpArgument,
    total: TotalArgument,
    asset: AssetArgument,
    *,
    may_owe: MayOweOption = False,
    reference: ReferenceOption = "",
    idempotency_key: IdempotencyOption = "",
) -> None:
    """Say that money of a top-up has gone back, or is about to."""
    ask = ReverseTopUp(
        top_up_id=top_up,
        total=money_of(total, asset),
        may_owe=may_owe,
        reference=reference,
        idempotency_key=idempotency_key or session.new_key(),
    )
    book_gone(session, REVERSE_TOP_UP, ask, reference=reference)


@command(
    treasury,
    "withdraw",
    example=f"farthing treasury withdraw org_… 5 USD --reference wire-45 {KEY}",
)
def withdraw(
    session: Session,
    organisation: OrganisationArgument,
    amount: AmountArgument,
    asset: AssetArgument,
    *,
    may_owe: MayOweOption = False,
    reference: BookedAsOption,
    idempotency_key: IdempotencyOption = "",
) -> None:
    """Take money out of a prepaid account that was funded by mistake, or that leaves."""
    ask = WithdrawFunds(
        organisation_id=organisation,
        amount=money_of(amount, asset),
        may_owe=may_owe,
        reference=reference,
        idempotency_key=idempotency_key or session.new_key(),
    )
    book_gone(session, WITHDRAW_FUNDS, ask, reference=reference)


@command(
    treasury,
    "grant-credit",
    example=f"farthing treasury grant-credit org_… 10 CRD --kind promotional {KEY}",
)
def grant_credit(
    session: Session,
    organisation: OrganisationArgument,
    amount: AmountArgument,
    asset: AssetArgument,
    *,
    kind: Annotated[
        Literal["bought", "promotional"], typer.Option(help="Whether it was paid for outside.")
    ],
    priority: Annotated[int, typer.Option(min=0, max=255, help="The lower is spent first.")] = 100,
    expires: Annotated[
        str,
        typer.Option(
            parser=time_of,
            metavar="TIME",
            help=f"When it ends, {TIME_FORM}; else it does not.",
            show_default=False,
        ),
    ] = "",
    reference: Annotated[
        str, typer.Option(help="What it is booked under outside; kept in the record.")
    ] = "",
    idempotency_key: IdempotencyOption = "",
) -> None:
    """Give an operator a credit lot."""
    ask = GrantCredit(
        organisation_id=organisation,
        amount=money_of(amount, asset),
        kind=kind,
        priority=priority,
        expires_at=expires,
        reference=reference,
        idempotency_key=idempotency_key or session.new_key(),
    )
    book(session, GRANT_CREDIT, ask, reference=reference)


@command(
    treasury,
    "withdraw-credit",
    example=f"farthing treasury withdraw-credit lot_… 5 CRD {KEY}",
)
def withdraw_credit(
    session: Session,
    lot: LotArgument,
    amount: AmountArgument,
    asset: AssetArgument,
    *,
    reference: Annotated[
        str, typer.Option(help="What it is booked under outside; kept in the record.")
    ] = "",
    idempotency_key: IdempotencyOption = "",
) -> None:
    """Take back what is free of a credit lot, or a part of it."""
    ask = WithdrawCredit(
        lot_id=lot,
        amount=money_of(amount, asset),
        reference=reference,
        idempotency_key=idempotency_key or session.new_key(),
    )
    book(session, WITHDRAW_CREDIT, ask, reference=reference)


@command(treasury, "credit-lots", example=f"farthing treasury credit-lots {KEY}")
def credit_lots(
    session: Session,
    *,
    organisation: OrganisationOption = "",
    cursor: CursorOption = "",
    limit: LimitOption = 50,
) -> None:
    """List credit lots, newest first."""
    ask = ListCreditLots(organisation_id=organisation or None, cursor=cursor, limit=limit)
    session.show_page(session.call(LIST_CREDIT_LOTS, ask))


@command(treasury, "set-grace", example=f"farthing treasury set-grace org_… 5 USD {KEY}")
def set_grace(
    session: Session,
    organisation: OrganisationArgument,
    amount: AmountArgument,
    asset: AssetArgument,
    *,
    idempotency_key: IdempotencyOption = "",
) -> None:
    """Let an operator's prepaid account be so far below zero; 0 takes it away."""
    ask = SetGrace(
        organisation_id=organisation,
        amount=money_of(amount, asset),
        idempotency_key=idempotency_key or session.new_key(),
    )
    session.show(session.call(SET_GRACE, ask))


@command(
    treasury,
    "set-partner",
    example=f"farthing treasury set-partner lst_… org_… 50000 {_ADMINS_KEY}",
)
def set_partner(
    session: Session,
    subject: Annotated[
        str,
        typer.Argument(metavar="VENDOR|LISTING", help="Whose trade: org_… or lst_…"),
    ],
    partner: Annotated[str, typer.Argument(metavar="ORG", help="Who brought it, org_…")],
    ppm: Annotated[
        int,
        typer.Argument(metavar="PPM", min=0, max=PPM, help="Its share in millionths; 0 is none."),
    ],
    *,
    idempotency_key: IdempotencyOption = "",
) -> None:
    """Name the partner of a vendor or a listing, for the agreements made from now on."""
    ask = SetPartner(
        subject_id=subject,
        partner_id=partner,
        ppm=ppm,
        idempotency_key=idempotency_key or session.new_key(),
    )
    session.show(session.call(SET_PARTNER, ask))


@command(treasury, "partner", example="farthing treasury partner lst_…")
def partner(
    session: Session,
    subject: Annotated[
        str,
        typer.Argument(metavar="VENDOR|LISTING", help="Whose trade: org_… or lst_…"),
    ],
) -> None:
    """Show the partner of a vendor, or of a listing, to those whom it concerns."""
    session.show(session.call(GET_PARTNER, GetPartner(subject_id=subject)))


@command(
    treasury, "close-account", example=f"farthing treasury close-account org_… prepaid USD {KEY}"
)
def close_account(
    session: Session,
    organisation: OrganisationArgument,
    account: Annotated[
        Literal["prepaid", "vendor_payable", "partner_payable"],
        typer.Argument(
            metavar="KIND",
            help="prepaid, vendor_payable or partner_payable.",
            show_default=False,
        ),
    ],
    asset: AssetArgument,
    *,
    idempotency_key: IdempotencyOption = "",
) -> None:
    """Close an empty account: nothing new begins on it."""
    ask = CloseAccount(
        organisation_id=organisation,
        account=account,
        asset=asset,
        idempotency_key=idempotency_key or session.new_key(),
    )
    session.show(session.call(CLOSE_ACCOUNT, ask))
