"""Synthetic listings as data, and a small market of them in a database: what catalog tests run on.

A row of `corpus.json` says what differs between listings; everything else is written here once.
"""

import copy
import json
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from farthing.catalog.projection import Row, rows
from farthing.catalog.tables import METADATA
from farthing.protocol.canonical import Json, document_sha256
from farthing.protocol.ids import derive_id
from farthing.protocol.listing import parse_listing
from farthing.protocol.records import Change, Record, Signer
from farthing.protocol.terms import standard_terms

HERE = Path(__file__).parent
CORPUS: list[dict[str, Any]] = json.loads((HERE / "corpus.json").read_text(encoding="utf-8"))
KEYS = {derive_id("lst", row["key"]): row["key"] for row in CORPUS}
LISTING_IDS = {key: listing_id for listing_id, key in KEYS.items()}

Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """Three documents that fit one another."""

    listing: Document
    rate_card: Document
    terms: Document

    def sealed(self) -> "Publication":
        """The same after a change, with the hashes right again."""
        listing = copy.deepcopy(self.listing)
        listing["rate_card_sha256"] = document_sha256(self.rate_card)
        listing["terms_sha256"] = document_sha256(self.terms)
        return Publication(listing=listing, rate_card=self.rate_card, terms=self.terms)


def publication(row: Mapping[str, Any], *, version: int = 1) -> Publication:
    """The documents of one row of the corpus."""
    meters = list(row["price"])
    numbers = {"type": "object", "required": ["count"], "additionalProperties": False}
    listing = {
        "schema": "farthing-listing/1",
        "listing_id": derive_id("lst", row["key"]),
        "vendor_id": vendor_id(row["vendor"]),
        "version": version,
        "name": row["name"],
        "summary": row["summary"],
        "primary_tag": row["tags"][0],
        "tags": row["tags"],
        "domains": row.get("domains", []),
        "example_requests": row["requests"],
        "not_for": [],
        "languages": ["en"],
        "interface": {"kind": "mcp", "url": f"https://{row['vendor']}.example/mcp", "tool": "run"},
        "input_schema": {
            "type": "object",
            "properties": {"content": {"type": "string", "maxLength": 100_000}},
            "required": ["content"],
        },
        "output_schema": {**numbers, "properties": {"count": {"type": "integer", "minimum": 0}}},
        "example": {"input": {"content": "a"}, "output": {"count": 1}},
        "meters": [
            {"meter": meter, "unit": meter, "from": f"Counted in {meter} by the server"}
            for meter in meters
        ],
        "sla": {
            "latency_ms_p50": row["ms"][0],
            "latency_ms_p95": row["ms"][1],
            "availability_ppm": row["ppm"],
            "claim_kind": "declared",
        },
        "limits": {"input_bytes_max": 1_000_000, "concurrency_max": 8},
        "data_handling": {
            "regions": row["regions"],
            "retention_days": 0,
            "training_use": False,
            "subprocessors": [],
        },
        "idempotent": True,
        "side_effects": False,
    }
    rate_card = {
        "schema": "farthing-rate-card/1",
        "card_id": row["key"],
        "version": version,
        "asset": row.get("asset", "USD"),
        "rounding": "half_even",
        "period": "agreement",
        "dimensions": [_dimension(meter, row["price"][meter]) for meter in meters],
    }
    unsealed = Publication(listing=listing, rate_card=rate_card, terms=dict(standard_terms()))
    return unsealed.sealed()


def vendor_id(vendor: str) -> str:
    return derive_id("org", vendor)


def _dimension(meter: str, tiers: list[list[str]]) -> Document:
    return {
        "rule_id": meter,
        "meter": meter,
        "unit": meter,
        "model": "graduated" if len(tiers) > 1 else "per_unit",
        "tiers": [
            {"amount": amount, "per_quantity": per} | ({"up_to": up_to} if up_to else {})
            for up_to, amount, per in tiers
        ],
    }


def published(seq: int, documents: Publication) -> Record:
    """The record that publishing leaves."""
    listing = parse_listing(documents.listing)
    head: dict[str, Json] = {"listing_id": listing.listing_id, "seq": seq, "state": "active"}
    facts: dict[str, Json] = {
        "listing": documents.listing,
        "rate_card": documents.rate_card,
        "terms": documents.terms,
        "signature": "header..signature",
    }
    return Record(
        seq=seq,
        at_us=seq,
        operation="publish_listing",
        by=Signer(principal_id=listing.vendor_id),
        asked={},
        changed=(Change(noun="listing", id=listing.listing_id, after=head),),
        facts=facts,
    )


def withdrawn(seq: int, listing_id: str, head_seq: int) -> Record:
    """The record that withdrawing leaves."""
    head: dict[str, Json] = {"listing_id": listing_id, "seq": head_seq, "state": "withdrawn"}
    return Record(
        seq=seq,
        at_us=seq,
        operation="withdraw_listing",
        by=Signer(principal_id="org"),
        asked={},
        changed=(Change(noun="listing", id=listing_id, after=head),),
    )


def write(conn: Connection, made: Iterable[Row]) -> None:
    """Insert rows, or replace those of the same key, as the writer does."""
    for table, values in made:
        keys = [column.name for column in table.primary_key]
        rest = {name: value for name, value in values.items() if name not in keys}
        statement = insert(table).values(values)
        conn.execute(
            statement.on_conflict_do_update(index_elements=keys, set_=rest)
            if rest
            else statement.on_conflict_do_nothing()
        )


def build(file: Path, records: Iterable[Record]) -> None:
    """A database file with the rows of some records."""
    engine = create_engine(f"sqlite:///{file}")
    with engine.begin() as conn:
        METADATA.create_all(conn)
        for record in records:
            write(conn, rows(record))
    engine.dispose()


def corpus_records() -> list[Record]:
    return [published(seq, publication(row)) for seq, row in enumerate(CORPUS, 1)]


async def none_frozen(vendor_ids: Collection[str]) -> frozenset[str]:
    """Nobody in the small market is frozen."""
    del vendor_ids
    return frozenset()


@asynccontextmanager
async def reading(file: Path) -> AsyncIterator[AsyncConnection]:
    """A connection that cannot write."""
    engine = create_async_engine(f"sqlite+aiosqlite:///file:{file}?mode=ro&uri=true")
    try:
        async with engine.connect() as conn:
            yield conn
    finally:
        await engine.dispose()
