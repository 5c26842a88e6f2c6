"""The platform's own keys, by purpose, in files that only their owner can read.

Boundary: makes, keeps, loads and retires keys. A journal's keys are made once, with its name;
afterwards they are there or the server does not start. What nothing lasting depends on, the key
that pays vendors and the secret that results are kept under, is made anew where it is missing.
Agents' private keys never come here.
Source: spec/configuration.md.
"""

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from farthing.protocol import base64url
from farthing.protocol.canonical import InvalidJson, Json, canonical_bytes, parse_json
from farthing.protocol.errors import FarthingError
from farthing.protocol.keys import InvalidKey, PrivateKey, PublicKey
from farthing.protocol.platform_keys import PlatformPurpose, jwk_for
from farthing.protocol.succession import SUCCESSIONS, sign_succession

__all__ = [
    "Keyring",
    "Purpose",
    "UnusableKeys",
    "check_unused",
    "mark_used",
    "open_keyring",
    "open_secret",
    "retire",
]

_SEED_BYTES: Final = 32
_SECRET_BYTES: Final = 32
_FILE_BYTES_MAX: Final = 4096
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_ORIGIN: Final = "journal.origin"
_BEGUN: Final = "journal.begun"
_RETIRED: Final = "retired"
_SUCCESSION: Final = ".succession.json"


class Purpose(StrEnum):
    """What a key is for. One key, one purpose."""

    PLATFORM = "platform"
    JOURNAL = "journal"
    ADMIN = "admin"
    TREASURER = "treasurer"
    PAYER = "payer"


# What the platform signs with, and what it publishes. The staff's keys are registered in the
# first record and may then be taken elsewhere.
_OWN: Final = {
    Purpose.PLATFORM: PlatformPurpose.PLATFORM,
    Purpose.JOURNAL: PlatformPurpose.JOURNAL,
}


