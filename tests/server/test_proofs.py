"""Every forged, expired and foreign proof we know of, at the real door of a running market."""

import base64
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from farthing.protocol.errors import Code
from farthing.protocol.keys import PrivateKey
from farthing.protocol.messages.http import BODY_BYTES_MAX
from farthing.protocol.proofs import (
    Entitlement,
    Voucher,
    content_digest,
    entitlement_jwt,
    voucher_jwt,
)
from farthing.protocol.signatures import Typ, sign_compact
from farthing.protocol.times import SECOND_US
from farthing.settlement.engine.questions import FiguresNow
from tests.papers import signing_key
from tests.server.listening import Wire, envelope, held, wire_of
from tests.serving import serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = signing_key("Operator One")
STRANGER = signing_key("Stranger")
BODY = envelope("get_balance", {})
HOUR_US = 3600 * SECOND_US


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wire(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Wire]:
    async with held(serving(tmp_path_factory.mktemp("market"))) as server:
        await server.organisation("operator", "Operator One")
        yield wire_of(server)


def segment(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def claims(wire: Wire, **lies: Any) -> dict[str, Any]:
    issuer, now_s = wire.server.service.issuer, wire.server.clock() // SECOND_US
    true = {
        "iss": KEY.thumbprint,
        "sub": KEY.thumbprint,
        "aud": issuer,
        "iat": now_s,
        "exp": now_s + 30,
        "jti": "proof-of-a-test",
        "htm": "POST",
        "htu": f"{issuer}/mcp",
        "content_digest": content_digest(BODY),
    }
    return {name: value for name, value in {**true, **lies}.items() if value is not None}


def signed(wire: Wire, key: PrivateKey = KEY, typ: Typ = Typ.REQUEST, **lies: Any) -> str:
    return sign_compact(key, typ, claims(wire, **lies))


def with_header(wire: Wire, **members: Any) -> str:
    """A token whose header says something else than what was signed for."""
    header = {"alg": "EdDSA", "kid": KEY.thumbprint, "typ": Typ.REQUEST.value, **members}
    _, payload, signature = signed(wire).split(".")
    return f"{segment(header)}.{payload}.{signature}"


def unsigned(wire: Wire) -> str:
    header = {"alg": "none", "kid": KEY.thumbprint, "typ": Typ.REQUEST.value}
    return f"{segment(header)}.{segment(claims(wire))}."


def other_signature(wire: Wire) -> str:
    """Signed by another key under the name of a registered one."""
    header, payload, _ = signed(wire).split(".")
    return f"{header}.{payload}.{signed(wire, STRANGER).rpartition('.')[2]}"


def voucher(wire: Wire) -> str:
    content = Voucher(
        agreement_id="agr_0",  # type: ignore[arg-type]
        hold_id="hld_0",  # type: ignore[arg-type]
        args_sha256="a" * 64,
        seq=1,
        max_cum_units=1,
        ack="",
    )
    return voucher_jwt(KEY, content, now_us=wire.server.clock(), jti="j", lifetime_s=30)


def entitlement(wire: Wire) -> str:
    content = Entitlement(
        hold_id="hld_0",  # type: ignore[arg-type]
        agreement_id="agr_0",  # type: ignore[arg-type]
        listing_id="lst_0",  # type: ignore[arg-type]
        vendor_id="org_0",  # type: ignore[arg-type]
        buyer_id="agt_0",  # type: ignore[arg-type]
        payer_jwk=KEY.public.jwk(),
        cap_units=1,
        asset="USD",
        card_sha256="a" * 64,
        expires_at_us=wire.server.clock() + HOUR_US,
        issuer=wire.server.service.issuer,
    )
    return entitlement_jwt(KEY, content, wire.server.clock())


INVALID: dict[str, Callable[[Wire], str]] = {
    "nothing": lambda _: "",
    "no token": lambda _: "abc",
    "three empty segments": lambda _: "..",
    "alg none": unsigned,
    "alg HS256": lambda wire: with_header(wire, alg="HS256"),
    "a key in the header": lambda wire: with_header(wire, jwk=KEY.public.jwk()),
    "a key set by URL": lambda wire: with_header(wire, jku="http://127.0.0.1:1/jwks.json"),
    "a certificate by URL": lambda wire: with_header(wire, x5u="http://127.0.0.1:1/x"),
    "critical members": lambda wire: with_header(wire, crit=["b64"], b64=False),
    "a changed header": lambda wire: with_header(wire, alg="Ed25519"),
    "another key's signature": other_signature,
    "a padded signature": lambda wire: signed(wire) + "=",
    "two tokens": lambda wire: f"{signed(wire)} {signed(wire)}",
    "a voucher": voucher,
    "an entitlement": entitlement,
    "typ of a voucher": lambda wire: signed(wire, typ=Typ.VOUCHER),
    "typ of an entitlement": lambda wire: signed(wire, typ=Typ.ENTITLEMENT),
    "another audience": lambda wire: signed(wire, aud="https://elsewhere.example"),
    "a list of audiences": lambda wire: signed(wire, aud=[wire.server.service.issuer]),
    "the door as audience": lambda wire: signed(wire, aud=f"{wire.server.service.issuer}/mcp"),
    "another method": lambda wire: signed(wire, htm="GET"),
    "another URL": lambda wire: signed(wire, htu=f"{wire.server.service.issuer}/v1/tree-head"),
    "a URL spelled otherwise": lambda wire: signed(wire, htu=f"{wire.server.service.issuer}//mcp"),
    "another body": lambda wire: signed(wire, content_digest=content_digest(BODY + b" ")),
    "no body": lambda wire: signed(wire, content_digest=None),
    "no jti": lambda wire: signed(wire, jti=None),
    "no expiry": lambda wire: signed(wire, exp=None),
    "an extra claim": lambda wire: signed(wire, scope="everything"),
    "issuer and subject differ": lambda wire: signed(wire, iss="org_0"),
    "another principal": lambda wire: signed(
        wire, iss="stf_00000000000000000000000000", sub="stf_00000000000000000000000000"
    ),
    "too long a life": lambda wire: signed(wire, exp=wire.server.clock() // SECOND_US + 61),
}
EXPIRED: dict[str, Callable[[Wire], str]] = {
    "an hour old": lambda wire: signed(
        wire,
        iat=(wire.server.clock() - HOUR_US) // SECOND_US,
        exp=(wire.server.clock() - HOUR_US) // SECOND_US + 30,
    ),
    "an hour ahead": lambda wire: signed(
        wire,
        iat=(wire.server.clock() + HOUR_US) // SECOND_US,
        exp=(wire.server.clock() + HOUR_US) // SECOND_US + 30,
    ),
}
UNKNOWN: dict[str, Callable[[Wire], str]] = {
    "a key that nobody registered": lambda wire: signed(
        wire, STRANGER, iss=STRANGER.thumbprint, sub=STRANGER.thumbprint
    ),
    "in the name of another": lambda wire: signed(wire, STRANGER),
}
TABLE = [
    pytest.param(code, make, id=name)
    for code, table in (
        (Code.PROOF_INVALID, INVALID),
        (Code.PROOF_EXPIRED, EXPIRED),
        (Code.UNKNOWN_KEY, UNKNOWN),
    )
    for name, make in table.items()
]


async def test_the_true_proof_is_taken(wire: Wire) -> None:
    response = await wire.send(BODY, name="get_balance", proof=signed(wire))

    assert response.status_code == 200
    assert response.json()["result"].get("isError") is not True


@pytest.mark.parametrize(("code", "make"), TABLE)
async def test_a_false_proof_is_refused_with_nothing_but_its_code(
    wire: Wire, code: Code, make: Callable[[Wire], str]
) -> None:
    response = await wire.send(BODY, name="get_balance", proof=make(wire))

    shape = response.json()
    assert (response.status_code, shape["code"]) == (401, code)
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["www-authenticate"] == (
        f'Bearer resource_metadata="{wire.server.service.issuer}'
        '/.well-known/oauth-protected-resource", error="invalid_token"'
    )
    assert shape["request_id"] == response.headers["request-id"]


async def test_every_false_proof_gets_the_same_answer_to_the_byte(wire: Wire) -> None:
    answers = set()
    for make in INVALID.values():
        shape = (await wire.send(BODY, name="get_balance", proof=make(wire))).json()
        answers.add(json.dumps({**shape, "request_id": ""}, sort_keys=True))

    assert len(answers) == 1
    assert wire.server.service.issuer in answers.pop()


async def test_a_second_credential_is_refused(wire: Wire) -> None:
    url = f"{wire.server.service.issuer}/mcp"
    headers = [
        ("content-type", "application/json"),
        ("authorization", f"Bearer {signed(wire)}"),
        ("authorization", f"Bearer {signed(wire)}"),
    ]

    response = await wire.server.http.post(url, content=BODY, headers=headers)

    assert (response.status_code, response.json()["code"]) == (401, Code.PROOF_INVALID)


@pytest.mark.parametrize("scheme", ["Basic", "DPoP", "Token", ""])
async def test_another_scheme_is_refused(wire: Wire, scheme: str) -> None:
    headers = {"authorization": f"{scheme} {signed(wire)}"}

    response = await wire.send(BODY, name="get_balance", headers=headers)

    assert (response.status_code, response.json()["code"]) == (401, Code.PROOF_INVALID)


async def test_white_space_around_the_credential_says_nothing(wire: Wire) -> None:
    headers = {"authorization": f"  bearer   {signed(wire)}  "}

    response = await wire.send(BODY, name="get_balance", headers=headers)

    assert response.status_code == 200


async def test_a_newcomers_key_is_taken_for_its_registration_alone(wire: Wire) -> None:
    key = {name: STRANGER.public.jwk()[name] for name in ("kty", "crv", "x")}
    for name in ("get_balance", "place_hold", "search_catalog"):
        body = envelope(name, {"key": key})

        response = await wire.send(body, name=name, proof=wire.proof(STRANGER, body))

        assert (response.status_code, response.json()["code"]) == (401, Code.UNKNOWN_KEY)


async def test_a_foreign_key_in_a_registration_is_not_taken_for_the_signers(wire: Wire) -> None:
    before = await wire.server.service.market.ask(FiguresNow())
    other = signing_key("Another stranger").public.jwk()
    arguments = {
        "kind": "vendor",
        "name": "Mallory",
        "key": {name: other[name] for name in ("kty", "crv", "x")},
        "idempotency_key": "k" * 16,
    }
    body = envelope("enrol_organisation", arguments)

    response = await wire.send(body, name="enrol_organisation", proof=wire.proof(STRANGER, body))

    assert (response.status_code, response.json()["code"]) == (401, Code.UNKNOWN_KEY)
    assert (await wire.server.service.market.ask(FiguresNow())).seq == before.seq


async def test_a_proof_of_a_read_is_bound_to_its_url(wire: Wire) -> None:
    issuer = wire.server.service.issuer
    for path, status in (("/v1/tree-head", 200), ("/v1/terms", 401)):
        proof = wire.proof(KEY, b"", method="GET", url=f"{issuer}/v1/tree-head")

        response = await wire.server.http.get(
            f"{issuer}{path}", headers={"authorization": f"Bearer {proof}"}
        )

        assert response.status_code == status


async def test_after_a_start_what_the_registered_sign_costs_little_of_an_allowance(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as server:
        await server.organisation("operator", "Operator One")
    async with serving(tmp_path, anonymous_per_minute=20) as server:
        body = BODY + b" " * (BODY_BYTES_MAX - len(BODY))
        wire = wire_of(server)

        response = await wire.send(body, name="get_balance", proof=wire.proof(KEY, body))

        assert response.status_code == 200
