"""The evidence pack of a charge: its receipts and the platform's keys in one file, and its proof.

Boundary: bytes in, findings out; no server, no network, no clock. Everything else in the pack
follows from the receipts and is compared with what follows, so that no byte of it is free.
Source: spec/evidence.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Final, cast

from farthing.protocol.canonical import InvalidJson, Json, canonical_bytes, parse_json, sha256_hex
from farthing.protocol.checkpoints import origin_of
from farthing.protocol.errors import Unverified
from farthing.protocol.keys import InvalidKey, PublicKey
from farthing.protocol.messages.charges import Evidence, Receipt
from farthing.protocol.packs import read_pack, write_pack
from farthing.protocol.receipts import Proven, verify_receipt
from farthing.protocol.records import Record, head_of, parse_record
from farthing.protocol.replay.charge import replay_charge
from farthing.protocol.replay.reading import member, text_fact
from farthing.protocol.replay.story import Story
from farthing.protocol.signatures import InvalidSignature, read_header
from farthing.protocol.wire import document_of

__all__ = ["PACK_SCHEMA", "Findings", "Trust", "gather", "read_object", "verify"]

PACK_SCHEMA: Final = "farthing-evidence/1"

_MANIFEST: Final = "manifest.json"
_KEYS: Final = "keys.json"
_RECEIPTS: Final = "receipts/"
_RECEIPT_MEMBERS: Final = frozenset({"proof", "record", "seq", "tree_head"})

# What rests on the platform's word, or on nobody's, whatever the pack.
_NEVER_PROVABLE: Final = (
    "that everybody is shown this same journal: its tree heads have no witnesses",
    "that the times in the records are right: they are the platform's clock",
    "that the parties' keys signed the calls: the records keep the proofs' ids, not the proofs",
    "that no key had been revoked when it was used: the engine judges that at every call",
    "that the platform's share is the one it announces: the agreement's record says what it is",
    "that authority and balance allowed the purchase: grants and funding are not in the pack",
    "what was delivered and whether it was any good: the journal holds digests only",
    "who stands behind the ids of the parties: the journal holds no names",
)
_POSITION: Final = (
    "that the charge's rating position was right: earlier charges of the agreement are not in the "
    "pack"
)
_SCHEMA: Final = (
    "whether the body that the vendor produced fits the listing's output schema: that is the "
    "platform's finding"
)

JsonObject = dict[str, Json]


class Trust(StrEnum):
    """What a verification rests on."""

    PINNED = "pinned"
    """The journal's key is one that the caller has learnt elsewhere."""
    INTEGRITY_ONLY = "integrity only"
    """The pack agrees with itself; whose journal it is out of is not shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a pack proves.

    Args:
        charge_id: the charge, once that much is known.
        journal_key: the thumbprint of the key that the tree heads are signed with, once known.
        trust: what everything rests on.
        proved: what holds, in sentences.
        not_provable: what no pack of this kind can show, in sentences.
        not_covered: bytes that may change unseen. There are none.
        bad: the first thing that does not hold; empty when all does.
    """

    charge_id: str = ""
    journal_key: str = ""
    trust: Trust = Trust.INTEGRITY_ONLY
    proved: tuple[str, ...] = ()
    not_provable: tuple[str, ...] = ()
    not_covered: tuple[str, ...] = ()
    bad: str = ""

    @property
    def verified(self) -> bool:
        """Whether everything that can be proven holds."""
        return not self.bad


@dataclass(frozen=True, slots=True)
class _Keys:
    journal: PublicKey
    quotes: PublicKey


