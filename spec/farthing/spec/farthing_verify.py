"""Verify a Farthing journal from a bundle, or one receipt, without trusting who made them.

This one file needs Python 3.11 and `cryptography`, and nothing of Farthing. It is written to be
read: each step says what it shows. Formats and rules: spec/{verifier,audit,receipts,merkle}.md.
Exit 0: everything holds. Exit 1: something does not. Exit 2: there is nothing to judge.

    python farthing_verify.py BUNDLE --trust THUMBPRINT
    python farthing_verify.py BUNDLE --trust THUMBPRINT --receipt RECEIPT
    python farthing_verify.py --receipt RECEIPT --keys JWKS --trust THUMBPRINT
"""

import argparse
import base64
import hashlib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

CANNOT_SHOW = (
    "that this is the platform's journal: without --trust anybody could have made it",
    "that everybody is shown this same journal: compare a tree head with others who have one",
    "what came after the last record: a bundle can end early",
    "that the times in the records are right: they are the platform's clock",
    "that prices, limits, holds and signatures are in order: `farthing audit verify` judges those",
    "that money outside is what the external accounts mirror",
    "what was delivered, and who stands behind an id: the journal holds neither",
)
EMPTY_ROOT = hashlib.sha256(b"").digest()
BELOW_ZERO = ["receivable", "promotion", "external_clearing"]  # kinds of account that may be
COUNTERS = ("credits_pending", "credits_posted", "debits_pending", "debits_posted")


class Bad(Exception):
    """Something does not hold; the text says what and where."""


def require(holds: object, what: str) -> None:
    """Stop at the first thing that does not hold."""
    if not holds:
        raise Bad(what)


# 1. Bytes. A document has one spelling (RFC 8785); what was read is written again and compared.
def read_json(data: bytes, what: str, more: str = "") -> dict[str, Any]:
    """The object that these bytes are the one spelling of."""
    try:
        value = json.loads(data.decode())
        again = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        require(again.encode() == data, f"{what} is not in its one spelling{more}")
    except (ValueError, RecursionError) as error:
        raise Bad(f"{what} is not JSON: it was cut off, or is of another kind") from error
    require(isinstance(value, dict) and in_alphabet(value), f"{what} holds what none may hold")
    return dict(value)


