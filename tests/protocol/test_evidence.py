import io
import re
import zipfile
from base64 import b64decode
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.protocol.canonical import canonical_bytes, parse_json, sha256_hex
from farthing.protocol.errors import Unverified
from farthing.protocol.evidence import Findings, Trust, gather, verify
from farthing.protocol.messages.charges import Evidence
from farthing.protocol.packs import PACK_BYTES_MAX, read_pack, write_pack
from farthing.protocol.records import GENESIS
from farthing.protocol.signatures import Typ, sign_detached
from tests.construction import EPOCH_US, card_document, signing_key
from tests.protocol.evidence_market import JOURNAL_KEY, QUOTE_KEY, Sealed, Told
from tests.protocol.vectors import cases, vectors

VECTORS = vectors("evidence")
VENDOR_KEY = signing_key("Vendor One")
PINNED = frozenset({JOURNAL_KEY.thumbprint})
PLAIN = Told.of()
EVIDENCE = PLAIN.evidence()
PACK = gather(EVIDENCE)


def refunded() -> Told:
    told = Told.of()
    told.refund(3_000_001)
    told.refund(7)
    return told


def given_back_whole_after_it_was_payable() -> Told:
    told = Told.of(room={"fee_ppm": 333_333})
    told.refund(1)
    told.trade.room.advance(601)
    told.refund(22_999_999)
    return told


def rejected_as_calculated_rightly() -> Told:
    told = refunded()
    told.dispute("calculation_error")
    return told


def waiting_for_evidence() -> Told:
    told = refunded()
    told.dispute("not_delivered")
    return told


def reversed_for_another_body() -> Told:
    told = refunded()
    told.answer(told.dispute("not_delivered"), "c" * 64, schema_valid=True)
    return told


def rejected_as_delivered() -> Told:
    told = Told.of()
    told.answer(told.dispute("not_delivered"), "b" * 64, schema_valid=True)
    told.trade.room.advance(601)
    return told


def reversed_for_silence() -> Told:
    told = Told.of()
    told.dispute("not_delivered")
    told.trade.room.advance(61)
    return told


def second_of_its_agreement() -> Told:
    told = Told.of()
    return Told(told.trade, told.trade.captured(3))


def partly_used() -> Told:
    return Told.of(pages=4, held=12)


def not_used_at_all() -> Told:
    return Told.of(pages=0, held=12)


def free_of_charge() -> Told:
    return Told.of(card=card_document(({"amount": "0", "per_quantity": "1"},)))


def captured_with_a_rotated_key() -> Told:
    return Told.of(rotated=True)


STORIES = (
    refunded,
    given_back_whole_after_it_was_payable,
    rejected_as_calculated_rightly,
    waiting_for_evidence,
    reversed_for_another_body,
    rejected_as_delivered,
    reversed_for_silence,
    second_of_its_agreement,
    partly_used,
    not_used_at_all,
    free_of_charge,
    captured_with_a_rotated_key,
)


def whole() -> Told:
    """A charge to which everything happened that can happen to one."""
    told = reversed_for_another_body()
    told.trade.room.advance(601)
    return told


WHOLE = whole()


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


