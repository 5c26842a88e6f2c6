"""A session's lane without signatures: MACs under a key that a signed voucher has handed over.

Boundary: which of the two a call is paid with, and how far MACs have run ahead of signatures; how
far they may is the entitlement's `unsigned_units`. Source: spec/sessions.md.
"""

from dataclasses import replace
from typing import Final

from farthing.protocol import base64url
from farthing.protocol.canonical import sha256_hex
from farthing.protocol.proofs import Voucher
from farthing.protocol.vouchers import Unsigned, mac_token

__all__ = ["MacLane"]

# Of fewer calls that are out together the next answer comes before many more have left.
_MANY: Final = 8


class MacLane:
    """One process's lane; a restart makes a new key.

    Args:
        key: `MAC_KEY_BYTES` random bytes.
        unsigned_units: How far MACs may run ahead; 0 for never.
    """

    def __init__(self, key: bytes, unsigned_units: int) -> None:
        self._key = key
        self._unsigned_units = unsigned_units
        self._is_known = False
        # The number that a signature was last made for, while its call is out.
        self._signing = 0
        self._out: set[int] = set()
        self._per_call_units = 0
        self._ahead = Unsigned()

    @property
    def handed_over(self) -> str:
        """The key as it is handed over; empty where no MAC is ever made."""
        return base64url.encode(self._key) if self._unsigned_units else ""

    @property
    def is_ahead(self) -> bool:
        """Whether there are calls that no signature covers."""
        return bool(self._ahead.units)

    def began(self, seq: int, per_call_units: int) -> None:
        """A call is on its way that may cost this much."""
        if self._unsigned_units:
            self._out.add(seq)
            self._per_call_units = per_call_units
            self._ahead.add(seq, per_call_units)

    def landed(self, seq: int) -> None:
        """A call is out no longer, whatever came of it."""
        self._out.discard(seq)
        if seq == self._signing:
            self._signing = 0

    def ended(self, seq: int, units: int) -> None:
        """It cost this much, nothing where it failed."""
        self.landed(seq)
        self._ahead.settle(seq, units)

    def mac(self, voucher: Voucher) -> str:
        """The MAC that stands in a voucher's place; empty where it has to be signed.

        Where many are out, and half covers them, that is half-way: while one signature is on its
        way, they need none.
        """
        most_units = self._unsigned_units
        if len(self._out) >= _MANY and not self._signing:
            half_units = most_units // 2
            if len(self._out) * self._per_call_units <= half_units:
                most_units = half_units
        if not self._is_known or self._ahead.units > most_units:
            return ""
        assert voucher.session_id is not None, "a voucher of a session"
        return mac_token(
            self._key,
            voucher.session_id,
            voucher.seq,
            voucher.args_sha256,
            voucher.max_cum_units,
        )

    def to_sign(self, voucher: Voucher) -> Voucher:
        """The voucher that is signed: with the digest of the key, where one is handed over."""
        self._signing = max(self._signing, voucher.seq)
        if not self._unsigned_units:
            return voucher
        return replace(voucher, mac_sha256=sha256_hex(self._key))

    def arrived(self, seq: int) -> None:
        """The vendor holds the key, and a signature over the calls up to this one."""
        self._is_known = bool(self._unsigned_units)
        if seq >= self._signing:
            self._signing = 0
        self._ahead.signed(seq)

    def lost(self) -> None:
        """The next call is signed, and hands the key over again."""
        self._is_known = False
