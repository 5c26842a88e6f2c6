"""Money in and out, credit, grace, partners: what the treasurer does, and what it is asked for.

Boundary: one call of the platform a command. An operator announces money, a vendor asks for its
own and the admin names partners; all else needs the treasurer's key.
"""

from typing import Annotated, Literal

import typer

from farthing.clients.cli import operate
from farthing.clients.cli.arguments import (
    TIME_FORM,
    AmountArgument,
    AssetArgument,
    CursorOption,
    LimitOption,
    money_of,
    time_of,
)
from farthing.clients.cli.session import IdempotencyOption, Session, command
from farthing.protocol.errors import Code, Refused
from farthing.protocol.messages.payments import (
    CONFIRM_PAYOUT,
    CONFIRM_TOP_UP,
    CREATE_TOP_UP,
    FAIL_PAYOUT,
    FAIL_TOP_UP,
    LIST_PAYOUTS,
    LIST_TOP_UPS,
    REQUEST_PAYOUT,
    REVERSE_PAYOUT,
    REVERSE_TOP_UP,
    SEND_PAYOUT,
    ConfirmPayout,
    ConfirmTopUp,
    CreateTopUp,
    FailPayout,
    FailTopUp,
    ListPayouts,
    ListTopUps,
    ProcessorName,
    RequestPayout,
    ReversePayout,
    ReverseTopUp,
    SendPayout,
)
from farthing.protocol.messages.treasury import (
    CLOSE_ACCOUNT,
    GRANT_CREDIT,
    LIST_CREDIT_LOTS,
    SET_GRACE,
    SET_PARTNER,
    CloseAccount,
    GrantCredit,
    ListCreditLots,
    SetGrace,
    SetPartner,
)
from farthing.protocol.money import PPM

__all__ = ["commands"]

_KEY = "--key farthing-data/keys/treasurer.jwk"
_ADMINS_KEY = "--key farthing-data/keys/admin.jwk"

commands = typer.Typer()
treasury = typer.Typer(
    no_args_is_help=True, help="Money in and out, credit, grace, partners, the books."
)
commands.add_typer(treasury, name="treasury", rich_help_panel=operate.PANEL)

OrganisationArgument = Annotated[
    str, typer.Argument(metavar="ORG", help="The organisation's id, org_…", show_default=False)
]
OrganisationOption = Annotated[
    str,
    typer.Option(
        "--organisation", metavar="ORG", help="Only this organisation's.", show_default=False
    ),
]
TopUpArgument = Annotated[
    str, typer.Argument(metavar="TOP_UP", help="The top-up's id, top_…", show_default=False)
]
PayoutArgument = Annotated[
    str, typer.Argument(metavar="PAYOUT", help="The payout's id, pay_…", show_default=False)
]
TotalArgument = Annotated[
    str,
    typer.Argument(
        metavar="TOTAL",
        help="How much of it in all, with what was said before.",
        show_default=False,
    ),
]
ReferenceOption = Annotated[
    str,
    typer.Option(
        help="What it is booked under outside, such as the wire's number: letters, digits, _.:-"
    ),
]
ProcessorOption = Annotated[
    ProcessorName, typer.Option(help="Who moves the money: the treasurer, or Stripe.")
]

