"""What keeps a running engine quick to start again and quick to run: snapshots, and no long pauses.

Boundary: a snapshot is started by the engine's process between two turns, and done in a process of
its own, which recovers the journal as any start would and so tries each one before it is kept.
Source: spec/design/08-what-leaves-memory.md.
"""

import ctypes
import gc
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from farthing.identity.keyring import Keyring, Purpose, open_keyring
from farthing.settlement.journal.recovery import recover
from farthing.settlement.journal.snapshots import make_snapshot
from farthing.settlement.journal.sqlite import SqliteStore
from farthing.settlement.machine import MACHINE

__all__ = ["Upkeep", "keep_freed_memory", "spare_the_collector", "take_snapshot"]

logger = logging.getLogger(__name__)

# Reading this many records takes a start a few seconds.
SNAPSHOT_EVERY: Final = 200_000
_NICE: Final = 19
# Records are trees without cycles, and a collection over all that is alive takes a fifth of a
# second a million things: young garbage is collected, old is not looked for.
_YOUNG: Final = (20_000, 50, 1_000_000)
# Of glibc's malloc.h, and the most that it takes for the second.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_MAPPED_BYTES_MIN: Final = 32 * 1024 * 1024
_KEPT_BYTES_MAX: Final = 64 * 1024 * 1024


class Upkeep:
    """Has a snapshot taken whenever the journal has grown by so much; one at a time.

    Args:
        database: the journal's file.
        keys: the folder of the platform's keys.
        seq: how far the journal has got.
        every: records that make a new snapshot worth while.
    """

    def __init__(
        self, database: Path, keys: Path, seq: Callable[[], int], *, every: int = SNAPSHOT_EVERY
    ) -> None:
        self._arguments = (str(database.absolute()), str(keys.absolute()))
        self._seq = seq
        self._every = every
        self._taken_at = seq()
        self._running: subprocess.Popen[bytes] | None = None

    def __call__(self) -> None:
        """Look whether one is due, and start it."""
        if self._running is not None:
            code = self._running.poll()
            if code is None:
                return
            self._running = None
            if code:
                logger.error("the snapshot process ended with %d", code)
        if self._seq() >= self._taken_at + self._every:
            self._taken_at = self._seq()
            command = (sys.executable, "-m", __name__, *self._arguments)
            self._running = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def close(self) -> None:
        """End one that is under way: it is kept whole or not at all."""
        if self._running is not None:
            self._running.terminate()
            self._running.wait()


def spare_the_collector() -> None:
    """What was recovered stays; leave it out of every collection from now on."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_YOUNG)


def keep_freed_memory() -> None:
    """Keep what a batch frees for the next one, up to 64 MiB, where the allocator is glibc's.

    By itself it gives back what is freed in large pieces, and the system clears each page that it
    gives anew: for batches of usage, which are copied some times on their way to the disk, that is
    a sixth of the engine's time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES_MIN)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES_MAX)


def take_snapshot(database: Path, keyring: Keyring) -> int:
    """Recover a journal that somebody else may be writing, and keep a snapshot of where it stands.

    Returns:
        The record that the snapshot is of.

    Raises:
        Unverified, Broken, Unreadable: as `recover`.
        CommitRefused: storage did not take it.
    """
    store = SqliteStore(database)
    signer = keyring[Purpose.JOURNAL]
    recovered = recover(
        store,
        MACHINE,
        origin=keyring.origin,
        keys=keyring.verifying(Purpose.JOURNAL),
    )
    memory = MACHINE.memory
    assert memory is not None
    if recovered.chain.seq > recovered.snapshot_seq:
        store.keep_snapshot(make_snapshot(recovered.state, recovered.chain, memory, signer))
    return recovered.chain.seq


def _main(database: str, keys: str) -> None:
    os.nice(_NICE)
    keyring = open_keyring(Path(keys), os.urandom, origin="", begun=True).only(Purpose.JOURNAL)
    take_snapshot(Path(database), keyring)


if __name__ == "__main__":
    _main(*sys.argv[1:])
