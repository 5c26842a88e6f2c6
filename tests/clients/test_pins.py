"""Pinned keys and their successors: believed for their purpose, not asked for with each lie."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from farthing.clients.pins import Pins
from farthing.clients.transport import Connection
from farthing.protocol.errors import Unverified
from farthing.protocol.keys import PublicKey
from farthing.protocol.platform_keys import PlatformKeys, PlatformPurpose, jwk_for
from farthing.protocol.signatures import Typ, sign_detached
from farthing.protocol.succession import SUCCESSIONS, sign_succession
from tests.papers import signing_key

OLD, NEW, JOURNAL, STRANGER = (signing_key(each) for each in ("old", "new", "journal", "stranger"))
HEAD = "market/journal\n"
SECOND_US = 1_000_000


def named(old: Any, purpose: PlatformPurpose = PlatformPurpose.PLATFORM) -> dict[str, Any]:
    """What a key says: that the new one comes after it."""
    return sign_succession(old, NEW.public, origin="market/journal", purpose=purpose)


class Platform:
    """A platform that publishes a key set, and counts how often it is asked."""

    def __init__(self, key_set: Any) -> None:
        self.key_set = key_set
        self.asked = 0
        self.now_us = 1_795_176_000 * SECOND_US

    def pins(self) -> Pins:
        http = httpx2.AsyncClient(transport=httpx2.MockTransport(self._answer))
        connection = Connection("http://127.0.0.1:1", http=http, clock=lambda: self.now_us)
        pinned = PlatformKeys.of(platform=[OLD.public], journal=[JOURNAL.public])
        return Pins(pinned, connection)

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        assert request.url.path == "/.well-known/jwks.json"
        self.asked += 1
        return httpx2.Response(200, json=self.key_set)


def signed(key: Any) -> str:
    return sign_detached(key, Typ.QUOTE, b"{}")


async def test_a_successor_is_learnt_where_something_is_signed_by_it() -> None:
    platform = Platform({"keys": [], SUCCESSIONS: [named(OLD)]})
    pins = platform.pins()

    await pins.meet(signed(OLD))
    unasked = platform.asked
    await pins.meet(signed(NEW))
    await pins.meet(signed(NEW))

    assert (unasked, platform.asked) == (0, 1)
    assert pins.platform == {key.thumbprint: key.public for key in (OLD, NEW)}
    assert pins.journal == {JOURNAL.thumbprint: JOURNAL.public}


async def test_whoever_meets_a_successor_while_it_is_asked_for_learns_it_too() -> None:
    platform = Platform({"keys": [], SUCCESSIONS: [named(OLD)]})
    pins = platform.pins()

    async def meets() -> bool:
        await pins.meet(signed(NEW))
        return NEW.thumbprint in pins.platform

    assert await asyncio.gather(*(meets() for _ in range(5))) == [True] * 5
    assert platform.asked == 1


async def test_a_key_that_the_platform_only_publishes_is_not_believed() -> None:
    published = [jwk_for(each, STRANGER.public) for each in PlatformPurpose]
    platform = Platform({"keys": published, SUCCESSIONS: "nothing"})
    pins = platform.pins()

    await pins.meet(signed(STRANGER))

    assert STRANGER.thumbprint not in {**pins.platform, **pins.journal}
    assert platform.asked == 1


async def test_made_up_keys_do_not_make_it_ask_again_and_again() -> None:
    platform = Platform({"keys": []})
    pins = platform.pins()

    for number in range(100):
        await pins.meet(signed(signing_key(f"made up {number}")))
    await pins.meet("no token")
    at_once = platform.asked
    platform.now_us += 10 * SECOND_US
    platform.key_set = {"keys": [], SUCCESSIONS: [named(OLD)]}
    await pins.meet(signed(NEW))

    assert (at_once, platform.asked) == (1, 2)
    assert NEW.thumbprint in pins.platform


async def test_where_the_platform_is_not_there_the_pinned_keys_stay_as_they_are() -> None:
    platform = Platform("no key set")
    pins = platform.pins()

    await pins.meet(signed(NEW))

    assert set(pins.platform) == {OLD.thumbprint}


def signed_by(signer: Any) -> Callable[[PublicKey], str]:
    def check(key: PublicKey) -> str:
        if key != signer.public:
            raise Unverified(f"not signed by {key.thumbprint}")
        return "proven"

    return check


async def test_what_no_pinned_key_of_the_journal_verifies_is_tried_with_their_successors() -> None:
    platform = Platform({"keys": [], SUCCESSIONS: [named(JOURNAL, PlatformPurpose.JOURNAL)]})

    assert await platform.pins().by_journal(HEAD, signed_by(JOURNAL)) == "proven"
    assert platform.asked == 0
    assert await platform.pins().by_journal(HEAD, signed_by(NEW)) == "proven"
    with pytest.raises(Unverified, match=JOURNAL.thumbprint):
        await platform.pins().by_journal(HEAD, signed_by(STRANGER))


async def test_a_successor_that_was_named_for_another_log_proves_nothing_of_this_one() -> None:
    platform = Platform({"keys": [], SUCCESSIONS: [named(JOURNAL, PlatformPurpose.JOURNAL)]})
    pins = platform.pins()

    assert await pins.by_journal(HEAD, signed_by(NEW)) == "proven"
    with pytest.raises(Unverified, match=JOURNAL.thumbprint):
        await pins.by_journal("another/journal\n", signed_by(NEW))


async def test_a_key_set_from_before_a_retirement_takes_no_successor_back() -> None:
    platform = Platform({"keys": [], SUCCESSIONS: [named(JOURNAL, PlatformPurpose.JOURNAL)]})
    pins = platform.pins()
    assert await pins.by_journal(HEAD, signed_by(NEW)) == "proven"

    platform.key_set = {"keys": []}
    platform.now_us += 11 * SECOND_US
    with pytest.raises(Unverified):
        await pins.by_journal(HEAD, signed_by(STRANGER))

    assert platform.asked == 2
    assert await pins.by_journal(HEAD, signed_by(NEW)) == "proven"


async def test_nothing_is_proven_where_no_key_of_the_journal_is_pinned() -> None:
    connection = Connection("http://127.0.0.1:1")

    with pytest.raises(Unverified, match="no key of the journal"):
        await Pins(PlatformKeys.of(platform=[OLD.public]), connection).by_journal(
            HEAD, signed_by(OLD)
        )


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param([], id="nothing"),
        pytest.param([named(OLD, PlatformPurpose.JOURNAL)], id="of the journal's key"),
        pytest.param([named(OLD)], id="of its own"),
    ],
)
async def test_a_platform_key_and_whom_it_names_prove_nothing(lie: list[Any]) -> None:
    relabelled = [jwk_for(PlatformPurpose.JOURNAL, key.public) for key in (OLD, NEW)]
    platform = Platform({"keys": relabelled, SUCCESSIONS: lie})
    pins = platform.pins()

    for thief in (OLD, NEW):
        with pytest.raises(Unverified, match=JOURNAL.thumbprint):
            await pins.by_journal(HEAD, signed_by(thief))


async def test_a_key_of_the_journal_promises_nothing_and_names_who_does() -> None:
    platform = Platform({"keys": [], SUCCESSIONS: [named(JOURNAL)]})
    pins = platform.pins()

    for each in (JOURNAL, NEW):
        await pins.meet(signed(each))

    assert set(pins.platform) == {OLD.thumbprint, NEW.thumbprint}
    assert set(pins.journal) == {JOURNAL.thumbprint}
