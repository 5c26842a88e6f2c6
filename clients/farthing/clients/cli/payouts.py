"""Payouts: what a vendor or partner asks for, and what the treasurer says of it.

Boundary: one call of the platform a command, each a `farthing treasury` command.
"""

from typing import Annotated, Literal

import typer

from farthing.clients.cli.arguments import (
    AmountArgument,
    AssetArgument,
    CursorOption,
    LimitOption,
    money_of,
)
from farthing.clients.cli.booking import book
from farthing.clients.cli.session import IdempotencyOption, Session, command
from farthing.protocol.messages.payments import (
    CANCEL_PAYOUT,
    CONFIRM_PAYOUT,
    FAIL_PAYOUT,
    LIST_PAYOUTS,
    REQUEST_PAYOUT,
    REVERSE_PAYOUT,
    SEND_PAYOUT,
    CancelPayout,
    ConfirmPayout,
    FailPayout,
    ListPayouts,
    PayoutStatus,
    ProcessorName,
    RequestPayout,
    ReversePayout,
    SendPayout,
)

__all__ = [
    "KEY",
    "OrganisationOption",
    "ProcessorOption",
    "ReferenceOption",
    "TotalArgument",
    "commands",
]

KEY = "--key farthing-data/keys/treasurer.jwk"

commands = typer.Typer()

OrganisationOption = Annotated[
    str,
    typer.Option(
        "--organisation", metavar="ORG", help="Only this organisation's.", show_default=False
    ),
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


@command(commands, "request-payout", example="farthing treasury request-payout 12.5 USD")
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


@command(commands, "payouts", example=f"farthing treasury payouts {KEY}")
def payouts(
    session: Session,
    *,
    organisation: OrganisationOption = "",
    status: Annotated[
        PayoutStatus | None, typer.Option(help="Only those that stand so.", show_default=False)
    ] = None,
    cursor: CursorOption = "",
    limit: LimitOption = 50,
) -> None:
    """List payouts, newest first."""
    ask = ListPayouts(
        organisation_id=organisation or None, status=status, cursor=cursor, limit=limit
    )
    session.show_page(session.call(LIST_PAYOUTS, ask))


@command(commands, "cancel-payout", example="farthing treasury cancel-payout pay_…")
def cancel_payout(
    session: Session, payout: PayoutArgument, *, idempotency_key: IdempotencyOption = ""
) -> None:
    """Take back a payout that you asked for and that was not sent."""
    ask = CancelPayout(payout_id=payout, idempotency_key=idempotency_key or session.new_key())
    session.show(session.call(CANCEL_PAYOUT, ask))


@command(commands, "send-payout", example=f"farthing treasury send-payout pay_… {KEY}")
def send_payout(
    session: Session, payout: PayoutArgument, *, idempotency_key: IdempotencyOption = ""
) -> None:
    """Let a payout go: the processor is told to pay it."""
    ask = SendPayout(payout_id=payout, idempotency_key=idempotency_key or session.new_key())
    session.show(session.call(SEND_PAYOUT, ask))


@command(
    commands,
    "confirm-payout",
    example=f"farthing treasury confirm-payout pay_… --reference wire-43 {KEY}",
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
    book(session, CONFIRM_PAYOUT, ask, reference=reference)


@command(commands, "fail-payout", example=f"farthing treasury fail-payout pay_… {KEY}")
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
    commands,
    "reverse-payout",
    example=f"farthing treasury reverse-payout pay_… 5 USD --reference wire-44 {KEY}",
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
    book(session, REVERSE_PAYOUT, ask, reference=reference)
