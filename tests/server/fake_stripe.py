"""A local stand-in for Stripe's API, with answers and events of the shapes that Stripe documents.

It keeps what it was asked, gives the same object for the same idempotency key, and can be told to
fail; the official client talks to it over loopback.
"""

import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

__all__ = [
    "LOOKUP",
    "SECRET",
    "TOP_UP",
    "FakeStripe",
    "charge_of",
    "dispute_event",
    "dispute_of",
    "fake_stripe",
    "refund_event",
    "session_event",
    "signature",
    "transfer_event",
]

SECRET = "whsec_test_secret"
# What can be kept waiting.
TOP_UP, LOOKUP = (f"{method} /v1/checkout/sessions" for method in ("POST", "GET"))
_API_VERSION = "2026-10-28.preview"


@dataclass(slots=True)
class FakeStripe:
    """What was asked of the fake, and whether it works."""

    url: str = ""
    asked: list[tuple[str, dict[str, str], dict[str, str]]] = field(default_factory=list)
    made: dict[str, dict[str, Any]] = field(default_factory=dict)
    charges: dict[str, dict[str, Any]] = field(default_factory=dict)
    disputes: list[dict[str, Any]] = field(default_factory=list)
    # By payment intent, the Checkout session that it paid.
    sessions: dict[str, str] = field(default_factory=lambda: {"pi_3Px": "cs_test_a1b2c3"})
    broken: bool = False
    has_more: bool = False
    # Whether it answers with an empty object.
    odd: bool = False
    # By method and path, whether it is answered now or once that is set.
    answering: dict[str, threading.Event] = field(default_factory=dict)

    def found(self, asked: str) -> dict[str, Any] | None:
        """A charge or a session that there is, or a list of what belongs to one."""
        path, _, query = asked.partition("?")
        named = dict(parse_qsl(query))
        match path.split("/")[2:]:
            case ["charges"]:
                return _list(self._charges_of(named["payment_intent"]))
            case ["charges", charge_id]:
                return self.charges.get(charge_id)
            case ["disputes"]:
                found = [each for each in self.disputes if each["charge"] == named["charge"]]
                return {**_list(found), "has_more": self.has_more}
            case ["checkout", "sessions"]:
                id_ = self.sessions.get(named["payment_intent"])
                return _list([{"id": id_, "object": "checkout.session"}] if id_ else [])
            case ["checkout", "sessions", session_id] if session_id in self.sessions.values():
                of = {id_: intent for intent, id_ in self.sessions.items()}[session_id]
                charges = self._charges_of(of)
                metadata = charges[0]["metadata"] if charges else {}
                return {"id": session_id, "payment_intent": of, "metadata": metadata}
        return None

    def _charges_of(self, payment_intent: str) -> list[dict[str, Any]]:
        of = payment_intent
        return [each for each in self.charges.values() if each["payment_intent"] == of]


