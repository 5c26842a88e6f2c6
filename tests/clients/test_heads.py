"""Whoever keeps a journal's head finds out where the journal later is another or was cut."""

from pathlib import Path
from shutil import copytree

import pytest

from farthing.clients.heads import Watcher
from farthing.protocol.errors import Unverified
from farthing.protocol.platform_keys import PlatformKeys
from tests.papers import signing_key
from tests.serving import Serving, serving


async def grown(server: Serving, *names: str) -> None:
    for name in names:
        await server.organisation("operator", name)


def size_of(note: str) -> int:
    return int(note.split("\n")[1])


async def test_every_later_head_only_adds_to_the_one_that_was_kept(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        watcher = Watcher(server.connect())
        first = await watcher.newest_head()
        same = await watcher.newest_head(first)
        await grown(server, "One", "Two")
        later = await watcher.newest_head(first)

    assert same == first
    assert size_of(later) > size_of(first)


async def test_a_journal_that_was_cut_or_went_another_way_is_found_out(tmp_path: Path) -> None:
    async with serving(tmp_path / "market") as server:
        await grown(server, "One")
    copytree(tmp_path / "market", tmp_path / "older")
    async with serving(tmp_path / "market") as server:
        await grown(server, "Two")
        kept = await Watcher(server.connect()).newest_head()
    async with serving(tmp_path / "older") as server:
        watcher = Watcher(server.connect())
        with pytest.raises(Unverified, match=f"ends before record {size_of(kept)}"):
            await watcher.newest_head(kept)
        await grown(server, "Three", "Four")
        with pytest.raises(Unverified, match="keep both heads"):
            await watcher.newest_head(kept)


async def test_a_head_that_no_key_of_the_journal_signed_is_not_believed(tmp_path: Path) -> None:
    stranger = signing_key("stranger").public
    async with serving(tmp_path) as server:
        pinned = PlatformKeys.of(platform=[stranger], journal=[stranger])
        with pytest.raises(Unverified, match="does not verify"):
            await Watcher(server.connect(), platform_keys=pinned).newest_head()
        watcher = Watcher(server.connect())
        kept = await watcher.newest_head()
        with pytest.raises(Unverified, match="does not verify"):
            await watcher.newest_head(kept.replace("\n", "\n1", 1))
