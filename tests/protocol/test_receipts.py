from dataclasses import replace

import pytest

from farthing.protocol.checkpoints import sign_checkpoint, verify_checkpoint
from farthing.protocol.errors import Unverified
from farthing.protocol.keys import PublicKey
from farthing.protocol.merkle import Tree, leaf_hash
from farthing.protocol.messages.charges import Receipt
from farthing.protocol.receipts import make_receipt, verify_receipt
from farthing.protocol.records import GENESIS, Record, Signer, line_of, record_bytes
from tests.papers import signing_key
from tests.protocol.evidence_market import JOURNAL_KEY, ORIGIN, Sealed
from tests.protocol.vectors import cases, vectors

VECTORS = vectors("receipts")
KEY = JOURNAL_KEY.public


def record(seq: int) -> bytes:
    by = Signer(principal_id="platform")
    return record_bytes(Record(seq=seq, at_us=seq, operation="test", by=by, asked={}), GENESIS)


JOURNAL = Sealed([record(seq) for seq in range(1, 8)])


@pytest.mark.parametrize("case", cases(VECTORS["cases"]))
def test_receipts_verify_as_the_vectors_say(case: dict[str, object]) -> None:
    key = PublicKey.from_jwk(VECTORS["key"])
    given = dict(VECTORS["receipt"]) | dict(case["with"])  # type: ignore[call-overload]
    receipt = Receipt(**{**given, "proof": tuple(given["proof"])})

    try:
        verify_receipt(receipt, key)
        verified = True
    except Unverified:
        verified = False

    assert verified is case["verifies"]


@pytest.mark.parametrize("seq", range(1, 8))
def test_a_receipt_verifies_with_the_journals_key_alone(seq: int) -> None:
    proven = verify_receipt(JOURNAL.receipt(seq), KEY)

    assert proven.record.seq == seq
    assert proven.data == JOURNAL.records[seq - 1]
    assert (proven.head.origin, proven.head.size) == (ORIGIN, 7)


def test_the_only_record_of_a_journal_needs_no_path() -> None:
    receipt = Sealed([record(1)]).receipt(1)

    assert receipt.proof == ()
    assert verify_receipt(receipt, KEY).head.size == 1


def test_every_changed_character_of_a_receipt_is_refused() -> None:
    receipt = JOURNAL.receipt(5)
    changed = [
        *(replace(receipt, record=text) for text in spoilt(receipt.record)),
        *(replace(receipt, tree_head=text) for text in spoilt(receipt.tree_head)),
        *(
            replace(receipt, proof=(*receipt.proof[:place], text, *receipt.proof[place + 1 :]))
            for place, each in enumerate(receipt.proof)
            for text in spoilt(each)
        ),
        *(replace(receipt, seq=seq) for seq in (0, 4, 6, 13, -5)),
    ]

    for each in changed:
        with pytest.raises(Unverified):
            verify_receipt(each, KEY)


def test_a_path_in_capitals_is_refused_though_it_decodes() -> None:
    receipt = JOURNAL.receipt(2)
    shouted = replace(receipt, proof=tuple(each.upper() for each in receipt.proof))

    with pytest.raises(Unverified):
        verify_receipt(shouted, KEY)


def test_a_head_by_another_key_is_refused() -> None:
    with pytest.raises(Unverified):
        verify_receipt(JOURNAL.receipt(3), signing_key("another journal").public)


def test_a_line_that_the_journals_key_does_not_cover_is_refused() -> None:
    receipt = JOURNAL.receipt(3)
    head = verify_checkpoint(receipt.tree_head, ORIGIN, KEY)
    witness = sign_checkpoint(signing_key("witness"), head).splitlines()[-1]

    with pytest.raises(Unverified):
        verify_receipt(replace(receipt, tree_head=f"{receipt.tree_head}{witness}\n"), KEY)


def test_a_proven_leaf_that_is_no_record_is_refused() -> None:
    with pytest.raises(Unverified):
        verify_receipt(Sealed([b'{"seq":1}']).receipt(1), KEY)


def test_a_record_in_anothers_place_is_refused() -> None:
    with pytest.raises(Unverified):
        verify_receipt(Sealed([record(1), record(9)]).receipt(2), KEY)


def test_a_receipt_is_made_of_what_the_journal_keeps() -> None:
    tree = Tree()
    for each in JOURNAL.records:
        tree.append(leaf_hash(line_of(each)))
    made = make_receipt(
        seq=6,
        record=JOURNAL.records[5],
        path=tree.inclusion(5, 7),
        tree_head=JOURNAL.receipt(1).tree_head,
    )

    assert made == JOURNAL.receipt(6)


def spoilt(text: str) -> list[str]:
    """The text with each character changed in turn, in one bit that keeps it a character."""
    return [
        text[:place] + chr(ord(character) ^ bit) + text[place + 1 :]
        for place, character in enumerate(text)
        for bit in (1, 32)
    ]
