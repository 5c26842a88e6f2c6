"""Where a principal keeps its own: key, profile, published offers, spool, ceiling, books.

Boundary: one directory is one principal at one platform. `FARTHING_HOME` names it; without it,
`~/.config/farthing`.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

import httpx2
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from farthing.clients.documents import Offer
from farthing.clients.files import write_whole
from farthing.clients.keys import keep_key, load_key
from farthing.clients.transport import Connection, platform_url
from farthing.protocol.canonical import InvalidJson, Json, canonical_bytes, parse_json
from farthing.protocol.errors import Unverified
from farthing.protocol.keys import PrivateKey
from farthing.protocol.messages.agents import Registration
from farthing.protocol.platform_keys import PURPOSE, PlatformKeys
from farthing.protocol.succession import followed, successions_in

__all__ = ["Home", "Profile", "default_home"]

_SLUG: Final = re.compile(r"[a-z0-9]+(?:[-._][a-z0-9]+)*")


@checked(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True))
class Profile:
    """Who the principal is, and the keys of the platform as they were when it first met them.

    Args:
        url: The platform's public URL.
        platform_keys: The platform's public JWKs, pinned, each with its purpose.
        principal_id, organisation_id, role: Empty until registered.
    """

    url: str
    platform_keys: tuple[dict[str, str], ...]
    principal_id: str = ""
    organisation_id: str = ""
    role: str = ""

    def of(self, registration: Registration) -> "Profile":
        """The same platform's, of the principal that a registration is of."""
        return replace(
            self,
            principal_id=registration.principal_id,
            organisation_id=registration.organisation_id,
            role=registration.role.value,
        )

    def pinned(self) -> PlatformKeys:
        """The platform's keys by purpose."""
        return PlatformKeys.read(self.platform_keys)


@dataclass(frozen=True, slots=True)
class Home:
    """A principal's directory."""

    path: Path

    @property
    def key_path(self) -> Path:
        return self.path / "key.jwk"

    @property
    def metering_key_path(self) -> Path:
        """The key of a serving machine, where there is one."""
        return self.path / "metering.jwk"

    @property
    def spool_path(self) -> Path:
        return self.path / "spool.sqlite"

    @property
    def books_path(self) -> Path:
        """The folder of its spend sessions' books."""
        return self.path / "sessions"

    @property
    def head_path(self) -> Path:
        """The newest head of the journal that was proven here."""
        return self.path / "head.note"

    @property
    def ceiling_path(self) -> Path:
        return self.path / "ceiling.json"

    def key(self) -> PrivateKey:
        """The principal's key, made on the first call.

        Raises:
            UnusableKey: The file holds no private key, or others can read it.
        """
        return keep_key(self.key_path)

    def profile(self) -> Profile | None:
        """The profile, None before `save_profile`.

        Raises:
            Unverified: The file is damaged, or of an earlier version.
        """
        path = self.path / "profile.json"
        document = _read(path)
        if document is None:
            return None
        try:
            profile = TypeAdapter(Profile).validate_json(canonical_bytes(document))
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"]))
            raise _unusable(path, f"is damaged at {name} ({first['type']})", "URL") from None
        if any(PURPOSE not in jwk for jwk in profile.platform_keys):
            what = "does not say what the keys pinned in it are for, as an earlier version did not"
            raise _unusable(path, what, profile.url)
        pinned = profile.pinned().jwks()
        if not all(jwk in pinned for jwk in profile.platform_keys):
            what = "is damaged: a platform key is none, or for no known purpose"
            raise _unusable(path, what, profile.url)
        return profile

    def save_profile(self, profile: Profile) -> None:
        """Write the profile."""
        _write(
            self.path / "profile.json",
            {
                "url": profile.url,
                "platform_keys": [dict(jwk) for jwk in profile.platform_keys],
                "principal_id": profile.principal_id,
                "organisation_id": profile.organisation_id,
                "role": profile.role,
            },
        )

    def offer(self, name: str) -> Offer:
        """The offer that was published under a name.

        Raises:
            Unverified: There is none, or the file is damaged.
        """
        document = _read(self._offer_path(name))
        if document is None:
            raise Unverified(f"{self._offer_path(name)} is not there: publish the listing first")
        parts = document.get("listing"), document.get("rate_card"), document.get("terms")
        listing, card, terms = (part if isinstance(part, dict) else {} for part in parts)
        offer = Offer(listing=listing, rate_card=card, terms=terms)
        if Offer.bind(listing, card, terms) != offer:
            raise Unverified(f"{name}: the listing does not name its rate card and terms")
        return offer

    def save_offer(self, name: str, offer: Offer) -> None:
        """Keep an offer as it was published."""
        parts = {"listing": offer.listing, "rate_card": offer.rate_card, "terms": offer.terms}
        _write(self._offer_path(name), {key: dict(part) for key, part in parts.items()})

    def connection(self, profile: Profile) -> Connection:
        """The principal's way to its platform."""
        return Connection(profile.url, signer=self.key(), principal=profile.principal_id)

    def serving_connection(self, profile: Profile) -> Connection:
        """A vendor's way to its platform for what it sells: by its metering key, if it has one.

        The key of everything else need not be in the directory then, and is not made. Several
        calls of it stand behind one that is paid for, so they go as plain HTTP.
        """
        metered = self.metering_key_path.exists()
        signer = load_key(self.metering_key_path) if metered else self.key()
        principal = profile.principal_id
        return Connection(profile.url, signer=signer, principal=principal, transport="http")

    async def meet(
        self, url: str, trust: str = "", *, http: httpx2.AsyncClient | None = None
    ) -> Profile:
        """The profile for a platform, made on the first call by taking its keys as they are.

        Args:
            url: The platform's URL.
            trust: The thumbprint, learnt elsewhere, of a key of its journal: from now on it alone
                is pinned for that, and for the rest what it leads to; empty for trust on first use.
            http: Whose connections to use.

        Raises:
            Unverified: The platform is another than the one met first, or has not that key.
            Unreachable: It does not answer.
        """
        kept = profile = self.profile()
        if profile is not None and platform_url(url) != profile.url:
            raise Unverified(f"{self.path} belongs to {profile.url}, not to {url}")
        if profile is not None and not trust:
            return profile
        async with Connection(url, http=http) as connection:
            key_set = await connection.key_set()
        if profile is None:
            keys = PlatformKeys.read(key_set["keys"])
            if not keys.journal:
                raise Unverified(f"{url} says of no key that it is for its journal")
            profile = Profile(url=connection.url, platform_keys=keys.jwks())
        if trust:
            profile = _trusting(trust, profile, key_set)
        if profile != kept:
            self.save_profile(profile)
        return profile

    async def recognise(self, profile: Profile, connection: Connection) -> None:
        """Make sure that who answers is the platform that the profile is of.

        Raises:
            Unverified: It publishes none of the journal's keys that are pinned.
            Unreachable: It does not answer.
        """
        keys = await connection.platform_keys()
        if profile.pinned().journal.keys().isdisjoint(keys.journal):
            raise Unverified(
                f"this is not the platform that {self.path} belongs to: {connection.url} publishes "
                "none of the keys that are pinned there; start `farthing serve` where its "
                "farthing-data lies, or name another directory with --home or FARTHING_HOME"
            )

    def _offer_path(self, name: str) -> Path:
        if not _SLUG.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of an offer: lower-case words joined by -")
        return self.path / "listings" / f"{name}.json"


