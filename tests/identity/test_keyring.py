"""The platform's keys: made once, for their owner alone, and never quietly replaced."""

import json
import os
from pathlib import Path
from typing import Any, cast

import pytest

from farthing.identity.keyring import (
    Keyring,
    Purpose,
    UnusableKeys,
    mark_used,
    open_keyring,
    open_secret,
    retire,
)
from farthing.protocol.keys import PrivateKey
from farthing.protocol.platform_keys import PlatformKeys
from farthing.protocol.succession import SUCCESSIONS, followed

ORIGIN = "market.example/journal"


def opened(folder: Path, *, begun: bool = False, origin: str = ORIGIN) -> Keyring:
    return open_keyring(folder, os.urandom, origin=origin, begun=begun)


def published(keyring: Keyring) -> list[dict[str, Any]]:
    return cast("list[dict[str, Any]]", keyring.jwks()["keys"])


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_first_start_makes_a_key_for_every_purpose_and_each_its_own(tmp_path: Path) -> None:
    keyring = opened(tmp_path / "keys")

    assert keyring.created
    assert keyring.keys.keys() == set(Purpose)
    assert len({key.thumbprint for key in keyring.keys.values()}) == len(Purpose)


def test_only_the_owner_can_read_them(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    before = os.umask(0)
    try:
        opened(folder)
    finally:
        os.umask(before)

    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_the_next_start_makes_none_and_changes_nothing(tmp_path: Path) -> None:
    first = opened(tmp_path)
    before = files(tmp_path)
    for begun in (False, True):
        again = opened(tmp_path, begun=begun, origin="elsewhere.example/journal")

        assert not again.created
        assert again.origin == first.origin == ORIGIN
        assert {each: key.thumbprint for each, key in again.keys.items()} == {
            each: key.thumbprint for each, key in first.keys.items()
        }
        assert files(tmp_path) == before


@pytest.mark.parametrize("purpose", [Purpose.PLATFORM, Purpose.JOURNAL])
def test_a_journal_that_has_begun_gets_no_other_key_than_its_own(
    tmp_path: Path, purpose: Purpose
) -> None:
    keyring = opened(tmp_path)
    keyring.path(purpose).unlink()

    with pytest.raises(UnusableKeys) as refused:
        opened(tmp_path, begun=True)

    assert str(keyring.path(purpose)) in str(refused.value)
    assert not keyring.path(purpose).exists()


def test_a_journal_whose_whole_folder_is_gone_is_not_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(UnusableKeys):
        opened(tmp_path / "keys", begun=True)

    assert files(tmp_path) == {}


@pytest.mark.parametrize("purpose", [Purpose.ADMIN, Purpose.TREASURER])
def test_a_staff_key_may_be_taken_elsewhere(tmp_path: Path, purpose: Purpose) -> None:
    keyring = opened(tmp_path)
    keyring.path(purpose).unlink()

    again = opened(tmp_path, begun=True)

    assert not again.created
    assert not again.path(purpose).exists()
    with pytest.raises(UnusableKeys):
        again[purpose]


def test_under_the_keys_of_a_journal_that_is_gone_no_other_begins(tmp_path: Path) -> None:
    first = opened(tmp_path)
    mark_used(tmp_path)
    first.path(Purpose.PAYER).unlink()
    before = files(tmp_path)

    with pytest.raises(UnusableKeys, match=str(tmp_path)):
        opened(tmp_path)

    assert files(tmp_path) == before
    assert opened(tmp_path, begun=True).origin == first.origin


def test_keys_without_the_name_of_their_journal_are_refused(tmp_path: Path) -> None:
    opened(tmp_path)
    (tmp_path / "journal.origin").unlink()

    with pytest.raises(UnusableKeys):
        opened(tmp_path, begun=True)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_not_used(tmp_path: Path, mode: int) -> None:
    path = opened(tmp_path).path(Purpose.JOURNAL)
    path.chmod(mode)

    with pytest.raises(UnusableKeys) as refused:
        opened(tmp_path, begun=True)

    assert f"chmod 600 {path}" in str(refused.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"kty":"OKP","crv":"Ed25519","x":"AAAA"}',
        b"\xff" * 10,
        b" " * 10_000,
    ],
)
def test_a_file_that_holds_no_private_key_is_refused_by_its_name(
    tmp_path: Path, content: bytes
) -> None:
    path = opened(tmp_path).path(Purpose.PLATFORM)
    path.write_bytes(content)

    with pytest.raises(UnusableKeys) as refused:
        opened(tmp_path, begun=True)

    assert path.name in str(refused.value)


