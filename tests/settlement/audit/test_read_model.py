"""The read model beside a database: what is told of one that is not this journal's."""

from pathlib import Path

import pytest

from farthing.protocol.faults import FaultKind
from farthing.settlement.audit.read_model import make_anew
from tests.protocol.bundling import traded, treasured
from tests.settlement.audit.market import audited, written

RECORDS = traded().trade.room.journal


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("market") / "journal.sqlite", RECORDS)


@pytest.mark.parametrize("data", [b"", b"no database"])
def test_a_read_model_that_cannot_be_read_is_found_or_is_none(
    database: Path, tmp_path: Path, data: bytes
) -> None:
    path = tmp_path / "reports.sqlite"
    path.write_bytes(data)

    assert audited(database, reports=path).ok == (not data)


def test_a_read_model_of_another_journal_is_made_anew_and_no_fault(
    database: Path, tmp_path: Path
) -> None:
    path = tmp_path / "reports.sqlite"
    make_anew(path, treasured()[: len(RECORDS)])

    assert audited(database, reports=path).ok


def test_a_journal_that_ends_before_its_read_model_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "reports.sqlite"
    make_anew(path, RECORDS)

    findings = audited(written(tmp_path / "cut.sqlite", RECORDS[:-2]), reports=path)

    (fault,) = findings.faults
    assert (fault.kind, fault.seq) == (FaultKind.MISSING, len(RECORDS) - 1)
    assert f"to record {len(RECORDS)}" in fault.why
