"""Signs every request to the platform: `Authorization: Bearer` and a JWT over the exact bytes sent.

Boundary: one request, one proof, made at the moment of sending; a retry is signed anew. A request
to anybody but the platform is refused before it leaves.
"""

from collections.abc import Generator
from typing import Final

import httpx2

from farthing.clients.clock import Clock, Entropy, now_us, random_bytes
from farthing.protocol import base64url
from farthing.protocol.keys import Signer
from farthing.protocol.proofs import request_jwt

__all__ = ["RequestSigner"]

_JTI_BYTES: Final = 16
_LIFETIME_S: Final = 30


class RequestSigner(httpx2.Auth):
    """Puts a request JWT on each request (spec/proofs.md).

    Args:
        signer: The caller's key.
        principal: Who calls: the principal's id, or the key's thumbprint before there is one.
        audience: The platform's public URL.
        clock: Gives the present instant in microseconds.
        entropy: Gives random bytes for the proof's name.
    """

    requires_request_body = True

    def __init__(
        self,
        signer: Signer,
        *,
        principal: str,
        audience: str,
        clock: Clock = now_us,
        entropy: Entropy = random_bytes,
    ) -> None:
        self._signer = signer
        self._principal = principal
        self._audience = audience
        origin = httpx2.URL(audience)
        self._origin = (origin.scheme, origin.netloc)
        self._clock = clock
        self._entropy = entropy

    def auth_flow(
        self, request: httpx2.Request
    ) -> Generator[httpx2.Request, httpx2.Response, None]:
        if (request.url.scheme, request.url.netloc) != self._origin:
            raise ValueError(f"a proof for {self._audience} is not for {request.url}")
        token = request_jwt(
            self._signer,
            principal=self._principal,
            audience=self._audience,
            method=request.method,
            # As the platform publishes it: httpx drops a default port, the audience may name it.
            url=f"{self._audience}{_target(request)}",
            body=request.content,
            now_us=self._clock(),
            jti=base64url.encode(self._entropy(_JTI_BYTES)),
            lifetime_s=_LIFETIME_S,
        )
        request.headers["authorization"] = f"Bearer {token}"
        yield request


def _target(request: httpx2.Request) -> str:
    """The path with its query, which is part of what a read asks, both as they are sent."""
    path, _, query = request.url.raw_path.decode("ascii").partition("?")
    return f"{path}?{query}" if query else path