def _trusting(trust: str, profile: Profile, key_set: Mapping[str, object]) -> Profile:
    """The profile with this key alone for the journal, and for the rest only what it leads to.

    Whoever answered may have added keys of its own.
    """
    keys = profile.pinned()
    if trust in keys.platform:
        raise Unverified(
            f"{trust} signs quotes and entitlements for {profile.url}, and no receipt: trust the "
            "key of its journal, which farthing serve prints"
        )
    if trust not in keys.journal:
        raise Unverified(
            f"{trust} is not published, or not pinned, for the journal of {profile.url}"
        )
    alone = PlatformKeys(journal={trust: keys.journal[trust]})
    platform = followed(alone, successions_in(key_set)).platform
    if not platform:
        raise Unverified(
            f"{trust} names none of the keys that {profile.url} signs quotes and entitlements with"
        )
    return replace(profile, platform_keys=replace(alone, platform=platform).jwks())


def default_home(environment: Mapping[str, str] = os.environ) -> Home:
    """The directory that the environment names."""
    named = environment.get("FARTHING_HOME", "")
    return Home(Path(named).expanduser() if named else Path.home() / ".config" / "farthing")


def _read(path: Path) -> dict[str, Json] | None:
    try:
        document = parse_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except InvalidJson as error:
        raise Unverified(f"{path} is damaged: {error}") from None
    if not isinstance(document, dict):
        raise Unverified(f"{path} is damaged: not an object")
    return document


def _write(path: Path, document: dict[str, Any]) -> None:
    write_whole(path, canonical_bytes(cast("Json", document)) + b"\n")


def _unusable(path: Path, what: str, url: str) -> Unverified:
    return Unverified(
        f"{path} {what}: move it away, then farthing keys pin --url {url} --trust THUMBPRINT pins "
        "the platform's keys anew"
    )