def gather(evidence: Evidence) -> bytes:
    """The pack of what the server answered; nothing is verified by making it.

    Raises:
        Unverified: the receipts hold no agreement, or its quote's key is not among the keys.
        ValueError: more than a pack may hold.
    """
    records = [parse_record(each.record.encode())[0] for each in evidence.receipts]
    kid = _quote_kid(records)
    quotes = [key for key in map(_read_key, evidence.quote_keys) if key.thumbprint == kid]
    if not quotes:
        raise Unverified(f"the key {kid} that signed the quote is not given")
    keys = _Keys(_read_key(evidence.journal_key), quotes[0])
    files = {_receipt_name(each.seq): _bytes_of(each) for each in evidence.receipts}
    files[_KEYS] = _keys_file(keys)
    origin = origin_of(evidence.receipts[0].tree_head)
    files[_MANIFEST] = _manifest(evidence.charge_id, origin, files)
    return write_pack(files)


def verify(pack: bytes, trusted: frozenset[str] | None = None) -> Findings:
    """Verify a pack from its bytes alone.

    Args:
        pack: the file's bytes.
        trusted: thumbprints of the platform's journal key, learnt elsewhere; None for a check of
            the pack's integrity only.

    Returns:
        Findings; whatever is wrong is in `bad`, and nothing is raised.
    """
    try:
        files = read_pack(pack)
        keys = _read_keys(files)
        _check_trust(keys.journal, trusted)
        proven = _read_receipts(files, keys.journal)
        story = replay_charge([each.record for each in proven], keys.quotes)
        _check_files(files, keys, story, proven)
    except Unverified as error:
        return Findings(bad=str(error))
    return Findings(
        charge_id=member(story.the_charge(), "charge_id"),
        journal_key=keys.journal.thumbprint,
        trust=Trust.INTEGRITY_ONLY if trusted is None else Trust.PINNED,
        proved=(*_proved_of_journal(proven, keys.journal), *story.proved),
        not_provable=_not_provable(story, proven, trusted),
    )


def _check_trust(key: PublicKey, trusted: frozenset[str] | None) -> None:
    if trusted is not None and key.thumbprint not in trusted:
        raise Unverified(f"the journal's key {key.thumbprint} is not a trusted one")


def _read_receipts(files: Mapping[str, bytes], key: PublicKey) -> list[Proven]:
    """The records in journal order: names sort as their numbers do."""
    proven: list[Proven] = []
    for name in sorted(files):
        if not name.startswith(_RECEIPTS):
            continue
        receipt = _read_receipt(name, files[name])
        proven.append(verify_receipt(receipt, key))
    for one, other in pairwise(proven):
        follows = one.record.seq + 1 == other.record.seq
        if follows and other.prev != head_of(one.data):
            raise Unverified(f"record {other.record.seq} does not follow the one before it")
        if one.record.at_us > other.record.at_us:
            raise Unverified(f"record {other.record.seq} is dated before the one before it")
    if len({each.head.origin for each in proven}) != 1:
        raise Unverified("the receipts are not of one journal")
    return proven


def _read_receipt(name: str, data: bytes) -> Receipt:
    document = read_object(data, name)
    if document.keys() != _RECEIPT_MEMBERS:
        raise Unverified(f"{name} is not a receipt")
    seq, proof = document["seq"], document["proof"]
    if isinstance(seq, bool) or not isinstance(seq, int) or not isinstance(proof, list):
        raise Unverified(f"{name} is not a receipt")
    record, tree_head = document["record"], document["tree_head"]
    texts = [record, tree_head, *proof]
    if not all(isinstance(each, str) for each in texts) or name != _receipt_name(seq):
        raise Unverified(f"{name} is not a receipt")
    return Receipt(
        seq=seq,
        record=cast("str", record),
        proof=tuple(cast("list[str]", proof)),
        tree_head=cast("str", tree_head),
    )


def _read_keys(files: Mapping[str, bytes]) -> _Keys:
    data = files.get(_KEYS, b"")
    document = read_object(data, _KEYS)
    try:
        keys = _Keys(_read_key(document["journal"]), _read_key(document["quotes"]))
    except (KeyError, TypeError) as error:
        raise Unverified(f"{_KEYS} does not hold the platform's two keys") from error
    if _keys_file(keys) != data:
        raise Unverified(f"{_KEYS} holds more than the platform's two keys")
    return keys


