import errno
import os
import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.settlement.journal import filters
from farthing.settlement.journal import index as index_module
from farthing.settlement.journal.filters import FilterFile
from farthing.settlement.journal.index import Index
from farthing.settlement.journal.store import Unreadable
from tests.patience import PATIENCE_S


def key(number: int) -> bytes:
    return sha256(b"%d" % number).digest()[:16]


@contextmanager
def opened(path: Path, identity: str = "journal", recent_max: int = 8) -> Iterator[Index]:
    index = Index(path, recent_max=recent_max)
    index.open(identity)
    try:
        yield index
    finally:
        index.close()


def filled(path: Path, count: int, recent_max: int = 8) -> int:
    """Each key twice, the second time with a higher record; gives how far the disk knows them."""
    with opened(path, recent_max=recent_max) as index:
        for number in range(count):
            index.add([(key(number), number + 1)], number + 1)
        for number in range(count):
            index.add([(key(number), number + 1 + count)], number + 1 + count)
    with closing(sqlite3.connect(path / "runs.sqlite")) as connection:
        return int(connection.execute("SELECT through_seq FROM about").fetchone()[0])


@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(
        st.one_of(st.integers(min_value=0, max_value=60), st.just("restart")), max_size=120
    ),
    recent_max=st.integers(min_value=1, max_value=9),
)
def test_an_index_is_a_mapping_that_outlives_it(
    steps: list[int | str], recent_max: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("index")
    oracle: dict[bytes, int] = {}
    index = Index(path, recent_max=recent_max)
    index.open("journal")
    for seq, step in enumerate(steps, 1):
        if isinstance(step, str):
            index.close()
            index = Index(path, recent_max=recent_max)
            through_seq = index.open("journal")
            # What the disk does not know the journal tells again.
            again = [(each, at) for each, at in oracle.items() if at > through_seq]
            index.add(again, seq)
        else:
            oracle[key(step)] = seq
            index.add([(key(step), seq)], seq)
        for number in range(61):
            assert index.get(key(number)) == oracle.get(key(number))
    index.close()


def test_runs_are_merged_and_the_newest_record_of_a_key_stays(tmp_path: Path) -> None:
    through_seq = filled(tmp_path / "index", 2_000)
    with closing(sqlite3.connect(tmp_path / "index" / "runs.sqlite")) as connection:
        levels = [level for (level,) in connection.execute("SELECT level FROM run")]
    assert max(levels) >= 2
    assert all(levels.count(level) < 8 for level in levels)
    with opened(tmp_path / "index") as index:
        for number in range(through_seq - 2_000):
            assert index.get(key(number)) == number + 1 + 2_000
        assert index.get(key(-1)) is None


def test_a_filter_that_is_full_is_followed_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filters, "_CHUNK", 1_024)
    monkeypatch.setattr(filters, "_PLACES_FIRST", 4_096)
    monkeypatch.setattr(filters, "_PLACES", 8_192)
    filled(tmp_path / "index", 2_500)
    assert len(list((tmp_path / "index").glob("filters-*"))) > 2
    for _ in range(3):
        with opened(tmp_path / "index") as index:
            assert index.get(key(3)) == 2_504
            assert index.get(key(2_499)) in {2_500, 5_000}
            assert index.get(key(9_000)) is None


def test_a_disk_that_is_full_when_a_filter_is_begun_loses_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filters, "_CHUNK", 1_024)
    monkeypatch.setattr(filters, "_PLACES_FIRST", 4_096)
    monkeypatch.setattr(filters, "_PLACES", 8_192)
    monkeypatch.setattr(index_module, "_RETRY_S", 0)
    made: list[int] = []

    def full_at_first(folder: Path, number: int) -> FilterFile:
        made.append(number)
        if number and made.count(number) < 3:
            raise OSError(errno.ENOSPC, "no space left")
        return FilterFile(folder, number)

    monkeypatch.setattr(index_module, "FilterFile", full_at_first)
    through_seq = filled(tmp_path / "index", 1_500)
    assert made.count(1) >= 3
    assert through_seq > 2_000
    with opened(tmp_path / "index") as index:
        for number in range(through_seq - 1_500):
            assert index.get(key(number)) == number + 1_501


@pytest.mark.parametrize("identity", ["another", ""])
def test_the_index_of_another_journal_is_made_anew(identity: str, tmp_path: Path) -> None:
    filled(tmp_path / "index", 50)
    index = Index(tmp_path / "index")
    assert index.open(identity) == 0
    assert index.get(key(1)) is None
    index.close()


