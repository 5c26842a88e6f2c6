"""A record makes whole rows; one version of a listing is offered, and the index holds just that."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, func, select, text

from farthing.catalog.cards import CardShelf
from farthing.catalog.needs import Need, need_of
from farthing.catalog.projection import rows
from farthing.catalog.queries import matching
from farthing.catalog.tables import LISTING, LISTING_HEAD, LISTING_TAG, METADATA, TABLES
from farthing.catalog.vocabulary import load
from farthing.protocol.canonical import document_sha256
from farthing.protocol.rating import card_document
from farthing.protocol.records import Record, parse_record, record_bytes
from tests.catalog.asking import ask_of
from tests.catalog.corpus import (
    CORPUS,
    KEYS,
    build,
    publication,
    published,
    reading,
    withdrawn,
    write,
)

ROW = CORPUS[0]
LISTING_ID = next(listing_id for listing_id, key in KEYS.items() if key == ROW["key"])


def version(seq: int, number: int, **changes: object) -> Record:
    return published(seq, publication({**ROW, **changes}, version=number))


def indexed(file: Path, word: str) -> list[int]:
    engine = create_engine(f"sqlite:///{file}")
    with engine.connect() as conn:
        query = text("SELECT rowid FROM listing_text WHERE listing_text MATCH :word")
        found = [row[0] for row in conn.execute(query, {"word": word})]
        # The index agrees with its content, or SQLite raises here.
        conn.execute(text("INSERT INTO listing_text(listing_text) VALUES('integrity-check')"))
    engine.dispose()
    return found


def test_a_row_is_a_function_of_the_record_as_it_is_stored() -> None:
    record = version(7, 1)
    stored, _ = parse_record(record_bytes(record, "0" * 64))
    assert list(rows(stored)) == list(rows(record))


def test_every_table_that_records_write_is_in_the_one_list() -> None:
    written = {table for table, _ in rows(version(7, 1))}

    assert written <= set(TABLES)
    assert set(TABLES) == set(METADATA.tables.values())


def test_a_record_of_something_else_makes_no_rows() -> None:
    record = published(1, publication(ROW))
    other = Record(
        seq=1, at_us=1, operation="place_hold", by=record.by, asked={}, facts=record.facts
    )
    assert list(rows(other)) == []


def test_each_tag_is_found_from_every_branch_above_it() -> None:
    tagged = list(rows(version(3, 1, tags=["images.background.remove", "documents.ocr"])))
    paths = {values["path"] for table, values in tagged if table is LISTING_TAG}
    assert paths == {
        "images", "images.background", "images.background.remove",
        "documents", "documents.text", "documents.text.ocr",
    }  # fmt: skip


def test_a_new_version_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "catalog.db"
    build(file, [version(1, 1), version(2, 2, name="Pagewell anew", summary="Another summary.")])
    assert indexed(file, "anew") == [2]
    assert indexed(file, "layer") == []
    engine = create_engine(f"sqlite:///{file}")
    with engine.connect() as conn:
        assert conn.execute(select(func.count()).select_from(LISTING)).scalar_one() == 2
        heads = conn.execute(select(LISTING_HEAD)).all()
    engine.dispose()
    assert [tuple(head) for head in heads] == [(LISTING_ID, 2, "active")]


def test_a_search_without_words_costs_no_more_for_versions_that_were_replaced(
    tmp_path: Path,
) -> None:
    need = need_of(ask_of(tags=["documents"]), load())
    assert isinstance(need, Need)

    def steps(versions: int) -> int:
        file = tmp_path / f"{versions}.db"
        build(file, [version(number, number) for number in range(1, versions + 1)])
        engine = create_engine(f"sqlite:///{file}")
        counted: list[int] = []
        with engine.connect() as conn:
            driver: Any = conn.connection.driver_connection
            driver.set_progress_handler(lambda: counted.append(1), 1)
            conn.execute(matching(need)).all()
        engine.dispose()
        return len(counted)

    assert steps(30) == steps(3)


def test_a_withdrawn_listing_leaves_the_index_and_can_come_back(tmp_path: Path) -> None:
    file = tmp_path / "catalog.db"
    build(file, [version(1, 1), withdrawn(2, LISTING_ID, 1)])
    assert indexed(file, "pagewell") == []
    build(file, [version(3, 2)])
    assert indexed(file, "pagewell") == [3]


def test_writing_rows_twice_changes_nothing(tmp_path: Path) -> None:
    once, twice = tmp_path / "once.db", tmp_path / "twice.db"
    records = [version(1, 1), version(2, 2), withdrawn(3, LISTING_ID, 2), version(4, 3)]
    build(once, records)
    build(twice, [each for record in records for each in (record, record)])
    assert indexed(once, "pagewell") == indexed(twice, "pagewell") == [4]


def test_a_head_can_be_deleted_when_tables_are_rebuilt(tmp_path: Path) -> None:
    file = tmp_path / "catalog.db"
    build(file, [version(1, 1)])
    engine = create_engine(f"sqlite:///{file}")
    with engine.begin() as conn:
        conn.execute(LISTING_HEAD.delete())
    engine.dispose()
    assert indexed(file, "pagewell") == []
    engine = create_engine(f"sqlite:///{file}")
    with engine.begin() as conn:
        write(conn, rows(version(1, 1)))
    engine.dispose()
    assert indexed(file, "pagewell") == [1]


async def test_a_card_is_on_the_shelf_by_the_hash_its_listing_names(tmp_path: Path) -> None:
    file = tmp_path / "catalog.db"
    build(file, [version(1, 1), version(2, 2)])
    shelf = CardShelf()
    async with reading(file) as conn:
        for number in (1, 2):
            document = publication(ROW, version=number).rate_card
            await shelf.load(conn, [document_sha256(document)])
            assert card_document(shelf[document_sha256(document)].card) == document


async def test_a_card_that_was_never_published_is_no_card(tmp_path: Path) -> None:
    file = tmp_path / "catalog.db"
    build(file, [version(1, 1)])
    shelf = CardShelf()
    async with reading(file) as conn:
        with pytest.raises(KeyError):
            await shelf.load(conn, ["0" * 64])
