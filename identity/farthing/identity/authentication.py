"""Who is proven to speak: from a request's headers and exact bytes to a `Caller`.

Boundary: proofs only. A newcomer proves possession of the key that its request names; whether a
registered key may still act is judged in the engine. Source: spec/proofs.md, spec/identity.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from farthing.identity.callers import ANYONE, Assurance, Caller
from farthing.identity.directory import Directory
from farthing.protocol.errors import Code, Refused, refuse
from farthing.protocol.keys import InvalidKey, PublicKey
from farthing.protocol.proofs import ProofError, ProofFault, check_request
from farthing.protocol.signatures import InvalidSignature, read_header
from farthing.protocol.wire import Role

__all__ = ["Authenticator", "NamedKey", "Request"]

NamedKey = Callable[[], Mapping[str, object] | None]

_SCHEME: Final = "bearer "
_EXPIRED: Final = frozenset({ProofFault.EXPIRED, ProofFault.NOT_YET_VALID})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a proof is bound to."""

    authorization: str
    method: str
    url: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Authenticator:
    """Checks proofs against the registry.

    `audience` is the platform's public URL: the one receiver that a proof may name. What was
    signed before `not_before_us` is refused: a restored registry has forgotten which proofs were
    burnt.
    """

    directory: Directory
    audience: str
    not_before_us: int = 0

    async def caller(
        self,
        request: Request,
        now_us: int,
        *,
        on_stranger: Callable[[], None] = lambda: None,
        named_key: NamedKey = lambda: None,
    ) -> Caller:
        """The caller that a request proves.

        Args:
            request: what came.
            now_us: the receiver's clock.
            on_stranger: called before the registry is asked for a key that was not seen before;
                it may raise `Refused`, as anybody can make up keys.
            named_key: the key that the body names, if it is a newcomer's; called, and the body
                thereby read, only where nobody holds the key that signed.

        Raises:
            Refused: `proof_invalid`, `proof_expired` or `unknown_key`, and never why in detail.
        """
        if not request.authorization:
            return ANYONE
        if not request.authorization.lower().startswith(_SCHEME):
            raise self._invalid()
        token = request.authorization[len(_SCHEME) :].strip()
        try:
            thumbprint = read_header(token).kid
        except InvalidSignature as error:
            raise self._invalid() from error
        holder = self.directory.known(thumbprint)
        if holder is None:
            on_stranger()
            holder = await self.directory.look_up(thumbprint)
        key = holder.key if holder else _named(named_key(), thumbprint)
        if key is None:
            raise Refused(refuse(Code.UNKNOWN_KEY, path="authorization"))
        try:
            proof = check_request(
                token,
                key_of={thumbprint: key}.get,
                audience=self.audience,
                method=request.method,
                url=request.url,
                body=request.body,
                now_us=now_us,
            )
        except ProofError as error:
            if error.reason in _EXPIRED:
                raise Refused(refuse(Code.PROOF_EXPIRED, path="authorization")) from error
            raise self._invalid() from error
        speaks_for = {holder.principal_id, thumbprint} if holder else {thumbprint}
        if proof.principal not in speaks_for or proof.issued_at_us < self.not_before_us:
            raise self._invalid()
        return Caller(
            principal_id=holder.principal_id if holder else "",
            organisation_id=holder.organisation_id if holder else "",
            role=holder.role if holder else Role.NEWCOMER,
            assurance=Assurance.SIGNED_BODY,
            key_thumbprint=thumbprint,
            purpose=holder.purpose if holder else "",
            proof_jti=proof.jti,
            proof_expires_at_us=proof.expires_at_us,
        )

    def _invalid(self) -> Refused:
        """One answer for every fault; the receiver's name is public and repairs the likeliest."""
        return Refused(
            refuse(Code.PROOF_INVALID, path="authorization", required=f"aud {self.audience}")
        )


def _named(jwk: Mapping[str, object] | None, thumbprint: str) -> PublicKey | None:
    """The key a newcomer's request names, where it is the very key that signed."""
    if jwk is None:
        return None
    try:
        key = PublicKey.from_jwk({name: str(value) for name, value in jwk.items() if value})
    except InvalidKey:
        return None
    return key if key.thumbprint == thumbprint else None
