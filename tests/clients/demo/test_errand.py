"""A file is measured without being trusted."""

from pathlib import Path

import pytest

from farthing.clients.demo.errand import PAGES_GUESSED, NoSuchFile, measure, write_sample
from farthing.clients.demo.outcomes import Reason
from farthing.clients.demo.sample import sample_pdf
from farthing.protocol.canonical import sha256_hex
from tests.pdfs import encrypted_pdf


async def test_the_workload_is_the_number_of_pages_in_the_file(tmp_path: Path) -> None:
    errand = await measure(write_sample(tmp_path))

    assert (errand.page_count, errand.pages) == (30, 30)
    assert errand.sha256 == sha256_hex(sample_pdf())
    assert errand.size_bytes == len(sample_pdf())


async def test_a_file_that_cannot_be_opened_is_asked_for_with_a_guess(tmp_path: Path) -> None:
    path = tmp_path / "encrypted.pdf"
    path.write_bytes(encrypted_pdf("secret"))

    errand = await measure(path)

    assert (errand.page_count, errand.uncounted) == (None, Reason.ENCRYPTED)
    assert errand.pages == PAGES_GUESSED


async def test_a_huge_file_is_digested_and_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "huge.pdf"
    with path.open("wb") as file:
        file.truncate(300 * 1024**2)

    errand = await measure(path)

    assert (errand.page_count, errand.uncounted) == (None, Reason.TOO_LARGE)
    assert errand.size_bytes == 300 * 1024**2


@pytest.mark.parametrize("name", ["none.pdf", "."])
async def test_what_is_no_file_is_no_errand(tmp_path: Path, name: str) -> None:
    with pytest.raises(NoSuchFile):
        await measure(tmp_path / name)
