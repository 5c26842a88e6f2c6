"""Public keys as JWKs and thumbprints, checking a signature, and what anything that signs must do.

Two kinds of key: Ed25519 (RFC 8037) and P-256 (ES256, RFC 7518). Making keys needs randomness and
is done elsewhere; keeping them is the business of whoever implements `Signer`. See
spec/keys-and-signatures.md.
"""

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature as BadSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.hashes import SHA256

from farthing.protocol import base64url
from farthing.protocol.canonical import canonical_bytes

__all__ = ["JWK_MEMBERS", "InvalidKey", "KeyFault", "PrivateKey", "PublicKey", "Signer"]

JWK_MEMBERS: Final = frozenset({"kty", "crv", "x", "y"})
"""The members of a JWK that a public key is made of."""

_COORDINATE_BYTES: Final = 32
_SIGNATURE_BYTES: Final = 64
_KEYS_REMEMBERED: Final = 4096

_ALGS: Final = {"Ed25519": ("EdDSA", "Ed25519"), "P-256": ("ES256",)}
_KTYS: Final = {"Ed25519": "OKP", "P-256": "EC"}

# The field and the curve constant of Ed25519 (RFC 8032, section 5.1).
_P25519: Final = 2**255 - 19
_D25519: Final = -121665 * pow(121666, -1, _P25519) % _P25519
# The y of the points whose order divides 8. Under such a key one signature fits any message.
_Y_OF_ORDER_8: Final = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_SMALL_ORDER_Y: Final = frozenset({0, 1, _P25519 - 1, _Y_OF_ORDER_8, _P25519 - _Y_OF_ORDER_8})

# RFC 6979 nonces: signing needs no randomness, and a weak generator cannot leak the key.
_ES256: Final = ec.ECDSA(SHA256(), deterministic_signing=True)
_ES256_VERIFY: Final = ec.ECDSA(SHA256())


class KeyFault(StrEnum):
    """Why a JWK is not a key that Farthing takes."""

    MEMBERS = "members"
    UNSUPPORTED = "unsupported"
    ENCODING = "encoding"
    NOT_ON_CURVE = "not_on_curve"
    SMALL_ORDER = "small_order"
    MISMATCH = "mismatch"


class InvalidKey(ValueError):
    """The JWK is not an acceptable key."""

    def __init__(self, reason: KeyFault) -> None:
        super().__init__(reason.value)
        self.reason = reason


class PublicKey:
    """A key that checks signatures. Two are equal when their thumbprints are."""

    __slots__ = ("_jwk", "_loaded", "alg", "thumbprint")

    def __init__(
        self,
        jwk: Mapping[str, str],
        loaded: ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey,
    ) -> None:
        """Hold a checked key; `from_jwk` is the way in."""
        self._jwk = dict(jwk)
        self._loaded = loaded
        self.alg = _ALGS[jwk["crv"]][0]
        # RFC 7638: the required members alone, sorted, as canonical JSON.
        self.thumbprint = base64url.encode(hashlib.sha256(canonical_bytes(self._jwk)).digest())

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, object]) -> "PublicKey":
        """Read a public JWK strictly.

        Args:
            jwk: `kty`, `crv`, `x` (and `y` on P-256); `alg`, `use` and `kid` may stand beside
                them if they say what the key says. Anything else, a private part above all, is
                refused.

        Raises:
            InvalidKey: With the reason.
        """
        kty, crv, x, y = _checked_members(jwk, private=False)
        key = _load(kty, crv, x, y)
        if "kid" in jwk and jwk["kid"] != key.thumbprint:
            raise InvalidKey(KeyFault.MISMATCH)
        return key

    @property
    def raw(self) -> bytes:
        """The point as bytes: 32 of Ed25519, or x and y of P-256."""
        return base64url.decode(self._jwk["x"]) + base64url.decode(self._jwk.get("y", ""))

    def jwk(self) -> dict[str, str]:
        """Give the members the thumbprint is made of, in a new dict."""
        return dict(self._jwk)

    def verify(self, signature: bytes, data: bytes) -> bool:
        """Say whether the signature of exactly 64 bytes is this key's over the data."""
        if len(signature) != _SIGNATURE_BYTES:
            return False
        try:
            if isinstance(self._loaded, ed25519.Ed25519PublicKey):
                self._loaded.verify(signature, data)
            else:
                self._loaded.verify(_der(signature), data, _ES256_VERIFY)
        except BadSignature:
            return False
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and self.thumbprint == other.thumbprint

    def __hash__(self) -> int:
        return hash(self.thumbprint)

    def __repr__(self) -> str:
        return f"PublicKey({self.alg}, {self.thumbprint})"


class Signer(Protocol):
    """What anything that signs must do: a key in memory, a token in a slot, a remote service.

    `sign` gives 64 bytes (Ed25519, or r and s of ES256) that `public` verifies. It may take its
    time and may fail with an error of its own, but it never gives a signature of another key.
    """

    @property
    def thumbprint(self) -> str:
        """RFC 7638 thumbprint, the `kid` of everything signed."""
        ...

    @property
    def alg(self) -> str:
        """`EdDSA` or `ES256`, as written into headers."""
        ...

    @property
    def public(self) -> PublicKey:
        """The key that verifies."""
        ...

    def sign(self, data: bytes) -> bytes:
        """Sign data."""
        ...


