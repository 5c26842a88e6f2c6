"""Killed at random moments, the writer keeps its word: what it told is there."""

import random
import subprocess
import sys
from itertools import islice
from pathlib import Path

from farthing.protocol.audit import verify_journal
from farthing.protocol.records import parse_record
from farthing.settlement.journal.recovery import recover
from farthing.settlement.journal.sqlite import SqliteStore
from tests.settlement.journal.bank import BANK, ORIGIN, SIGNER

REPOSITORY = Path(__file__).resolve().parents[3]
LIVES = 5
SEED = 20_261


def live_until_killed(path: Path, life: str, told_max: int) -> dict[int, str]:
    """Run the victim, kill it after it told so many times, and give all that it told."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.settlement.journal.victim", str(path), life],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    ) as victim:
        assert victim.stdout is not None
        lines = list(islice(victim.stdout, told_max))
        victim.kill()
        lines += victim.stdout.readlines()
    # The last line may have been cut off by the kill.
    told = (line.split() for line in lines if line.endswith("\n"))
    return {int(seq): key for seq, key in told}


def test_what_was_told_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    chance = random.Random(SEED)
    told: dict[int, str] = {}
    for life in range(LIVES):
        told |= live_until_killed(path, f"life{life}", chance.randint(1, 400))

    recovered = recover(SqliteStore(path), BANK, origin=ORIGIN, keys=[SIGNER.public])
    batches = list(SqliteStore(path).batches())
    records = [data for batch in batches for data in batch.records]
    found = [parse_record(data)[0] for data in records]
    keys = {record.seq: record.request.key for record in found if record.request is not None}

    assert len(told) >= LIVES
    assert {seq: keys.get(seq) for seq in told} == told
    assert len(set(keys.values())) == len(keys) == recovered.state.seq
    findings = verify_journal(
        records, notes=[batch.note for batch in batches], origin=ORIGIN, keys=[SIGNER.public]
    )
    assert findings.ok
    assert findings.proven_records == len(records)
    assert findings.heads == len(batches)
