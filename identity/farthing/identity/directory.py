"""Who holds a key: facts by thumbprint, looked up in the registry and never taken from a header.

Boundary: caches only what never changes about a key (its holder, role, purpose and public half).
Whether it is revoked is judged in the engine, where the effect is.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from farthing.protocol.keys import PublicKey
from farthing.protocol.wire import Role

__all__ = ["Directory", "Found", "Holder"]

_HOLDERS_MAX: Final = 50_000

# Principal, organisation, role, public JWK and purpose, as the registry gives them.
Found: TypeAlias = tuple[str, str, str, Mapping[str, str], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A registered key, what it is for, and the principal that holds it."""

    principal_id: str
    organisation_id: str
    role: Role
    key: PublicKey
    purpose: str = ""


class Directory:
    """Holders by thumbprint.

    Args:
        find: asks the registry; gives (principal, organisation, role, jwk, purpose) or None.
        holders_max: how many holders are remembered.
    """

    def __init__(
        self,
        find: Callable[[str], Awaitable[Found | None]],
        *,
        holders_max: int = _HOLDERS_MAX,
    ) -> None:
        self._find = find
        self._holders_max = holders_max
        self._holders: OrderedDict[str, Holder] = OrderedDict()

    def known(self, thumbprint: str) -> Holder | None:
        """The holder of a key that has been looked up before and is still remembered."""
        holder = self._holders.get(thumbprint)
        if holder is not None:
            self._holders.move_to_end(thumbprint)
        return holder

    async def holder(self, thumbprint: str) -> Holder | None:
        """The holder of a key, or None where nobody holds it."""
        return self.known(thumbprint) or await self.look_up(thumbprint)

    async def look_up(self, thumbprint: str) -> Holder | None:
        """The holder of a key as the registry has it, or None where nobody holds it."""
        found = await self._find(thumbprint)
        if found is None:
            return None
        principal_id, organisation_id, role, jwk, purpose = found
        holder = Holder(
            principal_id=principal_id,
            organisation_id=organisation_id,
            role=Role(role),
            key=PublicKey.from_jwk(jwk),
            purpose=purpose,
        )
        self._holders[thumbprint] = holder
        if len(self._holders) > self._holders_max:
            self._holders.popitem(last=False)
        return holder
