"""PDFs of a wanted length, and the difficult ones: scanned, encrypted, broken."""

from io import BytesIO

from PIL import Image
from pypdf import PdfReader, PdfWriter

from farthing.clients.demo.sample import sample_pdf, text_pdf


def numbered_pdf(count: int) -> bytes:
    """A PDF of `count` pages, each with one line that says its number."""
    return text_pdf([[f"Page {number} of {count}."] for number in range(1, count + 1)])


def scanned_pdf(count: int = 3) -> bytes:
    """A PDF as a scanner makes it: one picture on each page and not a letter of text."""
    picture = Image.radial_gradient("L")
    out = BytesIO()
    picture.save(out, format="pdf", save_all=True, append_images=[picture] * (count - 1))
    return out.getvalue()


def encrypted_pdf(password: str, count: int = 3) -> bytes:
    """A PDF that opens with `password`; with the empty password every reader opens it unasked."""
    writer = PdfWriter(clone_from=PdfReader(BytesIO(numbered_pdf(count))))
    writer.encrypt(user_password=password, algorithm="AES-256")
    out = BytesIO()
    writer.write(out)
    return out.getvalue()


def broken_pdf() -> bytes:
    """The first third of a PDF: an upload that stopped. No reader can find its pages."""
    whole = sample_pdf()
    return whole[: len(whole) // 3]