@pytest.mark.parametrize("damage", ["truncated", "garbage", "no database", "filter", "half a run"])
def test_a_damaged_index_is_made_anew(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "index"
    filled(path, 100)
    match damage:
        case "truncated":
            (path / "runs.sqlite").write_bytes((path / "runs.sqlite").read_bytes()[:3_000])
        case "garbage":
            (path / "runs.sqlite").write_bytes(b"not a database" * 1_000)
        case "no database":
            (path / "runs.sqlite").unlink()
        case "filter":
            bits = bytearray((path / "filters-0").read_bytes())
            bits[bits.index(next(byte for byte in bits if byte))] = 0
            (path / "filters-0").write_bytes(bits)
        case _:
            with closing(sqlite3.connect(path / "runs.sqlite")) as connection:
                (number,) = connection.execute("SELECT max(number) FROM run").fetchone()
                connection.execute(f"DROP TABLE run_{number:d}")
            (path / "filters-0").unlink()
    index = Index(path)
    assert index.open("journal") == 0
    assert index.get(key(1)) is None
    index.add([(key(1), 7)], 7)
    assert index.get(key(1)) == 7
    index.close()


def test_an_index_that_a_full_disk_keeps_from_being_read_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "index"
    through_seq = filled(path, 100)

    def full(*_: object) -> object:
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as disk:
        disk.setattr(index_module, "connect", full)
        disk.setattr(os, "fsync", full)
        with pytest.raises(Unreadable, match="no space left"):
            Index(path).open("journal")

    again = Index(path)
    assert again.open("journal") == through_seq > 0
    again.close()


def test_bits_of_a_filter_that_is_in_no_list_say_nothing(tmp_path: Path) -> None:
    path = tmp_path / "index"
    filled(path, 100)
    bits = (path / "filters-0").read_bytes()
    (path / "filters-0").write_bytes(bits.translate(bytes(each | 2 for each in range(256))))
    with opened(path) as index:
        assert index.get(key(1)) in {2, 102}
        assert index.get(key(9_000)) is None


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE run SET digests = zeroblob(8192) WHERE number = {number:d}",
        "UPDATE about SET through_seq = through_seq + 1",
        "DELETE FROM run WHERE number = {number:d}",
        "UPDATE run SET level = level + 1 WHERE number = {number:d}",
        "UPDATE filter SET after_seq = 7",
    ],
)
@pytest.mark.parametrize("bits", ["kept", "lost"])
def test_a_changed_list_is_found_before_anything_is_answered(
    damage: str, bits: str, tmp_path: Path
) -> None:
    path = tmp_path / "index"
    filled(path, 200)
    with closing(sqlite3.connect(path / "runs.sqlite")) as connection:
        (number,) = connection.execute("SELECT min(number) FROM run").fetchone()
        damaged = connection.execute(damage.format(number=number), {"key": key(5)}).rowcount
        connection.commit()
    assert damaged == 1
    if bits == "lost":
        (path / "filters-0").unlink()
    index = Index(path)
    assert index.open("journal") == 0
    index.close()


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM run_{number:d} WHERE key = :key",
        "UPDATE run_{number:d} SET seq = x'0000000000000009' WHERE key = :key",
    ],
)
def test_a_changed_row_is_found_before_it_is_answered_from(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "index"
    filled(path, 200)
    with closing(sqlite3.connect(path / "runs.sqlite")) as connection:
        (number,) = connection.execute("SELECT max(number) FROM run").fetchone()
        (found,) = connection.execute(
            f"SELECT min(key) FROM run_{number:d}"  # noqa: S608  # a number
        ).fetchone()
        connection.execute(damage.format(number=number), {"key": found})
        connection.commit()
    index = Index(path)
    assert index.open("journal") > 0
    with pytest.raises(Unreadable):
        index.get(found)
    keeper = index._keeper  # noqa: SLF001
    assert keeper is not None
    keeper._thread.join(PATIENCE_S)  # noqa: SLF001
    with pytest.raises(Unreadable):
        keeper.take({found: 1_000}, 1_000, "")
    index.close()
    assert index.open("journal") == 0
    index.close()


def test_a_copy_taken_at_any_moment_is_complete_as_far_as_it_says(tmp_path: Path) -> None:
    chance = random.Random(4)
    path, image = tmp_path / "index", tmp_path / "image"
    with opened(path, recent_max=64) as index:
        for seq in range(1, 6_000):
            index.add([(key(seq), seq)], seq)
            if chance.random() < 0.004:
                shutil.rmtree(image, ignore_errors=True)
                shutil.copytree(path, image)
                copy = Index(image, recent_max=64)
                through_seq = copy.open("journal")
                assert through_seq <= seq
                for number in range(1, through_seq + 1, 7):
                    assert copy.get(key(number)) == number
                copy.close()


def test_whoever_adds_waits_for_a_thread_that_has_fallen_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "_WAITING_MAX", 1)
    with opened(tmp_path / "index", recent_max=1) as index:
        for seq in range(1, 200):
            index.add([(key(seq), seq)], seq)
            assert len(index._published.waiting) <= 1  # noqa: SLF001  # its bound is the point
        assert all(index.get(key(seq)) == seq for seq in range(1, 200))


def test_an_index_without_a_folder_is_in_memory() -> None:
    index = Index(None)
    assert index.open("journal") == 0
    index.add([(key(1), 1)], 1)
    assert index.get(key(1)) == 1
    assert index.get(key(2)) is None
    index.close()
