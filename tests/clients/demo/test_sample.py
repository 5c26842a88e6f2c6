"""The sample files are what they claim to be, and the same every time."""

from io import BytesIO

from PIL import Image
from pypdf import PdfReader

from farthing.clients.demo import sample


def test_the_sample_has_thirty_different_pages() -> None:
    pages = sample.sample_pages()

    assert len(pages) == 30
    assert len({page.title for page in pages}) == 30
    assert all(len(page.paragraphs) >= 2 for page in pages)
    assert len({len(" ".join(page.paragraphs)) for page in pages}) > 20


def test_the_sample_is_the_same_file_every_time() -> None:
    assert sample.sample_pdf() == sample.sample_pdf()


def test_a_strict_reader_takes_the_written_pdf_without_complaint() -> None:
    reader = PdfReader(BytesIO(sample.sample_pdf()), strict=True)

    assert all(page.mediabox.height == 842 for page in reader.pages)


def test_no_line_of_the_sample_leaves_its_page() -> None:
    reader = PdfReader(BytesIO(sample.sample_pdf()))

    for page in reader.pages:
        content = page.get_contents()
        assert content is not None
        assert content.get_data().count(b"T*") <= 43  # 16 points each from 760 down to the margin


def test_text_with_brackets_and_slashes_comes_out_as_it_went_in() -> None:
    line = "a (b) \\ (c \u00a31 \u2013 \u201cd\u201d)"

    assert PdfReader(BytesIO(sample.text_pdf([[line]]))).pages[0].extract_text().strip() == line


def test_the_picture_has_the_size_asked_for() -> None:
    with Image.open(BytesIO(sample.sample_png(320, 240))) as picture:
        assert (picture.format, picture.size) == ("PNG", (320, 240))
