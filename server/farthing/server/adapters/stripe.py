"""Stripe as the processor: Checkout for money in, transfers to connected accounts for money out.

Boundary: the official library speaks to Stripe; what leaves is ids and amounts of ours, what comes
back is judged by its signature. Card data is between the payer and Stripe. The keys are read once
from files and are in no log. Source: spec/ledger.md, spec/configuration.md.
"""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Final, Literal, TypeVar

import stripe
import structlog

from farthing.protocol.money import ASSETS
from farthing.server.ports import InvalidEvent, ProcessorBusy, ProcessorFailed
from farthing.settlement.engine.payments import Processed, paid_again_id
from farthing.settlement.engine.things import Payout, TopUp

__all__ = ["STRIPE", "StripeProcessor", "read_secret"]

log = structlog.get_logger(__name__)

STRIPE: Final = "stripe"
_API: Final = "https://api.stripe.com"
_TIMEOUT_S: Final = 20
# How many ask at once, and how many more may wait for their turn. With three attempts each, the
# last of them is through after five minutes: a payout is not failed by hand before ten.
_ASKING_MAX: Final = 8
_WAITING_MAX: Final = 32
# As many may be refunded in one go: what finds no place is told again only hours later.
_EVENTS_WAITING_MAX: Final = 256
_TOLERANCE_S: Final = 300
_SECRET_BYTES_MAX: Final = 4_096
# Stripe's minor units: two places for most currencies, none for the yen.
_PLACES: Final[Mapping[str, int]] = {"EUR": 2, "JPY": 0, "USD": 2}
_MINOR_MAX: Final = 99_999_999
_ACCOUNT: Final = re.compile(r"acct_[A-Za-z0-9]{1,64}")
_TOP_UPS: Final[Mapping[str, Literal["failed", "paid"]]] = {
    "checkout.session.async_payment_failed": "failed",
    "checkout.session.async_payment_succeeded": "paid",
    "checkout.session.completed": "paid",
    "checkout.session.expired": "failed",
}
_SENT: Final = "transfer.created"
_REFUNDED: Final = "charge.refunded"
_WITHDRAWN: Final = "charge.dispute.funds_withdrawn"
# By which member they say how much has gone back in all.
_REVERSED: Final[Mapping[str, str]] = {
    _REFUNDED: "amount_refunded",
    _WITHDRAWN: "amount_refunded",
    "transfer.reversed": "amount_reversed",
}
# Money that is back: the treasurer's to book.
_WON_BACK: Final = frozenset({"charge.dispute.funds_reinstated", "refund.failed"})
_CHARGE: Final = re.compile(r"(ch|py)_[A-Za-z0-9_]{1,64}")
_SESSION: Final = re.compile(r"cs_[A-Za-z0-9_]{1,128}")
# As many as Stripe gives at once.
_DISPUTES_MAX: Final = 100

# How Stripe's keys begin, `sk_live_` or `rk_test_`: what moves real money and what does not.
_MODE: Final = re.compile(r"[a-z_]+_(live|test)_.*", re.ASCII)

Made = TypeVar("Made")


