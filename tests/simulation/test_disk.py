"""What a store on the simulated disk has said stays said, whatever order the disk fails in."""

from contextlib import suppress
from itertools import product
from random import Random

import pytest

from farthing.protocol.errors import FarthingError
from farthing.settlement.engine.commands import Outcome
from farthing.settlement.journal.stepper import Stepper
from tests.settlement.journal import bank
from tests.settlement.journal.bank import Bank, fund
from tests.simulation.disk import Drive, drive_missing, plugged

CHANCES = 40
# Writes and syncs of one commit, and of the first ones of a new file.
POINTS = 5
STARTING_POINTS = 10

pytestmark = pytest.mark.skipif(bool(drive_missing()), reason="SQLite cannot be reached")


def started(drive: Drive) -> Stepper[Bank]:
    store, _ = drive.boot()
    stepper = bank.stepper(store)
    stepper.open()
    return stepper


def test_what_is_told_after_a_failed_sync_and_a_kill_outlasts_the_power() -> None:
    killed = 0
    for after, seed in product(range(POINTS), range(CHANCES)):
        chance = Random(seed)
        with plugged() as drive:
            first = started(drive)
            first.step([fund(1, "before")])
            drive.fail(chance, after=after)
            with suppress(FarthingError):
                first.step([fund(2, "unknown")])
            killed += drive.is_off
            outlasts(drive, chance, first)
    assert killed > CHANCES // 10


def test_what_is_told_after_a_first_start_that_failed_outlasts_the_power() -> None:
    killed = 0
    for after, seed in product(range(STARTING_POINTS), range(CHANCES // 4)):
        chance = Random(seed)
        with plugged() as drive:
            drive.fail(chance, after=after)
            first = None
            with suppress(FarthingError):
                first = started(drive)
            killed += drive.is_off
            outlasts(drive, chance, first)
    assert killed > CHANCES // 10


def outlasts(drive: Drive, chance: Random, first: Stepper[Bank] | None) -> None:
    """Start again, tell, lose the power, start once more: what was told is there."""
    drive.calm()
    if first is not None:
        first.close()
    second = started(drive)
    (reply,) = second.step([fund(4, "after")])
    told = [batch.head_sha256 for batch in drive.batches()]
    drive.cut(chance)
    second.close()
    third = started(drive)
    found = [batch.head_sha256 for batch in drive.batches()]
    third.close()

    assert isinstance(reply, Outcome)
    assert found == told
