"""The PDF vendor: every page's text, or one documented reason."""

import random
import zlib
from collections.abc import Callable
from io import BytesIO

import pytest
from pypdf import PdfReader, PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject, StreamObject

from farthing.clients.demo import sample
from farthing.clients.demo.outcomes import Reason, Unworkable
from farthing.clients.demo.work_pdf import BYTES_MAX, extract_text, page_count
from tests.pdfs import broken_pdf, encrypted_pdf, numbered_pdf, scanned_pdf


def refusal(work: Callable[[], object]) -> Reason:
    with pytest.raises(Unworkable) as caught:
        work()
    return caught.value.reason


def rewritten(change: Callable[[PdfWriter], None]) -> bytes:
    writer = PdfWriter(clone_from=PdfReader(BytesIO(numbered_pdf(1))))
    change(writer)
    out = BytesIO()
    writer.write(out)
    return out.getvalue()


def test_every_word_of_every_page_comes_out() -> None:
    pages = extract_text(sample.sample_pdf()).pages

    assert [" ".join(page.split()) for page in pages] == [
        " ".join([str(number), page.title, *page.paragraphs])
        for number, page in enumerate(sample.sample_pages(), start=1)
    ]


def test_pages_are_counted_without_reading_them() -> None:
    assert page_count(sample.sample_pdf()) == 30
    assert page_count(scanned_pdf(4)) == 4


def test_five_hundred_pages_are_read_and_one_more_is_refused() -> None:
    assert len(extract_text(numbered_pdf(500)).pages) == 500
    assert refusal(lambda: extract_text(numbered_pdf(501))) is Reason.TOO_MANY_PAGES


def test_a_scanned_pdf_has_no_text() -> None:
    assert refusal(lambda: extract_text(scanned_pdf())) is Reason.NO_TEXT


def test_one_page_with_text_is_enough() -> None:
    pages = extract_text(sample.text_pdf([[], ["Here."], [" "]])).pages

    assert [page.strip() for page in pages] == ["", "Here.", ""]


def test_an_encrypted_pdf_needs_a_password() -> None:
    pdf = encrypted_pdf("farthing")

    assert refusal(lambda: extract_text(pdf)) is Reason.ENCRYPTED
    assert refusal(lambda: page_count(pdf)) is Reason.ENCRYPTED


def test_a_pdf_encrypted_with_the_empty_password_is_read() -> None:
    pdf = encrypted_pdf("")

    assert page_count(pdf) == 3
    assert extract_text(pdf).pages[2].strip() == "Page 3 of 3."


@pytest.mark.parametrize("pdf", [b"", b"%PDF-1.7\n", b"no PDF at all", bytes(4096), broken_pdf()])
def test_a_broken_pdf_is_said_to_be_broken(pdf: bytes) -> None:
    assert refusal(lambda: extract_text(pdf)) is Reason.BROKEN
    assert refusal(lambda: page_count(pdf)) is Reason.BROKEN


def test_too_many_bytes_are_not_looked_at_but_their_pages_are_counted() -> None:
    pdf = sample.sample_pdf()
    large = pdf + b"\n" * (BYTES_MAX - len(pdf))

    assert len(extract_text(large).pages) == 30
    assert refusal(lambda: extract_text(large + b"\n")) is Reason.TOO_LARGE
    assert page_count(large + b"\n") == 30


def test_too_much_text_is_refused() -> None:
    pdf = numbered_pdf(3)

    assert len(extract_text(pdf, characters_max=39).pages) == 3
    assert refusal(lambda: extract_text(pdf, characters_max=38)) is Reason.TOO_LARGE


def test_a_small_file_that_unpacks_to_a_huge_one_is_refused() -> None:
    def bomb(writer: PdfWriter) -> None:
        stream = StreamObject()
        stream._data = zlib.compress(bytes(80_000_000), level=1)  # noqa: SLF001 - no public way in
        stream[NameObject("/Filter")] = NameObject("/FlateDecode")
        writer.pages[0][NameObject("/Contents")] = writer._add_object(stream)  # noqa: SLF001

    pdf = rewritten(bomb)

    assert len(pdf) < 1_000_000
    assert refusal(lambda: extract_text(pdf)) is Reason.TOO_LARGE


def test_text_that_json_cannot_carry_is_repaired() -> None:
    def map_letters_to_surrogates(writer: PdfWriter) -> None:
        stream = DecodedStreamObject()
        stream.set_data(b"2 beginbfchar <50> <D800> <61> <0000> endbfchar")  # P and a
        resources = writer.pages[0]["/Resources"]
        assert isinstance(resources, DictionaryObject)
        fonts = resources["/Font"]
        assert isinstance(fonts, DictionaryObject)
        font = fonts["/F"]
        assert isinstance(font, DictionaryObject)
        font[NameObject("/ToUnicode")] = writer._add_object(stream)  # noqa: SLF001

    (page,) = extract_text(rewritten(map_letters_to_surrogates)).pages

    assert page.strip() == "?ge 1 of 1."


def test_whatever_is_done_to_a_pdf_it_ends_in_text_or_in_a_reason() -> None:
    chance = random.Random(20261121)
    originals = [numbered_pdf(2), scanned_pdf(1), encrypted_pdf("")]
    outcomes = set()

    for _ in range(400):
        pdf = bytearray(chance.choice(originals))
        for _ in range(chance.choice((1, 3, 20))):
            pdf[chance.randrange(len(pdf))] = chance.randrange(256)
        del pdf[chance.choice((len(pdf), chance.randrange(len(pdf)))) :]
        try:
            extract_text(bytes(pdf))
            outcomes.add("text")
        except Unworkable as unworkable:
            outcomes.add(unworkable.reason)

    assert outcomes >= {"text", Reason.BROKEN, Reason.NO_TEXT}
