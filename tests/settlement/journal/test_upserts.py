import sqlite3
from contextlib import closing

from sqlalchemy import Column, Integer, MetaData, Table, Text

from farthing.settlement.journal.store import Row
from farthing.settlement.journal.upserts import Upserts

THINGS = Table(
    "thing",
    MetaData(),
    Column("owner", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("units", Integer),
    Column("note", Text),
)
MARKS = Table("mark", MetaData(), Column("name", Text, primary_key=True))


def written(*batches: list[Row]) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
    upserts = Upserts()
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(
            "CREATE TABLE thing (owner TEXT, name TEXT, units INTEGER, note TEXT,"
            " PRIMARY KEY (owner, name))"
        )
        connection.execute("CREATE TABLE mark (name TEXT PRIMARY KEY)")
        for rows in batches:
            for sql, parameters in upserts.statements(rows):
                connection.executemany(sql, parameters)
        return (
            connection.execute("SELECT * FROM thing ORDER BY owner, name").fetchall(),
            connection.execute("SELECT * FROM mark ORDER BY name").fetchall(),
        )


def thing(owner: str, name: str, **others: str | int) -> Row:
    return THINGS, {"owner": owner, "name": name, **others}


def test_a_row_is_inserted_and_then_updated_under_its_whole_key() -> None:
    things, _ = written(
        [thing("a", "x", units=1), thing("a", "y", units=2)],
        [thing("a", "x", units=3), thing("b", "x", units=4)],
    )

    assert things == [("a", "x", 3, None), ("a", "y", 2, None), ("b", "x", 4, None)]


def test_columns_that_are_not_given_stay_as_they_are() -> None:
    things, _ = written([thing("a", "x", units=1, note="kept")], [thing("a", "x", units=2)])

    assert things == [("a", "x", 2, "kept")]


def test_a_row_of_keys_alone_is_written_once() -> None:
    _, marks = written([(MARKS, {"name": "a"}), (MARKS, {"name": "a"})], [(MARKS, {"name": "b"})])

    assert marks == [("a",), ("b",)]


def test_rows_are_written_in_the_order_they_are_given() -> None:
    rows = [thing("a", "x", units=1), (MARKS, {"name": "a"}), thing("a", "x", units=2)]

    assert written(rows)[0] == [("a", "x", 2, None)]


def test_neighbours_share_a_statement() -> None:
    rows = [thing("a", "x", units=1), thing("a", "y", units=2), thing("a", "z", note="n")]

    assert [len(parameters) for _, parameters in Upserts().statements(rows)] == [2, 1]
