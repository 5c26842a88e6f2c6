"""A bundle proves a whole journal with no database, and no byte of it is free."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.protocol.audit import verify_journal
from farthing.protocol.bundles import bundle_lines, verify_bundle
from farthing.protocol.errors import Unverified
from farthing.protocol.evidence import Trust
from farthing.protocol.keys import PrivateKey
from farthing.protocol.platform_keys import PlatformPurpose
from farthing.protocol.succession import sign_succession
from tests.papers import signing_key
from tests.protocol.bundling import batches, bundled, traded, treasured, ungraced
from tests.protocol.evidence_market import JOURNAL_KEY, ORIGIN, QUOTE_KEY

RECORDS = traded().trade.room.journal
LINES = bundled(RECORDS)
PINNED = frozenset({JOURNAL_KEY.thumbprint})
WHOLE = b"".join(LINES)


def split(data: bytes) -> list[bytes]:
    return data.splitlines(keepends=True)


def test_the_bundle_of_a_trade_verifies() -> None:
    findings = verify_bundle(LINES, PINNED)

    assert findings.verified
    assert findings.trust is Trust.PINNED
    assert (findings.origin, findings.journal_key) == (ORIGIN, JOURNAL_KEY.thumbprint)
    assert findings.journal is not None
    assert findings.journal.accounts == verify_journal(RECORDS).accounts
    assert findings.journal.records == findings.journal.proven_records == len(RECORDS)


def test_an_account_is_below_zero_as_far_as_its_grace_and_no_further() -> None:
    records = treasured()

    assert verify_bundle(bundled(records), PINNED).verified
    assert "ledger at record" in verify_bundle(bundled(ungraced(records)), PINNED).bad


def test_the_records_stand_in_it_as_they_were_written() -> None:
    assert [line[:-1] for line in LINES if line.startswith(b'{"asked":')] == list(RECORDS)


def test_without_a_pinned_key_only_integrity_is_shown() -> None:
    findings = verify_bundle(LINES)

    assert findings.verified
    assert findings.trust is Trust.INTEGRITY_ONLY
    assert "no thumbprint" in findings.not_provable[0]


@pytest.mark.parametrize("trusted", [frozenset(), frozenset({signing_key("other").thumbprint})])
def test_another_key_is_not_trusted(trusted: frozenset[str]) -> None:
    findings = verify_bundle(LINES, trusted)

    assert "not a trusted key" in findings.bad


def test_a_pinned_key_that_was_retired_leads_to_its_successor_in_this_log_alone() -> None:
    old = signing_key("old")
    heads = [*list(batches(RECORDS, old))[:2], *list(batches(RECORDS))[2:]]
    keys = [JOURNAL_KEY.public, old.public]
    lines = list(
        bundle_lines(heads, origin=ORIGIN, journal_keys=keys, quote_keys=[QUOTE_KEY.public])
    )
    pinned = frozenset({old.thumbprint})

    def bad(signer: PrivateKey, origin: str) -> str:
        named = sign_succession(
            signer, JOURNAL_KEY.public, origin=origin, purpose=PlatformPurpose.JOURNAL
        )
        return verify_bundle(lines, pinned, [named]).bad

    assert bad(old, ORIGIN) == ""
    assert "not a trusted key" in verify_bundle(lines, pinned).bad
    assert "not a trusted key" in bad(old, "another/journal")
    assert "not a trusted key" in bad(signing_key("stranger"), ORIGIN)


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_any_flipped_byte_is_found(at: int, flip: int) -> None:
    changed = bytearray(WHOLE)
    changed[at] ^= flip

    assert not verify_bundle(split(bytes(changed)), PINNED).verified


@pytest.mark.parametrize("number", range(len(LINES)))
def test_a_line_that_is_missing_or_there_twice_is_found(number: int) -> None:
    lacking = [*LINES[:number], *LINES[number + 1 :]]
    twice = [*LINES[: number + 1], *LINES[number:]]

    assert not verify_bundle(lacking, PINNED).verified
    assert not verify_bundle(twice, PINNED).verified


def test_no_two_lines_change_places_unseen() -> None:
    for one, other in pairwise(range(len(LINES))):
        lines = list(LINES)
        lines[one], lines[other] = lines[other], lines[one]
        assert not verify_bundle(lines, PINNED).verified


@pytest.mark.parametrize("length", [0, 1, len(WHOLE) // 2, len(WHOLE) - 1])
def test_a_bundle_that_was_cut_off_is_found(length: int) -> None:
    assert not verify_bundle(split(WHOLE[:length]), PINNED).verified


def test_the_first_bad_record_is_named() -> None:
    changed = [line.replace(b'"units":"', b'"units":"9', 1) for line in LINES]
    seq = next(at for at, data in enumerate(RECORDS, 1) if b'"units":"' in data)

    assert f"record {seq}:" in verify_bundle(changed, PINNED).bad


def test_no_bundle_is_made_of_records_that_its_head_is_not_over() -> None:
    *whole, (last, note) = batches(RECORDS)
    changed = last[-1].replace(b'"operation":"', b'"operation":"x')

    assert changed != last[-1]
    with pytest.raises(Unverified, match="the signed head"):
        list(
            bundle_lines(
                [*whole, ([*last[:-1], changed], note)],
                origin=ORIGIN,
                journal_keys=[JOURNAL_KEY.public],
                quote_keys=[],
            )
        )


def test_a_journal_that_was_written_anew_is_another() -> None:
    forger = signing_key("forger")
    findings = verify_bundle(bundled(RECORDS, forger), PINNED)

    assert forger.thumbprint in findings.bad


@pytest.mark.parametrize(
    "line", [b"", b"\n", b"{}\n", b'{"bundle":"farthing-bundle/2"}\n', b"SQLite format 3\x00\n"]
)
def test_what_is_no_bundle_is_called_that(line: bytes) -> None:
    assert verify_bundle([line] if line else []).bad
