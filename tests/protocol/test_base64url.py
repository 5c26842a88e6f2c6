"""Each byte string has exactly one spelling."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.protocol import base64url


@given(st.binary(max_size=80))
def test_bytes_survive_their_spelling(data: bytes) -> None:
    assert base64url.decode(base64url.encode(data)) == data


@given(st.text(max_size=12))
def test_whatever_can_be_read_is_spelled_as_it_was(text: str) -> None:
    try:
        data = base64url.decode(text)
    except base64url.InvalidBase64:
        return
    assert base64url.encode(data) == text


@pytest.mark.parametrize(
    "text", ["A", "AB", "AAF", "AA==", "AA=", "A+AA", "A/AA", "AA A", "AAA\n", "AAAé", "\ud800AAA"]
)
def test_any_other_spelling_is_refused(text: str) -> None:
    with pytest.raises(base64url.InvalidBase64):
        base64url.decode(text)