class PrivateKey:
    """A `Signer` whose key is in memory. Its repr shows the thumbprint only."""

    __slots__ = ("_d", "_loaded", "public")

    def __init__(
        self,
        public: PublicKey,
        d: bytes,
        loaded: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey,
    ) -> None:
        """Hold a checked key; `from_seed` and `from_jwk` are the ways in."""
        self.public = public
        self._d = d
        self._loaded = loaded

    @classmethod
    def from_seed(cls, seed: bytes) -> "PrivateKey":
        """Make the Ed25519 key of a 32-byte seed, which the caller drew at random.

        Raises:
            InvalidKey: The seed has another length.
        """
        if len(seed) != _COORDINATE_BYTES:
            raise InvalidKey(KeyFault.ENCODING)
        loaded = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
        x = base64url.encode(loaded.public_key().public_bytes_raw())
        return cls(_load("OKP", "Ed25519", x, ""), seed, loaded)

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, object]) -> "PrivateKey":
        """Read a private JWK as strictly as a public one; `d` must belong to the public part.

        Raises:
            InvalidKey: With the reason.
        """
        kty, crv, _, _ = _checked_members(jwk, private=True)
        d = _coordinate(jwk["d"])
        public = PublicKey.from_jwk({name: value for name, value in jwk.items() if name != "d"})
        if kty == "OKP":
            key = cls.from_seed(d)
        else:
            try:
                loaded = ec.derive_private_key(int.from_bytes(d), ec.SECP256R1())
            except ValueError:
                raise InvalidKey(KeyFault.ENCODING) from None
            numbers = loaded.public_key().public_numbers()
            x, y = (
                base64url.encode(number.to_bytes(_COORDINATE_BYTES))
                for number in (numbers.x, numbers.y)
            )
            key = cls(_load(kty, crv, x, y), d, loaded)
        if key.public != public:
            raise InvalidKey(KeyFault.MISMATCH)
        return key

    @property
    def thumbprint(self) -> str:
        return self.public.thumbprint

    @property
    def alg(self) -> str:
        return self.public.alg

    def private_jwk(self) -> dict[str, str]:
        """Give the JWK with its private part; whoever asks for it keeps it safe."""
        return self.public.jwk() | {"d": base64url.encode(self._d)}

    def sign(self, data: bytes) -> bytes:
        """Sign data: 64 bytes, and always the same for the same data."""
        if isinstance(self._loaded, ed25519.Ed25519PrivateKey):
            return self._loaded.sign(data)
        r, s = decode_dss_signature(self._loaded.sign(data, _ES256))
        return r.to_bytes(_COORDINATE_BYTES) + s.to_bytes(_COORDINATE_BYTES)

    def __repr__(self) -> str:
        return f"PrivateKey({self.alg}, {self.thumbprint})"


def _checked_members(jwk: Mapping[str, object], *, private: bool) -> tuple[str, str, str, str]:
    kty, crv = jwk.get("kty"), jwk.get("crv")
    if not isinstance(crv, str) or crv not in _KTYS or kty != _KTYS[crv]:
        raise InvalidKey(KeyFault.UNSUPPORTED)
    needed = {"kty", "crv", "x"} | ({"y"} if crv == "P-256" else set())
    needed |= {"d"} if private else set()
    if not needed <= jwk.keys() <= needed | {"alg", "use", "kid"}:
        raise InvalidKey(KeyFault.MEMBERS)
    if jwk.get("use", "sig") != "sig" or jwk.get("alg", _ALGS[crv][0]) not in _ALGS[crv]:
        raise InvalidKey(KeyFault.MISMATCH)
    x, y = jwk["x"], jwk.get("y", "")
    if not isinstance(x, str) or not isinstance(y, str):
        raise InvalidKey(KeyFault.ENCODING)
    return _KTYS[crv], crv, x, y


# A pure function of its arguments, remembered because a key is read anew with every entitlement.
@lru_cache(maxsize=_KEYS_REMEMBERED)
def _load(kty: str, crv: str, x: str, y: str) -> PublicKey:
    if crv == "Ed25519":
        point = _coordinate(x)
        _check_ed25519_point(point)
        return PublicKey(
            {"crv": crv, "kty": kty, "x": x}, ed25519.Ed25519PublicKey.from_public_bytes(point)
        )
    numbers = ec.EllipticCurvePublicNumbers(
        int.from_bytes(_coordinate(x)), int.from_bytes(_coordinate(y)), ec.SECP256R1()
    )
    try:
        loaded = numbers.public_key()
    except ValueError:
        raise InvalidKey(KeyFault.NOT_ON_CURVE) from None
    return PublicKey({"crv": crv, "kty": kty, "x": x, "y": y}, loaded)


def _coordinate(text: object) -> bytes:
    try:
        data = base64url.decode(text) if isinstance(text, str) else b""
    except base64url.InvalidBase64:
        raise InvalidKey(KeyFault.ENCODING) from None
    if len(data) != _COORDINATE_BYTES:
        raise InvalidKey(KeyFault.ENCODING)
    return data


def _check_ed25519_point(point: bytes) -> None:
    # The library takes any 32 bytes and finds out at the first signature; a registry must not.
    # Decompression after RFC 8032, section 5.1.3: x^2 = (y^2 - 1) / (d y^2 + 1) must be a square.
    encoded = int.from_bytes(point, "little")
    y, sign = encoded & (2**255 - 1), encoded >> 255
    if y >= _P25519:
        raise InvalidKey(KeyFault.NOT_ON_CURVE)
    u, v = (y * y - 1) % _P25519, (_D25519 * y * y + 1) % _P25519
    square = u * pow(v, -1, _P25519) % _P25519
    if (square and pow(square, (_P25519 - 1) // 2, _P25519) != 1) or (not square and sign):
        raise InvalidKey(KeyFault.NOT_ON_CURVE)
    if y in _SMALL_ORDER_Y:
        raise InvalidKey(KeyFault.SMALL_ORDER)


def _der(signature: bytes) -> bytes:
    r, s = signature[:_COORDINATE_BYTES], signature[_COORDINATE_BYTES:]
    return encode_dss_signature(int.from_bytes(r), int.from_bytes(s))
