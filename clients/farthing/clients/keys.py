"""A private key in a file: made once, kept as a JWK, readable by its owner alone.

Boundary: files and entropy. What a key does is `farthing.protocol.keys`.
"""

import stat
from pathlib import Path
from typing import Final

from farthing.clients.clock import Entropy, random_bytes
from farthing.clients.files import write_new
from farthing.protocol.canonical import InvalidJson, canonical_bytes, parse_json
from farthing.protocol.keys import InvalidKey, PrivateKey

__all__ = ["UnusableKey", "keep_key", "load_key", "new_key", "save_key"]

_FILE_BYTES_MAX: Final = 4096
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class UnusableKey(ValueError):
    """The file holds no private key, or others can read it."""


def new_key(entropy: Entropy = random_bytes) -> PrivateKey:
    """Make an Ed25519 key."""
    return PrivateKey.from_seed(entropy(32))


def save_key(path: Path, key: PrivateKey) -> None:
    """Write a key to a new file; an existing file is never replaced.

    Raises:
        FileExistsError: There is a file of this name.
    """
    write_new(path, canonical_bytes(key.private_jwk()) + b"\n")


def load_key(path: Path) -> PrivateKey:
    """Read a key.

    Raises:
        FileNotFoundError: There is no such file.
        UnusableKey: The file is not a private JWK, or its mode lets others in.
    """
    if path.stat().st_mode & _OTHERS:
        raise UnusableKey(f"{path} can be read by others; make it yours alone: chmod 600 {path}")
    with path.open("rb") as file:
        raw = file.read(_FILE_BYTES_MAX)
    try:
        jwk = parse_json(raw)
        if isinstance(jwk, dict):
            return PrivateKey.from_jwk(jwk)
    except (InvalidJson, InvalidKey) as error:
        raise UnusableKey(f"{path} holds no private key: {error}") from None
    raise UnusableKey(f"{path} holds no private key")


def keep_key(path: Path, entropy: Entropy = random_bytes) -> PrivateKey:
    """The key of a file; made on the first call, the same for ever after.

    Raises:
        UnusableKey: As `load_key`.
    """
    try:
        return load_key(path)
    except FileNotFoundError:
        key = new_key(entropy)
    try:
        save_key(path, key)
    except FileExistsError:  # another process made it meanwhile: there is one key, not two
        return load_key(path)
    return key
