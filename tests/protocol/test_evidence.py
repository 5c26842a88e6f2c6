import io
import zipfile
from base64 import b64decode
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.protocol.canonical import JsonLike, canonical_bytes
from farthing.protocol.errors import Unverified
from farthing.protocol.evidence import Findings, Trust, gather, verify
from farthing.protocol.messages.charges import Evidence
from farthing.protocol.packs import PACK_BYTES_MAX, read_pack, write_pack
from tests.papers import signing_key
from tests.protocol.evidence_market import JOURNAL_KEY, QUOTE_KEY, Sealed, Told
from tests.protocol.stories import (
    STORIES,
    everything_that_can_happen,
    rejected_as_delivered,
    second_of_its_agreement,
)
from tests.protocol.vectors import cases, vectors

VECTORS = vectors("evidence")
PINNED = frozenset({JOURNAL_KEY.thumbprint})
PLAIN = Told.of()
EVIDENCE = PLAIN.evidence()
PACK = gather(EVIDENCE)


WHOLE = everything_that_can_happen()


def test_a_genuine_pack_is_proven_under_the_pinned_key() -> None:
    findings = verify(PACK, PINNED)

    assert findings.bad == ""
    assert findings.verified
    assert findings.trust is Trust.PINNED
    assert findings.charge_id == PLAIN.charge_id
    assert findings.journal_key == JOURNAL_KEY.thumbprint
    assert findings.not_covered == ()
    assert findings.not_provable


def test_without_a_pinned_key_only_integrity_is_shown() -> None:
    findings = verify(PACK)

    assert findings.verified
    assert findings.trust is Trust.INTEGRITY_ONLY
    assert len(findings.not_provable) == len(verify(PACK, PINNED).not_provable) + 1


def test_a_journal_under_another_key_than_the_pinned_one_is_rejected() -> None:
    forger = signing_key("a journal of the forger's")
    pack = gather(Sealed(PLAIN.trade.room.journal, forger).evidence(PLAIN.charge_id, PLAIN.seqs()))

    assert verify(pack).verified
    assert forger.thumbprint in verify(pack, PINNED).bad
    assert not verify(pack, frozenset()).verified


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_every_story_of_a_charge_is_proven(story: Callable[[], Told]) -> None:
    told = story()
    findings = verify(gather(told.evidence()), PINNED)

    assert findings.bad == ""
    assert findings.charge_id == told.charge_id


def test_a_ruling_is_proven_by_deciding_again() -> None:
    proved = " ".join(verify(gather(WHOLE.evidence()), PINNED).proved)

    assert "not_delivered/1 as the record says: needs_evidence" in proved
    assert "not_delivered/1 as the record says: credit, 0.019999992 USD returned" in proved


def test_what_a_pack_cannot_prove_depends_on_what_is_in_it() -> None:
    def limits(told: Told) -> set[str]:
        return set(verify(gather(told.evidence()), PINNED).not_provable)

    plain = limits(Told.of())
    assert any("rating position" in limit for limit in limits(second_of_its_agreement()) - plain)
    assert any("output schema" in limit for limit in limits(rejected_as_delivered()) - plain)


def test_every_byte_of_the_pack_is_covered() -> None:
    pack = bytearray(PACK)
    accepted = []
    for place, byte in enumerate(PACK):
        pack[place] = byte ^ 1 << place % 8
        if verify(bytes(pack), PINNED).verified:
            accepted.append(place)
        pack[place] = byte

    assert accepted == []


@pytest.mark.parametrize(
    ("name", "trusted"),
    [("keys.json", None), *((name, PINNED) for name in sorted(read_pack(PACK)))],
)
def test_every_byte_is_covered_even_in_an_archive_made_anew(
    name: str, trusted: frozenset[str] | None
) -> None:
    """A forger who mends the archive and its checksums gets no further."""
    files = read_pack(PACK)
    content = files[name]
    # Records are long and refused by one hash: every 37th byte of them; all of the rest.
    ends = content.find(b'"record":'), content.find(b'"seq":')
    bits = (0,) if name == "manifest.json" else (0, 5)
    accepted = []
    for place, byte in enumerate(content):
        if ends[0] < place < ends[1] and place % 37:
            continue
        for bit in bits:
            spoilt = content[:place] + bytes([byte ^ 1 << bit]) + content[place + 1 :]
            if verify(write_pack({**files, name: spoilt}), trusted).verified:
                accepted.append((place, bit))

    assert accepted == []


@given(cut=st.integers(0, len(PACK) - 1), more=st.binary(min_size=1, max_size=40))
def test_a_pack_cut_short_or_added_to_is_rejected(cut: int, more: bytes) -> None:
    assert not verify(PACK[:cut], PINNED).verified
    assert not verify(PACK + more, PINNED).verified
    assert not verify(more + PACK, PINNED).verified
    assert not verify(PACK[:cut] + more + PACK[cut:], PINNED).verified


@given(st.binary(max_size=200))
def test_bytes_of_no_kind_are_rejected_and_nothing_is_raised(data: bytes) -> None:
    assert verify(data).bad
    assert verify(b"PK\x03\x04" + data).bad


