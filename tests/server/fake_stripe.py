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

__all__ = ["SECRET", "FakeStripe", "fake_stripe", "session_event", "signature", "transfer_event"]

SECRET = "whsec_test_secret"
_API_VERSION = "2026-10-28.preview"


@dataclass(slots=True)
class FakeStripe:
    """What was asked of the fake, and whether it works."""

    url: str = ""
    asked: list[tuple[str, dict[str, str], dict[str, str]]] = field(default_factory=list)
    made: dict[str, dict[str, Any]] = field(default_factory=dict)
    broken: bool = False


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
            if fake.broken:
                self._answer(400, {"error": {"type": "invalid_request_error", "message": "no"}})
                return
            key = self.headers["idempotency-key"]
            if key not in fake.made:
                fake.made[key] = _object(self.path, form, len(fake.made))
            self._answer(200, fake.made[key])

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


def transfer_event(payment_id: str, amount: int) -> bytes:
    """The event of a transfer to a connected account."""
    transfer = {
        "id": "tr_1Px",
        "object": "transfer",
        "amount": amount,
        "amount_reversed": 0,
        "currency": "usd",
        "destination": "acct_1Vendor",
        "livemode": False,
        "metadata": {"payment_id": payment_id},
        "reversed": False,
        "source_transaction": None,
    }
    return _event("transfer.created", transfer)


def _event(kind: str, thing: dict[str, Any]) -> bytes:
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
    }
    return json.dumps(event, indent=2).encode()


def _object(path: str, form: dict[str, str], number: int) -> dict[str, Any]:
    if path == "/v1/transfers":
        return {"id": f"tr_{number}", "object": "transfer", "amount": int(form["amount"])}
    return {
        "id": f"cs_test_{number}",
        "object": "checkout.session",
        "payment_status": "unpaid",
        "url": f"https://checkout.stripe.com/c/pay/cs_test_{number}",
    }
