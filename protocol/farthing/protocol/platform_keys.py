"""The platform's keys by what each is for, and how its key set says so.

Boundary: pure. Which keys are believed is for whoever pins them; what comes after a key is
`succession`'s affair. Source: spec/keys-and-signatures.md#the-platforms-keys.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from farthing.protocol.keys import JWK_MEMBERS, InvalidKey, PublicKey

__all__ = ["PURPOSE", "PlatformKeys", "PlatformPurpose", "jwk_for"]

PURPOSE: Final = "org.farthing/purpose"
"""The member of a published or pinned JWK that says what the key is for."""

KeysByThumbprint = Mapping[str, PublicKey]


class PlatformPurpose(StrEnum):
    """What a key of the platform's is for. One key, one purpose."""

    PLATFORM = "platform"
    JOURNAL = "journal"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformKeys:
    """The platform's keys by thumbprint, each believed for its purpose alone.

    Args:
        platform: those that quotes and entitlements are signed with.
        journal: those that tree heads, and so receipts and evidence, are signed with.
    """

    platform: KeysByThumbprint = field(default_factory=dict)
    journal: KeysByThumbprint = field(default_factory=dict)

    @classmethod
    def of(
        cls, *, platform: Iterable[PublicKey] = (), journal: Iterable[PublicKey] = ()
    ) -> "PlatformKeys":
        """The keys themselves, in the order in which they are tried."""
        return cls(
            platform={key.thumbprint: key for key in platform},
            journal={key.thumbprint: key for key in journal},
        )

    @classmethod
    def read(cls, members: Iterable[object]) -> "PlatformKeys":
        """The keys of a set's members; what is none, or has no known purpose, is passed over."""
        keys = [each for member in members if (each := _published(member)) is not None]
        return cls.of(
            platform=[key for purpose, key in keys if purpose == PlatformPurpose.PLATFORM],
            journal=[key for purpose, key in keys if purpose == PlatformPurpose.JOURNAL],
        )

    def jwks(self) -> tuple[dict[str, str], ...]:
        """What `read` reads: each key with its purpose."""
        return (
            *(jwk_for(PlatformPurpose.PLATFORM, key) for key in self.platform.values()),
            *(jwk_for(PlatformPurpose.JOURNAL, key) for key in self.journal.values()),
        )


def jwk_for(purpose: PlatformPurpose, key: PublicKey) -> dict[str, str]:
    """The public JWK of a key, with what it is for."""
    return {**key.jwk(), PURPOSE: purpose.value}


def _published(member: object) -> tuple[object, PublicKey] | None:
    """What a member of a key set says that it is for, and the key."""
    if not isinstance(member, dict):
        return None
    try:
        # Beside the key a set carries what others add, such as `x5c`.
        jwk = {name: value for name, value in member.items() if name in JWK_MEMBERS}
        return member.get(PURPOSE), PublicKey.from_jwk(jwk)
    except InvalidKey:
        return None