command(
    treasury,
    "fund",
    example=f"farthing treasury fund org_… 5 USD --reference wire-42 {_KEY}",
)(operate.fund)
command(treasury, "trial-balance", example=f"farthing treasury trial-balance --at-seq 1000 {_KEY}")(
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


@command(treasury, "top-ups", example=f"farthing treasury top-ups {_KEY}")
def top_ups(
    session: Session,
    *,
    organisation: OrganisationOption = "",
    cursor: CursorOption = "",
    limit: LimitOption = 50,
) -> None:
    """List top-ups, newest first."""
    ask = ListTopUps(organisation_id=organisation or None, cursor=cursor, limit=limit)
    session.show_page(session.call(LIST_TOP_UPS, ask))


@command(
    treasury,
    "confirm-top-up",
    example=f"farthing treasury confirm-top-up top_… --reference wire-42 {_KEY}",
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
    session.show(session.call(CONFIRM_TOP_UP, ask))


@command(treasury, "fail-top-up", example=f"farthing treasury fail-top-up top_… {_KEY}")
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
    example=f"farthing treasury reverse-top-up top_… 5 USD --may-owe --reference dp-7 {_KEY}",
)
def reverse_top_up(
    session: Session,
    top_up: TopUpArgument,
    total: TotalArgument,
    asset: AssetArgument,
    *,
    may_owe: Annotated[
        bool,
        typer.Option(
            "--may-owe", help="Its operator owes what it has not any more, as by a chargeback."
        ),
    ] = False,
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
    try:
        session.show(session.call(REVERSE_TOP_UP, ask))
    except Refused as refused:
        if refused.code is Code.INSUFFICIENT_FUNDS:
            text = "the same command with --may-owe, under another key or none"
            session.note(f"Where it has gone already: {text}.")
        raise


@command(treasury, "request-payout", example="farthing treasury request-payout 12.5 USD")
def request_payout(
    session: Session,
    amount: AmountArgument,
    asset: AssetArgument,
    *,
    account: Annotated[
        Literal["vendor_payable", "partner_payable"], typer.Option(help="The account it leaves.")
    ] = "vendor_payable",
    processor: ProcessorOption = "manual",
    destination: Annotated[
        str, typer.Option(help="Whom the processor knows you by, such as a connected account.")
    ] = "",
    idempotency_key: IdempotencyOption = "",
) -> None:
    """Ask for money that was earned for good; the treasurer lets it go."""
    ask = RequestPayout(
        amount=money_of(amount, asset),
        account=account,
        processor=processor,
        destination=destination,
        idempotency_key=idempotency_key or session.new_key(),
    )
    session.show(session.call(REQUEST_PAYOUT, ask))


@command(treasury, "payouts", example=f"farthing treasury payouts {_KEY}")
def payouts(
    session: Session,
    *,
    organisation: OrganisationOption = "",
    cursor: CursorOption = "",
    limit: LimitOption = 50,
) -> None:
    """List payouts, newest first."""
    ask = ListPayouts(organisation_id=organisation or None, cursor=cursor, limit=limit)
    session.show_page(session.call(LIST_PAYOUTS, ask))


@command(treasury, "send-payout", example=f"farthing treasury send-payout pay_… {_KEY}")
def send_payout(
    session: Session, payout: PayoutArgument, *, idempotency_key: IdempotencyOption = ""
) -> None:
    """Let a payout go: the processor is told to pay it."""
    ask = SendPayout(payout_id=payout, idempotency_key=idempotency_key or session.new_key())
    session.show(session.call(SEND_PAYOUT, ask))


@command(
    treasury,
    "confirm-payout",
    example=f"farthing treasury confirm-payout pay_… --reference wire-43 {_KEY}",
)
def confirm_payout(
    session: Session,
    payout: PayoutArgument,
    *,
    reference: ReferenceOption = "",
    idempotency_key: IdempotencyOption = "",
) -> None:
    """Say that the money of a payout has left."""
    ask = ConfirmPayout(
        payout_id=payout,
        reference=reference,
        idempotency_key=idempotency_key or session.new_key(),
    )
    session.show(session.call(CONFIRM_PAYOUT, ask))


@command(treasury, "fail-payout", example=f"farthing treasury fail-payout pay_… {_KEY}")
def fail_payout(
    session: Session,
    payout: PayoutArgument,
    *,
    reference: ReferenceOption = "",
    idempotency_key: IdempotencyOption = "",
) -> None:
    """Say that the money of a payout has not left; look at the processor first."""
    ask = FailPayout(
        payout_id=payout,
        reference=reference,
        idempotency_key=idempotency_key or session.new_key(),
    )
    session.show(session.call(FAIL_PAYOUT, ask))


@command(
    treasury,
    "reverse-payout",
    example=f"farthing treasury reverse-payout pay_… 5 USD --reference wire-44 {_KEY}",
)
def reverse_payout(
    session: Session,
    payout: PayoutArgument,
    total: TotalArgument,
    asset: AssetArgument,
    *,
    reference: ReferenceOption = "",
    idempotency_key: IdempotencyOption = "",
) -> None:
    """Say that money of a payout has come back: it is the organisation's again."""
    ask = ReversePayout(
        payout_id=payout,
        total=money_of(total, asset),
        reference=reference,
        idempotency_key=idempotency_key or session.new_key(),
    )
    session.show(session.call(REVERSE_PAYOUT, ask))


@command(
    treasury,
    "grant-credit",
    example=f"farthing treasury grant-credit org_… 10 CRD --kind promotional {_KEY}",
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
    session.show(session.call(GRANT_CREDIT, ask))


@command(treasury, "credit-lots", example=f"farthing treasury credit-lots {_KEY}")
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


@command(treasury, "set-grace", example=f"farthing treasury set-grace org_… 5 USD {_KEY}")
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


@command(
    treasury, "close-account", example=f"farthing treasury close-account org_… prepaid USD {_KEY}"
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
