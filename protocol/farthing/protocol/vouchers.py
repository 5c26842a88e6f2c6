"""What is owed in a session, counted by both sides: the buyer's book, the vendor's desk, MACs.

Boundary: sums and sequence numbers; the signatures are `proofs`, what a call costs is rating. Both
keep their state as a document, so that a restart goes on where it was. Source: spec/sessions.md.
"""

import hmac
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from farthing.protocol import base64url
from farthing.protocol.canonical import Json, sha256_hex
from farthing.protocol.claims import ProofError, ProofFault
from farthing.protocol.documents import DocumentError, Fault, Fields
from farthing.protocol.errors import Code, NextAction, Refusal, refuse
from farthing.protocol.ids import AgreementId, SessionId
from farthing.protocol.money import INT64_MAX
from farthing.protocol.proofs import Entitlement, Voucher
from farthing.protocol.sequences import WINDOW, Window

__all__ = [
    "MAC_KEY_BYTES",
    "SpendBook",
    "Unsigned",
    "VoucherDesk",
    "ack_after",
    "check_mac",
    "mac_token",
]

MAC_KEY_BYTES: Final = 32

_SEQ_MAX: Final = 2**53 - 1
_UNITS: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_SEQ: Final = re.compile(r"[1-9][0-9]{0,15}")


def ack_after(ack: str, seq: int, units: int, result_sha256: str) -> str:
    """The chain of answers received with one more: what the next voucher acknowledges.

    Args:
        ack: The chain before, `""` before the first answer.
        seq: The number of the call that was answered.
        units: What it costs by the buyer's own rating.
        result_sha256: The digest of the result as it came.
    """
    return sha256_hex(f"{ack}\n{seq}\n{units}\n{result_sha256}".encode())


class Unsigned:
    """What calls cost whose number is above every signed voucher's: nothing shows them yet."""

    __slots__ = ("_by_seq", "units")

    def __init__(self, by_seq: Mapping[int, int] | None = None) -> None:
        self._by_seq = dict(by_seq or {})
        self.units = sum(self._by_seq.values())

    def add(self, seq: int, units: int) -> None:
        """A call runs without a signature, and may cost this much."""
        self._by_seq[seq] = units
        self.units += units

    def settle(self, seq: int, units: int) -> None:
        """It costs this much; nothing where it is not one of these calls."""
        if seq in self._by_seq:
            self.units += units - self._by_seq[seq]
            self._by_seq[seq] = units

    def signed(self, seq: int) -> None:
        """A signed voucher of this number covers the calls up to it."""
        for each in [each for each in self._by_seq if each <= seq] if self._by_seq else ():
            self.units -= self._by_seq.pop(each)

    def document(self) -> dict[str, Json]:
        """All of it, by number."""
        return {str(seq): str(units) for seq, units in self._by_seq.items()}


