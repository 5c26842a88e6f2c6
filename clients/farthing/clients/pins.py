"""The platform's keys that are believed: those pinned, and those that they name as successors.

Boundary: asks the platform where a key is not known, and takes nothing on its word alone. What
every role verifies with them begins here. Source: spec/keys-and-signatures.md#succession.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final, Self, TypeVar

from farthing.clients.home import Home, default_home
from farthing.clients.transport import Connection
from farthing.protocol.checkpoints import origin_of
from farthing.protocol.errors import Unreachable, Unverified
from farthing.protocol.keys import PublicKey
from farthing.protocol.messages.charges import Receipt
from farthing.protocol.platform_keys import PlatformKeys
from farthing.protocol.receipts import verify_receipt
from farthing.protocol.records import Record
from farthing.protocol.signatures import InvalidSignature, read_header
from farthing.protocol.succession import followed, successions_in
from farthing.protocol.times import SECOND_US
from farthing.protocol.wire import Role

__all__ = ["Pinning", "Pins"]

T = TypeVar("T")

# Anybody can name a key that is none: the platform is not asked again for each.
_AGAIN_US: Final = 10 * SECOND_US


class Pins:
    """Keys by purpose; what was pinned stays, since what it signed verifies for ever.

    Args:
        pinned: what is believed from the first.
        connection: the way to the platform.
    """

    def __init__(self, pinned: PlatformKeys, connection: Connection) -> None:
        self._pinned = self._believed = pinned
        self._successions: Sequence[object] = ()
        # What they lead to in the log that was last asked for: each costs a check of a signature.
        self._of_log: tuple[str | None, Mapping[str, PublicKey]] = None, {}
        self._connection = connection
        self._asking = asyncio.Lock()
        self._asked_at_us: int | None = None

    @property
    def platform(self) -> Mapping[str, PublicKey]:
        """What a quote or entitlement may be signed with, by thumbprint."""
        return self._believed.platform

    @property
    def journal(self) -> Mapping[str, PublicKey]:
        """What a tree head may be signed with, by thumbprint."""
        return self._believed.journal

    async def meet(self, token: str) -> None:
        """Learn the key that a quote or entitlement names, where it is a successor's."""
        try:
            kid = read_header(token).kid
        except InvalidSignature:
            return
        if kid not in self.platform:
            await self.follow()

    async def follow(self) -> None:
        """Ask for successors; nothing is learnt where the platform is not there."""
        async with self._asking:
            now_us = self._connection.clock()
            asked_at_us = self._asked_at_us
            if asked_at_us is not None and 0 <= now_us - asked_at_us < _AGAIN_US:
                return
            self._asked_at_us = now_us
            try:
                key_set = await self._connection.key_set()
            except Unreachable:
                return
            successions = successions_in(key_set)
            led_to = followed(self._pinned, successions)
            # A set from before a retirement, kept somewhere on the way, takes nothing back.
            if self.platform.keys() <= led_to.platform.keys() and (
                self.journal.keys() <= led_to.journal.keys()
            ):
                self._successions, self._believed = successions, led_to
                self._of_log = None, {}

    async def by_journal(self, tree_head: str, check: Callable[[PublicKey], T]) -> T:
        """What a check gives with the first of the journal's keys that it holds with.

        Args:
            tree_head: what is checked; a successor that was named for another log is not tried.
            check: raises `Unverified` where it does not hold.

        Raises:
            Unverified: it holds with none; for the reason that it gave of the first.
        """
        origin = origin_of(tree_head)
        faults: dict[str, Unverified] = {}

        def untried() -> list[PublicKey]:
            return [key for kid, key in self._journal_of(origin).items() if kid not in faults]

        while keys := untried():
            for key in keys:
                try:
                    return check(key)
                except Unverified as error:
                    faults[key.thumbprint] = error
            await self.follow()
        raise next(iter(faults.values()), Unverified("no key of the journal is known"))

    def _journal_of(self, origin: str) -> Mapping[str, PublicKey]:
        if self._of_log[0] != origin:
            self._of_log = origin, followed(self._pinned, self._successions, origin).journal
        return self._of_log[1]


class Pinning:
    """Whoever deals with a platform and believes what its pinned keys signed, or their successors.

    Args:
        connection: The principal's connection, with its key and id.
        platform_keys: The platform's keys by purpose, pinned; without them those that it
            publishes are believed on first use, and who lies from the first is not found out.
    """

    role: ClassVar[Role | None] = None

    def __init__(
        self, connection: Connection, *, platform_keys: PlatformKeys | None = None
    ) -> None:
        self.connection = connection
        self._keys = None if platform_keys is None else Pins(platform_keys, connection)

    @classmethod
    @asynccontextmanager
    async def from_home(cls, home: Home) -> AsyncIterator[Self]:
        """Whose directory it is, with the keys that are pinned there, for the length of a block.

        Raises:
            Unverified: The directory is damaged, or of another role.
        """
        profile = home.profile()
        if profile is None or profile.role != cls.role:
            raise Unverified(_another(home.path, cls.role))
        is_main = home.key_path.exists()
        async with (home.connection if is_main else home.serving_connection)(profile) as connection:
            yield cls(connection, platform_keys=profile.pinned(), **cls._kept_in(home))

    @classmethod
    def from_env(
        cls, environment: Mapping[str, str] = os.environ
    ) -> AbstractAsyncContextManager[Self]:
        """As `from_home`, of the directory that `FARTHING_HOME` names."""
        return cls.from_home(default_home(environment))

    @classmethod
    def _kept_in(cls, home: Home) -> dict[str, Any]:
        """What else of its arguments a directory gives."""
        del home
        return {}

    async def platform_keys(self) -> Pins:
        """The platform's keys: those pinned, else those it published when first asked.

        Their successors are among them, once something was signed by one.
        """
        if self._keys is None:
            self._keys = Pins(await self.connection.platform_keys(), self.connection)
        return self._keys

    async def proven(self, receipt: Receipt) -> Record:
        """The record that a receipt proves with a key of the journal.

        Raises:
            Unverified: It proves none.
        """
        keys = await self.platform_keys()
        check = partial(verify_receipt, receipt)
        return (await keys.by_journal(receipt.tree_head, check)).record


def _another(path: Path, role: Role | None) -> str:
    whose, example = str(role), ""
    if role is Role.BUYER:
        whose = "agent"
        example = f", as {path / 'agents' / 'NAME'}, which `farthing agents register NAME` makes"
    return f"{path} is no {whose}'s; FARTHING_HOME names one{example}"
