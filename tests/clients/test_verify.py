from pathlib import Path

import pytest

from farthing.clients.verify import report, verify_file
from farthing.protocol.evidence import Findings, Trust, gather
from farthing.protocol.packs import PACK_BYTES_MAX
from tests.protocol.bundling import bundled
from tests.protocol.evidence_market import JOURNAL_KEY, Told

PINNED = frozenset({JOURNAL_KEY.thumbprint})
TOLD = Told.of()
PACK = gather(TOLD.evidence())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "charge.zip"
    path.write_bytes(PACK)
    return path


def test_a_genuine_pack_is_verified_from_its_file(path: Path) -> None:
    findings = verify_file(path, PINNED)

    assert findings.charge_id == TOLD.charge_id
    assert findings.trust is Trust.PINNED
    assert findings.verified


def test_without_a_thumbprint_the_report_says_integrity_only(path: Path) -> None:
    findings = verify_file(path)

    assert findings.verified
    assert report(findings).startswith("VERIFIED (integrity only)")


def test_an_empty_set_of_thumbprints_trusts_nobody(path: Path) -> None:
    assert not verify_file(path, frozenset()).verified


def test_a_changed_file_is_rejected_and_the_report_says_why(path: Path) -> None:
    path.write_bytes(PACK[:-1] + b"\x01")
    findings = verify_file(path, PINNED)

    assert not findings.verified
    assert report(findings) == f"REJECTED: {findings.bad}"


def test_a_file_larger_than_a_pack_is_rejected_unread(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(100 * PACK_BYTES_MAX)

    assert not verify_file(path, PINNED).verified


def test_a_file_that_is_not_there_is_no_verdict(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        verify_file(tmp_path / "nothing.zip", PINNED)


def test_the_report_names_what_is_proved_what_is_not_and_that_no_byte_is_free(path: Path) -> None:
    findings = verify_file(path, PINNED)
    lines = report(findings).splitlines()

    assert {f"  - {each}" for each in (*findings.proved, *findings.not_provable)} <= set(lines)
    assert lines[-2:] == ["bytes not covered:", "  - none"]


def test_the_bundle_of_a_whole_journal_is_verified_too(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    path.write_bytes(b"".join(bundled(TOLD.trade.room.journal)))

    findings = verify_file(path, PINNED)
    lines = report(findings).splitlines()

    assert findings.verified
    assert lines[0] == "VERIFIED (pinned): a whole journal"
    assert {f"  - {each}" for each in (*findings.proved, *findings.not_provable)} <= set(lines)
    assert not verify_file(path, frozenset()).verified
    path.write_bytes(path.read_bytes().replace(b'"units":"', b'"units":"9', 1))
    assert report(verify_file(path, PINNED)).startswith("REJECTED: record at record ")


def test_a_hostile_pack_cannot_steer_the_terminal() -> None:
    told = report(Findings(bad="record 1 (\x1b]0;owned\x07)\n\u202eVERIFIED"))

    assert told.isprintable()