class SpendBook:
    """The buyer's side: the next voucher, never for more than the session may still owe.

    What it signs never falls: the voucher with the highest number is the one that settles all.

    Args:
        agreement_id: Whose agreement.
        session_id: Whose session.
        cap_units: All that is set aside; raised by a top-up.
        per_call_units: The most that one call may cost.
    """

    def __init__(
        self,
        agreement_id: AgreementId,
        session_id: SessionId,
        cap_units: int,
        per_call_units: int,
    ) -> None:
        self.agreement_id = agreement_id
        self.session_id = session_id
        self.cap_units = cap_units
        self.per_call_units = per_call_units
        self.seq = 0
        self.spent_units = 0
        self.max_cum_units = 0
        self.ack = ""
        self._in_flight: set[int] = set()

    @property
    def in_flight(self) -> frozenset[int]:
        """The calls that may yet be billed and are not answered."""
        return frozenset(self._in_flight)

    @property
    def owed_units(self) -> int:
        """The most that can be owed: what was answered, and all of every call in flight."""
        return self.spent_units + len(self._in_flight) * self.per_call_units

    def next(self, args_sha256: str) -> Voucher | Refusal:
        """The voucher of the next call, or `local_limit_exceeded` where the cap has no room."""
        owed_units = self.owed_units + self.per_call_units
        if owed_units > self.cap_units:
            return _no_room()
        self.seq += 1
        self.max_cum_units = max(self.max_cum_units, owed_units)
        self._in_flight.add(self.seq)
        return self._voucher(self.seq, args_sha256)

    def again(self, seq: int, args_sha256: str) -> Voucher:
        """A voucher for a number that was given out before, over all that is owed by now."""
        assert 1 <= seq <= self.seq, "a number that was given out"
        return self._voucher(seq, args_sha256)

    def answered(self, seq: int, units: int, result_sha256: str) -> None:
        """Acknowledge the answer of a call.

        Args:
            seq: A call in flight.
            units: What it costs by the buyer's own rating.
            result_sha256: The digest of what came.

        Raises:
            ValueError: More than a call may cost, or no call in flight; nothing is acknowledged.
        """
        if seq not in self._in_flight or not 0 <= units <= self.per_call_units:
            raise ValueError("not a call in flight, or more than it may cost")
        self._in_flight.discard(seq)
        self.spent_units += units
        self.ack = ack_after(self.ack, seq, units, result_sha256)

    def failed(self, seq: int) -> None:
        """Give up a call of which the vendor says that it is not billed, or never heard."""
        self._in_flight.discard(seq)

    def document(self) -> dict[str, Json]:
        """All of it, for `from_document`."""
        return {
            "agreement_id": self.agreement_id,
            "session_id": self.session_id,
            "cap_units": str(self.cap_units),
            "per_call_units": str(self.per_call_units),
            "seq": self.seq,
            "spent_units": str(self.spent_units),
            "max_cum_units": str(self.max_cum_units),
            "ack": self.ack,
            "in_flight": [*sorted(self._in_flight)],
        }

    @classmethod
    def from_document(cls, document: Json) -> "SpendBook":
        """The book that `document` wrote.

        Raises:
            DocumentError: It is no such document.
        """
        fields = Fields(document)
        book = cls(
            agreement_id=AgreementId(fields.text("agreement_id", length_max=100)),
            session_id=SessionId(fields.text("session_id", length_max=100)),
            cap_units=_units(fields, "cap_units"),
            per_call_units=_units(fields, "per_call_units"),
        )
        book.seq = _seq(fields, "seq")
        book.spent_units = _units(fields, "spent_units")
        book.max_cum_units = _units(fields, "max_cum_units")
        has_ack = fields.value("ack") != ""
        book.ack = fields.digest("ack") if has_ack else ""
        book._in_flight = _numbers(fields, "in_flight")
        fields.end()
        return book

    def _voucher(self, seq: int, args_sha256: str) -> Voucher:
        return Voucher(
            agreement_id=self.agreement_id,
            session_id=self.session_id,
            args_sha256=args_sha256,
            seq=seq,
            max_cum_units=self.max_cum_units,
            ack=self.ack,
        )


