"""The signature of a batch binds every event of it, their order and the session."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.protocol.batches import events_in, sign_batch, verify_batch
from farthing.protocol.keys import PrivateKey
from farthing.protocol.signatures import InvalidSignature, Typ, sign_detached
from farthing.protocol.usage import UsageEvent, UsageOutcome, batch_bytes
from tests.protocol.vectors import cases, vectors

VECTORS = vectors("usage")
SESSION = VECTORS["session_id"]
OTHER = "ses_" + "0" * 26
VENDOR = PrivateKey.from_seed(b"v" * 32)
KEYS = {VENDOR.thumbprint: VENDOR.public}


def batch_of(*seqs: int) -> bytes:
    return batch_bytes(SESSION, [
        UsageEvent(
            seq=seq, at_us=seq, usage={"page": 1}, outcome=UsageOutcome.TIMED_OUT,
            args_sha256="0" * 64,
        )
        for seq in seqs
    ])  # fmt: skip


def is_signed(signature: str, data: bytes, session_id: str = SESSION) -> bool:
    try:
        return verify_batch(signature, session_id, data, KEYS.get).key == VENDOR.public
    except InvalidSignature:
        return False


@pytest.mark.parametrize("case", cases(VECTORS["signed"]))
def test_what_is_signed_is_the_root_of_the_events(case: dict[str, str]) -> None:
    statement = case["statement"].encode()
    assert is_signed(sign_detached(VENDOR, Typ.USAGE, statement), case["batch"].encode())


@given(st.lists(st.integers(1, 99), min_size=1, max_size=9), st.data())
def test_a_batch_that_was_changed_is_not_signed(seqs: list[int], data: st.DataObject) -> None:
    signature = sign_batch(VENDOR, SESSION, batch_of(*seqs))
    others = data.draw(st.lists(st.integers(1, 99), min_size=1, max_size=9))
    assert is_signed(signature, batch_of(*others)) is (others == seqs)


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_bytes_that_are_no_batch_are_signed_as_they_are(one: bytes, other: bytes) -> None:
    assert is_signed(sign_batch(VENDOR, SESSION, one), other) is (one == other)


def test_a_batch_is_signed_for_one_session() -> None:
    data = batch_of(1, 2)
    assert not is_signed(sign_batch(VENDOR, OTHER, data), data)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 1000])
def test_the_events_of_a_batch_are_its_bytes(count: int) -> None:
    data = batch_of(*range(1, count + 1))
    events = events_in(data)
    assert len(events) == count
    assert b"[" + b",".join(events) + b"]" == data