class StripeProcessor:
    """The port to Stripe.

    Args:
        key: the secret key, or a restricted one that may write Checkout sessions and transfers,
            and read charges and disputes.
        webhook_secret: what Stripe signs this endpoint's events with.
        return_url: where Checkout sends the payer afterwards.
        platform: the journal's name, by which a payment is this platform's where several share an
            account: who has one key at two of them has the same ids at both.
        api_url: where the API is; a fake's in tests.
    """

    def __init__(
        self, *, key: str, webhook_secret: str, return_url: str, platform: str, api_url: str = ""
    ) -> None:
        self._webhook_secret = webhook_secret
        mode = _MODE.match(key)
        self._is_live = None if mode is None else mode[1] == "live"
        self._return_url = return_url
        self._platform = platform
        self._client = stripe.StripeClient(
            key,
            base_addresses={"api": api_url or _API},
            max_network_retries=2,
            http_client=stripe.new_default_http_client(timeout=_TIMEOUT_S),
        )
        # Apart: who tops up again and again would keep out payouts and what tells of its
        # chargeback, and many refunds would keep out both.
        self._top_ups, self._payouts = _Asking(_WAITING_MAX), _Asking(_WAITING_MAX)
        self._events = _Asking(_EVENTS_WAITING_MAX)

    def accepts(self, asset: str, units: int) -> bool:
        """Whether the amount is a whole number of the currency's minor units, within bounds."""
        if asset not in _PLACES:
            return False
        minor, rest = divmod(units, _minor_units(asset))
        return rest == 0 and 0 < minor <= _MINOR_MAX

    def knows(self, destination: str) -> bool:
        """Whether it is the id of a connected account."""
        return _ACCOUNT.fullmatch(destination) is not None

    async def begin(self, top_up: TopUp) -> str:
        """Open a Checkout session; asking again gives the same one."""
        price = {
            "currency": top_up.asset.lower(),
            "product_data": {"name": "Prepaid balance"},
            "unit_amount": top_up.amount_units // _minor_units(top_up.asset),
        }
        metadata = {"payment_id": top_up.top_up_id, "platform": self._platform}
        params: Any = {
            "cancel_url": self._return_url,
            "client_reference_id": top_up.top_up_id,
            "line_items": [{"price_data": price, "quantity": 1}],
            "metadata": metadata,
            "mode": "payment",
            # What is told of the charge later, a refund or a chargeback, names it by this.
            "payment_intent_data": {"metadata": metadata},
            "success_url": self._return_url,
        }
        with _answering():
            session = await self._top_ups.ask(
                lambda: self._client.v1.checkout.sessions.create(
                    params, {"idempotency_key": top_up.top_up_id}
                ),
                of=top_up.organisation_id,
            )
            return str(session.url or "")

    async def pay(self, payout: Payout) -> None:
        """Transfer to the connected account; asking again pays nothing more."""
        params: Any = {
            "amount": payout.amount_units // _minor_units(payout.asset),
            "currency": payout.asset.lower(),
            "destination": payout.destination,
            "metadata": {"payment_id": payout.payout_id, "platform": self._platform},
        }
        with _answering():
            await self._payouts.ask(
                lambda: self._client.v1.transfers.create(
                    params, {"idempotency_key": payout.payout_id}
                )
            )

    async def event(self, body: bytes, headers: Mapping[str, str]) -> Processed | None:
        """What a signed event says; events of others' payments say nothing.

        What names a payment of ours and is not taken is in the log: it is told nowhere else. A
        chargeback names a charge alone, and neither it nor a refund says all that has gone back
        of which payment: Stripe is asked for that.
        """
        signature = headers.get("stripe-signature", "")
        if not signature.isascii():
            # The library compares ASCII alone.
            raise InvalidEvent("not ASCII")
        try:
            stripe.WebhookSignature.verify_header(
                body.decode(), signature, self._webhook_secret, _TOLERANCE_S
            )
            event = json.loads(body)
        except (stripe.SignatureVerificationError, ValueError, RecursionError) as error:
            # No cause: the error holds what was sent.
            raise InvalidEvent(type(error).__name__) from None
        try:
            goes_back = event["type"] in {_REFUNDED, _WITHDRAWN}
            if goes_back and not _foreign(event, is_live=self._is_live):
                with _answering():
                    event["data"]["object"] = await self._gone_back(event)
            return _said(event, is_live=self._is_live, platform=self._platform)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            why = f"{type(error).__name__}: {error}"
            log.warning("event_not_taken", processor=STRIPE, event_id=_id_of(event), why=why)
            return None

    async def _gone_back(self, event: dict[str, Any]) -> dict[str, Any]:
        """The charge, with all that has gone back of it, under the id that it was paid by."""
        charge: dict[str, Any] = event["data"]["object"]
        withdrawn = []
        if event["type"] == _WITHDRAWN:
            withdrawn = [charge]
            if not _CHARGE.fullmatch(charge["charge"]):
                raise ValueError("of no charge")
            charge = await self._events.ask(partial(self._charge, charge["charge"]))
        if not _payment_id(charge, self._platform):
            return charge
        gone = await self._gone_of(charge, withdrawn)
        session_id = await self._events.ask(partial(self._session_of, charge["payment_intent"]))
        return {**charge, "amount_refunded": gone, "id": session_id}

    async def _gone_of(self, charge: dict[str, Any], withdrawn: list[dict[str, Any]]) -> int:
        """How much of a charge has gone back in all; `withdrawn` is a chargeback that was told."""
        whole, gone = _counts(charge["amount"]), _counts(charge["amount_refunded"])
        if withdrawn or charge["disputed"]:
            # One charge can be charged back in parts, and be refunded besides. What was won back
            # had gone; an inquiry takes nothing.
            found = await self._events.ask(partial(self._disputes, charge["id"]))
            # The one that is told of counts, whether it is listed yet or not.
            told_ids = {each["id"] for each in withdrawn}
            for each in {each["id"]: each for each in [*found, *withdrawn]}.values():
                if each["currency"] != charge["currency"]:
                    raise ValueError("of another currency")
                if each["id"] in told_ids or each["balance_transactions"]:
                    gone += _counts(each["amount"])
        if gone > whole:
            # As of what was won back and given back again: more than once is not booked.
            log.warning("gone_back_twice", processor=STRIPE, charge_id=charge["id"])
        return min(gone, whole)

    async def gone_back(self, top_up: TopUp, reference: str) -> Processed | None:
        """How much has gone back of what was paid by a Checkout session."""
        try:
            with _answering():
                charge = await self._events.ask(partial(self._charge_by, reference, top_up))
                gone = await self._gone_of(charge, [])
        except ValueError as error:
            log.warning("not_looked_up", processor=STRIPE, reference=reference, why=str(error))
            return None
        if not gone:
            return None
        return Processed(
            payment_id=top_up.top_up_id,
            event_id="",
            reference=reference,
            outcome="reversed",
            asset=top_up.asset,
            units=str(gone * _minor_units(top_up.asset)),
        )

    def _charge_by(self, session_id: str, top_up: TopUp) -> dict[str, Any]:
        """The charge of a top-up that was paid by a Checkout session."""
        if not _SESSION.fullmatch(session_id):
            raise ValueError("of no Checkout session")
        with _missing("of no Checkout session"):
            session = self._client.v1.checkout.sessions.retrieve(session_id).to_dict()
        payment_id = _payment_id(session, self._platform)
        # A treasurer may name another's.
        if top_up.top_up_id not in {payment_id, paid_again_id(payment_id, session_id)}:
            raise ValueError("of another payment")
        if not session["payment_intent"]:
            raise ValueError("of no payment")
        found = self._client.v1.charges.list({"payment_intent": session["payment_intent"]})
        # Those before it failed.
        paid = [each for each in found.data if each.paid]
        if not paid:
            raise ValueError("of no charge")
        if paid[0].currency.upper() != top_up.asset:
            raise ValueError("of another currency")
        return paid[0].to_dict()

    def _charge(self, charge_id: str) -> dict[str, Any]:
        with _missing("of no charge"):
            charge = self._client.v1.charges.retrieve(charge_id).to_dict()
        if charge["id"] != charge_id:
            raise TypeError("another charge")
        return charge

    def _disputes(self, charge_id: str) -> list[dict[str, Any]]:
        found = self._client.v1.disputes.list({"charge": charge_id, "limit": _DISPUTES_MAX})
        if found.has_more:
            raise TypeError("not all disputes")
        return [each.to_dict() for each in found.data]

    def _session_of(self, payment_intent: str) -> str:
        """By which Checkout session it was paid: a top-up can be paid by two."""
        # Of none it would list everybody's.
        if not payment_intent:
            raise ValueError("of no Checkout session")
        found = self._client.v1.checkout.sessions.list({"payment_intent": payment_intent})
        if not found.data:
            raise ValueError("of no Checkout session")
        return found.data[0].id