A_TRANSFER = {"asset": "USD", "credit": "a", "debit": "b", "movement": "post", "units": "1"}
# What a platform that lies in its own journal might write, and seal: (operation, member, value).
LIES: tuple[tuple[str, str, Any], ...] = (
    ("enrol_organisation", "changed.1.after.jwk.x", signing_key("x").public.jwk()["x"]),
    ("enrol_organisation", "changed.1.after.status", "revoked"),
    ("enrol_organisation", "changed.1.after.principal_id", "org_" + "0" * 26),
    ("enrol_organisation", "changed.1.after.since_us", 1),
    ("enrol_organisation", "by.key_thumbprint", signing_key("x").thumbprint),
    ("enrol_organisation", "changed.0.id", "org_" + "0" * 26),
    ("register_agent", "changed.0.after.organisation_id", "org_" + "0" * 26),
    ("publish_listing", "facts.listing.name", "Another name"),
    ("publish_listing", "facts.signature", sign_detached(VENDOR_KEY, Typ.LISTING, b"other")),
    ("publish_listing", "facts.rate_card.dimensions.0.tiers.0.amount", "0.003"),
    ("publish_listing", "facts.terms.terms_id", "other-terms"),
    ("publish_listing", "changed.0.after.version", 2),
    ("publish_listing", "changed.0.after.terms_sha256", "0" * 64),
    ("publish_listing", "changed.0.after.output_schema_sha256", "0" * 64),
    ("publish_listing", "by.key_thumbprint", signing_key("x").thumbprint),
    ("accept_terms", "facts.quote.total_units", "2000001"),
    ("accept_terms", "facts.quote.expires_at_us", 2**52),
    ("accept_terms", "facts.quote_signature", sign_detached(QUOTE_KEY, Typ.QUOTE, b"other")),
    ("accept_terms", "facts.acceptance.nonce", "1" * 32),
    ("accept_terms", "changed.0.after.operator_id", "org_" + "0" * 26),
    ("accept_terms", "changed.0.after.rate_card_sha256", "0" * 64),
    ("accept_terms", "changed.0.after.dispute_window_s", 1),
    ("accept_terms", "changed.0.after.quote_sha256", "0" * 64),
    ("accept_terms", "changed.0.after.acceptance_sha256", "0" * 64),
    ("accept_terms", "changed.0.after.accepted_at_us", 1),
    ("accept_terms", "request.key", "another-key-0000"),
    ("place_hold", "changed.0.after.amount_units", "23000001"),
    ("place_hold", "changed.0.after.position", {"page": "1"}),
    ("place_hold", "changed.0.after.expires_at_us", 2**52),
    ("place_hold", "changed.0.after.args_sha256", "0" * 64),
    ("place_hold", "decided.lines.0.units", "23000001"),
    ("place_hold", "moved.0.units", "23000001"),
    ("place_hold", "moved.0.movement", "post"),
    ("place_hold", "counted.0.units", "1"),
    ("place_hold", "asked.agreement_id", "agr_" + "0" * 26),
    ("capture_hold", "facts.delivery.usage.0.quantity", "11"),
    ("capture_hold", "facts.delivery.result_sha256", "0" * 64),
    ("capture_hold", "facts.delivery_signature", sign_detached(VENDOR_KEY, Typ.DELIVERY, b"")),
    ("capture_hold", "decided.lines.0.units", "1"),
    ("capture_hold", "changed.0.after.status", "open"),
    ("capture_hold", "changed.1.after.amount_units", "22999999"),
    ("capture_hold", "changed.1.after.fee_units", "0"),
    ("capture_hold", "changed.1.after.refunded_units", "1"),
    ("capture_hold", "changed.1.after.usage", {"page": "11"}),
    ("capture_hold", "changed.1.after.result_sha256", "0" * 64),
    ("capture_hold", "changed.1.after.window_closes_at_us", 1),
    ("capture_hold", "changed.2.after.page", "11"),
    ("capture_hold", "moved.1.units", "22424999"),
    ("capture_hold", "moved.2.units", "575001"),
    ("capture_hold", "moved.1.credit", "org_x:vendor_pending:USD"),
    ("capture_hold", "at_us", 2**52),
    ("refund_charge", "asked.amount.amount", "0.004"),
    ("refund_charge", "decided.units", "3000002"),
    ("refund_charge", "moved.0.units", "1"),
    ("refund_charge", "changed.0.after.refunded_units", "3000002"),
    ("refund_charge", "changed.0.after.fee_returned_units", "0"),
    ("refund_charge", "by.principal_id", "org_" + "0" * 26),
    ("initiate_dispute", "decided.ruling.outcome", "credit"),
    ("initiate_dispute", "decided.case.charged_units", "1"),
    ("initiate_dispute", "asked.reason", "calculation_error"),
    ("initiate_dispute", "moved.0.units", "1"),
    ("initiate_dispute", "changed.1.after.held_net_units", "1"),
    ("initiate_dispute", "changed.0.after.status", "pending"),
    ("submit_evidence", "decided.case.evidence.schema_valid", False),
    ("submit_evidence", "decided.case.evidence.body_sha256", "b" * 64),
    ("submit_evidence", "decided.ruling.credit_units", "1"),
    ("submit_evidence", "asked.body_sha256", "d" * 64),
    ("submit_evidence", "moved.0.credit", "org_x:prepaid:USD"),
    ("submit_evidence", "changed.1.after.outcome", "reject"),
    ("submit_evidence", "changed.0.after.refunded_units", "0"),
    ("settle_charge", "changed.0.after.status", "pending"),
    ("settle_charge", "changed.0.after.trail_seqs", []),
    ("settle_charge", "moved", [A_TRANSFER]),
    ("settle_charge", "at_us", EPOCH_US),
    ("settle_charge", "by.principal_id", "org_" + "0" * 26),
    ("settle_charge", "at_us", 1),
    ("settle_charge", "operation", "close_evidence"),
    ("settle_charge", "refused", {"code": "not_found"}),
    ("settle_charge", "prev", "0" * 64),
)


