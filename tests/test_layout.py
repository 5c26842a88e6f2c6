"""The rooms lie where the namespace needs them: a stray file would change what can be imported."""

import importlib
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
ROOMS = ("protocol", "identity", "catalog", "settlement", "server", "clients", "spec")

# What a room's root may hold beside its portion of the namespace: anything else becomes a
# top-level name in an editable install. Chapters and design notes are no modules.
BESIDE_THE_PORTION = {"README.md"}
BESIDE_THE_SPEC = {"design"}


def is_chapter(entry: Path) -> bool:
    return entry.is_file() and entry.suffix == ".md"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_holds_one_portion_of_the_namespace(room: str) -> None:
    portion = REPOSITORY / room / "farthing"

    assert [entry.name for entry in portion.iterdir() if entry.name != "__pycache__"] == [room]
    assert (portion / room / "__init__.py").is_file()
    assert (portion / room / "py.typed").is_file()


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_root_holds_nothing_that_would_become_a_top_level_name(room: str) -> None:
    entries = {entry for entry in (REPOSITORY / room).iterdir() if entry.name != "__pycache__"}

    allowed = BESIDE_THE_PORTION | {"farthing"}
    if room == "spec":
        allowed |= BESIDE_THE_SPEC | {entry.name for entry in entries if is_chapter(entry)}

    assert {entry.name for entry in entries} - allowed == set()


def test_design_notes_are_only_text() -> None:
    notes = (REPOSITORY / "spec" / "design").glob("*")

    assert [note.name for note in notes if not is_chapter(note)] == []


def test_every_room_comes_from_one_origin() -> None:
    """All from the working tree, or all from one installed wheel; a mixture hides stale code."""
    origins = {
        room: Path(str(importlib.import_module(f"farthing.{room}").__file__)) for room in ROOMS
    }
    namespaces = {room: origin.parents[1] for room, origin in origins.items()}

    working_tree = {room: REPOSITORY / room / "farthing" for room in ROOMS}
    installed = dict.fromkeys(ROOMS, namespaces["protocol"])

    assert namespaces in (working_tree, installed)


def test_the_namespace_has_no_portion_of_its_own_and_no_stranger() -> None:
    farthing = importlib.import_module("farthing")
    expected = {
        Path(str(importlib.import_module(f"farthing.{room}").__file__)).parents[1] for room in ROOMS
    }

    assert farthing.__file__ is None
    assert {Path(portion).resolve() for portion in farthing.__path__} == expected


def test_no_room_is_imported_under_its_bare_name() -> None:
    for room in ROOMS:
        importlib.import_module(f"farthing.{room}")

    bare = {name for name in sys.modules if name.split(".")[0] in ROOMS}

    assert bare == set()
