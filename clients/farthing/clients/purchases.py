"""What is judged before a purchase: its total, its arguments, whether an agreement still fits.

Boundary: rules over documents that were verified before; nothing is signed, held or sent here.
Source: spec/payments-mcp.md.
"""

from collections.abc import Iterable, Mapping

from farthing.clients.documents import arguments_sha256
from farthing.clients.services import ServiceFailed
from farthing.protocol.errors import Code, NextAction, Refusal, Refused, Unverified, refuse
from farthing.protocol.listing import Listing
from farthing.protocol.messages.agreements import Agreement, Quote
from farthing.protocol.messages.holds import Charge, Hold
from farthing.protocol.records import Record
from farthing.protocol.schemas import violation
from farthing.protocol.wire import Money

__all__ = [
    "check_arguments",
    "check_charge",
    "check_hold",
    "check_total",
    "is_of_what_is_offered",
    "newest_in_force",
]


def check_total(quote: Quote, max_total: Money | None) -> None:
    """Refuse a quote above what the buyer will pay.

    Raises:
        Refused: `asset_mismatch`, `local_limit_exceeded`.
    """
    if max_total is None:
        return
    if quote.total.asset != max_total.asset:
        raise Refused(refuse(Code.ASSET_MISMATCH, path="max_total", required=quote.total.asset))
    if quote.total.units > max_total.units:
        text = "The price is above the max_total you gave; nothing was agreed or held."
        raise Refused(_above(quote.total, max_total, text, NextAction.FIX_REQUEST))


def check_hold(hold: Hold, agreement_id: str, max_total: Money | None) -> None:
    """Call no vendor with a hold that is not the one that was to be placed, or takes too much.

    Raises:
        ServiceFailed: It is above `max_total`; its money is free again when it expires.
        Unverified: It is of another agreement or asset.
    """
    if hold.agreement_id != agreement_id or (max_total and hold.amount.asset != max_total.asset):
        raise Unverified(f"{hold.hold_id} is not the hold that was to be placed")
    if max_total is not None and hold.amount.units > max_total.units:
        text = "The hold is above the max_total you gave; the vendor was not called."
        refusal = _above(hold.amount, max_total, text, NextAction.QUOTE_AGAIN)
        raise ServiceFailed(refusal, hold.hold_id)


def check_charge(charge: Charge, hold_id: str, record: Record) -> None:
    """Believe a charge as the record of it is proven, and no otherwise.

    Raises:
        Unverified: The platform shows another, or the record is none of this hold's charge.
    """
    after = next(each.after for each in record.changed if each.id == charge.charge_id)
    amounts = ("amount", "released", "fee")
    shown = {
        **{name: getattr(charge, name) for name in ("hold_id", "agreement_id", "result_sha256")},
        **{f"{name}_units": str(getattr(charge, name).units) for name in amounts},
        "asset": charge.amount.asset,
    }
    if shown != {name: after.get(name) for name in shown} or charge.hold_id != hold_id:
        raise Unverified(f"{charge.charge_id} is not shown as record {record.seq} proves it")


def check_arguments(listing: Listing, arguments: Mapping[str, object]) -> None:
    """Refuse arguments that the listing's tool would not take.

    Raises:
        Refused: `invalid_argument` with the path of the first, `arguments.<name>`.
    """
    arguments_sha256(arguments)
    if found := violation(listing.input_schema, arguments):
        raise Refused(found.refusal("; nothing was signed or held"))


def newest_in_force(agreements: Iterable[Agreement], listing_id: str) -> Agreement | None:
    """The newest agreement of a listing that money can be held under.

    Args:
        agreements: Newest first, as the platform lists them.
        listing_id: Whose.
    """
    found = (
        each for each in agreements if each.listing_id == listing_id and each.status == "in_force"
    )
    return next(found, None)


def is_of_what_is_offered(agreement: Agreement, quote: Quote) -> bool:
    """Whether an agreement binds to the listing, rate card and terms that a quote is of."""
    return all(
        quote.document.get(name) == getattr(agreement, name)
        for name in ("listing_id", "listing_sha256", "rate_card_sha256", "terms_sha256")
    )


def _above(amount: Money, max_total: Money, text: str, next_action: NextAction) -> Refusal:
    return refuse(
        Code.LOCAL_LIMIT_EXCEEDED,
        path="max_total",
        required=amount.amount,
        remaining=max_total.amount,
        asset=max_total.asset,
        message=text,
        next_action=next_action,
    )
