"""A key set says what each key is for; what says nothing is believed for nothing."""

from typing import Any

import pytest

from farthing.protocol.keys import PublicKey
from farthing.protocol.platform_keys import PURPOSE, PlatformKeys, PlatformPurpose, jwk_for
from tests.papers import signing_key
from tests.protocol.vectors import cases, vectors

VECTORS = vectors("key_sets")
KEY, OTHER = (signing_key(name).public for name in ("one", "two"))
PLATFORM, JOURNAL = PlatformPurpose.PLATFORM, PlatformPurpose.JOURNAL


@pytest.mark.parametrize("case", cases(VECTORS["sets"]))
def test_a_key_set_is_read_as_the_vectors_say(case: dict[str, Any]) -> None:
    keys = PlatformKeys.read(case["keys"])

    assert list(keys.platform) == case["platform"]
    assert list(keys.journal) == case["journal"]


def test_keys_are_read_by_what_they_are_for_in_their_order() -> None:
    keys = PlatformKeys.read(
        [jwk_for(JOURNAL, OTHER), jwk_for(PLATFORM, KEY), jwk_for(JOURNAL, KEY)]
    )

    assert list(keys.journal) == [OTHER.thumbprint, KEY.thumbprint]
    assert keys.platform == {KEY.thumbprint: KEY}
    assert PlatformKeys.read(keys.jwks()) == keys


@pytest.mark.parametrize("purpose", ["payer", "Journal", "", None, 1, ["journal"], {"journal": 1}])
def test_a_key_for_what_is_not_known_is_believed_for_nothing(purpose: object) -> None:
    assert PlatformKeys.read([{**KEY.jwk(), PURPOSE: purpose}]) == PlatformKeys()


def test_a_key_that_says_no_purpose_is_believed_for_nothing() -> None:
    assert PlatformKeys.read([KEY.jwk()]) == PlatformKeys()


def test_what_others_add_to_a_key_is_passed_over() -> None:
    jwk = {**jwk_for(JOURNAL, KEY), "kid": "k", "use": "sig", "x5c": ["y"]}

    assert PlatformKeys.read([jwk]) == PlatformKeys.of(journal=[KEY])


@pytest.mark.parametrize("member", ["text", None, [], {PURPOSE: "journal"}, {"kty": "RSA"}])
def test_what_is_no_key_is_passed_over(member: Any) -> None:
    known: PublicKey = KEY

    assert PlatformKeys.read([member, jwk_for(JOURNAL, known)]).journal == {known.thumbprint: known}
