"""The bundle: a whole journal in one text file, for whoever audits it without a database.

Boundary: lines in, lines out, one after another, so that a journal of any length passes through.
No byte of a bundle is free: each line is a record, or follows from records and signed heads.
Source: spec/audit.md, spec/verifier.md.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from farthing.protocol.audit import AuditFindings, verify_head, verify_journal
from farthing.protocol.canonical import Json, canonical_bytes, sha256_hex
from farthing.protocol.chain import Chain
from farthing.protocol.errors import Unverified
from farthing.protocol.evidence import Trust, read_object
from farthing.protocol.faults import Fault, FaultKind
from farthing.protocol.keys import InvalidKey, PublicKey
from farthing.protocol.ledger import Account, AccountKind, apply
from farthing.protocol.merkle import EMPTY_ROOT, read_path, verify_consistency
from farthing.protocol.platform_keys import PlatformKeys
from farthing.protocol.replay.rulebook import Rulebook
from farthing.protocol.succession import followed

__all__ = [
    "BUNDLE_MARK",
    "BUNDLE_SCHEMA",
    "BundleFindings",
    "bundle_lines",
    "described",
    "verify_bundle",
]

BUNDLE_SCHEMA: Final = "farthing-bundle/1"
BUNDLE_MARK: Final = b'{"bundle":'
"""What a bundle begins with."""
# Longer than any record can be: the door takes a mebibyte, and a document may stand in it twice.
LINE_BYTES_MAX: Final = 16 * 1024 * 1024

_NOT_PROVABLE: Final = (
    "that everybody is shown this same journal: its tree heads have no witnesses",
    "what came after the last record: a bundle can end early",
    "that the times in the records are right: they are the platform's clock",
    "that the parties' keys signed the calls: the records keep the proofs' ids, not the proofs",
    "that money outside is what external accounts mirror",
    "what was delivered and whether it was any good: the journal holds digests only",
    "who stands behind the ids: the journal holds no names",
)
_UNPINNED: Final = "that this is the platform's journal: no thumbprint of its key was given"
_UNQUOTED: Final = "that the platform signed the quotes: no key for quotes was given"

JsonObject = dict[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFindings:
    """What a bundle proves.

    Args:
        journal: the audit of its records; None where the file is no bundle to judge.
        origin: the log.
        journal_key: the thumbprint of the key that signed the newest head.
        trust: what everything rests on.
        not_provable: what no bundle can show, in sentences.
        bad: the first thing that does not hold; empty when all does.
    """

    journal: AuditFindings | None = None
    origin: str = ""
    journal_key: str = ""
    trust: Trust = Trust.INTEGRITY_ONLY
    not_provable: tuple[str, ...] = ()
    bad: str = ""

    @property
    def verified(self) -> bool:
        """Whether everything that can be proven holds."""
        return not self.bad

    @property
    def proved(self) -> tuple[str, ...]:
        """What holds, in sentences."""
        if self.journal is None or self.bad:
            return ()
        count = self.journal.records
        return (
            f"{count} records of {self.origin} follow one another, each in its one spelling",
            f"their tree has the root {self.journal.root_sha256}, signed by {self.journal_key}",
            f"{self.journal.heads} signed heads grow out of one another",
            f"{len(self.journal.accounts)} accounts: debits equal credits, and none is overdrawn",
            "every record keeps the rules of keys, signatures, authority, idempotency and holds",
        )


def bundle_lines(
    batches: Iterable[tuple[Sequence[bytes], str]],
    *,
    origin: str,
    journal_keys: Sequence[PublicKey],
    quote_keys: Sequence[PublicKey],
) -> Iterator[bytes]:
    """The lines of the bundle of a journal, each with its line feed.

    Records that were changed make none; what the rules say of them is the auditor's.

    Args:
        batches: the records of each batch, in order, with the signed head over all so far.
        origin: the log that the heads name.
        journal_keys: the keys that heads are and were signed with.
        quote_keys: the keys that quotes are and were signed with.

    Raises:
        Unverified: a record does not follow the one before, or the head over it is another's.
        Broken: as `ledger.apply`.
    """
    yield _line(_header(origin, journal_keys, quote_keys))
    chain, covered = Chain(), 0
    accounts: dict[str, Account] = {}
    for records, note in batches:
        for data in records:
            for transfer in chain.read(data).moved:
                # Without a word on grace: whether an account may be overdrawn is the auditor's.
                apply(accounts, transfer, None)
            yield data + b"\n"
        head = verify_head(note, origin, journal_keys)
        if (head.size, head.root) != (chain.seq, chain.tree.root()):
            raise Unverified(f"the signed head of {head.size} records is not of these {chain.seq}")
        path = chain.tree.consistency(covered, chain.seq)
        covered = chain.seq
        yield _line({"head": note, "proof": [node.hex() for node in path]})
    yield _line(_end(chain.seq, chain.head, chain.tree.root(), accounts))


def verify_bundle(
    lines: Iterable[bytes],
    trusted: frozenset[str] | None = None,
    successions: Iterable[object] = (),
) -> BundleFindings:
    """Verify a bundle from its lines alone.

    Args:
        lines: with their line feeds, as a file opened in binary gives them.
        trusted: thumbprints of the platform's journal key, learnt elsewhere; None for a check of
            the bundle's integrity only.
        successions: as the platform publishes them: a trusted key that signed heads of the bundle
            leads to others.

    Returns:
        Findings; whatever is wrong is in `bad`, and nothing is raised.
    """
    reader = _Reader(iter(lines))
    try:
        reader.open()
        rulebook = Rulebook(reader.quote_keys)
        journal = verify_journal(
            reader.records(),
            notes=reader.notes(),
            origin=reader.origin,
            keys=reader.journal_keys,
            follow=rulebook.follow,
        )
        if trusted is not None:
            trusted |= _led_to(reader, trusted, successions)
        return _judged(reader, journal, trusted)
    except Unverified as error:
        return BundleFindings(bad=str(error))


def described(fault: Fault) -> str:
    """A fault in one line."""
    where = f" at record {fault.seq}" if fault.seq else ""
    return f"{fault.kind.value}{where}: {fault.why}"


@dataclass(slots=True)
class _Reader:
    """A bundle, taken apart as it is read: records go to whoever judges them, the rest stays."""

    lines: Iterator[bytes]
    number: int = 0
    origin: str = ""
    journal_keys: tuple[PublicKey, ...] = ()
    quote_keys: tuple[PublicKey, ...] = ()
    heads: list[tuple[str, list[bytes], int]] = field(default_factory=list)
    seen: int = 0
    last: bytes = b""
    end: JsonObject | None = None
    cut: str = ""

    def open(self) -> None:
        """Read the first line."""
        header = read_object(self._next(), "not a bundle: the first line")
        if header.get("bundle") != BUNDLE_SCHEMA:
            raise Unverified(f"not a bundle: the first line does not say {BUNDLE_SCHEMA}")
        try:
            keys = cast("Mapping[str, list[JsonObject]]", header["keys"])
            self.origin = str(header["origin"])
            self.journal_keys = tuple(map(PublicKey.from_jwk, keys["journal"]))
            self.quote_keys = tuple(map(PublicKey.from_jwk, keys["quotes"]))
            same = _header(self.origin, self.journal_keys, self.quote_keys) == header
        except (InvalidKey, LookupError, TypeError, AttributeError) as error:
            raise Unverified(f"not a bundle: its first line: {error!r}") from error
        if not same:
            raise Unverified("not a bundle: its first line holds more, or other than it must")

    def records(self) -> Iterator[bytes]:
        """The records, each with the text of its batch, in order; heads and end are kept."""
        entry = b""
        while line := self._next():
            if line.startswith(b"[") and entry:
                entry += b"\n" + line
                continue
            if entry:
                yield entry
                entry = b""
            if line.startswith((b'{"accounts":', b'{"head":')):
                self._keep(read_object(line, f"line {self.number}"))
            else:
                if self.end is not None:
                    raise Unverified(f"line {self.number}: something follows the end")
                self.last = entry = line
                self.seen += 1
        if entry:
            yield entry
        if self.end is None:
            raise Unverified("the bundle has no end: it was cut off")

    def notes(self) -> Iterator[str]:
        """All heads, also those after a fault: what they cover tells which record it lies in."""
        try:
            for _ in self.records():
                pass
        except Unverified as error:
            self.cut = str(error)
        yield from (note for note, _, _ in self.heads)

    def _keep(self, found: JsonObject) -> None:
        if self.end is not None:
            raise Unverified(f"line {self.number}: something follows the end")
        if "accounts" in found:
            self.end = found
            return
        note, proof = found.get("head"), found.get("proof")
        if found.keys() != {"head", "proof"} or not isinstance(note, str):
            raise Unverified(f"line {self.number}: not a head")
        try:
            path = read_path(proof)
        except (TypeError, ValueError) as error:
            text = f"line {self.number}: the head's proof is no list of hashes"
            raise Unverified(text) from error
        self.heads.append((note, path, self.seen))

    def _next(self) -> bytes:
        line = next(self.lines, b"")
        if not line:
            return b""
        self.number += 1
        if not line.endswith(b"\n") or len(line) > LINE_BYTES_MAX or line == b"\n":
            raise Unverified(f"line {self.number}: cut off, empty or too long")
        return line[:-1]


def _led_to(
    reader: _Reader, trusted: frozenset[str], successions: Iterable[object]
) -> frozenset[str]:
    pinned = [key for key in reader.journal_keys if key.thumbprint in trusted]
    believed = followed(PlatformKeys.of(journal=pinned), successions, reader.origin)
    return frozenset(believed.journal)


def _judged(
    reader: _Reader, journal: AuditFindings, trusted: frozenset[str] | None
) -> BundleFindings:
    bad, signer = _first_bad(reader, journal)
    if not bad and trusted is not None and signer not in trusted:
        bad = f"the newest head is signed by {signer}, which is not a trusted key"
    says = list(_NOT_PROVABLE)
    if not reader.quote_keys:
        says.insert(0, _UNQUOTED)
    if trusted is None:
        says.insert(0, _UNPINNED)
    return BundleFindings(
        journal=journal,
        origin=reader.origin,
        journal_key=signer,
        trust=Trust.INTEGRITY_ONLY if trusted is None else Trust.PINNED,
        not_provable=tuple(says),
        bad=bad,
    )


def _first_bad(reader: _Reader, journal: AuditFindings) -> tuple[str, str]:
    """The first thing that does not hold, and the thumbprint under the newest head."""
    if (fault := journal.fault) is not None:
        return described(fault), ""
    if reader.cut:
        return reader.cut, ""
    if journal.imbalances:
        return "debits do not equal credits", ""
    size, root = 0, EMPTY_ROOT
    for note, path, seen in reader.heads:
        head = verify_head(note, reader.origin, reader.journal_keys)
        growing = verify_consistency(size, head.size, root, head.root, path)
        if not growing or not size < head.size == seen:
            return f"the head of {head.size} records stands elsewhere, or grows out of another", ""
        size, root = head.size, head.root
    if size != journal.records or not size:
        fault = Fault(kind=FaultKind.HEAD, seq=size + 1, why="no signed head covers it")
        return described(fault), ""
    head_sha256 = sha256_hex(reader.last)
    if reader.end != _end(size, head_sha256, root, journal.accounts):
        return "the end of the bundle is not what its records give", ""
    note = reader.heads[-1][0]
    signers = [key for key in reader.journal_keys if _signs(note, reader.origin, key)]
    return "", signers[0].thumbprint


def _signs(note: str, origin: str, key: PublicKey) -> bool:
    try:
        verify_head(note, origin, [key])
    except Unverified:
        return False
    return True


def _header(
    origin: str, journal_keys: Sequence[PublicKey], quote_keys: Sequence[PublicKey]
) -> JsonObject:
    overdrawn: list[Json] = [kind.value for kind in AccountKind if kind.may_go_negative]
    return {
        "bundle": BUNDLE_SCHEMA,
        "keys": {
            "journal": [dict(key.jwk()) for key in journal_keys],
            "quotes": [dict(key.jwk()) for key in quote_keys],
        },
        "origin": origin,
        "overdrawn": overdrawn,
    }


def _end(size: int, head_sha256: str, root: bytes, accounts: Mapping[str, Account]) -> JsonObject:
    return {
        "accounts": {name: {**account.counters()} for name, account in accounts.items()},
        "end": {"head_sha256": head_sha256, "records": size, "root_sha256": root.hex()},
    }


def _line(document: JsonObject) -> bytes:
    return canonical_bytes(document) + b"\n"