def test_any_zip_tool_reads_a_pack() -> None:
    files = read_pack(PACK)
    with zipfile.ZipFile(io.BytesIO(PACK)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == sorted(files)
        assert {name: archive.read(name) for name in files} == files
        assert archive.comment == b""


def test_the_same_files_packed_by_another_tool_are_rejected() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in read_pack(PACK).items():
            archive.writestr(name, data)

    assert "archive" in verify(packed.getvalue(), PINNED).bad


def test_a_pack_is_the_same_bytes_each_time_it_is_made() -> None:
    assert gather(EVIDENCE) == gather(Told.of().evidence()) == PACK


@pytest.mark.parametrize("name", ["manifest.json", "keys.json", *sorted(read_pack(PACK))[2:]])
def test_a_pack_without_one_of_its_files_is_rejected(name: str) -> None:
    files = read_pack(PACK)
    del files[name]

    assert not verify(write_pack(files), PINNED).verified


@pytest.mark.parametrize(
    "name", ["a", "receipts/1.json", "receipts/0000000000000099.json", "receipts/readme.txt"]
)
def test_a_file_that_is_none_of_the_pack_is_rejected(name: str) -> None:
    files = read_pack(PACK)
    more = {**files, name: files["receipts/0000000000000002.json"]}

    assert not verify(write_pack(more), PINNED).verified


@pytest.mark.parametrize("name", ["", "../a", "/a", "a\x1b", "A", "ä"])
def test_a_name_that_is_no_safe_path_is_never_written(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        write_pack({name: b""})


def test_a_pack_of_more_than_its_bound_is_refused() -> None:
    assert "larger" in verify(bytes(PACK_BYTES_MAX + 1)).bad
    with pytest.raises(ValueError, match="more"):
        write_pack({"a": bytes(PACK_BYTES_MAX)})


@pytest.mark.parametrize("operation", ["publish_listing", "accept_terms", "place_hold"])
def test_a_pack_that_lacks_a_record_is_rejected(operation: str) -> None:
    receipts = [r for r in EVIDENCE.receipts if f'"operation":"{operation}"' not in r.record]
    evidence = replace(EVIDENCE, receipts=tuple(receipts))

    with_agreement = operation != "accept_terms"
    assert _verdict(evidence).bad if with_agreement else _refuses_to_gather(evidence)


def test_a_record_missing_from_the_middle_of_the_trail_is_missed() -> None:
    evidence = WHOLE.evidence()
    charge = WHOLE.trade.room.state.charges[WHOLE.charge_id]
    first, *_, last = charge.trail_seqs
    for seq in charge.trail_seqs:
        rest = tuple(each for each in evidence.receipts if each.seq != seq)
        assert _verdict(replace(evidence, receipts=rest)).verified is (seq == last), seq
    assert first != last


def test_a_record_of_something_else_has_no_place() -> None:
    sealed = Sealed(PLAIN.trade.room.journal)
    for seq in set(range(1, len(sealed.records) + 1)) - PLAIN.seqs():
        findings = _verdict(sealed.evidence(PLAIN.charge_id, PLAIN.seqs() | {seq}))
        assert findings.bad, seq


def test_a_pack_that_names_another_charge_is_rejected() -> None:
    other = second_of_its_agreement()
    evidence = replace(EVIDENCE, charge_id=other.charge_id)

    assert "manifest" in _verdict(evidence).bad


def test_a_pack_needs_the_key_of_its_quote() -> None:
    with pytest.raises(Unverified):
        gather(replace(EVIDENCE, quote_keys=EVIDENCE.quote_keys[:1]))


def test_more_than_two_bare_keys_are_rejected() -> None:
    journal, quotes = JOURNAL_KEY.public.jwk(), QUOTE_KEY.public.jwk()
    files = read_pack(PACK)
    spoilt_keys: tuple[dict[str, JsonLike], ...] = (
        {"journal": {**journal, "kid": JOURNAL_KEY.thumbprint}, "quotes": quotes},
        {"journal": journal, "quotes": quotes, "spare": journal},
        {"journal": journal, "quotes": [quotes]},
    )
    for keys in spoilt_keys:
        spoilt = {**files, "keys.json": canonical_bytes(keys)}
        assert "keys.json" in verify(write_pack(spoilt), PINNED).bad


def test_another_key_beside_the_journals_is_rejected() -> None:
    stranger = canonical_bytes(
        {
            "journal": JOURNAL_KEY.public.jwk(),
            "quotes": signing_key("stranger").public.jwk(),
        }
    )
    files = read_pack(PACK)

    assert not verify(write_pack({**files, "keys.json": stranger}), PINNED).verified


@pytest.mark.parametrize("case", cases(VECTORS["cases"]))
def test_packs_verify_as_the_vectors_say(case: dict[str, Any]) -> None:
    pack = bytearray(b64decode(VECTORS["pack"]))
    for place, byte in case["bytes"]:
        pack[place] = byte
    trusted = frozenset(cast("list[str]", case["trusted"])) if "trusted" in case else None
    findings = verify(bytes(pack), trusted)

    assert findings.verified is case["verified"]
    if findings.verified:
        assert findings.trust == case["trust"]
        assert findings.charge_id == VECTORS["charge_id"]


def test_an_archive_is_written_as_the_vectors_say() -> None:
    archive = VECTORS["archive"]
    files = {name: text.encode() for name, text in archive["files"].items()}

    assert write_pack(files) == b64decode(archive["base64"])
    assert read_pack(b64decode(archive["base64"])) == files


def _verdict(evidence: Evidence) -> Findings:
    return verify(gather(evidence), PINNED)


def _refuses_to_gather(evidence: Evidence) -> bool:
    with pytest.raises(Unverified):
        gather(evidence)
    return True
