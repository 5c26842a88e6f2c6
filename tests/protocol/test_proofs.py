"""A proof proves this call, here and now, and is refused for the first thing wrong with it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from farthing.protocol import base64url
from farthing.protocol.canonical import parse_json
from farthing.protocol.keys import PrivateKey, PublicKey
from farthing.protocol.proofs import (
    REQUEST_LIFETIME_S_MAX,
    SKEW_S,
    VOUCHER_LIFETIME_S_MAX,
    Entitlement,
    ProofError,
    ProofFault,
    RequestProof,
    Voucher,
    check_entitlement,
    check_request,
    check_voucher,
    content_digest,
    entitlement_jwt,
    read_voucher,
    request_jwt,
    voucher_jwt,
)
from farthing.protocol.signatures import KeyOf, Typ, sign_compact
from farthing.protocol.times import SECOND_US
from tests.protocol.vectors import cases, vectors

VECTORS = vectors("proofs")
KEYS = {name: PrivateKey.from_jwk(jwk) for name, jwk in VECTORS["keys"].items()}
AGENT, PLATFORM = KEYS["agent"], KEYS["platform"]
CONTEXT = VECTORS["request"]["context"]
NOW_US: int = CONTEXT["now_us"]
VENDOR: str = VECTORS["entitlement"]["vendor_id"]


def registry(names: list[str]) -> KeyOf:
    return {KEYS[name].thumbprint: KEYS[name].public for name in names}.get


AGENTS = registry(VECTORS["request"]["registry"])
PLATFORMS = registry(VECTORS["entitlement"]["registry"])


def entitlement_of(document: dict[str, Any]) -> Entitlement:
    names = document.keys() & {"cap_units", "per_call_units", "unsigned_units"}
    return Entitlement(**(document | {name: int(document[name]) for name in names}))


def voucher_of(document: dict[str, Any]) -> Voucher:
    return Voucher(**(document | {"max_cum_units": int(document["max_cum_units"])}))


ENTITLEMENTS = [entitlement_of(document) for document in VECTORS["voucher"]["entitlements"]]
CALL = ENTITLEMENTS[0]
VOUCHER = voucher_of(VECTORS["voucher"]["accepted"][0]["voucher"])


def requested(**changes: Any) -> str:
    call = {name: CONTEXT[name] for name in ("audience", "method", "url", "now_us")}
    call |= {"principal": "agt_1", "jti": "jti-1", "body": CONTEXT["body"].encode()}
    return request_jwt(AGENT, **(call | changes))


def checked_request(token: str, **changes: Any) -> RequestProof:
    context = CONTEXT | changes
    return check_request(token, key_of=AGENTS, **(context | {"body": context["body"].encode()}))


def checked_entitlement(token: str, vendor_id: str = VENDOR, now_us: int = NOW_US) -> Entitlement:
    return check_entitlement(token, key_of=PLATFORMS, vendor_id=vendor_id, now_us=now_us)


def checked_voucher(token: str, **changes: Any) -> Voucher:
    context: dict[str, Any] = {"entitlement": CALL, "args_sha256": VOUCHER.args_sha256}
    context["now_us"] = NOW_US
    return check_voucher(token, **(context | changes))


@pytest.mark.parametrize("case", cases(VECTORS["request"]["accepted"]))
def test_a_request_is_proven(case: dict[str, Any]) -> None:
    proof = checked_request(case["token"], **case.get("context", {}))
    assert proof == RequestProof(**case["proof"])


@pytest.mark.parametrize("case", cases(VECTORS["request"]["refused"]))
def test_a_forged_request_is_refused_for_its_reason(case: dict[str, Any]) -> None:
    with pytest.raises(ProofError) as refused:
        checked_request(case["token"], **case.get("context", {}))
    assert refused.value.reason == case["reason"]


@pytest.mark.parametrize("case", cases(VECTORS["entitlement"]["accepted"]))
def test_an_entitlement_is_made_and_proven(case: dict[str, Any]) -> None:
    entitlement = entitlement_of(case["entitlement"])
    assert entitlement_jwt(PLATFORM, entitlement, NOW_US) == case["token"]
    assert checked_entitlement(case["token"]) == entitlement


@pytest.mark.parametrize("case", cases(VECTORS["entitlement"]["refused"]))
def test_a_forged_entitlement_is_refused_for_its_reason(case: dict[str, Any]) -> None:
    with pytest.raises(ProofError) as refused:
        checked_entitlement(
            case["token"], case.get("vendor_id", VENDOR), case.get("now_us", NOW_US)
        )
    assert refused.value.reason == case["reason"]


@pytest.mark.parametrize("case", cases(VECTORS["voucher"]["accepted"]))
def test_a_voucher_is_proven(case: dict[str, Any]) -> None:
    voucher = checked_voucher(
        case["token"],
        entitlement=ENTITLEMENTS[case["entitlement"]],
        args_sha256=case["args_sha256"],
    )
    assert voucher == voucher_of(case["voucher"])


@pytest.mark.parametrize("case", cases(VECTORS["voucher"]["refused"]))
def test_a_forged_voucher_is_refused_for_its_reason(case: dict[str, Any]) -> None:
    with pytest.raises(ProofError) as refused:
        checked_voucher(
            case["token"],
            entitlement=ENTITLEMENTS[case["entitlement"]],
            args_sha256=case["args_sha256"],
            now_us=case.get("now_us", NOW_US),
        )
    assert refused.value.reason == case["reason"]


SETTLED = VECTORS["voucher"]["settled"]
PAYER = KEYS[SETTLED["payer"]].public


@pytest.mark.parametrize("case", cases(SETTLED["accepted"]))
def test_a_voucher_settles_whenever_it_is_read(case: dict[str, Any]) -> None:
    voucher = read_voucher(case["token"], PAYER, SETTLED["agreement_id"])
    assert voucher == voucher_of(case["voucher"])


@pytest.mark.parametrize("case", cases(SETTLED["refused"]))
def test_what_the_payer_did_not_sign_settles_nothing(case: dict[str, Any]) -> None:
    with pytest.raises(ProofError) as refused:
        read_voucher(case["token"], PAYER, SETTLED["agreement_id"])
    assert refused.value.reason == case["reason"]


MINTED = {
    Typ.REQUEST: requested(),
    Typ.ENTITLEMENT: entitlement_jwt(PLATFORM, CALL, NOW_US),
    Typ.VOUCHER: voucher_jwt(AGENT, VOUCHER, now_us=NOW_US, jti="v", lifetime_s=60),
}
CHECKS: dict[Typ, Callable[[str], object]] = {
    Typ.REQUEST: checked_request,
    Typ.ENTITLEMENT: checked_entitlement,
    Typ.VOUCHER: checked_voucher,
}


@pytest.mark.parametrize("slot", CHECKS)
@pytest.mark.parametrize("minted", MINTED)
def test_a_token_is_worthless_in_every_other_slot(minted: Typ, slot: Typ) -> None:
    if minted is slot:
        assert CHECKS[slot](MINTED[minted])
    else:
        with pytest.raises(ProofError) as refused:
            CHECKS[slot](MINTED[minted])
        assert refused.value.reason is ProofFault.WRONG_TYP


@pytest.mark.parametrize("slot", CHECKS)
@given(data=st.data())
def test_one_bit_turned_anywhere_voids_a_token(slot: Typ, data: st.DataObject) -> None:
    segments = [bytearray(base64url.decode(segment)) for segment in MINTED[slot].split(".")]
    segment = data.draw(st.sampled_from(segments))
    bit = data.draw(st.integers(0, 8 * len(segment) - 1))
    segment[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ProofError):
        CHECKS[slot](".".join(base64url.encode(bytes(part)) for part in segments))


@pytest.mark.parametrize("slot", CHECKS)
def test_a_token_truncated_anywhere_is_void(slot: Typ) -> None:
    for length in range(len(MINTED[slot])):
        with pytest.raises(ProofError):
            CHECKS[slot](MINTED[slot][:length])


@given(st.binary(max_size=64), st.binary(max_size=64))
def test_a_proof_covers_its_body_to_the_byte(body: bytes, other: bytes) -> None:
    assume(body != other)
    token = requested(body=body)
    call = CONTEXT | {"key_of": AGENTS}
    check_request(token, **(call | {"body": body}))
    with pytest.raises(ProofError) as refused:
        check_request(token, **(call | {"body": other}))
    assert refused.value.reason is ProofFault.BODY_MISMATCH


@given(st.integers(1, REQUEST_LIFETIME_S_MAX), st.integers(-120 * SECOND_US, 120 * SECOND_US))
def test_a_request_lives_from_its_skew_to_its_end(lifetime_s: int, later_us: int) -> None:
    issued_us = NOW_US // SECOND_US * SECOND_US
    token = requested(lifetime_s=lifetime_s)
    at_us = issued_us + later_us
    if later_us < -SKEW_S * SECOND_US:
        expected = ProofFault.NOT_YET_VALID
    elif later_us >= lifetime_s * SECOND_US:
        expected = ProofFault.EXPIRED
    else:
        proof = checked_request(token, now_us=at_us)
        assert at_us < proof.expires_at_us
        return
    with pytest.raises(ProofError) as refused:
        checked_request(token, now_us=at_us)
    assert refused.value.reason is expected


def test_a_proof_is_refused_from_the_instant_it_names() -> None:
    proof = checked_request(requested())
    assert checked_request(requested(), now_us=proof.expires_at_us - 1) == proof
    with pytest.raises(ProofError) as refused:
        checked_request(requested(), now_us=proof.expires_at_us)
    assert refused.value.reason is ProofFault.EXPIRED


@pytest.mark.parametrize("lifetime_s", [-1, 0, REQUEST_LIFETIME_S_MAX + 1])
def test_a_request_of_another_life_is_not_made(lifetime_s: int) -> None:
    with pytest.raises(ProofError) as refused:
        requested(lifetime_s=lifetime_s)
    assert refused.value.reason is ProofFault.LIFETIME


@pytest.mark.parametrize("lifetime_s", [-1, 0, VOUCHER_LIFETIME_S_MAX + 1])
def test_a_voucher_of_another_life_is_not_made(lifetime_s: int) -> None:
    with pytest.raises(ProofError) as refused:
        voucher_jwt(AGENT, VOUCHER, now_us=NOW_US, jti="v", lifetime_s=lifetime_s)
    assert refused.value.reason is ProofFault.LIFETIME


def test_an_entitlement_never_outlives_its_hold() -> None:
    hold = replace(CALL, expires_at_us=NOW_US + 10 * SECOND_US + 999_999)
    read = checked_entitlement(entitlement_jwt(PLATFORM, hold, NOW_US))
    assert read.expires_at_us <= hold.expires_at_us
    assert hold.expires_at_us - read.expires_at_us < SECOND_US


def test_an_entitlement_says_who_captures_its_hold() -> None:
    called = replace(CALL, on_answer=True)

    token = entitlement_jwt(PLATFORM, called, NOW_US)

    read = check_entitlement(token, key_of=PLATFORMS, vendor_id=VENDOR, now_us=NOW_US)
    assert read.on_answer
    plain = entitlement_jwt(PLATFORM, CALL, NOW_US)
    assert "on_answer" not in claims_of(plain)


@pytest.mark.parametrize(
    "changed",
    [
        {"on_answer": False},
        {"on_answer": "true"},
        {"on_answer": True, "session_id": f"ses_{'0' * 26}", "per_call_units": "1",
         "unsigned_units": "0"},
    ],
)  # fmt: skip
def test_only_a_hold_is_captured_on_its_answer(changed: dict[str, Any]) -> None:
    claims = claims_of(entitlement_jwt(PLATFORM, CALL, NOW_US)) | changed
    if "session_id" in changed:
        del claims["hold_id"]
        claims.pop("args_sha256", None)
    token = sign_compact(PLATFORM, Typ.ENTITLEMENT, claims)

    with pytest.raises(ProofError) as refused:
        check_entitlement(token, key_of=PLATFORMS, vendor_id=VENDOR, now_us=NOW_US)

    assert refused.value.reason is ProofFault.MALFORMED


def claims_of(token: str) -> dict[str, Any]:
    claims = parse_json(base64url.decode(token.split(".")[1]))
    assert isinstance(claims, dict)
    return claims


def test_vouchers_of_one_payer_load_their_key_once() -> None:
    assert PublicKey.from_jwk(CALL.payer_jwk) is PublicKey.from_jwk(dict(CALL.payer_jwk))


def test_the_first_of_several_faults_is_named() -> None:
    claims: dict[str, str | int] = {
        "iss": "agt_2",
        "sub": "agt_1",
        "aud": "elsewhere",
        "iat": 0,
        "exp": 10**9,
        "jti": "jti-1",
        "htm": "PUT",
        "htu": "elsewhere",
        "content_digest": "none",
    }
    now_s = NOW_US // SECOND_US
    steps: list[tuple[ProofFault, dict[str, str | int]]] = [
        (ProofFault.WRONG_SUBJECT, {"iss": "agt_1"}),
        (ProofFault.WRONG_AUD, {"aud": CONTEXT["audience"]}),
        (ProofFault.LIFETIME, {"iat": now_s + 100, "exp": now_s + 110}),
        (ProofFault.NOT_YET_VALID, {"iat": now_s - 20, "exp": now_s - 10}),
        (ProofFault.EXPIRED, {"iat": now_s, "exp": now_s + 10}),
        (ProofFault.WRONG_METHOD, {"htm": CONTEXT["method"]}),
        (ProofFault.WRONG_URL, {"htu": CONTEXT["url"]}),
        (ProofFault.BODY_MISMATCH, {"content_digest": content_digest(CONTEXT["body"].encode())}),
    ]
    for fault, mended in steps:
        with pytest.raises(ProofError) as refused:
            checked_request(sign_compact(AGENT, Typ.REQUEST, claims))
        assert refused.value.reason is fault
        claims |= mended
    assert checked_request(sign_compact(AGENT, Typ.REQUEST, claims)).principal == "agt_1"


def test_a_digest_has_the_form_of_rfc_9530() -> None:
    # A body and its digest as RFC 9530 prints them.
    assert (
        content_digest(b'{"hello": "world"}\n')
        == "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"
    )