@pytest.mark.parametrize(("operation", "member", "value"), LIES)
def test_a_lie_that_the_platform_itself_has_sealed_is_found(
    operation: str, member: str, value: object
) -> None:
    records = _with_lie(WHOLE.trade.room.journal, operation, member, value)
    findings = _verdict(Sealed(records).evidence(WHOLE.charge_id, WHOLE.seqs()))

    assert findings.bad
    assert re.search(r"record \d+", findings.bad)


@pytest.mark.parametrize(
    ("story", "operation"),
    [
        (Told.of, "accept_terms"),
        (Told.of, "capture_hold"),
        (waiting_for_evidence, "initiate_dispute"),
    ],
)
def test_what_came_too_late_is_found(story: Callable[[], Told], operation: str) -> None:
    told = story()
    journal = told.trade.room.journal
    late = _with_lie(journal, operation, "at_us", EPOCH_US + 2**40)
    place = next(n for n, each in enumerate(journal) if f'"{operation}"'.encode() in each)
    for after in range(place + 1, len(journal)):
        name = str(parse_json(late[after])["operation"])  # type: ignore[index,call-overload]
        late = _with_lie(late, name, "at_us", EPOCH_US + 2**40)
    findings = _verdict(Sealed(late).evidence(told.charge_id, told.seqs()))

    assert operation in findings.bad


def test_a_journal_written_anew_without_a_lie_is_the_same_journal() -> None:
    journal = WHOLE.trade.room.journal

    assert _with_lie(journal, "place_hold", "operation", "place_hold") == journal


def _with_lie(journal: list[bytes], operation: str, member: str, value: Any) -> list[bytes]:
    """The journal with one member of an operation's last record changed, chained anew."""
    documents: list[Any] = [parse_json(each) for each in journal]
    liar = [each for each in documents if each["operation"] == operation][-1]
    *path, last = member.split(".")
    inner = liar
    for name in path:
        inner = inner[int(name)] if isinstance(inner, list) else inner[name]
    if last != "prev":
        inner[last] = value
    records: list[bytes] = []
    for each in documents:
        prev = sha256_hex(records[-1]) if records else GENESIS
        each["prev"] = value if last == "prev" and each is liar else prev
        records.append(canonical_bytes(each))
    return records


def _verdict(evidence: Evidence) -> Findings:
    return verify(gather(evidence), PINNED)


def _refuses_to_gather(evidence: Evidence) -> bool:
    with pytest.raises(Unverified):
        gather(evidence)
    return True
