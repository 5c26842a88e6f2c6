"""Writes the vectors of receipts and evidence anew: `python -m tests.protocol.evidence_vectors`.

They are kept as files, and not made in the tests, so that a pack of today must verify for ever.
"""

import json
from base64 import b64encode
from dataclasses import replace
from pathlib import Path
from typing import Any

from farthing.protocol.checkpoints import sign_checkpoint, verify_checkpoint
from farthing.protocol.evidence import gather
from farthing.protocol.packs import write_pack
from farthing.protocol.records import GENESIS, Record, Signer, record_bytes
from farthing.protocol.wire import document_of
from tests.papers import signing_key
from tests.protocol.evidence_market import JOURNAL_KEY, ORIGIN, Sealed, Told

VECTORS = Path(__file__).parents[2] / "spec" / "farthing" / "spec" / "vectors"


def receipts() -> dict[str, Any]:
    by = Signer(principal_id="platform")
    records = [
        record_bytes(Record(seq=n, at_us=n, operation="test", by=by, asked={}), GENESIS)
        for n in range(1, 6)
    ]
    sealed = Sealed(records)
    receipt = sealed.receipt(3)
    other = sealed.receipt(4)
    grown = Sealed([*records, *records]).receipt(3)
    stranger = Sealed(records, signing_key("another journal")).receipt(3)
    head = verify_checkpoint(receipt.tree_head, ORIGIN, JOURNAL_KEY.public)
    witness = sign_checkpoint(signing_key("witness"), head).splitlines()[-1]
    spoilt = receipt.record.replace('"at_us":3', '"at_us":4')
    given = [
        ("a receipt", receipt, True),
        ("the record of a larger tree", grown, True),
        ("another record of the journal", other, True),
        ("a record that was changed", replace(receipt, record=spoilt), False),
        ("a record with a blank more", replace(receipt, record=receipt.record + " "), False),
        ("a place that is not the record's", replace(receipt, seq=4), False),
        ("no place at all", replace(receipt, seq=0), False),
        ("the path of another record", replace(receipt, proof=other.proof), False),
        ("a path cut short", replace(receipt, proof=receipt.proof[:-1]), False),
        ("a path with a hash too many", replace(receipt, proof=receipt.proof * 2), False),
        ("a path in capitals", replace(receipt, proof=_upper(receipt.proof)), False),
        ("the head of another tree", replace(receipt, tree_head=grown.tree_head), False),
        ("a head by another key", stranger, False),
        (
            "a head with a witness's line, which this key does not cover",
            replace(receipt, tree_head=f"{receipt.tree_head}{witness}\n"),
            False,
        ),
        ("a head with no last newline", replace(receipt, tree_head=receipt.tree_head[:-1]), False),
    ]
    whole = document_of(receipt)
    return {
        "about": "`with` replaces members of `receipt`; `verifies` is said under `key`.",
        "key": JOURNAL_KEY.public.jwk(),
        "receipt": whole,
        "cases": [
            {
                "says": says,
                "with": {k: v for k, v in document_of(each).items() if v != whole[k]},
                "verifies": verifies,
            }
            for says, each, verifies in given
        ],
    }


def evidence() -> dict[str, Any]:
    told = Told.of()
    told.refund(3_000_001)
    told.answer(told.dispute("not_delivered"), "c" * 64, schema_valid=True)
    pack = gather(told.evidence())
    pinned = [JOURNAL_KEY.thumbprint]
    other = signing_key("another journal").thumbprint
    rejected = [
        ("a byte of a record changed", pack.index(b"capture_hold")),
        ("a byte of a checksum changed", 14),
        ("a byte of a date changed", 12),
        ("a byte of a name changed", 30),
        ("a byte of a key changed", pack.index(b'"x":"') + 5),
        ("a byte of a tree head changed", pack.index(b'"tree_head":"') + 13),
        ("a byte of the manifest changed", pack.index(b'"charge_id"') + 13),
        ("a byte of the directory changed", pack.index(b"PK\x01\x02") + 38),
        ("the last byte changed", len(pack) - 1),
    ]
    cases: list[dict[str, Any]] = [
        {
            "says": "a genuine pack, its key pinned",
            "bytes": [],
            "trusted": pinned,
            "verified": True,
            "trust": "pinned",
        },
        {
            "says": "a genuine pack, its key one of several pinned",
            "bytes": [],
            "trusted": [other, *pinned],
            "verified": True,
            "trust": "pinned",
        },
        {
            "says": "a genuine pack, no key pinned",
            "bytes": [],
            "verified": True,
            "trust": "integrity only",
        },
        {
            "says": "a genuine pack, another key pinned",
            "bytes": [],
            "trusted": [other],
            "verified": False,
        },
        *(
            {
                "says": says,
                "bytes": [[place, pack[place] ^ 1]],
                "trusted": pinned,
                "verified": False,
            }
            for says, place in rejected
        ),
    ]
    files = {"b/2.json": b"{}", "a.json": b"[1]"}
    return {
        "about": "`bytes` are [place, value] to set in `pack` (base64) before it is verified.",
        "charge_id": told.charge_id,
        "archive": {
            "files": {name: data.decode() for name, data in files.items()},
            "base64": b64encode(write_pack(files)).decode(),
        },
        "pack": b64encode(pack).decode(),
        "cases": cases,
    }


def _upper(proof: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(each.upper() for each in proof)


if __name__ == "__main__":
    for name, made in (("receipts", receipts()), ("evidence", evidence())):
        text = json.dumps(made, indent=2, ensure_ascii=False) + "\n"
        (VECTORS / f"{name}.json").write_text(text, encoding="utf-8")
