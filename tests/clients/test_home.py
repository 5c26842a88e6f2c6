"""A home belongs to one principal at one platform, and a damaged one is not used."""

import os
from collections.abc import Iterator
from errno import ENOSPC
from pathlib import Path

import httpx2
import pytest

from farthing.clients.buyers import Buyer
from farthing.clients.documents import Offer
from farthing.clients.files import write_whole
from farthing.clients.home import Home, Profile, default_home
from farthing.clients.transport import Connection
from farthing.protocol.canonical import canonical_bytes
from farthing.protocol.errors import Unverified
from farthing.protocol.keys import PrivateKey
from farthing.protocol.platform_keys import PlatformKeys, PlatformPurpose
from farthing.protocol.succession import SUCCESSIONS, sign_succession
from tests.papers import card_document, listing_document, signing_key, terms_document

KEY, FRONT, OTHER = (signing_key(name) for name in ("journal", "front end", "other"))
PLATFORM = "http://127.0.0.1:8321"
VENDOR = "org_00000000000000000000000000"


def published(*journal: PrivateKey) -> PlatformKeys:
    """A platform's keys: one to promise with, and those of its journal."""
    return PlatformKeys.of(platform=[FRONT.public], journal=[key.public for key in journal])


def publishing(*journal: PrivateKey, names: PrivateKey = FRONT) -> httpx2.AsyncClient:
    """What a platform publishes; each key of its journal names one to promise with."""
    named = [
        sign_succession(
            key, names.public, origin="market/journal", purpose=PlatformPurpose.PLATFORM
        )
        for key in journal
    ]
    answer = {"keys": published(*journal).jwks(), SUCCESSIONS: named}
    return httpx2.AsyncClient(
        transport=httpx2.MockTransport(lambda _: httpx2.Response(200, json=answer))
    )


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    yield Home(tmp_path / "home")
    for file in (tmp_path / "home").rglob("*.json"):
        assert file.stat().st_mode & 0o077 == 0


async def test_the_platforms_keys_are_pinned_when_they_are_first_seen(home: Home) -> None:
    first = await home.meet(f"{PLATFORM}/mcp", http=publishing(KEY))
    again = await home.meet(PLATFORM, http=publishing())

    assert first == again == home.profile()
    assert first.url == PLATFORM
    assert first.pinned() == published(KEY)


async def test_a_platform_that_names_no_key_of_its_journal_is_not_met(home: Home) -> None:
    with pytest.raises(Unverified, match="of no key that it is for its journal"):
        await home.meet(PLATFORM, http=publishing())

    assert home.profile() is None


async def test_a_trusted_key_alone_is_pinned_for_the_journal(home: Home) -> None:
    profile = await home.meet(PLATFORM, KEY.thumbprint, http=publishing(OTHER, KEY))

    assert profile.pinned() == published(KEY)
    assert home.profile() == profile


async def test_a_key_that_is_trusted_later_is_from_then_on_alone(home: Home) -> None:
    first = await home.meet(PLATFORM, http=publishing(OTHER, KEY))
    profile = await home.meet(PLATFORM, KEY.thumbprint, http=publishing(KEY))

    assert first.pinned() == published(OTHER, KEY)
    assert profile.pinned() == published(KEY)
    assert home.profile() == profile


async def test_with_a_trusted_key_nothing_is_pinned_that_it_does_not_name(home: Home) -> None:
    first = await home.meet(PLATFORM, http=publishing(KEY, names=OTHER))
    profile = await home.meet(PLATFORM, KEY.thumbprint, http=publishing(KEY, names=OTHER))

    assert first.pinned().platform.keys() == {FRONT.thumbprint}
    assert profile.pinned().platform.keys() == {OTHER.thumbprint}
    with pytest.raises(Unverified, match="names none of the keys that"):
        await home.meet(PLATFORM, KEY.thumbprint, http=publishing())
    assert home.profile() == profile


async def test_a_key_that_only_promises_is_not_trusted_as_the_journal_s(home: Home) -> None:
    with pytest.raises(Unverified, match="and no receipt: trust the key of its journal"):
        await home.meet(PLATFORM, FRONT.thumbprint, http=publishing(KEY))
    assert home.profile() is None

    await home.meet(PLATFORM, http=publishing(KEY))

    with pytest.raises(Unverified, match="and no receipt"):
        await home.meet(PLATFORM, FRONT.thumbprint, http=publishing(KEY))


async def test_nobody_but_an_agent_buys_from_a_home(home: Home) -> None:
    await home.meet(PLATFORM, http=publishing(KEY))

    with pytest.raises(Unverified, match="`farthing agents register NAME` makes"):
        async with Buyer.from_env({"FARTHING_HOME": str(home.path)}):
            pass


