"""Who is proven to speak: the value that admission makes of bytes and everything below trusts."""

from dataclasses import dataclass
from enum import StrEnum

from farthing.protocol.wire import Role

__all__ = ["ANYONE", "Assurance", "Caller"]


class Assurance(StrEnum):
    """How strong the proof of a call is (spec/identity.md)."""

    NOBODY = "A0"
    BEARER = "A1"
    CLIENT_ASSERTION = "A2"
    DPOP = "A3"
    SIGNED_BODY = "A4"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A caller and the proof it gave.

    What never changes about a key is here; what can change (revoked, frozen, limits) is judged in
    the engine where the effect is. A newcomer has a proven key and no principal yet. `purpose` is
    what the key is for; empty for everything.
    """

    principal_id: str = ""
    organisation_id: str = ""
    role: Role = Role.ANYONE
    assurance: Assurance = Assurance.NOBODY
    key_thumbprint: str = ""
    purpose: str = ""
    proof_jti: str = ""
    proof_expires_at_us: int = 0


ANYONE = Caller()
