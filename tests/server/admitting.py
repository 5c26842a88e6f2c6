"""Admission by itself, in front of whatever a test puts behind it, and requests to it."""

from typing import Any

from starlette.types import Message, Receive, Scope, Send

from farthing.identity.authentication import Authenticator
from farthing.identity.directory import Directory, Found
from farthing.server.doors.admission import Admission
from farthing.server.velocity import Velocity

__all__ = ["door", "gone", "passed", "post", "taken", "whole"]


async def taken(scope: Scope, receive: Receive, send: Send) -> None:
    del scope, receive
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b""})


def post(issuer: str = "http://127.0.0.1:8321", path: str = "/mcp") -> Scope:
    host = issuer.removeprefix("http://").encode()
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(b"host", host), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "asgi": {"version": "3.0"},
    }


async def whole() -> Message:
    return {"type": "http.request", "body": b"{}", "more_body": False}


async def gone() -> Message:
    return {"type": "http.disconnect"}


async def nobody(thumbprint: str) -> Found | None:
    del thumbprint
    return None


def door(
    app: Any,
    *,
    body_s_max: float = 5,
    per_minute: int = 1000,
    calls_max: int = 10,
    coming: int = 1000,
) -> Admission:
    return Admission(
        app,
        authenticator=lambda: Authenticator(
            directory=Directory(nobody), audience="http://127.0.0.1:8321"
        ),
        hosts=frozenset({"127.0.0.1:8321"}),
        now_us=lambda: 1_795_176_000_000_000,
        entropy=bytes,
        anonymous_per_minute=per_minute,
        velocity=Velocity(),
        body_s_max=body_s_max,
        calls_max=calls_max,
        coming_bytes_max=coming,
    )


async def passed(
    admission: Admission, receive: Receive, scope: Scope | None = None
) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await admission(scope or post(), receive, send)
    return sent
