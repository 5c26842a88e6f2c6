"""The platform's keys that are believed: those pinned, and those that they name as successors.

Boundary: asks the platform where a key is not known, and takes nothing on its word alone.
Source: spec/keys-and-signatures.md#succession.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeVar

from farthing.clients.transport import Connection
from farthing.protocol.errors import Unreachable, Unverified
from farthing.protocol.keys import PublicKey
from farthing.protocol.signatures import InvalidSignature, read_header
from farthing.protocol.succession import SUCCESSIONS, followed

__all__ = ["Pins", "verified"]

T = TypeVar("T")

# Anybody can name a key that is none: the platform is not asked again for each.
_AGAIN_US: Final = 10 * 1_000_000


class Pins(Mapping[str, PublicKey]):
    """Keys by thumbprint; what was pinned stays, since what it signed verifies for ever.

    Args:
        pinned: what is believed from the first.
        connection: the way to the platform.
    """

    def __init__(self, pinned: Mapping[str, PublicKey], connection: Connection) -> None:
        self._keys = dict(pinned)
        self._connection = connection
        self._asked_at_us: int | None = None

    def __getitem__(self, thumbprint: str) -> PublicKey:
        return self._keys[thumbprint]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    async def meet(self, token: str) -> None:
        """Learn the key that a token or detached signature names, where it is a successor's."""
        try:
            kid = read_header(token).kid
        except InvalidSignature:
            return
        if kid not in self._keys:
            await self.follow()

    async def follow(self) -> list[PublicKey]:
        """Ask for successors; gives those that are new, none where the platform is not there."""
        now_us = self._connection.clock()
        asked_at_us = self._asked_at_us
        if asked_at_us is not None and 0 <= now_us - asked_at_us < _AGAIN_US:
            return []
        self._asked_at_us = now_us
        try:
            published = (await self._connection.key_set()).get(SUCCESSIONS)
        except Unreachable:
            return []
        found = followed(self._keys, published if isinstance(published, list) else ())
        self._keys.update({key.thumbprint: key for key in found})
        return found


async def verified(keys: Mapping[str, PublicKey], check: Callable[[PublicKey], T]) -> T:
    """What a check gives with the first of the platform's keys that it holds with.

    Args:
        keys: the keys that are believed; of `Pins`, their successors too.
        check: raises `Unverified` where it does not hold.

    Raises:
        Unverified: it holds with none; for the reason that it gave of the first.
    """
    faults: list[Unverified] = []
    tried = list(keys.values())
    while tried:
        for key in tried:
            try:
                return check(key)
            except Unverified as error:
                faults.append(error)
        tried = await keys.follow() if isinstance(keys, Pins) else []
    raise faults[0] if faults else Unverified("the platform publishes no key")
