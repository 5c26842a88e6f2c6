"""The platform's own private keys, by purpose, kept as files that only their owner can read.

Boundary: makes, keeps and loads keys. Agents' private keys never come here.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from farthing.protocol.keys import PrivateKey

__all__ = ["Keyring", "Purpose", "open_keyring"]

_SEED_BYTES: Final = 32


class Purpose(StrEnum):
    """What a platform key is for. One key, one purpose."""

    PLATFORM = "platform"
    JOURNAL = "journal"
    ADMIN = "admin"
    TREASURER = "treasurer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """The keys in force and where they lie; `created` says that this start made them."""

    folder: Path
    keys: Mapping[Purpose, PrivateKey]
    created: bool

    def __getitem__(self, purpose: Purpose) -> PrivateKey:
        return self.keys[purpose]

    def path(self, purpose: Purpose) -> Path:
        """The file of a key."""
        return self.folder / f"{purpose.value}.jwk"

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """What the platform publishes: the keys that others verify with (RFC 7517)."""
        published = (Purpose.PLATFORM, Purpose.JOURNAL)
        return {
            "keys": [
                {**key.public.jwk(), "alg": key.alg, "kid": key.thumbprint, "use": "sig"}
                for key in (self.keys[purpose] for purpose in published)
            ]
        }


def open_keyring(folder: Path, entropy: Callable[[int], bytes]) -> Keyring:
    """Load the platform's keys, making what is missing.

    Args:
        folder: where the key files lie; made with mode 0700.
        entropy: random bytes of a length.

    Raises:
        OSError, ValueError: a key file cannot be read or is not a key.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    created = False
    keys: dict[Purpose, PrivateKey] = {}
    for purpose in Purpose:
        path = folder / f"{purpose.value}.jwk"
        if not path.exists():
            created = True
            _write(path, PrivateKey.from_seed(entropy(_SEED_BYTES)))
        keys[purpose] = PrivateKey.from_jwk(json.loads(path.read_text()))
    return Keyring(folder=folder, keys=keys, created=created)


def _write(path: Path, key: PrivateKey) -> None:
    """Write a key whole or not at all, for its owner only."""
    text = json.dumps(key.private_jwk(), indent=1, sort_keys=True)
    part = path.with_suffix(".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
