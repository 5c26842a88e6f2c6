"""The body of a request: whole and within its bound, and given once more to who is behind.

Boundary: bytes; what they say is judged elsewhere. Source: spec/transport-mcp.md#admission.
"""

from collections.abc import Callable
from typing import Final

from starlette.types import Message, Receive, Scope

from farthing.protocol.errors import Code, Refused, refuse
from farthing.server.velocity import Headers

__all__ = ["BROKEN", "Gone", "again", "value_of", "whole_body"]

# In a scope's state: why what came of a body is none.
BROKEN: Final = "farthing.broken"
_SIZE_DIGITS_MAX: Final = 12


class Gone(Exception):
    """The caller went away before its request was whole: nobody is there to answer."""


async def whole_body(
    scope: Scope, receive: Receive, bytes_max: int, hold: Callable[[int], None]
) -> bytes:
    """The whole body, which every part is told to `hold`; refused once it is known to be too large.

    Raises:
        Refused: `payload_too_large`, or `malformed` where the connection broke.
        Gone: the caller went away.
    """
    stated = value_of(scope["headers"], b"content-length") or "0"
    if not stated.isdigit() or len(stated) > _SIZE_DIGITS_MAX or int(stated) > bytes_max:
        raise _too_large(bytes_max)
    parts: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        if BROKEN in scope.get("state", ()):
            raise Refused(refuse(Code.MALFORMED, message=scope["state"][BROKEN]))
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        hold(len(parts[-1]))
        if size > bytes_max:
            raise _too_large(bytes_max)
        more = message.get("more_body", False)
    return b"".join(parts)


def _too_large(bytes_max: int) -> Refused:
    return Refused(refuse(Code.PAYLOAD_TOO_LARGE, required=str(bytes_max)))


def again(body: bytes, receive: Receive) -> Receive:
    """A receive that gives the body that was read, then what comes after it."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def value_of(headers: Headers, wanted: bytes) -> str:
    """The value of a header, empty where there is none."""
    return next((value.decode("latin-1") for name, value in headers if name == wanted), "")
