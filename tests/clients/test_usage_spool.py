"""What a vendor keeps of sessions: which calls a batch has, and which none has yet."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from farthing.clients.spool import Spool
from farthing.clients.spooled import read_spool
from farthing.clients.sqlite_file import looked_into
from farthing.clients.usage_spool import (
    BatchState,
    KeptCall,
    KeptSession,
    Settled,
    UsageSpool,
)
from farthing.protocol.errors import Unverified
from farthing.protocol.ids import derive_id
from farthing.protocol.usage import UsageOutcome
from tests.clients.settling import kept_batch

SESSION_ID = derive_id("ses", "one")
# As the tables were while a call named its batch.
OLDER = """
CREATE TABLE session (
    session_id TEXT PRIMARY KEY, payer TEXT NOT NULL, ends_at_us INTEGER NOT NULL,
    at_us INTEGER NOT NULL, document BLOB NOT NULL
) STRICT;
CREATE INDEX by_payer ON session (payer, at_us);
CREATE TABLE call (
    session_id TEXT NOT NULL, seq INTEGER NOT NULL, args_sha256 TEXT NOT NULL,
    at_us INTEGER NOT NULL, place INTEGER NOT NULL, outcome TEXT NOT NULL, usage BLOB NOT NULL,
    amount_units INTEGER NOT NULL, spent_units INTEGER NOT NULL, result_sha256 TEXT NOT NULL,
    result BLOB NOT NULL, content BLOB NOT NULL, refusal BLOB NOT NULL,
    batch INTEGER NOT NULL DEFAULT 0, rejected TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (session_id, seq)
) STRICT;
CREATE INDEX unreported ON call (session_id, place) WHERE batch = 0;
CREATE INDEX by_batch ON call (batch) WHERE batch <> 0;
CREATE INDEX by_rejection ON call (at_us) WHERE rejected <> '';
CREATE TABLE batch (
    number INTEGER PRIMARY KEY, session_id TEXT NOT NULL, text TEXT NOT NULL,
    signature TEXT NOT NULL, voucher TEXT NOT NULL, key TEXT NOT NULL, place INTEGER NOT NULL,
    at_us INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '',
    charge_id TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX by_state ON batch (state, number);
"""


def call(seq: int, place: int) -> KeptCall:
    """A call that was delivered, or is worked for still where it has no place."""
    return KeptCall(
        session_id=SESSION_ID,
        seq=seq,
        args_sha256="",
        at_us=seq,
        place=place,
        outcome=UsageOutcome.SUCCEEDED if place else None,
        result=b"{}" if place else b"",
    )


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A spool of before: two batches of two calls, two calls in none, one being worked for."""
    path = tmp_path / "spool.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript(OLDER)
        db.execute("PRAGMA user_version = 1")
        calls = (1, 1, 1), (3, 2, 1), (2, 4, 2), (4, 5, 2), (7, 5, 0), (5, 6, 0), (6, 0, 0)
        for seq, place, batch in calls:
            outcome, result = ("succeeded", b"{}") if place else ("", b"")
            db.execute(
                "INSERT INTO call VALUES"
                " (?, ?, '', ?, ?, ?, x'7b7d', 0, 0, '', ?, x'', x'7b7d', ?, '')",
                (SESSION_ID, seq, seq, place, outcome, result, batch),
            )
        for number, place, state in ((1, 2, "taken"), (2, 5, "waiting")):
            db.execute(
                "INSERT INTO batch VALUES (?, ?, '[]', 's', 'v', 'k', ?, ?, ?, '', '')",
                (number, SESSION_ID, place, number, state),
            )
    return path


def test_a_spool_of_before_goes_on_where_it_was(older: Path) -> None:
    for _ in range(2):
        spool = Spool(older)
        usage = UsageSpool(spool.file)

        assert usage.reported(1) == [call(1, 1), call(3, 2)]
        assert usage.reported(2) == [call(2, 4), call(4, 5)]
        assert [each.seq for each in usage.unreported(SESSION_ID)] == [7, 5]
        assert usage.unfinished(SESSION_ID) == [call(6, 0)]
        assert [(each.number, each.first, each.place) for each in usage.waiting(SESSION_ID)] == [
            (2, 4, 5)
        ]
        usage.park_all()
        assert usage.due(0, 10) == [SESSION_ID]
        assert usage.last_batch() == 2
        spool.close()


def test_looking_into_a_spool_costs_twice_as_much_where_twice_as_much_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    @contextmanager
    def counted(path: Path, version: int) -> Iterator[sqlite3.Connection]:
        with looked_into(path, version) as db:
            db.set_progress_handler(step, 100)
            yield db

    def cost(calls: int) -> int:
        nonlocal steps
        spool = Spool(tmp_path / f"{calls}.sqlite")
        usage, places = UsageSpool(spool.file), range(1, calls + 1)
        usage.write(
            [call(each, each) for each in places]
            + [kept_batch(SESSION_ID, each, each, each) for each in places]
        )
        usage.write([
            Settled(number=each, state=BatchState.TAKEN, at_us=1) for each in places[:-1]
        ])  # fmt: skip
        steps = 0
        ((spooled,), _) = read_spool(tmp_path / f"{calls}.sqlite", 1)
        spool.close()
        assert (spooled.ended, spooled.unsent, spooled.unanswered) == (calls, 0, 1)
        return steps

    monkeypatch.setattr("farthing.clients.spooled.looked_into", counted)
    assert cost(800) < 3 * cost(400)


def test_forgetting_costs_what_is_forgotten_however_much_is_kept(tmp_path: Path) -> None:
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    def cost(kept: int) -> int:
        nonlocal steps
        spool = Spool(tmp_path / f"{kept}.sqlite")
        usage, old = UsageSpool(spool.file), 5
        numbered = {each: derive_id("ses", str(each)) for each in range(1, old + kept + 1)}
        for number, session_id in numbered.items():
            spool.begin(str(number), "", agreement_id="", payer="", deadline_us=1, now_us=number)
            spool.drop(str(number), {}, number)
            usage.write(
                [
                    KeptSession(
                        session_id=session_id, payer="", ends_at_us=number, at_us=1, document={}
                    ),
                    replace(call(1, 1), session_id=session_id),
                    kept_batch(session_id, number, 1, 1),
                    Settled(number=number, state=BatchState.TAKEN, at_us=number),
                ]
            )
        steps = 0
        spool.file._db.set_progress_handler(step, 1)  # noqa: SLF001 - what it costs
        forgotten = sum(usage.forget(old + 1, 100) for _ in range(3)) + spool.forget(old + 1, 100)
        spool.close()
        assert forgotten == 4 * old
        return steps

    assert cost(160) < 1.1 * cost(20)


def test_a_spool_of_before_is_not_looked_into_and_is_not_called_damaged(older: Path) -> None:
    with pytest.raises(Unverified, match="of an earlier version: whoever's it is takes it over"):
        read_spool(older, 10)

    spool = Spool(older)
    UsageSpool(spool.file)
    spool.close()

    (session,), _ = read_spool(older, 10)
    assert (session.ended, session.unsent, session.unanswered) == (6, 2, 2)


def test_a_spool_of_a_later_version_is_left_alone(older: Path) -> None:
    with closing(sqlite3.connect(older, isolation_level=None)) as db:
        db.execute("PRAGMA user_version = 3")
    before = older.read_bytes()

    with pytest.raises(ValueError, match="of a later version of this program: 3"):
        Spool(older)
    with pytest.raises(Unverified, match="of a later version"):
        read_spool(older, 10)

    assert older.read_bytes() == before


def test_a_file_that_is_no_database_is_let_go_of(tmp_path: Path) -> None:
    path = tmp_path / "spool.sqlite"
    path.write_bytes(b"no database" * 100)

    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        Spool(path)

    path.unlink()
    Spool(path).close()
