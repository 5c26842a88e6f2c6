"""From headers and bytes to a caller; the table of false proofs is at the door (tests/server)."""

from typing import Any

import pytest

from farthing.identity.authentication import Authenticator, Request
from farthing.identity.callers import ANYONE, Assurance
from farthing.identity.directory import Directory, Found
from farthing.protocol.errors import Code, Refused, refuse
from farthing.protocol.proofs import request_jwt
from farthing.protocol.times import SECOND_US
from farthing.protocol.wire import Role
from tests.papers import signing_key

NOW_US = 1_795_176_000 * SECOND_US
AUDIENCE = "https://market.example"
URL = f"{AUDIENCE}/mcp"
KEY, NEW = signing_key("agent"), signing_key("newcomer")
AGENT = "agt_00000000000000000000000000"
OTHERS = ("org_00000000000000000000000000", NEW.thumbprint, AGENT[:-1])


async def find(thumbprint: str) -> Found | None:
    if thumbprint != KEY.thumbprint:
        return None
    return AGENT, "org_00000000000000000000000000", "buyer", KEY.public.jwk(), "metering"


def authenticator(**changes: Any) -> Authenticator:
    return Authenticator(**{"directory": Directory(find), "audience": AUDIENCE, **changes})


def request(key: Any = KEY, principal: str = AGENT, **changes: Any) -> Request:
    token = request_jwt(
        key,
        principal=principal,
        audience=AUDIENCE,
        method="POST",
        url=URL,
        body=b"{}",
        now_us=NOW_US,
        jti="proof-of-a-test",
    )
    given = {"authorization": f"Bearer {token}", "method": "POST", "url": URL, "body": b"{}"}
    return Request(**{**given, **changes})


async def code_of(given: Request, named: Any = None, **changes: Any) -> Code:
    with pytest.raises(Refused) as refused:
        await authenticator(**changes).caller(given, NOW_US, named_key=lambda: named)
    return refused.value.code


async def test_without_a_credential_one_is_anyone() -> None:
    assert await authenticator().caller(request(authorization=""), NOW_US) is ANYONE


@pytest.mark.parametrize("principal", [AGENT, KEY.thumbprint])
async def test_a_registered_key_speaks_for_its_principal_under_either_name(principal: str) -> None:
    caller = await authenticator().caller(request(principal=principal), NOW_US)

    assert (caller.principal_id, caller.role) == (AGENT, Role.BUYER)
    assert caller.organisation_id == "org_00000000000000000000000000"
    assert caller.assurance is Assurance.SIGNED_BODY
    assert (caller.key_thumbprint, caller.purpose) == (KEY.thumbprint, "metering")
    assert caller.proof_jti == "proof-of-a-test"
    assert caller.proof_expires_at_us == NOW_US + 30 * SECOND_US


@pytest.mark.parametrize(
    "principal", ["org_00000000000000000000000000", NEW.thumbprint, AGENT[:-1]]
)
async def test_it_speaks_for_nobody_else(principal: str) -> None:
    assert await code_of(request(principal=principal)) is Code.PROOF_INVALID


async def test_a_newcomer_is_known_by_the_key_that_its_request_names() -> None:
    given = request(NEW, NEW.thumbprint)

    caller = await authenticator().caller(given, NOW_US, named_key=NEW.public.jwk)

    assert (caller.role, caller.principal_id, caller.organisation_id) == (Role.NEWCOMER, "", "")
    assert caller.key_thumbprint == NEW.thumbprint
    assert caller.assurance is Assurance.SIGNED_BODY


@pytest.mark.parametrize(
    "named",
    [
        pytest.param(None, id="none"),
        pytest.param({}, id="an empty one"),
        pytest.param(KEY.public.jwk(), id="another"),
        pytest.param(dict(NEW.private_jwk()), id="its private half"),
        pytest.param({**NEW.public.jwk(), "x": "AAAA"}, id="a point that is none"),
        pytest.param({**NEW.public.jwk(), "kty": ["OKP"]}, id="another type"),
    ],
)
async def test_a_newcomer_that_names_no_such_key_is_unknown(named: Any) -> None:
    assert await code_of(request(NEW, NEW.thumbprint), named) is Code.UNKNOWN_KEY


async def test_a_newcomer_speaks_for_its_key_alone() -> None:
    assert await code_of(request(NEW, AGENT), NEW.public.jwk()) is Code.PROOF_INVALID


async def test_the_registry_wins_and_the_body_of_a_known_key_is_not_even_read() -> None:
    def unread() -> None:
        raise AssertionError("the body is read after the proof")

    caller = await authenticator().caller(request(), NOW_US, named_key=unread)

    assert (caller.principal_id, caller.role) == (AGENT, Role.BUYER)


async def test_what_was_signed_before_a_restore_is_refused() -> None:
    before = await code_of(request(), not_before_us=NOW_US + 1)
    after = await authenticator(not_before_us=NOW_US).caller(request(), NOW_US)

    assert before is Code.PROOF_INVALID
    assert after.principal_id == AGENT


async def test_the_registry_is_asked_for_a_stranger_only_where_that_is_permitted() -> None:
    def no() -> None:
        raise Refused(refuse(Code.RATE_LIMITED))

    check = authenticator()
    with pytest.raises(Refused) as stranger:
        await check.caller(request(), NOW_US, on_stranger=no)
    await check.caller(request(), NOW_US)
    known = await check.caller(request(), NOW_US, on_stranger=no)

    assert stranger.value.code is Code.RATE_LIMITED
    assert known.principal_id == AGENT