class UnusableKeys(FarthingError):
    """A key file is missing, open to others, or holds no key; the text says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyring:
    """The keys in force and where they lie.

    Args:
        folder: where the files are.
        origin: the journal's name in its signed heads, fixed when its key was made.
        keys: by purpose; a staff key that was taken elsewhere is absent.
        publics: the public halves of all of them, held or not.
        retired: the public halves of keys that signed before, oldest first.
        successions: what each of them said of the next, oldest first; then what the journal's key
            says of each key for `platform`.
        created: whether this start made them.
    """

    folder: Path
    origin: str
    keys: Mapping[Purpose, PrivateKey]
    publics: Mapping[Purpose, PublicKey]
    retired: Mapping[Purpose, tuple[PublicKey, ...]]
    successions: tuple[Mapping[str, Json], ...]
    created: bool

    def __getitem__(self, purpose: Purpose) -> PrivateKey:
        """The key of a purpose; raises `UnusableKeys` where it is not here."""
        if purpose not in self.keys:
            raise UnusableKeys(f"{self.path(purpose)} is not there")
        return self.keys[purpose]

    def public(self, purpose: Purpose) -> PublicKey:
        """The public half of a key; raises `UnusableKeys` where there is none."""
        if purpose not in self.publics:
            raise UnusableKeys(f"{self.path(purpose)} is not there")
        return self.publics[purpose]

    def verifying(self, purpose: Purpose) -> tuple[PublicKey, ...]:
        """The public halves of a key and of those that it came after; raises as `public`."""
        return (self.public(purpose), *self.retired[purpose])

    def only(self, *purposes: Purpose) -> "Keyring":
        """The same with no other private keys than these: a process holds what it signs with."""
        return replace(self, keys={purpose: self[purpose] for purpose in purposes})

    def path(self, purpose: Purpose) -> Path:
        """The file of a key."""
        return _path(self.folder, purpose)

    def jwks(self) -> dict[str, Json]:
        """What the platform publishes: every key it signs or ever signed with (RFC 7517).

        With each what it is for, and beside them which of them named it.
        """
        # By thumbprint, once each: a retirement that was cut short left its key in both places.
        published = {
            key.thumbprint: {
                **jwk_for(own, key),
                "alg": key.alg,
                "kid": key.thumbprint,
                "use": "sig",
            }
            for purpose, own in _OWN.items()
            for key in (self.publics[purpose], *reversed(self.retired[purpose]))
        }
        return {
            "keys": [{**jwk} for jwk in published.values()],
            SUCCESSIONS: [dict(each) for each in self.successions],
        }


def open_keyring(
    folder: Path, entropy: Callable[[int], bytes], *, origin: str, begun: bool
) -> Keyring:
    """Load the platform's keys; make them where there is no journal yet.

    Args:
        folder: where the key files lie; made with mode 0700.
        entropy: random bytes of a length.
        origin: the name of a journal that begins now; one that has begun keeps its own.
        begun: whether there is a journal, which no new key could go on signing.

    Raises:
        UnusableKeys: a key of a journal that has begun is missing, a file is not usable, or the
            journal of these keys is missing.
        OSError: the folder or a file cannot be read or written.
    """
    if not begun:
        check_unused(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    missing = [purpose for purpose in Purpose if not _path(folder, purpose).exists()]
    for purpose in missing:
        if not begun or (purpose is Purpose.PAYER and (folder / _ORIGIN).exists()):
            key = PrivateKey.from_seed(entropy(_SEED_BYTES))
            _write_new(_path(folder, purpose), canonical_bytes(key.private_jwk()) + b"\n")
    if not begun:
        _write_new(folder / _ORIGIN, f"{origin}\n".encode())
    elif lost := [str(_path(folder, purpose)) for purpose in missing if purpose in _OWN]:
        text = f"{', '.join(lost)}: put back the keys of this journal; no other can go on with it"
        raise UnusableKeys(text)
    paths = {purpose: _path(folder, purpose) for purpose in Purpose}
    keys = {purpose: _private(path) for purpose, path in paths.items() if path.exists()}
    retired = {purpose: _retired(folder, purpose) for purpose in Purpose}
    name = _origin(folder)
    named = (
        sign_succession(keys[Purpose.JOURNAL], key, origin=name, purpose=PlatformPurpose.PLATFORM)
        for key in (*retired[Purpose.PLATFORM], keys[Purpose.PLATFORM].public)
    )
    return Keyring(
        folder=folder,
        origin=name,
        keys=keys,
        publics={purpose: key.public for purpose, key in keys.items()},
        retired=retired,
        successions=(*_successions(folder), *named),
        created=bool(missing) and not begun,
    )


def check_unused(folder: Path) -> None:
    """Refuse to begin a journal under keys that have signed another: nobody could tell them apart.

    Raises:
        UnusableKeys: one has begun.
    """
    if (folder / _BEGUN).exists():
        text = f"the journal of the keys in {folder} is not there: put it back, or restore a backup"
        raise UnusableKeys(f"{text}; another begins with keys of its own, in another folder")


def mark_used(folder: Path) -> None:
    """Remember that a journal has begun under the keys of a folder."""
    if not (folder / _BEGUN).exists():
        _write_new(folder / _BEGUN, b"")


def open_secret(folder: Path, name: str, entropy: Callable[[int], bytes]) -> bytes:
    """Load a secret of 256 bits for what the platform keeps to itself; made where it is missing.

    Args:
        folder: as `open_keyring`.
        name: what the file is called, without its ending.
        entropy: random bytes of a length.

    Raises:
        UnusableKeys, OSError: as `open_keyring`.
    """
    path = folder / f"{name}.jwk"
    if not path.exists():
        secret = base64url.encode(entropy(_SECRET_BYTES))
        _write_new(path, canonical_bytes({"k": secret, "kty": "oct"}) + b"\n")
    _check_mode(path)
    jwk = _jwk(path)
    try:
        kept = base64url.decode(str(jwk.get("k"))) if jwk.get("kty") == "oct" else b""
    except base64url.InvalidBase64:
        kept = b""
    if len(kept) != _SECRET_BYTES:
        raise UnusableKeys(f"{path} holds no secret")
    return kept


def retire(folder: Path, purpose: Purpose, entropy: Callable[[int], bytes]) -> PublicKey:
    """Put a new key in the place of one the platform signs with. The server must be stopped.

    The old private half is gone afterwards; its public half stays, so that what it signed
    verifies for ever. The last thing it signs is who comes after it.

    Returns:
        The new key's public half.

    Raises:
        UnusableKeys, OSError: as `open_keyring`.
    """
    if purpose not in _OWN:
        raise UnusableKeys(f"the {purpose.value}'s key is a principal's: use rotate_key")
    old = _private(_path(folder, purpose))
    key = PrivateKey.from_seed(entropy(_SEED_BYTES))
    named = sign_succession(old, key.public, origin=_origin(folder), purpose=_OWN[purpose])
    history = folder / _RETIRED
    history.mkdir(mode=0o700, exist_ok=True)
    # A key that was named by a retirement cut short is believed; it must be in nobody's hands.
    for part in folder.glob(f"{purpose.value}.*.part"):
        part.unlink()
    # After the last, not by their count: what is there already would be kept in its place.
    last = max((each.stem for each in history.glob(f"{purpose.value}-*.jwk")), default="-0")
    name = f"{purpose.value}-{int(last.rpartition('-')[2]) + 1:04d}.jwk"
    _write_new(history / name, canonical_bytes(dict(old.public.jwk())) + b"\n")
    _write_new(_succession(history / name), canonical_bytes(named) + b"\n")
    new = _part(folder, purpose.value, canonical_bytes(key.private_jwk()) + b"\n")
    new.replace(_path(folder, purpose))
    _sync(folder)
    return key.public


def _path(folder: Path, purpose: Purpose) -> Path:
    return folder / f"{purpose.value}.jwk"


def _origin(folder: Path) -> str:
    path = folder / _ORIGIN
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise UnusableKeys(f"{path} is not there: it names the journal of these keys") from None


def _private(path: Path) -> PrivateKey:
    _check_mode(path)
    try:
        return PrivateKey.from_jwk(_jwk(path))
    except InvalidKey as error:
        raise UnusableKeys(f"{path} holds no private key: {error}") from None


def _check_mode(path: Path) -> None:
    if path.stat().st_mode & _OTHERS:
        raise UnusableKeys(f"{path} can be read by others; make it yours alone: chmod 600 {path}")


def _retired(folder: Path, purpose: Purpose) -> tuple[PublicKey, ...]:
    files = sorted((folder / _RETIRED).glob(f"{purpose.value}-*.jwk"))
    try:
        return tuple(PublicKey.from_jwk(_jwk(file)) for file in files)
    except InvalidKey as error:
        raise UnusableKeys(f"{folder / _RETIRED} holds what is no public key: {error}") from None


def _successions(folder: Path) -> tuple[Mapping[str, Json], ...]:
    """In the order in which each purpose's keys were retired."""
    files = sorted((folder / _RETIRED).glob(f"*-*{_SUCCESSION}"))
    return tuple(_jwk(file) for file in files)


def _succession(retired: Path) -> Path:
    return retired.with_suffix(_SUCCESSION)


def _jwk(path: Path) -> Mapping[str, Json]:
    with path.open("rb") as file:
        raw = file.read(_FILE_BYTES_MAX)
    try:
        jwk = parse_json(raw)
    except InvalidJson as error:
        raise UnusableKeys(f"{path} holds no key: {error}") from None
    if not isinstance(jwk, dict):
        raise UnusableKeys(f"{path} holds no key")
    return jwk


def _write_new(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; whoever was first keeps what is there."""
    part = _part(path.parent, path.stem, data)
    try:
        path.hardlink_to(part)
    except FileExistsError:
        pass
    finally:
        part.unlink()
    _sync(path.parent)


def _part(folder: Path, stem: str, data: bytes) -> Path:
    """A durable file beside its later place, named after the process, for its owner alone."""
    part = folder / f"{stem}.{os.getpid()}.part"
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return part


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
