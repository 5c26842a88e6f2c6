"""Keys are taken strictly, named by their thumbprint, and sign the same bytes the same way."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st

from farthing.protocol import base64url
from farthing.protocol.keys import InvalidKey, KeyFault, PrivateKey, PublicKey, Signer
from tests.protocol.vectors import cases, vectors

VECTORS = vectors("signatures")
SMALL = [case for case in VECTORS["refused_keys"] if case["reason"] == KeyFault.SMALL_ORDER]
SEED = bytes(range(32))
ED25519 = PrivateKey.from_seed(SEED)
# RFC 6979, appendix A.2.5.
ES256_JWK = {
    "kty": "EC",
    "crv": "P-256",
    "x": "YP7UuiVanTHJYet0xjVtaMBJuJI7Yfps5mliLmDyn7Y",
    "y": "eQP-EAi4vJmkGunpVii8ZPLxsgwtfp9Rd6PClNRGIpk",
    "d": "ya-p2EW6dRZrXCFXZ7HWk05Qw9s26JsSe4piKxIPZyE",
}
ES256 = PrivateKey.from_jwk(ES256_JWK)
KEYS = pytest.mark.parametrize("key", [ED25519, ES256], ids=["Ed25519", "ES256"])

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
NEUTRAL = (0, 1)


def little_endian(number: int) -> bytes:
    return number.to_bytes(32, "little")


def decompressed(encoded: bytes) -> tuple[int, int] | None:
    """Find the point by its square root, as RFC 8032, section 5.1.3 does."""
    number = int.from_bytes(encoded, "little")
    y, sign = number % 2**255, number >> 255
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    if y >= P or x * x % P != square or (x == 0 and sign):
        return None
    return (x if x % 2 == sign else P - x, y)


def eightfold(point: tuple[int, int]) -> tuple[int, int]:
    x, y = point
    for _ in range(3):
        t = D * x * x * y * y
        x, y = 2 * x * y * pow(1 + t, -1, P) % P, (y * y + x * x) * pow(1 - t, -1, P) % P
    return (x, y)


def fault(jwk: dict[str, Any]) -> KeyFault:
    with pytest.raises(InvalidKey) as refused:
        PublicKey.from_jwk(jwk)
    return refused.value.reason


@pytest.mark.parametrize("case", cases(VECTORS["keys"]))
def test_a_key_is_named_by_its_thumbprint(case: dict[str, Any]) -> None:
    key = PublicKey.from_jwk(case["jwk"])
    assert key.thumbprint == case["thumbprint"]
    assert key.alg == case["alg"]
    assert PublicKey.from_jwk(key.jwk()) == key


@pytest.mark.parametrize("case", cases(VECTORS["refused_keys"]))
def test_anything_but_a_plain_public_key_is_refused(case: dict[str, Any]) -> None:
    assert fault(case["jwk"]) == case["reason"]


@pytest.mark.parametrize("case", cases(VECTORS["published"]))
def test_published_signatures_verify(case: dict[str, Any]) -> None:
    key = PublicKey.from_jwk(case["jwk"])
    signature = base64url.decode(case["signature"])
    assert key.verify(signature, case["data"].encode())
    assert not key.verify(signature, case["data"].encode() + b"x")


def test_es256_draws_its_nonce_from_the_message() -> None:
    published = {case["says"]: case["signature"] for case in VECTORS["published"]}
    assert base64url.encode(ES256.sign(b"sample")) == published["RFC 6979, appendix A.2.5, SHA-256"]


@KEYS
def test_a_key_verifies_what_it_signed_and_nothing_else(key: PrivateKey) -> None:
    signer: Signer = key
    signature = signer.sign(b"data")
    assert len(signature) == 64
    assert signature == signer.sign(b"data")
    assert signer.public.verify(signature, b"data")
    assert not signer.public.verify(signature, b"date")
    assert not PrivateKey.from_seed(bytes(32)).public.verify(signature, b"data")


@KEYS
@given(bit=st.integers(0, 511))
def test_a_signature_with_one_bit_turned_is_none(key: PrivateKey, bit: int) -> None:
    signature = bytearray(key.sign(b"data"))
    signature[bit // 8] ^= 1 << bit % 8
    assert not key.public.verify(bytes(signature), b"data")


@KEYS
@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(64), bytes(65), b"\xff" * 64])
def test_other_bytes_are_no_signature(key: PrivateKey, signature: bytes) -> None:
    assert not key.public.verify(signature, b"data")


def test_es256_in_der_is_no_signature() -> None:
    raw = ES256.sign(b"data")
    der = encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))
    assert not ES256.public.verify(der, b"data")


def test_keys_made_elsewhere_verify_here_and_the_other_way_round() -> None:
    theirs = ec.derive_private_key(7, ec.SECP256R1())
    numbers = theirs.public_key().public_numbers()
    ours = PrivateKey.from_jwk(
        {
            "kty": "EC",
            "crv": "P-256",
            "x": base64url.encode(numbers.x.to_bytes(32)),
            "y": base64url.encode(numbers.y.to_bytes(32)),
            "d": base64url.encode((7).to_bytes(32)),
        }
    )
    raw = ours.sign(b"data")
    der = encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))
    theirs.public_key().verify(der, b"data", ec.ECDSA(SHA256()))


def test_one_signature_would_fit_any_message_of_a_key_of_small_order() -> None:
    # Why such keys are refused: the library below takes this one, the neutral element.
    neutral = (1).to_bytes(32, "little")
    key = ed25519.Ed25519PublicKey.from_public_bytes(neutral)
    for data in (b"pay 1", b"pay 1000"):
        key.verify(neutral + bytes(32), data)
    assert (
        fault({"kty": "OKP", "crv": "Ed25519", "x": base64url.encode(neutral)})
        is KeyFault.SMALL_ORDER
    )


@given(st.binary(min_size=32, max_size=32))
def test_every_key_made_from_a_seed_is_taken(seed: bytes) -> None:
    key = PrivateKey.from_seed(seed)
    assert PublicKey.from_jwk(key.public.jwk()) == key.public


@given(st.one_of(st.binary(min_size=32, max_size=32), st.integers(0, 40).map(little_endian)))
def test_a_key_is_taken_when_and_only_when_it_is_a_point_of_large_order(encoded: bytes) -> None:
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": base64url.encode(encoded)}
    point = decompressed(encoded)
    if point is None:
        assert fault(jwk) is KeyFault.NOT_ON_CURVE
    elif eightfold(point) == NEUTRAL:
        assert fault(jwk) is KeyFault.SMALL_ORDER
    else:
        assert PublicKey.from_jwk(jwk).raw == encoded


@pytest.mark.parametrize("case", cases(SMALL))
def test_what_is_called_of_small_order_is(case: dict[str, Any]) -> None:
    point = decompressed(base64url.decode(case["jwk"]["x"]))
    assert point is not None
    assert eightfold(point) == NEUTRAL


@KEYS
def test_a_private_key_survives_its_jwk(key: PrivateKey) -> None:
    again = PrivateKey.from_jwk(key.private_jwk())
    assert again.thumbprint == key.thumbprint
    assert again.sign(b"data") == key.sign(b"data")


@KEYS
def test_a_private_part_of_another_key_is_refused(key: PrivateKey) -> None:
    with pytest.raises(InvalidKey) as refused:
        PrivateKey.from_jwk(key.private_jwk() | {"d": base64url.encode(bytes([1] * 32))})
    assert refused.value.reason is KeyFault.MISMATCH


@pytest.mark.parametrize(
    "d", ["", "AA", base64url.encode(bytes(32)), base64url.encode(b"\xff" * 32)]
)
def test_a_private_part_that_is_no_scalar_is_refused(d: str) -> None:
    with pytest.raises(InvalidKey) as refused:
        PrivateKey.from_jwk(ES256_JWK | {"d": d})
    assert refused.value.reason is KeyFault.ENCODING


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_seed_has_32_bytes(size: int) -> None:
    with pytest.raises(InvalidKey) as refused:
        PrivateKey.from_seed(bytes(size))
    assert refused.value.reason is KeyFault.ENCODING


def test_a_public_key_is_no_private_key() -> None:
    with pytest.raises(InvalidKey) as refused:
        PrivateKey.from_jwk(ED25519.public.jwk())
    assert refused.value.reason is KeyFault.MEMBERS


@KEYS
def test_a_private_key_does_not_show_its_secret(key: PrivateKey) -> None:
    secret = key.private_jwk()["d"]
    assert secret not in repr(key)
    assert secret not in str(key)
    assert "d" not in key.public.jwk()


def test_a_key_read_twice_is_loaded_once() -> None:
    assert PublicKey.from_jwk(ES256.public.jwk()) is PublicKey.from_jwk(ES256.public.jwk())


def test_changing_the_jwk_given_out_changes_no_key() -> None:
    ED25519.public.jwk()["x"] = "changed"
    assert ED25519.public.jwk()["x"] != "changed"


def test_keys_are_equal_when_their_thumbprints_are() -> None:
    same = PrivateKey.from_seed(SEED).public
    assert same == ED25519.public
    assert hash(same) == hash(ED25519.public)
    assert ED25519.public != ES256.public
    assert ED25519.public != ED25519.public.thumbprint
