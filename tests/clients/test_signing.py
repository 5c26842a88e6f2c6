"""Every request is signed anew over the very bytes that are sent, and for the platform alone."""

import httpx2
import pytest

from farthing.clients.signing import RequestSigner
from farthing.protocol.keys import PrivateKey
from farthing.protocol.proofs import ProofError, check_request

KEY = PrivateKey.from_seed(bytes(range(32)))
NOW_US = 1_790_000_000_000_000
PLATFORM = "http://127.0.0.1:8402"


class Counter:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self, length: int) -> bytes:
        self.count += 1
        return self.count.to_bytes(length)


def signer(audience: str = PLATFORM) -> RequestSigner:
    return RequestSigner(
        KEY, principal="agt_x", audience=audience, clock=lambda: NOW_US, entropy=Counter()
    )


async def sent(auth: RequestSigner, url: str, body: bytes = b'{"a":1}') -> list[httpx2.Request]:
    requests: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        return httpx2.Response(200)

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as http:
        for _ in range(2):
            await http.post(url, content=body, auth=auth)
    return requests


async def test_the_proof_fits_the_request_and_no_other() -> None:
    request, again = await sent(signer(), f"{PLATFORM}/mcp")
    token = request.headers["authorization"].removeprefix("Bearer ")

    def check(body: bytes) -> str:
        return check_request(
            token,
            key_of={KEY.thumbprint: KEY.public}.get,
            audience=PLATFORM,
            method="POST",
            url=f"{PLATFORM}/mcp",
            body=body,
            now_us=NOW_US,
        ).jti

    assert check(request.content)
    with pytest.raises(ProofError):
        check(request.content + b" ")
    assert again.headers["authorization"] != request.headers["authorization"]


async def test_a_request_to_anybody_else_is_not_sent() -> None:
    for url in ("http://127.0.0.1:8403/mcp", "https://127.0.0.1:8402/mcp", "http://evil.example/"):
        with pytest.raises(ValueError, match="is not for"):
            await sent(signer(), url)


async def test_a_default_port_that_the_platform_names_stays_in_the_proof() -> None:
    platform = "http://market.example:80"
    request, _ = await sent(signer(platform), f"{platform}/mcp")

    proof = check_request(
        request.headers["authorization"].removeprefix("Bearer "),
        key_of={KEY.thumbprint: KEY.public}.get,
        audience=platform,
        method="POST",
        url=f"{platform}/mcp",
        body=request.content,
        now_us=NOW_US,
    )

    assert proof.principal == "agt_x"
