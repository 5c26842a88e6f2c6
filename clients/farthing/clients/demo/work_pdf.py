"""The PDF vendor's work: the text of a PDF's pages. The meter `page` counts pages delivered.

Boundary: bytes in, text out. No network and no files; nothing in the PDF is run. A hostile file can
cost time that is not bounded here: the vendor runs the work under its own deadline.
"""

import logging
import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import Final

from pypdf import PasswordType, PdfReader
from pypdf.errors import (
    DependencyError,
    DeprecationError,
    FileNotDecryptedError,
    LimitReachedError,
    PyPdfError,
)

from farthing.clients.demo.outcomes import Reason, Unworkable

__all__ = ["BYTES_MAX", "CHARACTERS_MAX", "PageTexts", "extract_text", "page_count"]

_PAGES_MAX: Final = 500
BYTES_MAX: Final = 32 * 1024 * 1024
CHARACTERS_MAX: Final = 10_000_000

# pypdf's own words: broken PDF files might cause other exceptions. These are the ones it is known
# to let through; anything else is a defect that should be seen.
_DAMAGE: Final = (
    PyPdfError,
    DependencyError,
    DeprecationError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

# pypdf logs every oddity that it repairs. Without a handler Python would print them on stderr,
# beside the vendor's own log; a handler installed by the application still gets them.
logging.getLogger("pypdf").addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True, kw_only=True)
class PageTexts:
    """The text of each page asked for, in that order; a page without text is empty."""

    pages: tuple[str, ...]


def page_count(pdf: bytes) -> int:
    """How many pages the PDF has, however large it is.

    Raises:
        Unworkable: `too_large`, `broken` or `encrypted`.
    """
    return _open(pdf)[1]


def extract_text(pdf: bytes, *, characters_max: int = CHARACTERS_MAX) -> PageTexts:
    """Read the text of a PDF's pages.

    Args:
        pdf: The file.
        characters_max: How much text may come out.

    Raises:
        Unworkable: `too_large`, `broken`, `encrypted`, `too_many_pages`, or `no_text` when not one
            of the pages has any.
    """
    if len(pdf) > BYTES_MAX:
        raise Unworkable(Reason.TOO_LARGE, f"{len(pdf)} of at most {BYTES_MAX} bytes")
    reader, count = _open(pdf)
    if count > _PAGES_MAX:
        raise Unworkable(Reason.TOO_MANY_PAGES, f"{count} of at most {_PAGES_MAX} pages")
    texts: list[str] = []
    room = characters_max
    for number in range(count):
        texts.append(_page_text(reader, number))
        room -= len(texts[-1])
        if room < 0:
            raise Unworkable(Reason.TOO_LARGE, f"more than {characters_max} characters of text")
    if not any(text.strip() for text in texts):
        raise Unworkable(Reason.NO_TEXT, "the pages hold no text; they may be scanned images")
    return PageTexts(pages=tuple(texts))


def _open(pdf: bytes) -> tuple[PdfReader, int]:
    try:
        reader = PdfReader(BytesIO(pdf))
        # Many PDFs are encrypted with the empty password, only to forbid printing.
        if reader.is_encrypted and reader.decrypt("") is PasswordType.NOT_DECRYPTED:
            raise Unworkable(Reason.ENCRYPTED)
        return reader, len(reader.pages)
    except (FileNotDecryptedError, DependencyError):
        raise Unworkable(Reason.ENCRYPTED) from None
    except (LimitReachedError, MemoryError) as error:
        raise Unworkable(Reason.TOO_LARGE, str(error)) from None
    except _DAMAGE as error:
        raise Unworkable(Reason.BROKEN, str(error)) from None


def _page_text(reader: PdfReader, number: int) -> str:
    try:
        text = reader.pages[number].extract_text()
    except (LimitReachedError, MemoryError) as error:
        raise Unworkable(Reason.TOO_LARGE, f"page {number}: {error}") from None
    except _DAMAGE as error:
        raise Unworkable(Reason.BROKEN, f"page {number}: {error}") from None
    # A font can map to half a surrogate pair or to NUL, which the answer's JSON could not carry.
    return text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")