class VoucherDesk:
    """The vendor's side of one session: which calls are worth running, and what will be paid.

    It lets a call run only where all that is then owed is authorised, and signed for but for
    `unsigned_units`: a sum above the best signed voucher, or of calls numbered above it, cannot be
    shown to settlement.

    Args:
        cap_units: All that is set aside, of the latest entitlement.
        per_call_units: The most that one call may cost.
        unsigned_units: How far calls may run on MACs alone; 0 for not at all.
    """

    def __init__(self, *, cap_units: int, per_call_units: int, unsigned_units: int = 0) -> None:
        self.cap_units = cap_units
        self.per_call_units = per_call_units
        self.unsigned_units = unsigned_units
        self.window = Window()
        self.spent_units = 0
        self.best_seq = 0
        self.best_units = 0
        self._authorised_units = 0
        self._ended_top = 0
        self._in_flight: set[int] = set()
        # No call that runs has a lower number; looked up anew only where it matters.
        self._lowest = 0
        self._unsigned = Unsigned()

    @property
    def in_flight(self) -> frozenset[int]:
        """The calls that run."""
        return frozenset(self._in_flight)

    @property
    def owed_units(self) -> int:
        """What is owed, and all that every call that runs may come to cost."""
        return self.spent_units + len(self._in_flight) * self.per_call_units

    @property
    def exposed_units(self) -> int:
        """What of it no signed voucher covers."""
        return max(self.owed_units - self.best_units, self._unsigned.units)

    def note(self, voucher: Voucher) -> bool:
        """Take note of a signed voucher that was checked, whatever call it came with.

        Returns:
            Whether it is now the best: the one to send with a report.
        """
        self._authorised_units = max(self._authorised_units, voucher.max_cum_units)
        # An honest payer's sums grow with its numbers. One that is behind in either settles less.
        if voucher.seq < self.best_seq or voucher.max_cum_units < self.best_units:
            return False
        is_new = (voucher.seq, voucher.max_cum_units) != (self.best_seq, self.best_units)
        self.best_seq, self.best_units = voucher.seq, voucher.max_cum_units
        self._unsigned.signed(voucher.seq)
        return is_new

    def admit(self, voucher: Voucher, *, signed: bool = True) -> Refusal | None:
        """Let a call run, and reserve the most that it may cost.

        Args:
            voucher: What `check_voucher` or `check_mac` gave.
            signed: False for a MAC.

        Returns:
            None, or `proof_invalid` with the path: `seq` where the number was taken or is out of
            the window, `max_cum_units` where the sum does not cover the call, `signature` where
            a signed voucher is needed; `overloaded` where other calls have to end first.
        """
        if signed:
            self.note(voucher)
        if (taken := self.window.take(voucher.seq)) is None:
            return refuse(Code.PROOF_INVALID, path="seq")
        # Settlement has the same window over the calls in the order in which they end, whichever
        # of those that run that will be.
        if voucher.seq - self._lowest >= WINDOW:
            self._lowest = min(self._in_flight, default=voucher.seq)
        if voucher.seq - self._lowest >= WINDOW or voucher.seq - self._ended_top > WINDOW:
            return refuse(Code.OVERLOADED, path="seq", retry_after_s=1)
        self._authorised_units = max(self._authorised_units, voucher.max_cum_units)
        owed_units = self.owed_units + self.per_call_units
        if owed_units > min(self._authorised_units, self.cap_units):
            return refuse(Code.PROOF_INVALID, path="max_cum_units")
        is_later = voucher.seq > self.best_seq
        later_units = self._unsigned.units + self.per_call_units * is_later
        if max(owed_units - self.best_units, later_units) > self.unsigned_units:
            return refuse(Code.PROOF_INVALID, path="signature")
        self.window = taken
        self._lowest = min(self._lowest, voucher.seq)
        self._in_flight.add(voucher.seq)
        if is_later:
            self._unsigned.add(voucher.seq, self.per_call_units)
        return None

    def settle(self, seq: int, units: int) -> None:
        """A call that ran was answered, and costs this much."""
        assert seq in self._in_flight, "a call that runs"
        assert 0 <= units <= self.per_call_units, "no more than a call may cost"
        self._end(seq)
        self.spent_units += units
        self._unsigned.settle(seq, units)

    def drop(self, seq: int) -> None:
        """A call that ran came to nothing that is billed; its number stays taken."""
        self._end(seq)
        self._unsigned.settle(seq, 0)

    def covers(self, seq: int) -> bool:
        """Whether a report with the best voucher will be paid for this call."""
        return seq <= self.best_seq and self.spent_units <= self.best_units

    def document(self) -> dict[str, Json]:
        """All of it, for `from_document`."""
        return {
            "cap_units": str(self.cap_units),
            "per_call_units": str(self.per_call_units),
            "unsigned_units": str(self.unsigned_units),
            "top": self.window.top,
            "seen": self.window.text,
            "ended_top": self._ended_top,
            "spent_units": str(self.spent_units),
            "best_seq": self.best_seq,
            "best_units": str(self.best_units),
            "authorised_units": str(self._authorised_units),
            "in_flight": [*sorted(self._in_flight)],
            "unsigned": self._unsigned.document(),
        }

    @classmethod
    def from_document(cls, document: Json) -> "VoucherDesk":
        """The desk that `document` wrote.

        Raises:
            DocumentError: It is no such document.
            ValueError: Its window is none.
        """
        fields = Fields(document)
        desk = cls(
            cap_units=_units(fields, "cap_units"),
            per_call_units=_units(fields, "per_call_units"),
            unsigned_units=_units(fields, "unsigned_units"),
        )
        desk.window = Window.of(_seq(fields, "top"), fields.text("seen", length_max=1024))
        desk._ended_top = _seq(fields, "ended_top")
        desk.spent_units = _units(fields, "spent_units")
        desk.best_seq = _seq(fields, "best_seq")
        desk.best_units = _units(fields, "best_units")
        desk._authorised_units = _units(fields, "authorised_units")
        desk._in_flight = _numbers(fields, "in_flight")
        desk._unsigned = Unsigned(_by_number(fields, "unsigned"))
        fields.end()
        return desk

    def _end(self, seq: int) -> None:
        self._in_flight.discard(seq)
        self._ended_top = max(self._ended_top, seq)


