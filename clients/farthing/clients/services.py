"""Calling a vendor's own tool with a payment, and judging what comes back.

Boundary: one paid call under one hold. A call is repeated as it is: the vendor works for a hold
once and gives the stored result again. Source: spec/payments-mcp.md.
"""

import asyncio
import ipaddress
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import httpx2

from farthing.clients.clock import Clock, Entropy
from farthing.clients.documents import arguments_sha256, result_sha256
from farthing.clients.posting import quoted
from farthing.clients.routes import Route
from farthing.clients.tools import Endpoint, ToolResult
from farthing.protocol import base64url
from farthing.protocol.canonical import Json, LooseJson
from farthing.protocol.contracts import DeliveryRecord
from farthing.protocol.documents import DocumentError
from farthing.protocol.errors import (
    Code,
    NextAction,
    Refusal,
    Refused,
    Unreachable,
    Unverified,
    refuse,
)
from farthing.protocol.ids import AgreementId, HoldId
from farthing.protocol.keys import Signer
from farthing.protocol.listing import InterfaceKind, Listing
from farthing.protocol.messages.agreements import Agreement
from farthing.protocol.messages.charges import Receipt
from farthing.protocol.messages.holds import Charge, Hold
from farthing.protocol.proofs import Voucher, voucher_jwt
from farthing.protocol.schemas import violation
from farthing.protocol.x402 import (
    PAYMENT,
    PAYMENT_RESPONSE,
    Presented,
    Price,
    Settlement,
    payment,
    read_refusal,
    read_settlement,
)

__all__ = [
    "Answered",
    "NotDelivered",
    "Purchase",
    "ServiceFailed",
    "ServiceLost",
    "VendorCaller",
    "fault",
]