@contextmanager
def fake_stripe() -> Iterator[FakeStripe]:
    """Run the fake until the block ends."""
    fake = FakeStripe()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Make an object, once for each idempotency key."""
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            form = dict(parse_qsl(body))
            fake.asked.append((self.path, form, {k.lower(): v for k, v in self.headers.items()}))
            self._wait()
            if fake.broken:
                self._answer(400, {"error": {"type": "invalid_request_error", "message": "no"}})
                return
            key = self.headers["idempotency-key"]
            if key not in fake.made:
                fake.made[key] = _object(self.path, form, len(fake.made))
            self._answer(200, {} if fake.odd else fake.made[key])

        def do_GET(self) -> None:
            """Give a charge that there is, or a list of what belongs to one."""
            fake.asked.append((self.path, {}, {}))
            self._wait()
            found = None if fake.broken else fake.found(self.path)
            if found is not None:
                self._answer(200, found)
                return
            code = "api_error" if fake.broken else "resource_missing"
            error = {"type": "invalid_request_error", "message": "no", "code": code}
            self._answer(400 if fake.broken else 404, {"error": error})

        def _wait(self) -> None:
            asked = f"{self.command} {self.path.partition('?')[0]}"
            if asked in fake.answering:
                fake.answering[asked].wait()

        def _answer(self, status: int, document: dict[str, Any]) -> None:
            text = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def signature(body: bytes, *, secret: str = SECRET, at_s: int | None = None) -> str:
    """The `Stripe-Signature` header of a body."""
    at_s = int(time.time()) if at_s is None else at_s
    signed = hmac.new(secret.encode(), f"{at_s}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at_s},v1={signed}"


def session_event(
    payment_id: str, kind: str = "checkout.session.completed", **changed: Any
) -> bytes:
    """An event of a Checkout session, as Stripe writes it: nulls, nested objects and all."""
    session = {
        "id": "cs_test_a1b2c3",
        "object": "checkout.session",
        "amount_subtotal": 500,
        "amount_total": 500,
        "automatic_tax": {"enabled": False, "liability": None, "status": None},
        "client_reference_id": payment_id,
        "created": 1795176000,
        "currency": "usd",
        "customer": None,
        "customer_details": {"address": None, "email": None, "name": None},
        "livemode": False,
        "metadata": {"payment_id": payment_id},
        "mode": "payment",
        "payment_intent": "pi_3Px",
        "payment_method_types": ["card"],
        "payment_status": "paid",
        "status": "complete",
        "url": None,
        **changed,
    }
    return _event(kind, session)


def charge_of(payment_id: str, refunded: int = 0, **changed: Any) -> dict[str, Any]:
    """The charge of a top-up: it has the metadata of its payment intent."""
    return {
        "id": "ch_3Px",
        "object": "charge",
        "amount": 500,
        "amount_captured": 500,
        "amount_refunded": refunded,
        "currency": "usd",
        "disputed": False,
        "livemode": False,
        "metadata": {"payment_id": payment_id} if payment_id else {},
        "paid": True,
        "payment_intent": "pi_3Px",
        "refunded": refunded == 500,
        "refunds": None,
        **changed,
    }


def refund_event(payment_id: str, refunded: int, **changed: Any) -> bytes:
    """The event of a refund: the charge, and how much of it was refunded in all."""
    return _event("charge.refunded", charge_of(payment_id, refunded, **changed))


def dispute_of(amount: int, **changed: Any) -> dict[str, Any]:
    """A chargeback whose money is withdrawn: it names the charge and nothing of ours."""
    return {
        "id": "du_1Px",
        "object": "dispute",
        "amount": amount,
        "balance_transactions": [{"id": "txn_1Px", "amount": -amount}],
        "charge": "ch_3Px",
        "currency": "usd",
        "livemode": False,
        "metadata": {},
        "payment_intent": "pi_3Px",
        "reason": "fraudulent",
        "status": "needs_response",
        **changed,
    }


def dispute_event(dispute: dict[str, Any], **outside: Any) -> bytes:
    """The event of a chargeback."""
    return _event("charge.dispute.funds_withdrawn", dispute, **outside)


def transfer_event(payment_id: str, amount: int, back: int = 0, **changed: Any) -> bytes:
    """The event of a transfer to a connected account, or of its coming back in part."""
    transfer = {
        "id": "tr_1Px",
        "object": "transfer",
        "amount": amount,
        "amount_reversed": back,
        "currency": "usd",
        "destination": "acct_1Vendor",
        "livemode": False,
        "metadata": {"payment_id": payment_id},
        "reversed": False,
        "source_transaction": None,
        **changed,
    }
    return _event("transfer.reversed" if back else "transfer.created", transfer)


def _event(kind: str, thing: dict[str, Any], **outside: Any) -> bytes:
    event = {
        "id": f"evt_{hashlib.sha256(kind.encode()).hexdigest()[:12]}",
        "object": "event",
        "api_version": _API_VERSION,
        "created": 1795176001,
        "data": {"object": thing},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": kind,
        **outside,
    }
    return json.dumps(event, indent=2).encode()


def _list(found: list[dict[str, Any]]) -> dict[str, Any]:
    return {"object": "list", "data": found, "has_more": False, "url": "/"}


def _object(path: str, form: dict[str, str], number: int) -> dict[str, Any]:
    if path == "/v1/transfers":
        return {"id": f"tr_{number}", "object": "transfer", "amount": int(form["amount"])}
    return {
        "id": f"cs_test_{number}",
        "object": "checkout.session",
        "payment_status": "unpaid",
        "url": f"https://checkout.stripe.com/c/pay/cs_test_{number}",
    }
