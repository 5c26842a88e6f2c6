"""What becomes of work that cannot be done: one exception, with one of a closed set of reasons.

Boundary: nothing is delivered and so nothing is captured; a vendor passes the reason on as it is.
"""

from enum import StrEnum

__all__ = ["Reason", "Unworkable"]


class Reason(StrEnum):
    """Why a piece of work cannot be done."""

    TOO_LARGE = "too_large"
    """The input, or what it unpacks to, passes the stated bound."""
    BROKEN = "broken"
    """The input is not a file of its kind, or is damaged beyond reading."""
    ENCRYPTED = "encrypted"
    """The PDF needs a password."""
    TOO_MANY_PAGES = "too_many_pages"
    """The PDF has more pages than one call takes."""
    NO_TEXT = "no_text"
    """There is no text in what was asked for: a scanned PDF, or an empty text."""
    INVALID_SIZE = "invalid_size"
    """The wanted width or height is out of range."""
    INVALID_FORMAT = "invalid_format"
    """The wanted image format is not one of those offered."""
    TOO_SLOW = "too_slow"
    """The work did not end within the vendor's own time limit."""


class Unworkable(Exception):
    """The work cannot be done; retrying the same input is of no use."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason.value)
        self.reason = reason
        self.detail = detail