class _Asking:
    """Who asks Stripe, and how many may wait.

    Threads of its own: those of the loop keep results and write statement lines, which would all
    stand still while Stripe does not answer.
    """

    def __init__(self, waiting_max: int) -> None:
        self._threads = ThreadPoolExecutor(_ASKING_MAX, thread_name_prefix=STRIPE)
        self._places = _ASKING_MAX + waiting_max
        self._lock, self._taken = Lock(), Counter[str]()

    async def ask(self, call: Callable[[], Made], of: str = "") -> Made:
        """What Stripe answers; raises `ProcessorFailed`.

        Where it is asked for `of` somebody, others find a place too: one has no more than are asked
        for at once, and a second only while half are free.
        """
        self._take(of)
        asked = self._threads.submit(call)
        asked.add_done_callback(lambda _: self._leave(of))
        try:
            return await asyncio.wrap_future(asked)
        except stripe.StripeError as error:
            # No cause: its text may hold parts of what was sent.
            raise ProcessorFailed(f"{type(error).__name__} {error.code or ''}".rstrip()) from None

    def _take(self, of: str) -> None:
        with self._lock:
            taken, own = self._taken.total(), self._taken[of]
            is_full = taken >= self._places
            if is_full or (of and own and (own >= _ASKING_MAX or 2 * taken >= self._places)):
                raise ProcessorBusy("too many wait for it")
            self._taken[of] += 1

    def _leave(self, of: str) -> None:
        with self._lock:
            # So that who waits for nothing is forgotten.
            self._taken -= Counter((of,))


