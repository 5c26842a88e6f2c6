"""Every behaviour of the journal is the same in memory and on disk."""

from pathlib import Path

import pytest

from tests.settlement.journal.storage import Disk, Memory, Storage


@pytest.fixture(params=["memory", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return Memory() if request.param == "memory" else Disk(tmp_path / "journal.db")