def test_the_private_half_stands_in_no_message(tmp_path: Path) -> None:
    keyring = opened(tmp_path)
    path = keyring.path(Purpose.PLATFORM)
    jwk = json.loads(path.read_bytes())
    path.write_text(json.dumps({**jwk, "x": "AAAA"}))

    with pytest.raises(UnusableKeys) as refused:
        opened(tmp_path, begun=True)

    assert jwk["d"] not in str(refused.value)
    assert jwk["d"] not in repr(keyring)


def test_a_start_that_was_cut_short_is_gone_on_with(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.path(Purpose.TREASURER).unlink()
    (tmp_path / "journal.origin").unlink()
    (tmp_path / f"treasurer.{os.getpid()}.part").write_bytes(b"{")

    again = opened(tmp_path)

    assert again.created
    assert again[Purpose.ADMIN].thumbprint == first[Purpose.ADMIN].thumbprint
    assert not list(tmp_path.glob("*.part"))


def test_of_two_first_starts_at_once_both_end_with_the_same_keys(tmp_path: Path) -> None:
    def while_another_starts(size: int) -> bytes:
        # The other one makes all of its keys just before this one writes its first.
        if not (tmp_path / "platform.jwk").exists():
            others.append(opened(tmp_path))
        return os.urandom(size)

    others: list[Keyring] = []
    mine = open_keyring(tmp_path, while_another_starts, origin="late.example", begun=False)

    assert mine.origin == others[0].origin
    assert {key.thumbprint for key in mine.keys.values()} == {
        key.thumbprint for key in others[0].keys.values()
    }


def test_the_key_set_holds_what_the_platform_signs_with_and_no_staff(tmp_path: Path) -> None:
    keyring = opened(tmp_path)

    assert [key["kid"] for key in published(keyring)] == [
        keyring[Purpose.PLATFORM].thumbprint,
        keyring[Purpose.JOURNAL].thumbprint,
    ]
    assert {name for key in published(keyring) for name in key} == {
        "kty", "crv", "x", "alg", "kid", "use", "org.farthing/purpose",
    }  # fmt: skip


def test_each_key_is_published_for_its_purpose_the_retired_ones_too(tmp_path: Path) -> None:
    old = opened(tmp_path)
    new = {each: _retired(tmp_path, each) for each in (Purpose.PLATFORM, Purpose.JOURNAL)}

    assert PlatformKeys.read(published(opened(tmp_path, begun=True))) == PlatformKeys.of(
        platform=[new[Purpose.PLATFORM].public, old.public(Purpose.PLATFORM)],
        journal=[new[Purpose.JOURNAL].public, old.public(Purpose.JOURNAL)],
    )


@pytest.mark.parametrize("retired", [(), (Purpose.PLATFORM,), (Purpose.JOURNAL, Purpose.PLATFORM)])
def test_who_pinned_the_journals_key_alone_is_led_to_all_others(
    tmp_path: Path, retired: tuple[Purpose, ...]
) -> None:
    first = opened(tmp_path).public(Purpose.JOURNAL)
    for purpose in retired:
        _retired(tmp_path, purpose)
    again = opened(tmp_path, begun=True)
    named = cast("list[object]", again.jwks()[SUCCESSIONS])

    for journal in (first, again.public(Purpose.JOURNAL)):
        believed = followed(PlatformKeys.of(journal=[journal]), named)
        assert believed.platform == PlatformKeys.read(published(again)).platform


def test_a_retired_key_is_published_for_ever_and_its_private_half_is_gone(tmp_path: Path) -> None:
    keyring = opened(tmp_path)
    old = [keyring[Purpose.JOURNAL]]
    old.append(_retired(tmp_path, Purpose.JOURNAL))
    last = _retired(tmp_path, Purpose.JOURNAL)

    again = opened(tmp_path, begun=True)
    kids = [key["kid"] for key in published(again)]
    assert again[Purpose.JOURNAL].thumbprint == last.thumbprint
    assert [key.thumbprint for key in again.retired[Purpose.JOURNAL]] == [
        key.thumbprint for key in old
    ]
    assert kids[1:] == [key.thumbprint for key in (last, *reversed(old))]
    named = cast("list[object]", again.jwks()[SUCCESSIONS])
    pinned = PlatformKeys.of(journal=[old[0].public])
    assert (
        followed(pinned, named).journal
        == PlatformKeys.of(journal=[*(key.public for key in old), last.public]).journal
    )
    assert followed(PlatformKeys.of(platform=[old[0].public]), named).journal == {}
    secrets = [key.private_jwk()["d"].encode() for key in old]
    assert not [d for d in secrets for data in files(tmp_path).values() if d in data]
    assert again.origin == ORIGIN


def _retired(folder: Path, purpose: Purpose) -> PrivateKey:
    retire(folder, purpose, os.urandom)
    return opened(folder, begun=True)[purpose]


def test_a_retirement_that_was_cut_short_names_its_key_once(tmp_path: Path) -> None:
    keyring = opened(tmp_path)
    private = keyring.path(Purpose.PLATFORM).read_bytes()
    retire(tmp_path, Purpose.PLATFORM, os.urandom)
    keyring.path(Purpose.PLATFORM).write_bytes(private)

    kids = [key["kid"] for key in published(opened(tmp_path, begun=True))]

    assert len(kids) == len(set(kids)) == 2


def test_a_key_that_a_retirement_cut_short_has_named_is_in_nobodys_hands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(tmp_path)

    def no_more(*_: object) -> None:
        raise OSError("no more")

    with monkeypatch.context() as patched:
        patched.setattr(os, "getpid", lambda: 1)
        patched.setattr(Path, "replace", no_more)
        with pytest.raises(OSError, match="no more"):
            retire(tmp_path, Purpose.PLATFORM, os.urandom)
    retire(tmp_path, Purpose.PLATFORM, os.urandom)

    assert not list(tmp_path.rglob("*.part"))


def test_no_retired_key_is_forgotten_where_the_file_of_an_earlier_one_is_gone(
    tmp_path: Path,
) -> None:
    keyring = opened(tmp_path)
    second, third = [_retired(tmp_path, Purpose.PLATFORM) for _ in range(2)]
    (tmp_path / "retired" / "platform-0001.jwk").unlink()

    _retired(tmp_path, Purpose.PLATFORM)

    kids = [key["kid"] for key in published(opened(tmp_path, begun=True))]
    assert {second.thumbprint, third.thumbprint} <= set(kids)
    assert keyring[Purpose.PLATFORM].thumbprint not in kids


@pytest.mark.parametrize("purpose", [Purpose.ADMIN, Purpose.TREASURER])
def test_the_staffs_keys_are_rotated_by_the_staff(tmp_path: Path, purpose: Purpose) -> None:
    opened(tmp_path)
    before = files(tmp_path)

    with pytest.raises(UnusableKeys):
        retire(tmp_path, purpose, os.urandom)

    assert files(tmp_path) == before


def test_the_key_that_pays_vendors_is_made_anew_and_published_nowhere(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.path(Purpose.PAYER).unlink()

    again = opened(tmp_path, begun=True)

    assert again[Purpose.PAYER].thumbprint != first[Purpose.PAYER].thumbprint
    shown = {key["kid"] for key in published(again)}
    assert shown & {first[Purpose.PAYER].thumbprint, again[Purpose.PAYER].thumbprint} == set()


def test_a_secret_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        first = open_secret(tmp_path, "results", os.urandom)
    finally:
        os.umask(before)

    assert len(first) == 32
    assert open_secret(tmp_path, "results", os.urandom) == first
    path = tmp_path / "results.jwk"
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with pytest.raises(UnusableKeys):
        open_secret(tmp_path, "results", os.urandom)


@pytest.mark.parametrize("content", [b"{}", b'{"k":"AAAA","kty":"oct"}', b'{"k":"!","kty":"oct"}'])
def test_a_file_without_a_whole_secret_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "results.jwk"
    path.write_bytes(content)
    path.chmod(0o600)

    with pytest.raises(UnusableKeys):
        open_secret(tmp_path, "results", os.urandom)
