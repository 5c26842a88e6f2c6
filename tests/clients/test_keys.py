"""A key file is made once, is its owner's alone, and nothing half-written ever stands there."""

import stat
from pathlib import Path

import pytest

from farthing.clients.keys import UnusableKey, keep_key, load_key, new_key, save_key
from farthing.protocol.keys import PrivateKey


def seed(count: int) -> bytes:
    return b"\x07" * count


def test_a_key_is_made_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "home" / "agent.jwk"

    first, second = keep_key(path, seed), keep_key(path)

    assert first.thumbprint == second.thumbprint == PrivateKey.from_seed(b"\x07" * 32).thumbprint
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [each.name for each in path.parent.iterdir()] == ["agent.jwk"]


def test_a_key_file_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "agent.jwk"
    save_key(path, new_key(seed))

    with pytest.raises(FileExistsError):
        save_key(path, new_key())

    assert load_key(path).thumbprint == new_key(seed).thumbprint
    assert [each.name for each in tmp_path.iterdir()] == ["agent.jwk"]


def test_a_key_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "agent.jwk"
    save_key(path, new_key(seed))
    path.chmod(0o640)

    with pytest.raises(UnusableKey):
        load_key(path)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"no json", b'{"kty":"OKP"}', b"\xff"])
def test_a_file_without_a_private_key_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "agent.jwk"
    path.write_bytes(content)
    path.chmod(0o600)

    with pytest.raises(UnusableKey):
        keep_key(path)

    assert path.read_bytes() == content


def test_two_who_make_the_key_at_once_end_with_the_same_one(
    tmp_path: Path,
) -> None:
    path = tmp_path / "agent.jwk"

    def while_the_other_is_faster(count: int) -> bytes:
        save_key(path, new_key(seed))
        return b"\x08" * count

    assert keep_key(path, while_the_other_is_faster).thumbprint == new_key(seed).thumbprint
