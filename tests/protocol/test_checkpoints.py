"""A tree head is signed text that this log's key alone can have written."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.protocol.checkpoints import (
    Checkpoint,
    CheckpointError,
    CheckpointFault,
    note_key_id,
    sign_checkpoint,
    verifier_key,
    verify_checkpoint,
)
from farthing.protocol.keys import PrivateKey, PublicKey
from farthing.protocol.merkle import EMPTY_ROOT, leaf_hash
from farthing.protocol.money import INT64_MAX
from tests.protocol.test_keys import ES256
from tests.protocol.vectors import cases, vectors

VECTORS = vectors("checkpoints")
KEY = PrivateKey.from_jwk(VECTORS["jwk"])
ORIGIN: str = VECTORS["origin"]
ROOT = leaf_hash(b"")
NOTE = sign_checkpoint(KEY, Checkpoint(origin=ORIGIN, size=1, root=ROOT))


def head(case: dict[str, Any]) -> Checkpoint:
    return Checkpoint(origin=case["origin"], size=case["size"], root=bytes.fromhex(case["root"]))


def fault(note: str, origin: str = ORIGIN) -> CheckpointFault:
    with pytest.raises(CheckpointError) as refused:
        verify_checkpoint(note, origin, KEY.public)
    return refused.value.reason


@pytest.mark.parametrize("case", VECTORS["checkpoints"])
def test_a_tree_head_is_signed_and_verified(case: dict[str, Any]) -> None:
    assert sign_checkpoint(KEY, head(case)) == case["note"]
    assert verify_checkpoint(case["note"], ORIGIN, KEY.public) == head(case)


@pytest.mark.parametrize("case", cases(VECTORS["also_accepted"]))
def test_witnesses_may_sign_beside_the_log(case: dict[str, Any]) -> None:
    assert verify_checkpoint(case["note"], ORIGIN, KEY.public).size == case["size"]


@pytest.mark.parametrize("case", cases(VECTORS["refused"]))
def test_any_other_note_is_refused_for_its_reason(case: dict[str, Any]) -> None:
    assert fault(case["note"], case.get("origin", ORIGIN)) == case["reason"]


@pytest.mark.parametrize("case", cases(VECTORS["key_ids"]))
def test_published_notes_have_our_key_ids_and_verify(case: dict[str, Any]) -> None:
    key = PublicKey.from_jwk(case["jwk"])
    stamped = base64.b64decode(case["signature"])
    assert note_key_id(case["name"], key).hex() == case["key_id"]
    assert stamped[:4].hex() == case["key_id"]
    assert key.verify(stamped[4:], case["text"].encode())


@given(st.integers(1, INT64_MAX), st.binary(min_size=32, max_size=32))
def test_every_tree_head_survives_its_note(size: int, root: bytes) -> None:
    checkpoint = Checkpoint(origin=ORIGIN, size=size, root=root)
    note = sign_checkpoint(KEY, checkpoint)
    assert verify_checkpoint(note, ORIGIN, KEY.public) == checkpoint


@given(st.integers(0, len(NOTE) - 1), st.characters(max_codepoint=0x2100))
def test_one_character_changed_anywhere_voids_a_note(index: int, letter: str) -> None:
    changed = NOTE[:index] + letter + NOTE[index + 1 :]
    if changed != NOTE:
        fault(changed)


@given(st.integers(0, len(NOTE) - 1))
def test_a_truncated_note_is_void(length: int) -> None:
    assert fault(NOTE[:length]) is CheckpointFault.MALFORMED


@given(st.text())
def test_no_text_raises_anything_but_a_reason(text: str) -> None:
    fault(text)
    fault(f"{ORIGIN}\n1\n{text}\n\n— {text}\n")


def test_a_note_of_hostile_size_is_refused() -> None:
    assert fault(NOTE + "— w AAAA\n" * 100_000) is CheckpointFault.MALFORMED
    assert fault(NOTE + f"— w {'A' * 200_000}\n") is CheckpointFault.MALFORMED


@pytest.mark.parametrize(
    "checkpoint",
    [
        Checkpoint(origin="", size=1, root=ROOT),
        Checkpoint(origin="with space", size=1, root=ROOT),
        Checkpoint(origin="with+plus", size=1, root=ROOT),
        Checkpoint(origin="two\nlines", size=1, root=ROOT),
        Checkpoint(origin="bé", size=1, root=ROOT),
        Checkpoint(origin="o" * 256, size=1, root=ROOT),
        Checkpoint(origin=ORIGIN, size=-1, root=ROOT),
        Checkpoint(origin=ORIGIN, size=INT64_MAX + 1, root=ROOT),
        Checkpoint(origin=ORIGIN, size=0, root=ROOT),
        Checkpoint(origin=ORIGIN, size=1, root=EMPTY_ROOT),
        Checkpoint(origin=ORIGIN, size=1, root=ROOT[:-1]),
    ],
)
def test_a_head_that_could_not_be_read_is_not_signed(checkpoint: Checkpoint) -> None:
    with pytest.raises(CheckpointError) as refused:
        sign_checkpoint(KEY, checkpoint)
    assert refused.value.reason is CheckpointFault.MALFORMED


def test_tree_heads_are_signed_with_ed25519_alone() -> None:
    with pytest.raises(CheckpointError):
        sign_checkpoint(ES256, Checkpoint(origin=ORIGIN, size=1, root=ROOT))
    with pytest.raises(CheckpointError):
        verify_checkpoint(NOTE, ORIGIN, ES256.public)


def test_a_key_is_written_as_other_tools_read_it() -> None:
    """The example key of Go's golang.org/x/mod/sumdb/note."""
    line = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    raw = base64.b64decode(line.rpartition("+")[2])[1:]
    x = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    key = PublicKey.from_jwk({"kty": "OKP", "crv": "Ed25519", "x": x})

    assert verifier_key("PeterNeumann", key) == line
