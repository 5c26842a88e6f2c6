"""The second baseline: the same checks as a hold, in one plain `sqlite3` transaction each.

No mapper, no pool, no thread: what somebody who knows SQLite would write, as durable as ours.
"""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

__all__ = ["Plain", "plain"]

PAGE_UNITS = 2_000_000

SCHEMA = """
    CREATE TABLE account (name TEXT PRIMARY KEY, debits_pending INTEGER NOT NULL DEFAULT 0,
        debits_posted INTEGER NOT NULL DEFAULT 0, credits_pending INTEGER NOT NULL DEFAULT 0,
        credits_posted INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
    CREATE TABLE agreement (agreement_id TEXT PRIMARY KEY, buyer TEXT NOT NULL,
        prepaid TEXT NOT NULL, pending TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE spend (buyer TEXT, day TEXT, per_call_max INTEGER NOT NULL,
        per_day_max INTEGER NOT NULL, spent INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (buyer, day)) WITHOUT ROWID;
    CREATE TABLE hold (hold_id TEXT PRIMARY KEY, agreement_id TEXT NOT NULL,
        units INTEGER NOT NULL, status TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE journal (seq INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, body TEXT NOT NULL);
    INSERT INTO account (name, credits_posted) VALUES ('prepaid', 4611686018427387904);
    INSERT INTO account (name) VALUES ('pending');
    INSERT INTO agreement VALUES ('agr', 'b', 'prepaid', 'pending');
    INSERT INTO spend (buyer, day, per_call_max, per_day_max)
        VALUES ('b', 'today', 4611686018427387904, 4611686018427387904);
"""


class Plain:
    """Places holds."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def hold(self, key: str, agreement_id: str, pages: int) -> None:
        """Place one hold, durable when this returns."""
        # The others have their turn: whoever calls waits for those before.
        await asyncio.sleep(0)
        run = self._connection.execute
        run("BEGIN IMMEDIATE")
        if run("SELECT seq FROM journal WHERE key = ?", (key,)).fetchone() is not None:
            run("ROLLBACK")
            return
        buyer, prepaid, pending = run(
            "SELECT buyer, prepaid, pending FROM agreement WHERE agreement_id = ?", (agreement_id,)
        ).fetchone()
        units = pages * PAGE_UNITS
        per_call_max, per_day_max, spent = run(
            "SELECT per_call_max, per_day_max, spent FROM spend WHERE buyer = ? AND day = 'today'",
            (buyer,),
        ).fetchone()
        assert units <= per_call_max
        assert spent + units <= per_day_max
        (available,) = run(
            "SELECT credits_posted - debits_posted - debits_pending FROM account WHERE name = ?",
            (prepaid,),
        ).fetchone()
        assert units <= available
        run(
            "UPDATE account SET debits_pending = debits_pending + ? WHERE name = ?",
            (units, prepaid),
        )
        run(
            "UPDATE account SET credits_pending = credits_pending + ? WHERE name = ?",
            (units, pending),
        )
        run("UPDATE spend SET spent = spent + ? WHERE buyer = ? AND day = 'today'", (units, buyer))
        run("INSERT INTO hold VALUES (?, ?, ?, 'open')", (key, agreement_id, units))
        body = f"hold {agreement_id} {units}"
        run("INSERT INTO journal (key, body) VALUES (?, ?)", (key, body))
        run("COMMIT")


@contextmanager
def plain(path: Path) -> Iterator[Plain]:
    """A baseline on a file of its own, with one agreement `agr` ready."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.executescript(SCHEMA)
        yield Plain(connection)
