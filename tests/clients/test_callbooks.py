"""A session's numbers and acknowledgements are on disk before anybody hears of them, and stay."""

from pathlib import Path

import pytest

from farthing.clients.callbooks import CallBook, Called, CallState, SessionInUse, read_book

ARGS = "a" * 64


def asked(seq: int) -> Called:
    return Called(seq=seq, args_sha256=ARGS, state=CallState.ASKED)


def answered(seq: int, fault: str = "") -> Called:
    return Called(
        seq=seq,
        args_sha256=ARGS,
        state=CallState.ANSWERED,
        place=seq,
        usage={"page": 3},
        units=7,
        said_units=8,
        result_sha256="b" * 64,
        fault=fault,
    )


def test_what_was_written_is_there_when_the_file_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "sessions" / "ses_x.sqlite"
    book = CallBook(path)
    assert book.document() is None
    book.write([asked(1), {"top": "1"}, asked(2), {"top": "2"}])
    book.write([answered(1, "amount"), {"top": "2", "spent": "7"}])
    book.close()

    again = CallBook(path)

    assert again.document() == {"top": "2", "spent": "7"}
    assert again.calls() == (answered(1, "amount"), asked(2))
    assert again.answered() == 1
    assert again.find(1) == answered(1, "amount")
    assert again.find(3) is None
    again.close()
    assert path.stat().st_mode & 0o077 == 0


def test_two_processes_do_not_call_through_one_session(tmp_path: Path) -> None:
    path = tmp_path / "ses_x.sqlite"
    first = CallBook(path)
    with pytest.raises(SessionInUse, match="ses_x"):
        CallBook(path)

    first.write([asked(1)])
    assert read_book(path) == ({}, (asked(1),))
    first.write([{"top": "1"}])
    assert read_book(path) == ({"top": "1"}, (asked(1),))

    first.close()
    CallBook(path).close()