async def test_another_platform_or_another_key_is_not_met(home: Home) -> None:
    other = OTHER.thumbprint
    with pytest.raises(Unverified):
        await home.meet(PLATFORM, other, http=publishing(KEY))
    assert home.profile() is None

    await home.meet(PLATFORM, http=publishing(KEY))

    with pytest.raises(Unverified):
        await home.meet("http://127.0.0.1:1")
    with pytest.raises(Unverified):
        await home.meet(PLATFORM, other, http=publishing(KEY))


async def test_a_platform_that_publishes_none_of_the_pinned_keys_is_another(home: Home) -> None:
    profile = await home.meet(PLATFORM, http=publishing(KEY))

    await home.recognise(profile, Connection(PLATFORM, http=publishing(OTHER, KEY)))
    with pytest.raises(Unverified, match="this is not the platform"):
        await home.recognise(profile, Connection(PLATFORM, http=publishing(OTHER)))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"url":1,"platform_keys":[]}',
        b'{"url":"u","platform_keys":[],"more":"x"}',
        b'{"url":"u","platform_keys":[{"kty":"RSA"}]}',
        b'{"url":"u","platform_keys":[{"kty":"RSA","org.farthing/purpose":"journal"}]}',
        canonical_bytes(
            {"url": "u", "platform_keys": [{**KEY.public.jwk(), "org.farthing/purpose": "payer"}]}
        ),
    ],
)
def test_a_damaged_profile_is_not_believed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "profile.json").write_bytes(content)

    with pytest.raises(Unverified):
        Home(tmp_path).profile()


def test_a_profile_without_its_members_is_named_with_the_way_on(tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    file.write_bytes(b"{}")

    with pytest.raises(
        Unverified, match=r"damaged at url .*: move it away, then farthing keys pin"
    ):
        Home(tmp_path).profile()


def test_a_profile_whose_keys_say_no_purpose_is_not_used_and_says_what_to_do(home: Home) -> None:
    profile = Profile(url=PLATFORM, platform_keys=(KEY.public.jwk(),), principal_id="agt_x")
    home.save_profile(profile)

    with pytest.raises(Unverified, match=f"move it away, then farthing keys pin --url {PLATFORM}"):
        home.profile()


def test_an_offer_is_kept_as_it_was_published(home: Home) -> None:
    card, terms = card_document(), terms_document()
    offer = Offer.bind(listing_document(VENDOR, card, terms), card, terms)

    home.save_offer("pdf-text", offer)

    assert home.offer("pdf-text") == offer
    with pytest.raises(Unverified):
        home.offer("other")
    with pytest.raises(ValueError, match="name of an offer"):
        home.offer("../key")
    file = home.path / "listings" / "pdf-text.json"
    file.write_bytes(file.read_bytes().replace(b'"0.002"', b'"0.003"'))
    with pytest.raises(Unverified):
        home.offer("pdf-text")


def test_the_environment_names_the_home(tmp_path: Path) -> None:
    assert default_home({"FARTHING_HOME": str(tmp_path)}) == Home(tmp_path)
    assert default_home({}).path.parts[-2:] == (".config", "farthing")


async def test_a_profile_survives_its_file(home: Home) -> None:
    profile = Profile(
        url=PLATFORM,
        platform_keys=published(KEY).jwks(),
        principal_id="agt_x",
        organisation_id="org_x",
        role="buyer",
    )

    home.save_profile(profile)

    assert home.profile() == profile
    async with home.connection(profile) as connection:
        assert connection.principal == "agt_x"
        assert connection.signer is not None
        assert connection.signer.thumbprint == home.key().thumbprint


async def test_what_is_sold_is_reported_as_plain_http_and_all_else_over_mcp(home: Home) -> None:
    profile = Profile(url=PLATFORM, platform_keys=published(KEY).jwks(), principal_id=VENDOR)

    async with home.connection(profile) as own, home.serving_connection(profile) as serving:
        assert (own.transport, serving.transport) == ("mcp", "http")
        assert own.signer is not None
        assert serving.signer is not None
        assert serving.signer.thumbprint == own.signer.thumbprint


def test_every_directory_on_the_way_to_a_file_is_its_owners_alone(tmp_path: Path) -> None:
    write_whole(tmp_path / "a" / "b" / "c", b"")

    modes = {each: (tmp_path / each).stat().st_mode & 0o777 for each in ("a", "a/b", "a/b/c")}
    assert modes == {"a": 0o700, "a/b": 0o700, "a/b/c": 0o600}


def test_a_full_disk_is_left_no_fuller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(tmp_path / "profile.json", b"{}")

    assert list(tmp_path.iterdir()) == []
