"""A disk under SQLite that loses power, tears writes, fails to sync and runs full.

Boundary: a VFS registered with the very SQLite library that Python uses. It passes everything on to
the system's own and notes what has been synced; from that it makes images of what a disk could
hold after the power went: any subset of the sectors of what was written since. Where only the
process is killed, the next one finds all that was written, and the disk holds no more than before.
"""

import _sqlite3
import ctypes
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final
from unittest.mock import patch

from farthing.settlement.journal.index import Index
from farthing.settlement.journal.sqlite import SqliteStore
from farthing.settlement.journal.store import Batch, Store

__all__ = ["Drive", "drive_missing", "plugged"]

_OK: Final = 0
_IOERR: Final = 10
_IOERR_WRITE: Final = 778
_IOERR_FSYNC: Final = 1034
_FULL: Final = 13
_NAME: Final = b"farthing-simulated"
# The index's folder, and how few keys it keeps in memory, so that a short life fills runs.
_KEYS: Final = "keys"
_KEYS_MAX: Final = 5
# How often a process is killed just when a sync has failed.
_KILLED: Final = 0.3


class _Vfs(ctypes.Structure):
    _fields_ = (
        ("version", ctypes.c_int),
        ("file_bytes", ctypes.c_int),
        ("path_bytes_max", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("open", ctypes.c_void_p),
        ("delete", ctypes.c_void_p),
        ("others", ctypes.c_void_p * 14),
    )


class _Methods(ctypes.Structure):
    _fields_ = (
        ("version", ctypes.c_int),
        ("close", ctypes.c_void_p),
        ("read", ctypes.c_void_p),
        ("write", ctypes.c_void_p),
        ("truncate", ctypes.c_void_p),
        ("sync", ctypes.c_void_p),
        ("others", ctypes.c_void_p * 13),
    )


_PTR, _INT, _INT64 = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
_OPEN = ctypes.CFUNCTYPE(_INT, _PTR, _PTR, _PTR, _INT, _PTR)
_DELETE = ctypes.CFUNCTYPE(_INT, _PTR, _PTR, _INT)
_WRITE = ctypes.CFUNCTYPE(_INT, _PTR, _PTR, _INT, _INT64)
_TRUNCATE = ctypes.CFUNCTYPE(_INT, _PTR, _INT64)
_SYNC = ctypes.CFUNCTYPE(_INT, _PTR, _INT)


@dataclass(slots=True)
class _File:
    """What of a file is on the disk for sure, and what was written since."""

    synced: bytearray = field(default_factory=bytearray)
    known: bool = False
    # (offset, bytes), or (size, None) for a truncation.
    since: list[tuple[int, bytes | None]] = field(default_factory=list)

    def settle(self) -> None:
        for offset, data in self.since:
            _put(self.synced, offset, data)
        self.since.clear()
        self.known = True

    def image(self, chance: Random, sector: int, share: float) -> bytes | None:
        """What could be found after a power cut; None for no file."""
        found = bytearray(self.synced)
        touched = self.known
        for offset, data in self.since:
            if data is None:
                if chance.random() < share:
                    _put(found, offset, None)
                continue
            at = offset
            while at < offset + len(data):
                end = min(at - at % sector + sector, offset + len(data))
                if chance.random() < share:
                    _put(found, at, data[at - offset : end - offset])
                    touched = True
                at = end
        return bytes(found) if touched else None


class Drive:
    """A folder on a simulated disk; a place for a journal, as `weather.Place` says.

    Args:
        folder: an empty one; what is beside the database in it is lost or torn by chance too.
        indexed: whether the index of keys lies on it as well. It has a thread of its own, so that
            faults are drawn for the database alone; what the power takes of it is lost as well.
    """

    def __init__(self, folder: Path, *, indexed: bool = False) -> None:
        self.folder = folder
        self.indexed = indexed
        self.path = folder / "journal.sqlite"
        self.is_off = False
        self._files: dict[str, _File] = {}
        self._image: dict[str, bytes] | None = None
        self._chance = Random(0)
        # Whether what the machine had not yet written is lost, or only the process ended.
        self._is_dark = True
        # How many more writes until `_fault`, and how many times that then happens.
        self._left = -1
        self._fault = ""
        self._full = False
        self._busy: sqlite3.Connection | None = None

    # A place for a journal

    def boot(self) -> tuple[Store, Index]:
        if self._image is not None:
            for each in self.folder.iterdir():
                shutil.rmtree(each) if each.is_dir() else each.unlink()
            for name, data in self._image.items():
                path = self.folder / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(data)
            self._image = None
            if self._is_dark:
                self._files.clear()
        self.is_off = False
        index = Index(self.folder / _KEYS, recent_max=_KEYS_MAX) if self.indexed else Index(None)
        return SqliteStore(self.path, busy_timeout_s=0), index

    def threaten(self, chance: Random) -> str:
        fault = chance.choice(("cut", "cut", "cut", "kill", "error", "error", "full", "busy"))
        self._chance = chance
        match fault:
            case "busy":
                if self._busy is None:
                    self._busy = sqlite3.connect(self.path, isolation_level=None, timeout=0)
                    self._busy.execute("BEGIN IMMEDIATE")
            case "full":
                self._full = True
            case _:
                self._fault, self._left = fault, chance.choice((0, 1, 2, 5, 9, 14, 20, 40))
        return f"{fault} after {self._left}"

    def fail(self, chance: Random, *, after: int) -> None:
        """Let a write or a sync fail after so many; with a sync, the process may be killed."""
        self._chance, self._fault, self._left = chance, "error", after

    def calm(self) -> None:
        self._left, self._full = -1, False
        busy, self._busy = self._busy, None
        if busy is not None:
            busy.close()

    def cut(self, chance: Random) -> None:
        busy, self._busy = self._busy, None
        if busy is not None:
            busy.close()
        if not self.is_off:
            self._chance = chance
            self._cut()

    def batches(self, after_seq: int = 0) -> list[Batch]:
        return list(SqliteStore(self.path).batches(after_seq))

    def scrap(self) -> None:
        """Let go of all that was written; SQLite may know the drive for longer."""
        self.is_off = True
        self._files.clear()
        self._image = None

    # The disk

    def opened(self, name: str) -> None:
        if name not in self._files:
            path = self.folder / name
            data = path.read_bytes() if path.exists() else b""
            self._files[name] = _File(bytearray(data), known=bool(data))

    def wrote(self, name: str, offset: int, data: bytes) -> tuple[int, bytes]:
        """What comes of a write: the code to answer, and how much to write after all."""
        if self._goes_wrong(name):
            if self._fault == "error":
                torn = data[: self._chance.randrange(len(data) + 1)]
                self._files[name].since.append((offset, torn))
                return _IOERR_WRITE, torn
            return _IOERR, b""
        if self.is_off:
            return _IOERR, b""
        if self._full and offset + len(data) > self._size(name):
            return _FULL, b""
        self._files[name].since.append((offset, data))
        return _OK, data

    def truncated(self, name: str, size: int) -> int:
        if self._goes_wrong(name) or self.is_off:
            return _IOERR
        self._files[name].since.append((size, None))
        return _OK

    def synced(self, name: str) -> int:
        file = self._files[name]
        if self._goes_wrong(name) and self._fault == "error":
            # Linux marks the pages clean though they were not written ("fsyncgate"): each is on
            # the disk or is not, and no later sync of the file changes that.
            file.since = [op for op in file.since if self._chance.random() < 0.5]
            file.settle()
            if self._chance.random() < _KILLED:
                # Nobody is left who knows that it failed.
                self._kill()
            return _IOERR_FSYNC
        if self.is_off:
            return _IOERR
        file.settle()
        return _OK

    def deleted(self, name: str) -> int:
        if self._goes_wrong(name) or self.is_off:
            return _IOERR
        self._files.pop(name, None)
        return _OK

    def _goes_wrong(self, name: str) -> bool:
        if self.is_off or self._left < 0 or name.startswith(_KEYS):
            return False
        self._left -= 1
        if self._left >= 0:
            return False
        if self._fault == "cut":
            self._cut()
        if self._fault == "kill":
            self._kill()
        return True

    def _size(self, name: str) -> int:
        path = self.folder / name
        return path.stat().st_size if path.exists() else 0

    def _kill(self) -> None:
        """End the process alone: the next finds what the machine's memory holds of the files."""
        self.is_off, self._is_dark = True, False
        found = sorted(path for path in self.folder.rglob("*") if path.is_file())
        self._image = {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in found
            if not path.name.endswith("-shm")
        }

    def _cut(self) -> None:
        chance = self._chance
        sector, share = chance.choice((512, 4_096)), chance.choice((0.0, 0.3, 0.7, 0.95, 1.0))
        image = {}
        # What a thread has come to by now is not to change what is drawn for the rest.
        aside = Random(chance.getrandbits(32))
        self.is_off = self._is_dark = True
        files = sorted(self._files.copy().items())
        for name, file in files:
            dice = aside if name.startswith(_KEYS) else chance
            if (data := file.image(dice, sector, share)) is not None:
                image[name] = data
        for path in sorted(self.folder.rglob("*")):
            name = str(path.relative_to(self.folder))
            seen = name in self._files or name.endswith(("-shm", ".lock", "-wal"))
            if path.is_file() and not seen:
                torn = _torn(path.read_bytes(), aside, sector)
                if torn is not None:
                    image[name] = torn
        self._image = image


def _torn(data: bytes, chance: Random, sector: int) -> bytes | None:
    """A side file that nobody synced: there, gone, shortened, or with holes."""
    choice = chance.random()
    if choice < 0.5 or not data:
        return data
    if choice < 0.6:
        return None
    if choice < 0.8:
        return data[: chance.randrange(len(data))]
    holes = bytearray(data)
    for at in range(0, len(holes), sector):
        if chance.random() < 0.3:
            size = len(holes[at : at + sector])
            holes[at : at + size] = bytes(size)
    return bytes(holes)


def _put(found: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del found[offset:]
        return
    if len(found) < offset:
        found.extend(bytes(offset - len(found)))
    found[offset : offset + len(data)] = data


class _Shim:
    """The VFS. One for the whole process; whose folder a file lies in says which drive it is on."""

    def __init__(self) -> None:
        # Looked up through Python's own module: whatever SQLite it is linked with is found.
        self.library = ctypes.CDLL(_sqlite3.__file__)
        self.library.sqlite3_vfs_find.restype = _PTR
        found = self.library.sqlite3_vfs_find(None)
        if found is None:
            raise OSError("SQLite has no VFS")
        self.system = _Vfs.from_address(found)
        self.vfs = _Vfs.from_buffer_copy(self.system)
        self.drives: dict[str, Drive] = {}
        self.files: dict[int, tuple[Drive, str]] = {}
        self.methods: dict[int, _Methods] = {}
        self._system_open = _OPEN(self.system.open)
        self._system_delete = _DELETE(self.system.delete)
        self._kept: list[Any] = [_OPEN(self._open), _DELETE(self._delete)]
        self.vfs.name = _NAME
        self.vfs.next = None
        self.vfs.open = ctypes.cast(self._kept[0], _PTR).value
        self.vfs.delete = ctypes.cast(self._kept[1], _PTR).value

    def begin(self) -> None:
        self.library.sqlite3_vfs_register(ctypes.byref(self.vfs), 1)

    def end(self) -> None:
        self.library.sqlite3_vfs_unregister(ctypes.byref(self.vfs))

    def _named(self, name: int | None) -> tuple[Drive, str] | None:
        if not name:
            return None
        path = os.fsdecode(ctypes.string_at(name))
        for folder, drive in self.drives.items():
            if path.startswith(folder):
                return drive, path[len(folder) :]
        return None

    def _open(self, vfs: int, name: int, file: int, flags: int, told: int) -> int:
        del vfs
        where = self._named(name)
        if where is not None:
            where[0].opened(where[1])
        code: int = self._system_open(ctypes.addressof(self.system), name, file, flags, told)
        self.files.pop(file, None)
        if code == _OK and where is not None:
            self.files[file] = where
            first = ctypes.c_void_p.from_address(file)
            first.value = ctypes.addressof(self._patched(first.value or 0))
        return code

    def _delete(self, vfs: int, name: int, sync: int) -> int:
        del vfs
        where = self._named(name)
        code = _OK if where is None else where[0].deleted(where[1])
        if code != _OK:
            return code
        done: int = self._system_delete(ctypes.addressof(self.system), name, sync)
        return done

    def _patched(self, address: int) -> _Methods:
        """The system's methods for a kind of file, with three of them taken over."""
        known = self.methods.get(address)
        if known is not None:
            return known
        methods = _Methods.from_buffer_copy(_Methods.from_address(address))
        write, truncate, sync = (
            _WRITE(methods.write),
            _TRUNCATE(methods.truncate),
            _SYNC(methods.sync),
        )

        def written(file: int, data: int, count: int, offset: int) -> int:
            drive, name = self.files[file]
            code, taken = drive.wrote(name, offset, ctypes.string_at(data, count))
            done: int = write(file, data, len(taken), offset) if taken else _OK
            return code or done

        def truncated(file: int, size: int) -> int:
            drive, name = self.files[file]
            code = drive.truncated(name, size)
            return code or int(truncate(file, size))

        def synced(file: int, flags: int) -> int:
            drive, name = self.files[file]
            code = drive.synced(name)
            return code or int(sync(file, flags))

        ours = (_WRITE(written), _TRUNCATE(truncated), _SYNC(synced))
        self._kept += [write, truncate, sync, *ours]
        for name, function in zip(("write", "truncate", "sync"), ours, strict=True):
            setattr(methods, name, ctypes.cast(function, _PTR).value)
        self.methods[address] = methods
        return methods


_SHIM: list[_Shim] = []


def drive_missing() -> str:
    """Why there is no simulated disk here; empty where there is."""
    try:
        with plugged() as drive, closing(sqlite3.connect(drive.path)) as connection:
            connection.execute("CREATE TABLE one (one INTEGER)")
            return "" if "journal.sqlite" in drive._files else "Python's SQLite is another one"  # noqa: SLF001
    except (AttributeError, OSError) as error:
        return f"Python's SQLite cannot be reached: {error}"


@contextmanager
def plugged(*, indexed: bool = False) -> Iterator[Drive]:
    """A drive for one life; while it is plugged in, all of SQLite's files go through the shim."""
    if not _SHIM:
        _SHIM.append(_Shim())
    (shim,) = _SHIM
    memory = Path("/dev/shm")  # noqa: S108  # quicker than a disk, and as good: the disk is simulated
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None)).resolve()
    drive = shim.drives[f"{folder}/"] = Drive(folder, indexed=indexed)
    system_fsync, system_pwrite = os.fsync, os.pwrite

    def named(descriptor: int) -> str:
        path = Path(f"/proc/self/fd/{descriptor}").resolve()
        known = path.parent == folder and path.name in drive._files  # noqa: SLF001
        return path.name if known else ""

    def fsync(descriptor: int) -> None:
        name = named(descriptor)
        if name and drive.synced(name) != _OK:
            raise OSError("the disk does not answer")
        system_fsync(descriptor)

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        if name := named(descriptor):
            code, data = drive.wrote(name, offset, data)
            if code != _OK:
                system_pwrite(descriptor, data, offset)
                raise OSError("the disk does not answer")
        return system_pwrite(descriptor, data, offset)

    shim.begin()
    try:
        with patch.object(os, "fsync", fsync), patch.object(os, "pwrite", pwrite):
            yield drive
    finally:
        shim.end()
        shim.drives.pop(f"{folder}/").scrap()
        shutil.rmtree(folder, ignore_errors=True)
