"""Who pinned a key of the platform's is led to its successors, and by nobody else."""

from typing import Any

import pytest

from farthing.protocol.canonical import canonical_bytes
from farthing.protocol.keys import PublicKey
from farthing.protocol.signatures import Typ, sign_detached
from farthing.protocol.succession import followed, sign_succession
from tests.papers import signing_key

FIRST, SECOND, THIRD, STRANGER = (signing_key(name) for name in ("one", "two", "three", "stranger"))


def named(old: Any, new: Any) -> dict[str, Any]:
    return sign_succession(old, new.public, origin="market/journal", purpose="platform")


def pinned(*keys: Any) -> dict[str, PublicKey]:
    return {key.thumbprint: key.public for key in keys}


def test_each_key_leads_to_the_next() -> None:
    chain = [named(FIRST, SECOND), named(SECOND, THIRD)]

    assert [key.thumbprint for key in followed(pinned(FIRST), chain)] == [
        SECOND.thumbprint,
        THIRD.thumbprint,
    ]
    assert [key.thumbprint for key in followed(pinned(SECOND), chain)] == [THIRD.thumbprint]
    assert followed(pinned(FIRST, SECOND, THIRD), chain) == []


def test_what_nobody_believed_has_signed_leads_nowhere() -> None:
    chain = [named(STRANGER, SECOND), named(SECOND, THIRD)]

    assert followed(pinned(FIRST), chain) == []


def forged(**changes: Any) -> dict[str, Any]:
    succession = named(FIRST, SECOND)
    return succession | {"document": succession["document"] | changes}


def of_another_kind() -> dict[str, Any]:
    document = named(FIRST, SECOND)["document"]
    signature = sign_detached(FIRST, Typ.NEW_KEY, canonical_bytes(document))
    return {"document": document, "signature": signature}


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param(forged(key=dict(THIRD.public.jwk())), id="another key"),
        pytest.param(forged(purpose="journal"), id="another purpose"),
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
    assert followed(pinned(FIRST), [lie]) == []
    assert [key.thumbprint for key in followed(pinned(FIRST), [lie, named(FIRST, SECOND)])] == [
        SECOND.thumbprint
    ]


def test_a_list_without_end_is_not_read_to_the_end() -> None:
    def endless() -> Any:
        while True:
            yield None

    assert followed(pinned(FIRST), endless()) == []
