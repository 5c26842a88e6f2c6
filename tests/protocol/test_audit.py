"""A journal is verified from its bytes alone, and what is wrong with it is named."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from farthing.protocol.audit import verify_head, verify_journal
from farthing.protocol.canonical import sha256_hex
from farthing.protocol.chain import BadRecord, Chain
from farthing.protocol.checkpoints import Checkpoint, sign_checkpoint
from farthing.protocol.errors import Unverified
from farthing.protocol.faults import FaultKind
from farthing.protocol.keys import PrivateKey, PublicKey
from farthing.protocol.ledger import Movement, Transfer
from farthing.protocol.merkle import leaf_hash, verify_inclusion
from farthing.protocol.records import GENESIS, Record, Signer, line_of, parse_record
from tests.protocol.vectors import cases, vectors

VECTORS = vectors("journal")
ORIGIN: str = VECTORS["origin"]
KEYS = {name: PublicKey.from_jwk(jwk) for name, jwk in VECTORS["keys"].items()}
RECORDS: list[bytes] = [record["bytes"].encode() for record in VECTORS["records"]]
NOTES: dict[int, str] = {head["size"]: head["note"] for head in VECTORS["heads"]}
ROOTS = [bytes.fromhex(record["root_sha256"]) for record in VECTORS["records"]]
SIGNER = PrivateKey.from_seed(bytes(32))


def spoilt(case: dict[str, Any]) -> Iterator[bytes]:
    for seq, data in enumerate(RECORDS[: case.get("cut_after")], start=1):
        changed = data
        for change in case.get("replace", ()):
            if change["seq"] == seq:
                assert change["old"].encode() in data
                changed = changed.replace(change["old"].encode(), change["new"].encode())
        if seq != case.get("drop"):
            yield changed


def test_the_journal_of_the_vectors_verifies() -> None:
    findings = verify_journal(
        RECORDS, notes=NOTES.values(), origin=ORIGIN, keys=list(KEYS.values())
    )

    assert findings.ok
    assert (findings.records, findings.heads, findings.proven_records) == (6, 3, 6)
    assert findings.root_sha256 == VECTORS["records"][-1]["root_sha256"]
    assert {
        name: [
            str(account.debits_pending),
            str(account.debits_posted),
            str(account.credits_pending),
            str(account.credits_posted),
        ]
        for name, account in findings.accounts.items()
    } == VECTORS["accounts"]


@pytest.mark.parametrize("case", cases(VECTORS["records"]))
def test_a_record_chains_as_the_vectors_say(case: dict[str, Any]) -> None:
    index = RECORDS.index(case["bytes"].encode())
    chain = Chain()
    for data in RECORDS[:index]:
        chain.add(data)

    record, prev = parse_record(RECORDS[index])

    assert prev == (VECTORS["records"][index - 1]["sha256"] if index else VECTORS["genesis"])
    assert chain.bytes_of(record) == RECORDS[index]
    chain.add(RECORDS[index])
    assert (chain.seq, chain.head) == (record.seq, case["sha256"])
    assert leaf_hash(line_of(RECORDS[index])).hex() == case["leaf_hash"]
    assert chain.tree.root().hex() == case["root_sha256"]


def test_the_first_record_follows_genesis() -> None:
    assert VECTORS["genesis"] == GENESIS == sha256_hex(b"farthing journal")


@pytest.mark.parametrize("case", VECTORS["inclusions"])
def test_a_record_is_proven_under_a_head(case: dict[str, Any]) -> None:
    leaf = leaf_hash(line_of(RECORDS[case["seq"] - 1]))
    path = [bytes.fromhex(node) for node in case["path"]]
    chain = Chain()
    for data in RECORDS:
        chain.add(data)

    root = ROOTS[case["size"] - 1]
    assert verify_inclusion(leaf, case["seq"] - 1, case["size"], path, root)
    assert chain.tree.inclusion(case["seq"] - 1, case["size"]) == path


@pytest.mark.parametrize("case", cases(VECTORS["faults"]))
def test_what_is_wrong_is_named(case: dict[str, Any]) -> None:
    notes = [NOTES[size] for size in case.get("heads", NOTES)]
    if "extra_head" in case:
        notes.append(case["extra_head"])

    findings = verify_journal(
        spoilt(case),
        notes=notes,
        origin=case.get("origin", ORIGIN),
        keys=[KEYS[name] for name in case.get("keys", KEYS)],
    )

    assert not findings.ok
    assert findings.fault is not None
    assert {"kind": findings.fault.kind.value, "seq": findings.fault.seq} == case["fault"]


def test_what_does_not_follow_is_told_with_the_hash_expected_and_the_one_found() -> None:
    changed = RECORDS[2].replace(b'"operation":"', b'"operation":"x')

    fault = verify_journal([*RECORDS[:2], changed, *RECORDS[3:]]).fault

    assert fault is not None
    assert fault.seq == 3
    assert fault.why == (
        f"record 4 gives the hash of the one before as {sha256_hex(RECORDS[2])}, "
        f"which is {sha256_hex(changed)}: one of the two was changed"
    )


@given(st.data())
def test_any_flipped_byte_is_found(data: st.DataObject) -> None:
    seq = data.draw(st.integers(1, len(RECORDS)))
    at = data.draw(st.integers(0, len(RECORDS[seq - 1]) - 1))
    flipped = bytearray(RECORDS[seq - 1])
    flipped[at] ^= data.draw(st.integers(1, 255))
    records = [*RECORDS[: seq - 1], bytes(flipped), *RECORDS[seq:]]

    findings = verify_journal(
        records, notes=NOTES.values(), origin=ORIGIN, keys=list(KEYS.values())
    )

    assert findings.fault is not None
    assert findings.proven_records < seq
    # Heads are signed after records 1, 4 and 6 only, so the last two records share a suspicion.
    assert findings.fault.seq in ({5, 6} if seq > 4 else {seq})


def test_an_empty_journal_verifies() -> None:
    findings = verify_journal([])

    assert findings.ok
    assert (findings.records, findings.accounts) == (0, {})


def chained(*records: Record) -> list[bytes]:
    chain = Chain()
    made = []
    for record in records:
        made.append(chain.bytes_of(record))
        chain.add(made[-1])
    return made


def record(seq: int, at_us: int = 0, moved: tuple[Transfer, ...] = ()) -> Record:
    by = Signer(principal_id="platform")
    return Record(seq=seq, at_us=at_us, operation="test", by=by, asked={}, moved=moved)


@pytest.mark.parametrize("debit", ["a:prepaid:USD", "no account"])
def test_a_transfer_that_breaks_the_ledger_is_named(debit: str) -> None:
    transfer = Transfer(
        movement=Movement.POST, debit=debit, credit="b:prepaid:USD", asset="USD", units=1
    )

    findings = verify_journal(chained(record(1), record(2, moved=(transfer,)), record(3)))

    assert findings.fault is not None
    assert (findings.fault.kind, findings.fault.seq) == (FaultKind.LEDGER, 2)
    assert findings.records == 1


@pytest.mark.parametrize("credit", ["b:prepard:USD", "b:USD", "b:prepaid:more:USD"])
def test_an_account_that_no_chart_has_is_named_and_the_books_can_still_be_added_up(
    credit: str,
) -> None:
    transfer = Transfer(
        movement=Movement.POST,
        debit="platform:external_clearing:USD",
        credit=credit,
        asset="USD",
        units=1,
    )

    findings = verify_journal(chained(record(1), record(2, moved=(transfer,)), record(3)))

    assert findings.fault is not None
    assert (findings.fault.kind, findings.fault.seq) == (FaultKind.LEDGER, 2)
    assert credit in findings.fault.why
    assert findings.imbalances == {}


def test_time_never_goes_back() -> None:
    findings = verify_journal(chained(record(1, at_us=5), record(2, at_us=5), record(3, at_us=4)))

    assert findings.fault is not None
    assert (findings.fault.kind, findings.fault.seq) == (FaultKind.RECORD, 3)


def test_a_refused_record_leaves_the_chain_as_it_was() -> None:
    chain = Chain()
    chain.read(RECORDS[0])

    with pytest.raises(BadRecord):
        chain.read(RECORDS[2])

    assert chain.read(RECORDS[1]).seq == 2


def test_two_heads_that_contradict_each_other_are_a_fault() -> None:
    (first, second) = chained(record(1), structs.replace(record(2), operation="other"))
    fork = Checkpoint(origin=ORIGIN, size=1, root=leaf_hash(second))
    notes = [sign_checkpoint(SIGNER, fork)]

    findings = verify_journal([first, second], notes=notes, origin=ORIGIN, keys=[SIGNER.public])

    assert findings.fault is not None
    assert (findings.fault.kind, findings.fault.seq) == (FaultKind.HEAD, 1)
    assert findings.records == 2


def test_a_head_without_a_key_to_check_it_proves_nothing() -> None:
    with pytest.raises(Unverified):
        verify_head(NOTES[6], ORIGIN, [])