@contextmanager
def _answering() -> Iterator[None]:
    """Where Stripe answers something odd, it has not answered: asked again, it may."""
    try:
        yield
    except (AttributeError, KeyError, TypeError) as error:
        raise ProcessorFailed(f"no such answer: {type(error).__name__}: {error}") from None


@contextmanager
def _missing(why: str) -> Iterator[None]:
    """Where Stripe says that there is no such thing, it has answered."""
    try:
        yield
    except stripe.InvalidRequestError as error:
        if error.code != "resource_missing":
            raise
        raise ValueError(why) from None


def read_secret(path: Path) -> str:
    """A secret from its file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is empty, too long or not plain text.
    """
    text = path.read_bytes()[: _SECRET_BYTES_MAX + 1].decode("ascii").strip()
    if not text or len(text) > _SECRET_BYTES_MAX or not text.isprintable():
        message = f"{path}: not a secret"
        raise ValueError(message)
    return text


def _said(event: dict[str, Any], *, is_live: bool | None, platform: str) -> Processed | None:
    thing, kind = event["data"]["object"], event["type"]
    payment_id = _payment_id(thing, platform)
    foreign = _foreign(event, is_live=is_live)
    if not payment_id:
        if kind in _WON_BACK and not foreign:
            raise ValueError("money that is back")
        return None
    if foreign:
        raise ValueError(foreign)
    outcome: Literal["failed", "paid", "reversed"]
    if kind in _TOP_UPS:
        # A session can be completed by a payment that takes days: it is paid when it says so.
        if kind == "checkout.session.completed" and thing["payment_status"] != "paid":
            return None
        amount, outcome = thing["amount_total"], _TOP_UPS[kind]
    elif kind == _SENT:
        amount, outcome = thing["amount"], "paid"
    elif kind in _REVERSED:
        amount, outcome = thing[_REVERSED[kind]], "reversed"
    else:
        raise ValueError("of another kind")
    asset = thing["currency"].upper()
    if asset not in _PLACES or type(amount) is not int:
        raise ValueError("of no amount")
    texts = (payment_id, event["id"], thing["id"])
    if not all(isinstance(text, str) and len(text) <= 255 for text in texts):
        raise ValueError("with other ids")
    # What left is no top-up, whatever id somebody wrote on it, and what came is no payout.
    if not payment_id.startswith("pay_" if kind.startswith("transfer.") else "top_"):
        raise ValueError("of another direction")
    return Processed(
        payment_id=texts[0],
        event_id=texts[1],
        reference=texts[2],
        outcome=outcome,
        asset=asset,
        units=str(amount * _minor_units(asset)),
    )


def _payment_id(thing: dict[str, Any], platform: str) -> str:
    """What of this platform's a thing at Stripe is of, if anything."""
    named = thing.get("metadata") or {}
    is_ours = named.get("platform", platform) == platform
    return named.get("payment_id") or "" if is_ours else ""


def _foreign(event: dict[str, Any], *, is_live: bool | None) -> str:
    """Whose an event is, where it is not of the key's own account and mode."""
    # A connected account has events of its own, with whatever metadata it likes.
    if event.get("account") is not None:
        return "of another account"
    return "of the other mode" if is_live is not None and event["livemode"] is not is_live else ""


def _counts(amount: object) -> int:
    """An amount that is one: a count of minor units."""
    if not isinstance(amount, int) or amount < 0:
        raise TypeError("no amount")
    return amount


def _id_of(event: object) -> str:
    """What the processor's own pages find an event by."""
    id_ = event.get("id") if isinstance(event, dict) else None
    return id_[:255] if isinstance(id_, str) else ""


def _minor_units(asset: str) -> int:
    scale: int = 10 ** (ASSETS[asset].scale - _PLACES[asset])
    return scale
