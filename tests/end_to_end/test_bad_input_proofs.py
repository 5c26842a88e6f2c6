"""Proofs that prove nothing, at the real door: each has its documented code, and writes nothing."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from farthing.clients.operators import Member
from farthing.clients.transport import Connection
from farthing.protocol import base64url
from farthing.protocol.canonical import Json, canonical_bytes
from farthing.protocol.keys import PrivateKey
from farthing.protocol.proofs import Voucher, request_jwt, voucher_jwt
from farthing.protocol.signatures import Typ, sign_detached
from farthing.protocol.times import SECOND_US
from farthing.protocol.wire import Role
from tests.papers import signing_key
from tests.raw import Desk, bearer, call_body, claims_of, in_a_task, opened, token_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "k" * 16
OTHER_KINDS = [typ for typ in Typ if typ is not Typ.REQUEST]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    folder: Path = tmp_path_factory.mktemp("market")
    async with in_a_task(lambda: opened(folder)) as made:
        yield made


def hold(desk: Desk, key: str = KEY) -> bytes:
    """A hold that an honest proof would place."""
    return call_body(
        "place_hold",
        {
            "agreement_id": desk.agreement.agreement_id,
            "workload": [{"meter": "page", "quantity": "1"}],
            "args_sha256": "a" * 64,
            "idempotency_key": key,
        },
    )


async def refusal_of(desk: Desk, authorization: str | list[str], body: bytes = b"") -> str:
    """The code that a hold under some proof is refused with; nothing is written or moved."""
    before = await desk.written(), await desk.accounts()
    answer = await desk.post(body or hold(desk), authorization=authorization, tool="place_hold")
    assert (await desk.written(), await desk.accounts()) == before
    assert await desk.is_healthy()
    assert answer.status in {200, 401}, answer.text
    return str(answer.code)


def key_of(connection: Connection) -> PrivateKey:
    assert isinstance(connection.signer, PrivateKey)
    return connection.signer


Forge = Callable[[Desk, bytes], str | list[str]]


def with_claims(**changed: Json) -> Forge:
    """A token that the buyer signed, with claims of its own making."""
    return lambda desk, body: token_of(
        key_of(desk.buyer), claims_of(desk, desk.buyer, body, **changed)
    )


def without_claim(name: str) -> Forge:
    def forge(desk: Desk, body: bytes) -> str:
        claims = claims_of(desk, desk.buyer, body)
        del claims[name]
        return token_of(key_of(desk.buyer), claims)

    return forge


def at(seconds: int) -> Forge:
    """An honest proof of another time."""
    return lambda desk, body: desk.proof(
        desk.buyer, body, now_us=desk.server.clock() + seconds * SECOND_US
    )


def with_header(**changed: str) -> Forge:
    """A token whose header tries to say how it is to be checked."""

    def forge(desk: Desk, body: bytes) -> str:
        key = key_of(desk.buyer)
        members: dict[str, Json] = {"alg": key.alg, "kid": key.thumbprint, "typ": Typ.REQUEST.value}
        header = base64url.encode(canonical_bytes({**members, **changed}))
        payload = base64url.encode(canonical_bytes(claims_of(desk, desk.buyer, body)))
        signature = key.sign(f"{header}.{payload}".encode())
        return bearer(f"{header}.{payload}.{base64url.encode(signature)}")

    return forge


def tampered(desk: Desk, body: bytes) -> str:
    proof = desk.proof(desk.buyer, body)
    return proof[:-8] + ("A" * 8 if proof[-8:] != "A" * 8 else "B" * 8)


def unsigned(desk: Desk, body: bytes) -> str:
    return desk.proof(desk.buyer, body).rpartition(".")[0] + "."


FORGERIES: dict[str, tuple[Forge, str]] = {
    "no proof": (lambda _, __: "", "unauthenticated"),
    "another scheme": (lambda _, __: "Basic YTpi", "proof_invalid"),
    "a word": (lambda _, __: "Bearer hello", "proof_invalid"),
    "nothing after the scheme": (lambda _, __: "Bearer ", "proof_invalid"),
    "letters from elsewhere": (lambda _, __: "Bearer \u00e9.\u00e9.\u00e9", "proof_invalid"),
    "an endless token": (lambda _, __: "Bearer " + "a" * 20_000, "proof_invalid"),
    "two proofs": (
        lambda desk, body: [desk.proof(desk.buyer, body), desk.proof(desk.vendor, body)],
        "proof_invalid",
    ),
    "the same proof twice": (
        lambda desk, body: [desk.proof(desk.buyer, body)] * 2,
        "proof_invalid",
    ),
    "a signature changed": (tampered, "proof_invalid"),
    "a signature left out": (unsigned, "proof_invalid"),
    "no algorithm": (with_header(alg="none"), "proof_invalid"),
    "a shared secret's algorithm": (with_header(alg="HS256"), "proof_invalid"),
    "another key's algorithm": (with_header(alg="ES256"), "proof_invalid"),
    "a key of its own": (with_header(jwk="{}"), "proof_invalid"),
    "a place to fetch the key": (with_header(jku="https://example.org"), "proof_invalid"),
    "a critical member": (with_header(crit="b64"), "proof_invalid"),
    "another receiver": (with_claims(aud="https://elsewhere.example"), "proof_invalid"),
    "several receivers": (
        lambda desk, body: token_of(
            key_of(desk.buyer), claims_of(desk, desk.buyer, body, aud=[desk.issuer])
        ),
        "proof_invalid",
    ),
    "the receiver's tool address": (
        lambda desk, body: desk.proof(desk.buyer, body, audience=desk.url),
        "proof_invalid",
    ),
    "another method": (
        lambda desk, body: desk.proof(desk.buyer, body, method="GET"),
        "proof_invalid",
    ),
    "another path": (
        lambda desk, body: desk.proof(desk.buyer, body, url=f"{desk.issuer}/mcp/"),
        "proof_invalid",
    ),
    "another body": (lambda desk, _: desk.proof(desk.buyer, b"{}"), "proof_invalid"),
    "no body": (without_claim("content_digest"), "proof_invalid"),
    "no name": (without_claim("jti"), "proof_invalid"),
    "no end": (without_claim("exp"), "proof_invalid"),
    "a claim too many": (with_claims(scope="admin"), "proof_invalid"),
    "a long life": (
        lambda desk, body: token_of(
            key_of(desk.buyer),
            claims_of(desk, desk.buyer, body, exp=desk.server.clock() // SECOND_US + 61),
        ),
        "proof_invalid",
    ),
    "a life that ended": (at(-31), "proof_expired"),
    "a life long over": (at(-3600), "proof_expired"),
    "a life that has not begun": (at(+30), "proof_expired"),
    "somebody else's name": (
        lambda desk, body: desk.proof(desk.buyer, body, principal=desk.operator.principal),
        "proof_invalid",
    ),
    "two names": (
        lambda desk, body: token_of(
            key_of(desk.buyer),
            claims_of(desk, desk.buyer, body, iss=desk.operator.principal),
        ),
        "proof_invalid",
    ),
    "somebody else's key": (
        lambda desk, body: bearer(
            request_jwt(
                key_of(desk.vendor),
                principal=desk.buyer.principal,
                audience=desk.issuer,
                method="POST",
                url=desk.url,
                body=body,
                now_us=desk.server.clock(),
                jti="foreign",
            )
        ),
        "proof_invalid",
    ),
    "a key that nobody registered": (
        lambda desk, body: desk.proof(desk.as_role(Role.NEWCOMER), body),
        "unknown_key",
    ),
}


@pytest.mark.parametrize("case", FORGERIES)
async def test_a_proof_that_does_not_fit_is_refused(desk: Desk, case: str) -> None:
    forge, code = FORGERIES[case]
    assert await refusal_of(desk, forge(desk, hold(desk))) == code


@pytest.mark.parametrize("typ", OTHER_KINDS, ids=lambda typ: typ.name.lower())
async def test_a_signed_thing_of_another_kind_proves_no_request(desk: Desk, typ: Typ) -> None:
    key, body = key_of(desk.buyer), hold(desk)
    claims = claims_of(desk, desk.buyer, body)

    compact = token_of(key, claims, typ)
    detached = bearer(sign_detached(key, typ, canonical_bytes(dict(claims))))

    assert await refusal_of(desk, compact) == "proof_invalid"
    assert await refusal_of(desk, detached) == "proof_invalid"


async def test_what_a_buyer_shows_a_vendor_opens_no_door_of_the_platform(desk: Desk) -> None:
    held = await desk.shop.buyer.hold(desk.agreement.agreement_id, {"page": 1}, {"call": "shown"})
    voucher = voucher_jwt(
        key_of(desk.buyer),
        Voucher(
            agreement_id=desk.agreement.agreement_id,  # type: ignore[arg-type]
            hold_id=held.answer.hold_id,  # type: ignore[arg-type]
            args_sha256="a" * 64,
            seq=1,
            max_cum_units=1,
            ack="",
        ),
        now_us=desk.server.clock(),
        jti="voucher",
        lifetime_s=60,
    )
    for shown in (voucher, held.answer.entitlement):
        assert await refusal_of(desk, bearer(shown)) in {"proof_invalid", "unknown_key"}


async def test_a_proof_is_used_once_whatever_the_key_of_the_call(desk: Desk) -> None:
    body = hold(desk, "used-proof-number-one")
    proof = desk.proof(desk.buyer, body)
    first = await desk.post(body, authorization=proof, tool="place_hold")
    assert first.code == ""

    assert await refusal_of(desk, proof, body) == "proof_replayed"
    # A retry is a new proof of the same call: the first answer, given again.
    again = await desk.post(body, authorization=desk.proof(desk.buyer, body), tool="place_hold")
    assert (again.code, again.shape["hold_id"]) == ("", first.shape["hold_id"])


async def test_a_name_of_a_proof_is_used_once_whatever_the_body(desk: Desk) -> None:
    body, other = hold(desk, "named-proof-number-one"), hold(desk, "named-proof-number-two")
    proof = desk.proof(desk.buyer, body, jti="one-name")
    assert (await desk.post(body, authorization=proof, tool="place_hold")).code == ""

    assert await refusal_of(desk, desk.proof(desk.buyer, other, jti="one-name"), other) == (
        "proof_replayed"
    )


async def test_a_proof_is_of_the_bytes_that_came_not_of_what_they_mean(desk: Desk) -> None:
    body = hold(desk)
    spaced = json.dumps(json.loads(body), indent=1).encode()
    assert json.loads(spaced) == json.loads(body)

    assert await refusal_of(desk, desk.proof(desk.buyer, body), spaced) == "proof_invalid"


async def test_a_proof_of_a_newcomer_names_the_key_that_signed(desk: Desk) -> None:
    nobody = desk.as_role(Role.NEWCOMER)
    for jwk in (signing_key("Somebody").public.jwk(), {"kty": "OKP"}, {}):
        arguments = {"kind": "vendor", "name": "Nobody", "key": jwk, "idempotency_key": KEY}
        body = call_body("enrol_organisation", arguments)
        assert await refusal_of(desk, desk.proof(nobody, body), body) == "unknown_key"


async def test_a_key_that_was_rotated_away_or_revoked_moves_nothing(desk: Desk) -> None:
    agent = await desk.server.agent(desk.operator, "Agent Two")
    rotated = desk.server.connect(signing_key("Agent Two"), agent.principal)
    await Member(agent).rotate_key(signing_key("Agent Three"))
    renewed = desk.server.connect(signing_key("Agent Three"), agent.principal)
    assert await refusal_of(desk, desk.proof(rotated, hold(desk))) == "key_revoked"
    # It is the new key's agent that has no such agreement.
    answer = await desk.call(renewed, "place_hold", None, body=hold(desk))
    assert answer.code == "not_found"

    await desk.shop.operator.revoke_key(agent.principal, signing_key("Agent Three").thumbprint)
    assert await refusal_of(desk, desk.proof(renewed, hold(desk))) == "key_revoked"
    read = await desk.call(renewed, "get_balance", {})
    assert read.code == "key_revoked"


async def test_a_refused_proof_says_where_to_learn_how_to_sign(desk: Desk) -> None:
    response = await desk.server.http.post(
        desk.url, content=hold(desk), headers={"content-type": "application/json"}
    )
    assert response.status_code == 401
    challenge = response.headers["www-authenticate"]
    assert challenge.startswith(f'Bearer resource_metadata="{desk.issuer}/.well-known/')
