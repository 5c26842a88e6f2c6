"""Who pinned a key of the platform's is led to its successors, and by nobody else."""

from collections.abc import Sequence
from typing import Any

import pytest

from farthing.protocol.canonical import canonical_bytes
from farthing.protocol.platform_keys import PlatformKeys, PlatformPurpose
from farthing.protocol.signatures import Typ, sign_detached
from farthing.protocol.succession import followed, sign_succession
from tests.papers import signing_key
from tests.protocol.vectors import cases, vectors

FIRST, SECOND, THIRD, STRANGER = (signing_key(name) for name in ("one", "two", "three", "stranger"))
PLATFORM, JOURNAL = PlatformPurpose.PLATFORM, PlatformPurpose.JOURNAL


def named(old: Any, new: Any, purpose: PlatformPurpose = PLATFORM) -> dict[str, Any]:
    return sign_succession(old, new.public, origin="market/journal", purpose=purpose)


def pinned(*keys: Any, journal: Sequence[Any] = ()) -> PlatformKeys:
    return PlatformKeys.of(
        platform=[key.public for key in keys], journal=[key.public for key in journal]
    )


@pytest.mark.parametrize("case", cases(vectors("key_sets")["successions"]))
def test_successions_are_followed_as_the_vectors_say(case: dict[str, Any]) -> None:
    keys = followed(PlatformKeys.read(case["pinned"]), case["successions"])

    assert list(keys.platform) == case["platform"]
    assert list(keys.journal) == case["journal"]


@pytest.mark.parametrize("purpose", PlatformPurpose)
def test_each_key_leads_to_the_next(purpose: PlatformPurpose) -> None:
    def believed(*keys: Any) -> PlatformKeys:
        return pinned(*keys) if purpose is PLATFORM else pinned(journal=keys)

    chain = [named(FIRST, SECOND, purpose), named(SECOND, THIRD, purpose)]

    assert followed(believed(FIRST), chain) == believed(FIRST, SECOND, THIRD)
    assert followed(believed(SECOND), chain) == believed(SECOND, THIRD)
    assert followed(believed(FIRST, SECOND, THIRD), chain) == believed(FIRST, SECOND, THIRD)


def test_what_nobody_believed_has_signed_leads_nowhere() -> None:
    chain = [named(STRANGER, SECOND), named(SECOND, THIRD)]

    assert followed(pinned(FIRST), chain) == pinned(FIRST)


def test_a_platform_key_names_no_key_of_the_journal() -> None:
    believed = pinned(FIRST, journal=[SECOND])

    assert followed(believed, [named(FIRST, THIRD, JOURNAL)]) == believed
    # Nor by way of a successor of its own.
    assert followed(believed, [named(FIRST, THIRD), named(THIRD, STRANGER, JOURNAL)]) == pinned(
        FIRST, THIRD, journal=[SECOND]
    )


def test_the_journals_key_names_those_for_the_rest_and_so_does_what_comes_after_it() -> None:
    chain = [named(FIRST, SECOND, JOURNAL), named(SECOND, THIRD)]

    assert followed(pinned(journal=[FIRST]), chain) == pinned(THIRD, journal=[FIRST, SECOND])
    assert followed(pinned(journal=[STRANGER]), chain) == pinned(journal=[STRANGER])


def test_what_names_a_key_of_another_log_leads_nowhere_in_this_one() -> None:
    chain = [named(FIRST, SECOND, JOURNAL), named(SECOND, THIRD)]
    believed = pinned(journal=[FIRST])

    assert followed(believed, chain, "market/journal") == pinned(THIRD, journal=[FIRST, SECOND])
    assert followed(believed, chain, "another/journal") == believed


def forged(**changes: Any) -> dict[str, Any]:
    succession = named(FIRST, SECOND)
    return succession | {"document": succession["document"] | changes}


def signed(**changes: Any) -> dict[str, Any]:
    document = named(FIRST, SECOND)["document"] | changes
    signature = sign_detached(FIRST, Typ.SUCCESSION, canonical_bytes(document))
    return {"document": document, "signature": signature}


def of_another_kind() -> dict[str, Any]:
    document = named(FIRST, SECOND)["document"]
    signature = sign_detached(FIRST, Typ.NEW_KEY, canonical_bytes(document))
    return {"document": document, "signature": signature}


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param(forged(key=dict(THIRD.public.jwk())), id="another key"),
        pytest.param(forged(purpose="journal"), id="another purpose"),
        pytest.param(signed(purpose="payer"), id="a purpose that is none of the platform's"),
        pytest.param(signed(purpose=""), id="no purpose"),
        pytest.param(signed(purpose=["platform"]), id="a purpose that is no text"),
        pytest.param(forged(schema="farthing-succession/2"), id="another schema"),
        pytest.param(of_another_kind(), id="another kind of signature"),
        pytest.param(named(FIRST, SECOND) | {"signature": "a..b"}, id="no signature"),
        pytest.param({"document": named(FIRST, SECOND)["document"]}, id="half of it"),
        pytest.param({"document": [], "signature": "a..b"}, id="no document"),
        pytest.param(forged(key={"kty": "OKP"}), id="no key"),
        pytest.param("text", id="text"),
        pytest.param(None, id="nothing"),
    ],
)
def test_what_is_no_succession_is_passed_over(lie: object) -> None:
    believed = pinned(FIRST, journal=[FIRST])

    assert followed(believed, [lie]) == believed
    assert (
        followed(believed, [lie, named(FIRST, SECOND)]).platform == pinned(FIRST, SECOND).platform
    )


def test_a_list_without_end_is_not_read_to_the_end() -> None:
    def endless() -> Any:
        while True:
            yield None

    assert followed(pinned(FIRST), endless()) == pinned(FIRST)