def in_alphabet(value: object) -> bool:
    """Whether a value needs nothing that two readers could read differently."""
    if isinstance(value, dict):
        return all(key.isascii() and in_alphabet(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(in_alphabet, value))
    return isinstance(value, str) or (isinstance(value, int) and abs(value) < 2**53)


def read_hashes(value: Any, what: str) -> list[bytes]:  # noqa: ANN401
    """A list of hashes in lower-case hex."""
    good = all(re.fullmatch("[0-9a-f]{64}", each) for each in value)
    require(isinstance(value, list) and good, f"{what} is no list of hashes")
    return [bytes.fromhex(each) for each in value]


# 2. The tree (RFC 6962, section 2.1; RFC 9162, sections 2.1.3 and 2.1.4).
def leaf(data: bytes) -> bytes:
    """The hash of an entry."""
    return hashlib.sha256(b"\x00" + data).digest()


def node(left: bytes, right: bytes) -> bytes:
    """The hash of two subtrees."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Tree:
    """The roots of the complete subtrees of a growing list: all that its root is made of."""

    def __init__(self) -> None:
        self.size = 0
        self.peaks: list[bytes] = []

    def add(self, hashed: bytes) -> None:
        """Take the next leaf."""
        carry = self.size
        while carry & 1:
            hashed, carry = node(self.peaks.pop(), hashed), carry >> 1
        self.peaks.append(hashed)
        self.size += 1

    def root(self) -> bytes:
        """The root of everything so far."""
        root = self.peaks[-1] if self.peaks else EMPTY_ROOT
        for peak in reversed(self.peaks[:-1]):
            root = node(peak, root)
        return root


def climb(at: int, last: int, path: Sequence[bytes], start: bytes) -> tuple[bytes, bytes]:
    """The roots that a path leads to: of the tree that ends at the start, and of the whole one."""
    old = new = start
    for sibling in path:
        require(last > 0, "a path is longer than its tree is high")
        if at & 1 or at == last:
            old, new = node(sibling, old), node(sibling, new)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            new = node(new, sibling)
        at, last = at >> 1, last >> 1
    require(last == 0, "a path is shorter than its tree is high")
    return old, new


def grows(first: int, second: int, old: bytes, new: bytes, path: list[bytes]) -> bool:
    """Whether the second tree only adds to the first (RFC 9162, section 2.1.4.2)."""
    if first == 0 or first >= second:
        return first < second and not path
    # A first tree that is one complete subtree stands for itself at the head of the path.
    start, *rest = path if first & (first - 1) else [old, *path]
    at, last = first - 1, second - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    return climb(at, last, rest, start) == (old, new)


# 3. The signed head: a C2SP tlog-checkpoint in a signed note, Ed25519, exactly one signature.
def read_keys(jwks: list[dict[str, str]], purpose: str | None) -> dict[str, bytes]:
    """The Ed25519 keys that say this purpose, by thumbprint (RFC 7638); a bundle's say none."""
    keys: dict[str, bytes] = {}
    for jwk in jwks:
        said = (jwk["kty"], jwk["crv"], jwk.get("org.farthing/purpose"))
        if said == ("OKP", "Ed25519", purpose):
            named = f'{{"crv":"Ed25519","kty":"OKP","x":"{jwk["x"]}"}}'.encode()
            thumbprint = base64.urlsafe_b64encode(hashlib.sha256(named).digest()).decode()
            keys[thumbprint.rstrip("=")] = base64.urlsafe_b64decode(jwk["x"] + "=")
    return keys


@dataclass(frozen=True)
class Head:
    """What a signed note says, and which key signed it."""

    origin: str
    size: int
    root: bytes
    signer: str


Receipt = tuple[int, bytes, Head, str]  # that verifies: place, line, head over it, what of a call


def read_head(note: str, keys: dict[str, bytes], what: str) -> Head:
    """The head of a note that one of the keys signed."""
    form = r"([!-*,-~]{1,255})\n(0|[1-9][0-9]{0,18})\n([A-Za-z0-9+/]{43}=)\n\n— (\S+) (\S+)\n"
    match = re.fullmatch(form, note)
    if match is None:
        raise Bad(f"{what} is no note with one signature")
    origin, size, root64, name, stamp64 = match.groups()
    root, stamp = (base64.b64decode(each, validate=True) for each in (root64, stamp64))
    spelt = (base64.b64encode(root).decode(), base64.b64encode(stamp).decode(), name)
    require(spelt == (root64, stamp64, origin), f"{what} is spelt otherwise")
    for signer, raw in keys.items():
        if hashlib.sha256(name.encode() + b"\n\x01" + raw).digest()[:4] == stamp[:4]:
            try:
                body = f"{origin}\n{size}\n{root64}\n".encode()
                Ed25519PublicKey.from_public_bytes(raw).verify(stamp[4:], body)
            except InvalidSignature:
                raise Bad(f"{what}: the signature does not verify") from None
            return Head(origin, int(size), root, signer)
    raise Bad(f"{what} is signed by no key that was given")


# 4. The ledger: both sides of every transfer move together, nothing that must not is overdrawn.
def fold(journal: "Journal", transfer: dict[str, str]) -> None:
    """Apply one transfer to the four counters of both its accounts."""
    require(re.fullmatch("[1-9][0-9]{0,18}", transfer["units"]), "units are no integer text")
    units, movement = int(transfer["units"]), transfer["movement"]
    require(units < 2**63 and transfer["debit"] != transfer["credit"], "it is no transfer")
    require(movement in {"pending", "void", "post"}, f"{movement} is no movement")
    for side in ("credit", "debit"):
        name = transfer[side]
        owner, kind, asset = name.split(":")
        require(owner and asset == transfer["asset"], f"{name} is of another asset")
        counters = journal.accounts.setdefault(name, [0, 0, 0, 0])
        counter = COUNTERS.index(f"{side}s_{'posted' if movement == 'post' else 'pending'}")
        counters[counter] += -units if movement == "void" else units
        _, credits_posted, debits_pending, debits_posted = counters
        require(min(counters) >= 0, f"a counter of {name} is below zero")
        left = credits_posted - debits_posted - debits_pending + journal.grace.get(name, 0)
        require(left >= 0 or kind in BELOW_ZERO, f"{name} is overdrawn")


# 5. The bundle: records and heads in order, then the end.
@dataclass
class Journal:
    """A journal as far as it was read; an account may be below zero by its `grace`."""

    origin: str
    keys: dict[str, bytes]
    tree: Tree = field(default_factory=Tree)
    last_sha256: str = hashlib.sha256(b"farthing journal").hexdigest()
    batch: str | None = None  # the digest of the text that stands below the last record
    at_us: int = 0
    accounts: dict[str, list[int]] = field(default_factory=dict)
    grace: dict[str, int] = field(default_factory=dict)
    head: Head = Head("", 0, EMPTY_ROOT, "")
    ended: bool = False


def open_bundle(line: bytes) -> Journal:
    """The first line: which log, under which keys."""
    what = "no bundle of `farthing audit export --bundle` (a --receipt?): its first line"
    top = read_json(line.removesuffix(b"\n"), what)
    form = (top.get("bundle"), top.get("overdrawn"), len(top))
    require(form == ("farthing-bundle/1", BELOW_ZERO, 4), f"{what} is another")
    return Journal(top["origin"], read_keys(top["keys"]["journal"], None))


def take_record(journal: Journal, line: bytes) -> None:
    """The next record: its place, its predecessor, its time, its transfers; a leaf of the tree."""
    seq = journal.tree.size + 1
    record = read_json(line, f"record {seq}")
    try:
        require(record["v"] == 1, "its version is not known")
        require(record["seq"] == seq, f"record {record['seq']} stands in its place")
        require(record["prev"] == journal.last_sha256, f"it or record {seq - 1} was changed")
        require(record["at_us"] >= journal.at_us, "it is earlier than the one before it")
        require("refused" not in record or "moved" not in record, "a refusal moves money")
        for transfer in record.get("moved", []):
            fold(journal, transfer)
        for change in record.get("changed", []):
            if change["noun"] == "grace":
                policies = (change["after"]["granted_units"], change["after"]["chosen_units"])
                journal.grace[change["id"]] = min(map(int, policies))
    except Bad as bad:
        raise Bad(f"record {seq}: {bad}") from None
    journal.at_us = record["at_us"]
    journal.batch = None if "refused" in record else record["asked"].get("batch_sha256")
    journal.last_sha256 = hashlib.sha256(line).hexdigest()
    journal.tree.add(leaf(line))


def take_head(journal: Journal, line: bytes) -> None:
    """A signed head over all records so far, which grows out of the head before."""
    size, before, what = journal.tree.size, journal.head, f"the head of {journal.tree.size} records"
    found = read_json(line, what)
    require(found.keys() == {"head", "proof"}, f"{what} holds other than it must")
    head = read_head(found["head"], journal.keys, what)
    same = (head.origin, head.size) == (journal.origin, size)
    require(same, f"{what} is of another journal, or says that there are {head.size}")
    require(head.root == journal.tree.root(), f"{what} has another root than these records")
    grown = grows(before.size, size, before.root, head.root, read_hashes(found["proof"], what))
    require(grown, f"{what} does not grow out of the one before")
    journal.head = head


def take_end(journal: Journal, line: bytes) -> None:
    """The last line repeats what everything before it gives."""
    accounts = {
        name: dict(zip(COUNTERS, map(str, counters), strict=True))
        for name, counters in journal.accounts.items()
    }
    size, root = journal.tree.size, journal.tree.root().hex()
    end = {"head_sha256": journal.last_sha256, "records": size, "root_sha256": root}
    journal.ended = read_json(line, "the end") == {"accounts": accounts, "end": end}
    require(journal.ended, "the end is not what the records give")


def read_bundle(journal: Journal, lines: Iterator[bytes], receipts: list[Receipt]) -> None:
    """Take all that follows the first line, and hold receipts against it on the way."""
    for number, ended in enumerate(lines, 2):
        line = ended.removesuffix(b"\n")
        require(line and line != ended, f"line {number} is empty or cut off")
        require(not journal.ended, f"line {number}: something follows the end")
        if journal.batch or line.startswith(b"["):
            require(hashlib.sha256(line).hexdigest() == journal.batch, f"line {number}: no batch")
            journal.batch = None
        elif line.startswith(b'{"head":'):
            take_head(journal, line)
        elif line.startswith(b'{"accounts":'):
            take_end(journal, line)
        else:
            take_record(journal, line)
            for receipt in receipts:
                hold_against(receipt, journal, line)
    require(journal.ended, "the bundle was cut off: it has no end")
    require(journal.head.size == journal.tree.size > 0, "no signed head covers the last record")


# 6. A receipt: one record, its path, and the head that the path leads to.
def read_receipt(data: bytes, keys: dict[str, bytes], what: str) -> Receipt:
    """A receipt, of a charge or of one call, whose record is in the tree that a key signed."""
    given = read_json(data.removesuffix(b"\n"), what, ": take what --out wrote")
    found = given.get("receipt", given)
    require(found.keys() == {"proof", "record", "seq", "tree_head"}, f"{what} is no receipt")
    head = read_head(found["tree_head"], keys, f"{what}: the head")
    seq, (record, below, batch) = found["seq"], found["record"].encode().partition(b"\n")
    path = read_hashes(found["proof"], f"{what}: the proof")
    known = type(seq) is int and 0 < seq <= head.size  # RFC 9162, section 2.1.3.2
    root = climb(seq - 1, head.size - 1, path, leaf(record))[1] if known else b""
    require(root == head.root, f"{what}: the record is not in the tree that was signed")
    said = read_json(record, "the record")
    require(said["seq"] == seq, f"the record is not number {seq}")
    same = hashlib.sha256(batch).hexdigest() == said.get("asked", {}).get("batch_sha256")
    require(same or not below, f"{what}: the batch is not the record's")
    return seq, record, head, "" if found is given else read_call(given, said)


def read_call(given: dict[str, Any], said: dict[str, Any]) -> str:
    """What a record says of a call, whose event is in the batch that its vendor signed."""
    require(given.keys() == {"event", "path", "place", "receipt"}, "the call's receipt differs")
    text, at, events = given["event"].encode(), given["place"], said["asked"]["events"]
    require("refused" not in said and type(at) is int and 0 <= at < events, "no such call")
    root = climb(at, events - 1, read_hashes(given["path"], "the path"), leaf(text))[1].hex()
    require(root == said["facts"]["usage_root"], "the call is not in the batch that was signed")
    event, said = read_json(text, "the event"), said["decided"]
    fault = "".join(f", {why}" for place, why, _ in said["rejected"] if place == at)
    return f" (call {event['id']} of {event['source']}: {said['amounts'][at]} units{fault})"


def hold_against(receipt: Receipt, journal: Journal, line: bytes) -> None:
    """The bundle has this very record at its place, and this very tree at the head's size."""
    seq, record, head, _ = receipt
    if journal.tree.size == seq:
        require(line == record, f"record {seq} of the bundle is another")
    if journal.tree.size == head.size:
        same = (journal.tree.root(), journal.origin) == (head.root, head.origin)
        require(same, f"the receipt's head of {head.size} is of another journal: a fork")


# 7. What a person is told.
def judge(bundle: Path | None, jwks: Path | None, given: list[Path], trust: set[str]) -> list[str]:
    """What holds, in sentences; `Bad` at the first thing that does not."""
    says, lines = list[str](), iter(bundle.open("rb") if bundle else ())
    journal = open_bundle(next(lines, b"")) if bundle else Journal("", {})
    try:
        keys = read_keys(json.loads(jwks.read_bytes())["keys"], "journal") if jwks else journal.keys
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise Bad(f"{jwks} is no key set: get the platform's /.well-known/jwks.json") from error
    known = {name: raw for name, raw in keys.items() if not trust or name in trust}
    require(known, f"{jwks or bundle} has no key for the journal, or none that --trust names")
    receipts = [read_receipt(path.read_bytes(), known, str(path)) for path in given]
    if bundle:
        read_bundle(journal, lines, receipts)
        size, signer = journal.tree.size, journal.head.signer
        require(signer in known, f"the newest head is signed by {signer}, which is not trusted")
        says.append(f"{size} records of {journal.origin} follow one another; balances hold")
        says.append(f"their tree has the root {journal.tree.root().hex()}, signed by {signer}")
    for seq, _, head, call in receipts:
        says += [f"record {seq}{call} is in the journal of {head.origin}, signed by {head.signer}"]
        if bundle:
            require(head.size <= journal.tree.size, "a receipt is newer: get a later bundle")
            says.append(f"record {seq} is the one in the bundle, in the same tree")
    return says


def main() -> int:
    """Judge, and say what holds and what cannot be shown; what a bundle says commands nothing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("bundle", type=Path, nargs="?", help="made by `farthing audit export --bundle`")
    add("--receipt", type=Path, action="append", default=[], help="of a charge, or of one call")
    add("--keys", type=Path, help="the platform's /.well-known/jwks.json")
    add("--trust", action="append", default=[], help="journal key's thumbprint; may begin with -")
    words = "\0".join(sys.argv[1:]).replace("--trust\0", "--trust=").split("\0")
    asked = parser.parse_args([each for each in words if each])
    if not asked.bundle and not (asked.receipt and asked.keys):
        parser.error("name a bundle, or a receipt with --receipt and a key set with --keys")
    try:
        says = judge(asked.bundle, asked.keys, asked.receipt, set(asked.trust))
    except OSError as error:
        parser.error(str(error))
    except (Bad, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        why = str(error) if isinstance(error, Bad) else f"a file is of another form: {error!r}"
        sys.stdout.write(f"REJECTED: {why.encode('unicode_escape').decode()}\n")
        return 1
    lines = [f"VERIFIED ({'pinned' if asked.trust else 'integrity only'})", *says]
    lines += ["this does not show:", *(f"  - {each}" for each in CANNOT_SHOW[bool(asked.trust) :])]
    sys.stdout.write("".join(f"{line.encode('unicode_escape').decode()}\n" for line in lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
