"""Which numbers of a session were taken: each once, in any order, within a window.

Boundary: a value and one rule, the same for the vendor who runs a call and the settlement that
bills it. The window is that of IPsec's anti-replay service (RFC 4303, section 3.4.3) with a bound
ahead as well. Source: spec/sessions.md.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from farthing.protocol.usage import UsageFault

__all__ = ["WINDOW", "Window"]

WINDOW: Final = 1024
"""How many calls of one session can be in flight without any being turned away for its number."""

_MASK: Final = (1 << WINDOW) - 1
_HEX_MAX: Final = WINDOW // 4


class Window(NamedTuple):
    """The highest number taken, and which of the `WINDOW` numbers that end with it were.

    Bit `n` of `seen` stands for the number `top - n`.
    """

    top: int = 0
    seen: int = 0

    def fault(self, seq: int) -> UsageFault | None:
        """Why a number cannot be taken, None where it can."""
        behind = self.top - seq
        if seq < 1 or behind >= WINDOW or behind < -WINDOW:
            return UsageFault.OUT_OF_WINDOW
        if behind >= 0 and self.seen >> behind & 1:
            return UsageFault.DUPLICATE
        return None

    def take(self, seq: int) -> "Window | None":
        """The window with a number taken, None where it cannot be."""
        if self.fault(seq) is not None:
            return None
        behind = self.top - seq
        if behind >= 0:
            return Window(self.top, self.seen | 1 << behind)
        return Window(seq, (self.seen << -behind | 1) & _MASK)

    def take_all(self, seqs: Sequence[int]) -> "Window | None":
        """The window with all of these taken one after the other, None where one cannot be."""
        if seqs == tuple(range(self.top + 1, self.top + len(seqs) + 1)):
            count = len(seqs)
            return Window(seqs[-1], (self.seen << count | (1 << count) - 1) & _MASK)
        window: Window | None = self
        for seq in seqs:
            if window is None:
                return None
            window = window.take(seq)
        return window

    @property
    def text(self) -> str:
        """`seen` as documents hold it: lower-case hex without leading zeros."""
        return f"{self.seen:x}"

    @classmethod
    def of(cls, top: int, text: str) -> "Window":
        """The window that a document holds.

        Raises:
            ValueError: `text` is not what `text` gives, or marks a number below 1.
        """
        if len(text) > _HEX_MAX:
            raise ValueError("more than a window")
        window = cls(top, int(text, 16))
        if window.text != text or window.seen.bit_length() > top or window.seen & 1 != (top > 0):
            raise ValueError("not a window")
        return window