def _read_key(jwk: object) -> PublicKey:
    if not isinstance(jwk, dict):
        raise TypeError("a key is an object")
    try:
        return PublicKey.from_jwk(jwk)
    except InvalidKey as error:
        raise Unverified(f"not a public key: {error.reason}") from error


def _check_files(
    files: Mapping[str, bytes], keys: _Keys, story: Story, proven: list[Proven]
) -> None:
    """Require the manifest that follows from the rest, which names every file and no other."""
    named = {_KEYS, *(_receipt_name(each.record.seq) for each in proven)}
    given = set(files) - {_MANIFEST}
    if given != named:
        raise Unverified(f"the pack holds a file that is none of it: {min(given - named)}")
    kid = _quote_kid([each.record for each in proven])
    if keys.quotes.thumbprint != kid:
        raise Unverified("the key of the quotes is not the one that signed the quote")
    charge_id = member(story.the_charge(), "charge_id")
    rest = {name: data for name, data in files.items() if name != _MANIFEST}
    if files.get(_MANIFEST) != _manifest(charge_id, proven[0].head.origin, rest):
        raise Unverified(f"{_MANIFEST} is not the one that the other files give")


def read_object(data: bytes, where: str) -> JsonObject:
    """An object that stands in canonical form; `Unverified` says where it does not."""
    try:
        document = parse_json(data)
        same = isinstance(document, dict) and canonical_bytes(document) == data
    except InvalidJson as error:
        raise Unverified(f"{where} is not JSON: {error.reason}") from error
    if not same:
        raise Unverified(f"{where} is not an object in canonical form")
    return cast("JsonObject", document)


def _quote_kid(records: list[Record]) -> str:
    """The key that signed the quote, as the signature in the record of the agreement says."""
    for record in records:
        if record.operation == "accept_terms":
            try:
                return read_header(text_fact(record, "quote_signature")).kid
            except (InvalidSignature, KeyError, TypeError) as error:
                raise Unverified(f"record {record.seq} holds no signed quote") from error
    raise Unverified("the record of accept_terms is missing")


def _manifest(charge_id: str, origin: str, files: Mapping[str, bytes]) -> bytes:
    return canonical_bytes(
        {
            "charge_id": charge_id,
            "files": {name: sha256_hex(data) for name, data in files.items()},
            "origin": origin,
            "schema": PACK_SCHEMA,
        }
    )


def _keys_file(keys: _Keys) -> bytes:
    return canonical_bytes({"journal": keys.journal.jwk(), "quotes": keys.quotes.jwk()})


def _bytes_of(receipt: Receipt) -> bytes:
    return canonical_bytes(document_of(receipt))


def _receipt_name(seq: int) -> str:
    return f"{_RECEIPTS}{seq:016}.json"


def _proved_of_journal(proven: list[Proven], key: PublicKey) -> tuple[str, ...]:
    head = max((each.head for each in proven), key=lambda head: head.size)
    stands = (
        f"{len(proven)} records stand in the journal of {head.origin} under tree heads signed by "
        f"{key.thumbprint}, the largest over {head.size} records"
    )
    return (stands, "every byte of the pack is the one that these records and keys give")


def _not_provable(
    story: Story, proven: list[Proven], trusted: frozenset[str] | None
) -> tuple[str, ...]:
    last = proven[-1].record.seq
    says = [f"what became of the charge after record {last}: later records can be left out"]
    if trusted is None:
        says.insert(0, "that this is the platform's journal: no thumbprint of its key was given")
    if story.the_hold()["position"]:
        says.append(_POSITION)
    if story.dispute is not None and _is_answered(proven):
        says.append(_SCHEMA)
    return (*says, *_NEVER_PROVABLE)


def _is_answered(proven: list[Proven]) -> bool:
    return any(each.record.operation == "submit_evidence" for each in proven)
