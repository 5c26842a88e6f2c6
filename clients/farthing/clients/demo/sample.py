"""Sample files made from nothing: a readable PDF of thirty pages, a PNG, a JPEG.

Boundary: bytes only. PDF is written here by hand, after ISO 32000-1 chapters 7 and 9, in the
smallest form that every reader takes.
"""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from io import BytesIO
from typing import Final

from PIL import Image

__all__ = [
    "SamplePage",
    "sample_jpeg",
    "sample_pages",
    "sample_pdf",
    "sample_png",
    "text_pdf",
]

_LINE_LENGTH_MAX: Final = 84
_PAGE_SIZE: Final = b"[0 0 595 842]"  # A4 in points
_FONT: Final = b"<</Type/Font/Subtype/Type1/BaseFont/Times-Roman/Encoding/WinAnsiEncoding>>"


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePage:
    """One page of the sample: its title and its paragraphs, as written in `sample.txt`."""

    title: str
    paragraphs: tuple[str, ...]


@cache
def sample_pages() -> tuple[SamplePage, ...]:
    """The thirty pages on farthings and ledgers, as text."""
    text = (files(__package__) / "sample.txt").read_text(encoding="ascii")
    pages = []
    for part in text.split("== ")[1:]:
        title, *paragraphs = (" ".join(each.split()) for each in part.strip().split("\n\n"))
        pages.append(SamplePage(title=title, paragraphs=tuple(paragraphs)))
    return tuple(pages)


def sample_pdf() -> bytes:
    """The sample as a PDF of thirty pages with text."""
    return text_pdf([_lines(page, number) for number, page in enumerate(sample_pages(), start=1)])


def text_pdf(pages: Iterable[Sequence[str]]) -> bytes:
    """A PDF with the given lines on each page; they must fit the page and Windows-1252."""
    return _pdf([_text_page(lines) for lines in pages])


def sample_png(width: int = 1200, height: int = 900) -> bytes:
    """A picture with smooth colours, so that resizing it has something to do."""
    out = BytesIO()
    _picture(width, height).save(out, format="png")
    return out.getvalue()


def sample_jpeg(width: int, height: int) -> bytes:
    """The same as a camera would send it: many pixels in a small file."""
    out = BytesIO()
    _picture(width, height).save(out, format="jpeg", quality=80)
    return out.getvalue()


def _picture(width: int, height: int) -> Image.Image:
    across = Image.linear_gradient("L").resize((width, height))
    down = Image.linear_gradient("L").rotate(90).resize((width, height))
    around = Image.radial_gradient("L").resize((width, height))
    return Image.merge("RGB", (across, down, around))


def _lines(page: SamplePage, number: int) -> list[str]:
    lines = [f"{number}  {page.title}"]
    for paragraph in page.paragraphs:
        # A line of one space is a gap that readers report; an empty one would leave no trace.
        lines += [" ", *textwrap.wrap(paragraph, _LINE_LENGTH_MAX, break_on_hyphens=False)]
    return lines


def _text_page(lines: Sequence[str]) -> bytes:
    shown = []
    for line in lines:
        text = line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
        shown.append(b"(" + text.encode("cp1252") + b") Tj T*")
    return b"BT /F 12 Tf 16 TL 72 760 Td\n" + b"\n".join(shown) + b"\nET"


def _pdf(contents: Sequence[bytes]) -> bytes:
    """A PDF whose pages share one font, which is object 3."""
    first = 4  # then, for each page, the page and its content
    kids = b" ".join(b"%d 0 R" % (first + 2 * index) for index in range(len(contents)))
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count %d/Kids[%s]/MediaBox%s/Resources<</Font<</F 3 0 R>>>>>>"
        % (len(contents), kids, _PAGE_SIZE),
        _FONT,
    ]
    for index, content in enumerate(contents):
        objects.append(b"<</Type/Page/Parent 2 0 R/Contents %d 0 R>>" % (first + 2 * index + 1))
        objects.append(b"<</Length %d>>\nstream\n%s\nendstream" % (len(content), content))
    out = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    offsets = []
    for number, each in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, each)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer\n<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (len(offsets) + 1, start)
    return bytes(out)
