"""A signed thing proves one kind of thing, by one known key, in one spelling, or nothing."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.protocol import base64url
from farthing.protocol.canonical import InvalidJson, JsonLike
from farthing.protocol.keys import PrivateKey, PublicKey
from farthing.protocol.signatures import (
    TOKEN_CHARACTERS_MAX,
    Header,
    InvalidSignature,
    SignatureFault,
    Typ,
    read_header,
    sign_compact,
    sign_detached,
    verify_compact,
    verify_detached,
)
from tests.protocol.vectors import cases, vectors

VECTORS = vectors("signatures")
REGISTRY = {key.thumbprint: key for key in (PublicKey.from_jwk(jwk) for jwk in VECTORS["registry"])}
ALICE = PrivateKey.from_seed(bytes([1] * 32))
BOB = PrivateKey.from_seed(bytes([2] * 32))
PAYLOAD = b'{"amount":"1"}'
JWS = sign_detached(ALICE, Typ.QUOTE, PAYLOAD)
CLAIMS: dict[str, JsonLike] = {"aud": "market", "exp": 1}
TOKEN = sign_compact(ALICE, Typ.REQUEST, CLAIMS)


def fault_detached(jws: str, typ: Typ = Typ.QUOTE, payload: bytes = PAYLOAD) -> SignatureFault:
    with pytest.raises(InvalidSignature) as refused:
        verify_detached(jws, typ, payload, REGISTRY.get)
    return refused.value.reason


def fault_compact(token: str, typ: Typ = Typ.REQUEST) -> SignatureFault:
    with pytest.raises(InvalidSignature) as refused:
        verify_compact(token, typ, REGISTRY.get)
    return refused.value.reason


def signed(payload: bytes) -> str:
    """Sign any payload, also one that `sign_compact` would never write."""
    header, _, _ = TOKEN.split(".")
    body = base64url.encode(payload)
    return f"{header}.{body}.{base64url.encode(ALICE.sign(f'{header}.{body}'.encode()))}"


def test_no_two_kinds_share_a_typ() -> None:
    assert [typ.value for typ in Typ] == VECTORS["typs"]
    assert len(set(Typ)) == len(list(Typ))


@pytest.mark.parametrize("case", cases(VECTORS["detached"]))
def test_a_document_is_signed_and_verified(case: dict[str, Any]) -> None:
    signer, typ, payload = (
        PrivateKey.from_jwk(case["jwk"]),
        Typ(case["typ"]),
        case["payload"].encode(),
    )
    assert sign_detached(signer, typ, payload) == case["jws"]
    assert verify_detached(case["jws"], typ, payload, REGISTRY.get) == signer.public


@pytest.mark.parametrize("case", cases(VECTORS["detached_other"]))
def test_what_others_write_verifies_too(case: dict[str, Any]) -> None:
    key = verify_detached(case["jws"], Typ(case["typ"]), case["payload"].encode(), REGISTRY.get)
    assert key == ALICE.public


@pytest.mark.parametrize("case", cases(VECTORS["refused_detached"]))
def test_a_forged_signature_is_refused_for_its_reason(case: dict[str, Any]) -> None:
    reason = fault_detached(case["jws"], Typ(case["typ"]), case["payload"].encode())
    assert reason == case["reason"]


def test_any_jose_library_verifies_once_the_middle_is_put_back() -> None:
    header, _, signature = JWS.split(".")
    rejoined = f"{header}.{base64url.encode(PAYLOAD)}".encode()
    assert ALICE.public.verify(base64url.decode(signature), rejoined)


@given(st.binary(max_size=200))
def test_any_payload_is_signed_and_verified(payload: bytes) -> None:
    jws = sign_detached(ALICE, Typ.DELIVERY, payload)
    assert verify_detached(jws, Typ.DELIVERY, payload, REGISTRY.get) == ALICE.public


def test_claims_are_signed_and_verified() -> None:
    assert verify_compact(TOKEN, Typ.REQUEST, REGISTRY.get) == CLAIMS


@pytest.mark.parametrize("made", Typ)
@pytest.mark.parametrize("slot", Typ)
def test_a_signed_thing_is_worthless_in_every_other_slot(made: Typ, slot: Typ) -> None:
    token, jws = sign_compact(ALICE, made, CLAIMS), sign_detached(ALICE, made, PAYLOAD)
    if made is slot:
        assert verify_compact(token, slot, REGISTRY.get) == CLAIMS
        assert verify_detached(jws, slot, PAYLOAD, REGISTRY.get) == ALICE.public
    else:
        assert fault_compact(token, slot) is SignatureFault.WRONG_TYP
        assert fault_detached(jws, slot) is SignatureFault.WRONG_TYP


def test_a_compact_token_is_no_detached_one_nor_the_other_way_round() -> None:
    compact = sign_compact(ALICE, Typ.QUOTE, CLAIMS)
    assert fault_detached(compact) is SignatureFault.MALFORMED
    assert fault_compact(JWS, Typ.QUOTE) is SignatureFault.MALFORMED


@given(st.integers(0, len(TOKEN) - 1), st.characters(max_codepoint=255))
def test_one_character_changed_anywhere_voids_a_token(index: int, letter: str) -> None:
    changed = TOKEN[:index] + letter + TOKEN[index + 1 :]
    if changed != TOKEN:
        fault_compact(changed)


@given(st.data())
def test_one_bit_turned_in_any_segment_voids_a_token(data: st.DataObject) -> None:
    segments = [bytearray(base64url.decode(segment)) for segment in TOKEN.split(".")]
    segment = data.draw(st.sampled_from(segments))
    bit = data.draw(st.integers(0, 8 * len(segment) - 1))
    segment[bit // 8] ^= 1 << bit % 8
    fault_compact(".".join(base64url.encode(bytes(part)) for part in segments))


@given(st.integers(0, len(TOKEN) - 1))
def test_a_truncated_token_is_void(length: int) -> None:
    fault_compact(TOKEN[:length])


@given(st.text(max_size=60))
def test_no_text_raises_anything_but_a_reason(text: str) -> None:
    fault_compact(text)
    fault_compact(f"{text}.{text}.{text}")
    fault_detached(f"{text}..{text}")
    fault_compact(TOKEN + text if text else "")


@pytest.mark.parametrize(
    "payload",
    [b"", b"[]", b'"text"', b"1", b"{", b'{"a":1,"a":2}', b'{"a":null}', b'{"a":1.5}', b"\xff"],
)
def test_claims_that_are_no_strict_object_are_refused_though_signed(payload: bytes) -> None:
    expected = SignatureFault.CLAIMS if payload else SignatureFault.MALFORMED
    assert fault_compact(signed(payload)) is expected


def test_claims_outside_the_alphabet_are_not_signed() -> None:
    with pytest.raises(InvalidJson):
        sign_compact(ALICE, Typ.REQUEST, {"é": 1})


def test_a_header_can_be_read_before_its_key_is_known() -> None:
    expected = Header(alg="EdDSA", kid=ALICE.thumbprint, typ=Typ.REQUEST.value)
    assert read_header(TOKEN) == expected


@pytest.mark.parametrize("token", ["", "a.b", "e30..", "e30.e30.e30.e30"])
def test_what_is_no_token_has_no_header(token: str) -> None:
    with pytest.raises(InvalidSignature):
        read_header(token)


def test_a_token_is_measured_before_it_is_looked_at() -> None:
    def unreachable(_: str) -> None:
        raise AssertionError("no key is looked up for a token that is too long")

    with pytest.raises(InvalidSignature) as refused:
        verify_compact(TOKEN + "A" * TOKEN_CHARACTERS_MAX, Typ.REQUEST, unreachable)
    assert refused.value.reason is SignatureFault.MALFORMED


def test_a_token_of_the_wrong_kind_costs_no_look_up() -> None:
    def unreachable(_: str) -> None:
        raise AssertionError("no key is looked up for a token of the wrong kind")

    with pytest.raises(InvalidSignature) as refused:
        verify_compact(TOKEN, Typ.VOUCHER, unreachable)
    assert refused.value.reason is SignatureFault.WRONG_TYP


def test_a_registry_that_answers_with_another_key_is_not_believed() -> None:
    with pytest.raises(InvalidSignature) as refused:
        verify_compact(TOKEN, Typ.REQUEST, lambda _: BOB.public)
    assert refused.value.reason is SignatureFault.UNKNOWN_KEY


def test_a_key_that_is_gone_from_the_registry_verifies_nothing() -> None:
    with pytest.raises(InvalidSignature) as refused:
        verify_compact(TOKEN, Typ.REQUEST, lambda _: None)
    assert refused.value.reason is SignatureFault.UNKNOWN_KEY