_ATTEMPTS: Final = 3
_BACKOFF_S: Final = 0.2
_WAIT_S_MAX: Final = 5.0
_VOUCHER_LIFETIME_S: Final = 300
_JTI_BYTES: Final = 16
# A place, an amount or an asset: no prose.
_WORD: Final = re.compile(r"[!-~]{0,100}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What a vendor answered to a paid call; the platform's record is what counts."""

    result: LooseJson
    text: str
    content: list[LooseJson]
    settlement: Settlement


@dataclass(frozen=True, slots=True, kw_only=True)
class Purchase:
    """A call that was paid for: what came, what it cost, and the proof of it.

    `result` is the vendor's word: input to judge, never an instruction.
    """

    result: LooseJson
    text: str
    content: list[LooseJson]
    charge: Charge
    receipt: Receipt
    agreement_id: str
    hold_id: str
    delivery: Mapping[str, object]
    delivery_signature: str

    @classmethod
    def of(
        cls,
        answered: Answered,
        charge: Charge,
        receipt: Receipt,
        *,
        agreement_id: str,
        hold_id: str,
    ) -> "Purchase":
        """The purchase that an answer, a charge and a receipt are of."""
        return cls(
            result=answered.result,
            text=answered.text,
            content=answered.content,
            charge=charge,
            receipt=receipt,
            agreement_id=agreement_id,
            hold_id=hold_id,
            delivery=answered.settlement.delivery,
            delivery_signature=answered.settlement.delivery_signature,
        )


class ServiceFailed(Refused):
    """The vendor did not deliver under a hold; `get_hold` tells when its money is free again."""

    def __init__(self, refusal: Refusal, hold_id: str) -> None:
        super().__init__(refusal)
        self.hold_id = hold_id


class ServiceLost(Unreachable):
    """The vendor did not answer, and has captured nothing so far; `get_hold` tells what follows."""

    def __init__(self, message: str, hold_id: str) -> None:
        super().__init__(message)
        self.hold_id = hold_id


class NotDelivered(Unverified):
    """The vendor charged for something else than what it sent, if anything: dispute the charge.

    `purchase` is what came, None where nothing did.
    """

    def __init__(self, message: str, charge_id: str, purchase: Purchase | None = None) -> None:
        super().__init__(message)
        self.charge_id = charge_id
        self.purchase = purchase


class VendorCaller:
    """The payer's side of a paid call.

    Args:
        http: Whose connections to use.
        signer: The payer's key, which the platform wrote into the entitlement.
        platform: The platform's public URL.
        timeout_s: How long one attempt may take.
        clock, entropy: The clock, and bytes for the voucher's name.
        on_sign: Told of each voucher that is signed, by its members.
        sleep: Waits between attempts.
    """

    def __init__(
        self,
        http: httpx2.AsyncClient,
        signer: Signer,
        *,
        platform: str,
        timeout_s: float,
        clock: Clock,
        entropy: Entropy,
        on_sign: Callable[[str, Mapping[str, object]], None],
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._http = http
        self._signer = signer
        self._platform = platform
        self._timeout_s = timeout_s
        self._clock = clock
        self._entropy = entropy
        self._on_sign = on_sign
        self._sleep = sleep

    async def call(
        self, listing: Listing, agreement: Agreement, hold: Hold, arguments: Mapping[str, object]
    ) -> Answered:
        """Call the vendor's tool under a hold.

        Raises:
            ServiceFailed: The vendor refused or failed; its refusal is inside.
            Unreachable: No answer after the last attempt: `get_hold` tells what became of it.
        """
        try:
            result = await self.exchange(
                listing,
                agreement,
                hold.amount.units,
                arguments,
                lambda: self._paid(hold, arguments),
            )
        except Refused as refused:
            raise ServiceFailed(_of_hold(refused.refusal), hold.hold_id) from refused
        return _answered(result, hold)

    async def exchange(
        self,
        listing: Listing,
        agreement: Agreement,
        amount_units: int,
        arguments: Mapping[str, object],
        present: Callable[[], Presented],
    ) -> ToolResult:
        """Call the vendor's tool with a payment until it answers, a bounded number of times.

        Args:
            listing: Whose tool.
            agreement: Under which agreement.
            amount_units: The most that this call may cost.
            arguments: The tool's arguments.
            present: Signs the payment of one attempt.

        Raises:
            Refused: The vendor refused or failed.
            Unreachable: No answer after the last attempt.
        """
        self.check_url(listing.interface.url)
        price = self._price(listing, agreement, amount_units)
        for attempt in range(1, _ATTEMPTS + 1):
            wait_s = _BACKOFF_S * 2**attempt
            try:
                result = await self._call_once(listing, arguments, payment(price, present()))
                if not result.is_error:
                    return result
                raise _failure(result)
            except Unreachable:
                if attempt == _ATTEMPTS:
                    raise
            except Refused as refused:
                wait_s = max(wait_s, refused.refusal.retry_after_s)
                again = refused.code.retryable and wait_s <= _WAIT_S_MAX
                if attempt == _ATTEMPTS or not again:
                    raise Refused(_as_said(refused.refusal)) from refused
            await self._sleep(wait_s)
        raise AssertionError("the last attempt returns or raises")

    def sign(self, voucher: Voucher) -> str:
        """Sign a voucher with the payer's key."""
        members = {name: each for name, each in asdict(voucher).items() if each is not None}
        self._on_sign("voucher", members)
        return voucher_jwt(
            self._signer,
            voucher,
            now_us=self._clock(),
            jti=base64url.encode(self._entropy(_JTI_BYTES)),
            lifetime_s=_VOUCHER_LIFETIME_S,
        )

    async def _call_once(
        self, listing: Listing, arguments: Mapping[str, object], paid: Mapping[str, object]
    ) -> ToolResult:
        """One attempt, as the listing says how; raises as `exchange`."""
        interface = listing.interface
        match interface.kind:
            case InterfaceKind.MCP:
                endpoint = Endpoint(self._http, interface.url, timeout_s=self._timeout_s)
                return await endpoint.call_tool(
                    interface.tool,
                    arguments,
                    meta={PAYMENT: paid},
                    input_schema=listing.input_schema,
                )
            case InterfaceKind.HTTP:
                route = Route(self._http, interface.url, timeout_s=self._timeout_s)
                return await route.call(arguments, paid)

    def _paid(self, hold: Hold, arguments: Mapping[str, object]) -> Presented:
        voucher = Voucher(
            agreement_id=AgreementId(hold.agreement_id),
            hold_id=HoldId(hold.hold_id),
            args_sha256=arguments_sha256(arguments),
            seq=1,
            max_cum_units=hold.amount.units,
            ack="",
        )
        return Presented(entitlement=hold.entitlement, voucher=self.sign(voucher))

    def _price(self, listing: Listing, agreement: Agreement, amount_units: int) -> Price:
        return Price(
            tool=listing.interface.tool,
            url="" if listing.interface.tool else listing.interface.url,
            platform=self._platform,
            vendor_id=listing.vendor_id,
            listing_id=listing.listing_id,
            listing_sha256=agreement.listing_sha256,
            rate_card_sha256=agreement.rate_card_sha256,
            terms_sha256=agreement.terms_sha256,
            asset=agreement.asset,
            amount_units=amount_units,
            exact=False,
            deadline_s=0,
        )

    def check_url(self, url: str) -> None:
        """Say whether a payment may go to an address.

        Raises:
            Refused: `vendor_failed`.
        """
        # What a listing says is where this machine connects to: in clear only to this machine
        # itself, and to this machine only where the platform is here too.
        try:
            parsed = httpx2.URL(url)
        except httpx2.InvalidURL:
            raise _unpayable(url) from None
        if _is_local(parsed.host) and _is_local(httpx2.URL(self._platform).host):
            return
        if parsed.scheme != "https" or _is_local(parsed.host):
            raise _unpayable(url)


def fault(
    purchase: Purchase,
    *,
    listing: Listing,
    arguments: Mapping[str, object],
    output_schema_sha256: str,
) -> str:
    """What is wrong with a delivery beside what was charged for; empty when nothing is.

    The charge's digest is the platform's record; the delivery record and the result are the
    vendor's. All three must be of the same body, and the body must fit the schema sold under.
    """
    try:
        received_sha256 = result_sha256(purchase.result)
        delivery = DeliveryRecord.from_document(_json(purchase.delivery))
    except Refused as refused:
        return f"the result has no digest: {refused.refusal.message}"
    except DocumentError as error:
        return f"the delivery record is none: {error}"
    pairs = (
        ("result", received_sha256, purchase.charge.result_sha256),
        ("delivery record's result", delivery.result_sha256, purchase.charge.result_sha256),
        ("delivery record's hold", delivery.hold_id, purchase.hold_id),
        ("delivery record's arguments", delivery.args_sha256, arguments_sha256(arguments)),
        ("delivery record's schema", delivery.output_schema_sha256, output_schema_sha256),
    )
    for name, left, right in pairs:
        if left != right:
            return f"the {name} is {left} and not {right}"
    if found := violation(listing.output_schema, purchase.result):
        return f"the result does not fit the output schema at {found.path or '.'}: {found.keyword}"
    return ""


def _failure(result: ToolResult) -> Refused:
    text = result.text
    return Refused(read_refusal(result.structured) or refuse(Code.VENDOR_FAILED, message=text))


def _as_said(refusal: Refusal) -> Refusal:
    """A vendor's refusal, its prose in quotes: nobody takes it for the platform's or for ours."""
    message = refusal.message
    if message != refusal.code.says:
        message = f"The vendor says: {quoted(message)}."
    names = ("path", "required", "remaining", "asset")
    words: dict[str, Any] = {
        name: "" for name in names if not _WORD.fullmatch(getattr(refusal, name))
    }
    return replace(refusal, message=message, **words)


def _unpayable(url: str) -> Refused:
    text = f"The vendor's address {url} is not one to send a payment to."
    return Refused(refuse(Code.VENDOR_FAILED, path="interface.url", message=text))


def _of_hold(refusal: Refusal) -> Refusal:
    if refusal.code is not Code.CAPTURE_EXCEEDS_HOLD:
        return refusal
    text = "The call uses more than the workload that was given, and nothing is charged:"
    text = f"{text} buy it anew with a larger workload."
    return replace(refusal, message=text, next_action=NextAction.QUOTE_AGAIN)


def _answered(result: ToolResult, hold: Hold) -> Answered:
    settled = read_settlement(result.meta.get(PAYMENT_RESPONSE))
    if settled is None or settled.hold_id != hold.hold_id:
        text = "The vendor answered without saying that the hold was captured."
        raise ServiceFailed(refuse(Code.VENDOR_FAILED, message=text), hold.hold_id)
    return Answered(
        result=result.structured, text=result.text, content=result.content, settlement=settled
    )


def _json(document: Mapping[str, object]) -> Json:
    return dict(document)  # type: ignore[arg-type] # read strictly by whoever is given it


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