def mac_token(
    key: bytes, session_id: SessionId, seq: int, args_sha256: str, max_cum_units: int
) -> str:
    """A MAC in the place of a voucher: `seq.max_cum_units.mac`, HMAC-SHA256 (RFC 2104).

    Args:
        key: `MAC_KEY_BYTES` bytes that a signed voucher handed over, by their digest.
        session_id: The session; with the arguments it is under the MAC and not in the text.
        seq: The call's number.
        args_sha256: The digest of its arguments.
        max_cum_units: As in a voucher.
    """
    mac = _mac(key, session_id, seq, args_sha256, max_cum_units)
    return f"{seq}.{max_cum_units}.{base64url.encode(mac)}"


def check_mac(
    token: str, *, key: bytes, entitlement: Entitlement, args_sha256: str, now_us: int
) -> Voucher:
    """Check a MAC against a session's entitlement, as `check_voucher` does a signature.

    Raises:
        ProofError: `malformed`, `bad_signature`, `expired` or `over_cap`.
    """
    session_id = entitlement.session_id
    seq, _, rest = token.partition(".")
    units, _, mac = rest.partition(".")
    if session_id is None or not (_SEQ.fullmatch(seq) and _UNITS.fullmatch(units)):
        raise ProofError(ProofFault.MALFORMED)
    if int(seq) > _SEQ_MAX or int(units) > INT64_MAX:
        raise ProofError(ProofFault.MALFORMED)
    try:
        given = base64url.decode(mac)
    except base64url.InvalidBase64:
        raise ProofError(ProofFault.MALFORMED) from None
    if not hmac.compare_digest(given, _mac(key, session_id, int(seq), args_sha256, int(units))):
        raise ProofError(ProofFault.BAD_SIGNATURE)
    if now_us >= entitlement.expires_at_us:
        raise ProofError(ProofFault.EXPIRED)
    if int(units) > entitlement.cap_units:
        raise ProofError(ProofFault.OVER_CAP)
    return Voucher(
        agreement_id=entitlement.agreement_id,
        session_id=session_id,
        args_sha256=args_sha256,
        seq=int(seq),
        max_cum_units=int(units),
        ack="",
    )


def _mac(key: bytes, session_id: str, seq: int, args_sha256: str, max_cum_units: int) -> bytes:
    assert len(key) == MAC_KEY_BYTES, "a key of another length is no key"
    named = f"farthing-mac\n{session_id}\n{seq}\n{args_sha256}\n{max_cum_units}"
    return hmac.digest(key, named.encode(), "sha256")


def _no_room() -> Refusal:
    text = "The session's cap leaves no room for another call."
    refusal = refuse(Code.LOCAL_LIMIT_EXCEEDED, path="cap", message=text)
    return replace(refusal, next_action=NextAction.TOP_UP)


def _units(fields: Fields, name: str) -> int:
    return int(fields.text(name, length_max=len(str(INT64_MAX)), form=_UNITS))


def _seq(fields: Fields, name: str) -> int:
    return fields.integer(name, at_least=0, at_most=_SEQ_MAX)


def _numbers(fields: Fields, name: str) -> set[int]:
    value = fields.value(name)
    numbers = value if isinstance(value, list) else [None]
    if not all(type(each) is int for each in numbers):
        raise DocumentError(fields.at(name), Fault.WRONG_TYPE)
    return {int(str(each)) for each in numbers}


def _by_number(fields: Fields, name: str) -> dict[int, int]:
    inner = fields.fields(name)
    return {int(each): _units(inner, each) for each in fields.mapping(name)}
