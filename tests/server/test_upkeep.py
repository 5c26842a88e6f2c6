import ctypes
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from farthing.identity.keyring import Keyring, Purpose, open_keyring
from farthing.server.upkeep import Upkeep, take_snapshot
from farthing.settlement.engine.state import State
from farthing.settlement.journal.recovery import Recovered, recover
from farthing.settlement.journal.sqlite import SqliteStore
from farthing.settlement.journal.stepper import Limits, Stepper, no_rows
from farthing.settlement.machine import MACHINE
from tests.construction import EPOCH_US, Trade
from tests.patience import PATIENCE_S

# Makes and frees some large pieces again and again, and says how many pages it was given.
_BATCHES = """
import resource
from farthing.server.upkeep import keep_freed_memory
keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    pieces = [b"x" * 8_000_000 for _ in range(6)]
    del pieces
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def journal(folder: Path, *, holds: int) -> tuple[Keyring, Stepper[State]]:
    """A journal under a keyring of its own, with its engine still running."""
    keyring = open_keyring(folder / "keys", os.urandom, origin="test/journal", begun=False)
    clock = [EPOCH_US]
    engine = Stepper(
        SqliteStore(folder / "farthing.sqlite"),
        MACHINE,
        signer=keyring[Purpose.JOURNAL],
        origin=keyring.origin,
        now_us=lambda: clock[0],
        rows=no_rows,
        earlier_keys=(),
        limits=Limits(snapshot_every=10**9),
    )
    engine.open()
    trade = Trade.opened()
    for _ in range(holds):
        trade.held(1)
    for now_us, command in trade.room.tape:
        clock[0] = now_us
        engine.step([command])
    return keyring, engine


def found(folder: Path, keyring: Keyring) -> Recovered[State]:
    return recover(
        SqliteStore(folder / "farthing.sqlite"),
        MACHINE,
        origin=keyring.origin,
        keys=(keyring[Purpose.JOURNAL].public,),
    )


def test_a_snapshot_is_taken_beside_a_running_engine(tmp_path: Path) -> None:
    keyring, engine = journal(tmp_path, holds=20)
    assert found(tmp_path, keyring).snapshot_seq == 0
    seq = take_snapshot(tmp_path / "farthing.sqlite", keyring)
    assert seq == engine.recent.last_seq == found(tmp_path, keyring).snapshot_seq
    engine.close()


def test_the_process_that_takes_it_needs_the_files_alone(tmp_path: Path) -> None:
    keyring, engine = journal(tmp_path, holds=3)
    command = [sys.executable, "-m", "farthing.server.upkeep"]
    files = [str(tmp_path / "farthing.sqlite"), str(tmp_path / "keys")]
    done = subprocess.run([*command, *files], check=True, capture_output=True, timeout=PATIENCE_S)
    assert (done.stdout, done.stderr) == (b"", b"")
    assert found(tmp_path, keyring).snapshot_seq == engine.recent.last_seq
    engine.close()


def test_one_is_started_once_the_journal_has_grown_and_ends_with_the_engine(tmp_path: Path) -> None:
    keyring, engine = journal(tmp_path, holds=3)
    length = [0]
    upkeep = Upkeep(tmp_path / "farthing.sqlite", tmp_path / "keys", lambda: length[0], every=10)
    length[0] = 9
    upkeep()
    upkeep.close()
    assert found(tmp_path, keyring).snapshot_seq == 0
    length[0] = 10
    upkeep()
    upkeep.close()
    assert found(tmp_path, keyring).snapshot_seq in {0, engine.recent.last_seq}
    engine.close()


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc's allocator")
def test_what_a_batch_frees_is_there_for_the_next_one() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _BATCHES], check=True, capture_output=True, timeout=PATIENCE_S
    )
    pages = 6 * 8_000_000 // resource.getpagesize()
    assert int(done.stdout) < 2 * pages
