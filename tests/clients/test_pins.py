"""The pinned keys and their successors: asked for where a key is unknown, and not for each lie."""

from typing import Any

import httpx2
import pytest

from farthing.clients.pins import Pins, verified
from farthing.clients.transport import Connection
from farthing.protocol.errors import Unverified
from farthing.protocol.keys import PublicKey
from farthing.protocol.signatures import Typ, sign_detached
from farthing.protocol.succession import SUCCESSIONS, sign_succession
from tests.papers import signing_key

OLD, NEW, STRANGER = (signing_key(name) for name in ("old", "new", "stranger"))
SUCCESSION = sign_succession(OLD, NEW.public, origin="market/journal", purpose="platform")
SECOND_US = 1_000_000


class Platform:
    """A platform that publishes a key set, and counts how often it is asked."""

    def __init__(self, key_set: Any) -> None:
        self.key_set = key_set
        self.asked = 0
        self.now_us = 1_795_176_000 * SECOND_US

    def pins(self) -> Pins:
        http = httpx2.AsyncClient(transport=httpx2.MockTransport(self._answer))
        connection = Connection("http://127.0.0.1:1", http=http, clock=lambda: self.now_us)
        return Pins({OLD.thumbprint: OLD.public}, connection)

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        assert request.url.path == "/.well-known/jwks.json"
        self.asked += 1
        return httpx2.Response(200, json=self.key_set)


def signed(key: Any) -> str:
    return sign_detached(key, Typ.QUOTE, b"{}")


async def test_a_successor_is_learnt_where_something_is_signed_by_it() -> None:
    platform = Platform({"keys": [], SUCCESSIONS: [SUCCESSION]})
    pins = platform.pins()

    await pins.meet(signed(OLD))
    unasked = platform.asked
    await pins.meet(signed(NEW))
    await pins.meet(signed(NEW))

    assert (unasked, platform.asked) == (0, 1)
    assert set(pins) == {OLD.thumbprint, NEW.thumbprint}
    assert pins[NEW.thumbprint] == NEW.public


async def test_a_key_that_the_platform_only_publishes_is_not_believed() -> None:
    platform = Platform({"keys": [dict(STRANGER.public.jwk())], SUCCESSIONS: "nothing"})
    pins = platform.pins()

    await pins.meet(signed(STRANGER))

    assert STRANGER.thumbprint not in pins
    assert platform.asked == 1


async def test_made_up_keys_do_not_make_it_ask_again_and_again() -> None:
    platform = Platform({"keys": []})
    pins = platform.pins()

    for number in range(100):
        await pins.meet(signed(signing_key(f"made up {number}")))
    await pins.meet("no token")
    at_once = platform.asked
    platform.now_us += 10 * SECOND_US
    platform.key_set = {"keys": [], SUCCESSIONS: [SUCCESSION]}
    await pins.meet(signed(NEW))

    assert (at_once, platform.asked) == (1, 2)
    assert NEW.thumbprint in pins


async def test_where_the_platform_is_not_there_the_pinned_keys_stay_as_they_are() -> None:
    platform = Platform("no key set")
    pins = platform.pins()

    await pins.meet(signed(NEW))

    assert set(pins) == {OLD.thumbprint}


async def test_what_no_pinned_key_verifies_is_tried_with_their_successors() -> None:
    platform = Platform({"keys": [], SUCCESSIONS: [SUCCESSION]})

    def check(key: PublicKey) -> str:
        if key != NEW.public:
            raise Unverified(f"not signed by {key.thumbprint}")
        return "proven"

    def never(key: PublicKey) -> str:
        raise Unverified(f"not signed by {key.thumbprint}")

    assert await verified(platform.pins(), check) == "proven"
    with pytest.raises(Unverified, match=OLD.thumbprint):
        await verified(platform.pins(), never)
    with pytest.raises(Unverified, match="no key"):
        await verified({}, check)
