"""Which rows a record makes in the catalog's tables.

Boundary: a pure function of the record (and of the vocabulary that ships with the code), so that
every table can be rebuilt from the journal. The writer puts the rows in the record's transaction.
"""

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from sqlalchemy import Table

from farthing.catalog.tables import (
    LISTING,
    LISTING_HEAD,
    LISTING_REGION,
    LISTING_TAG,
    RATE_CARD,
)
from farthing.catalog.vocabulary import Vocabulary, ancestors, load
from farthing.protocol.canonical import Json, canonical_bytes
from farthing.protocol.listing import Listing, parse_listing
from farthing.protocol.records import Record

__all__ = ["Row", "Value", "rows"]

Value: TypeAlias = str | int | bytes
Row: TypeAlias = tuple[Table, dict[str, Value]]


def rows(record: Record) -> Iterator[Row]:
    """The rows of a record, each whole, to be inserted or to replace the row of the same key.

    A publication carries its documents and signature in `facts` and the new head in `changed`.
    """
    for change in record.changed:
        if change.noun != "listing":
            continue
        if record.facts is not None and "listing" in record.facts:
            yield from _version(record.seq, record.facts)
        yield (
            LISTING_HEAD,
            {
                "listing_id": change.id,
                "row_id": int(change.after["seq"]),
                "state": str(change.after["state"]),
            },
        )


def _version(seq: int, facts: Mapping[str, Json]) -> Iterator[Row]:
    document = facts["listing"]
    card = facts["rate_card"]
    assert isinstance(card, dict)
    listing = parse_listing(document)
    tags = _present_tags(listing, load())
    yield RATE_CARD, {"sha256": listing.rate_card_sha256, "body": canonical_bytes(card)}
    yield (
        LISTING,
        {
            "row_id": seq,
            "listing_id": listing.listing_id,
            "version": listing.version,
            "vendor_id": listing.vendor_id,
            "name": listing.name,
            "summary": listing.summary,
            "tag_words": _tag_words(tags, load()),
            "example_requests": "\n".join(listing.example_requests),
            "primary_tag": tags[0],
            "tags": " ".join(tags),
            "asset": str(card["asset"]),
            "meters": " ".join(meter.meter for meter in listing.meters),
            "latency_ms_p50": listing.sla.latency_ms_p50,
            "latency_ms_p95": listing.sla.latency_ms_p95,
            "availability_ppm": listing.sla.availability_ppm,
            "regions": " ".join(listing.data_handling.regions),
            "retention_days": listing.data_handling.retention_days,
            "training_use": int(listing.data_handling.training_use),
            "listing_sha256": listing.listing_sha256,
            "rate_card_sha256": listing.rate_card_sha256,
            "terms_sha256": listing.terms_sha256,
            "signature": str(facts["signature"]),
        },
    )
    for path in sorted({above for tag in tags for above in ancestors(tag)}):
        yield LISTING_TAG, {"path": path, "row_id": seq}
    for region in listing.data_handling.regions:
        yield LISTING_REGION, {"row_id": seq, "region": region}


def _present_tags(listing: Listing, vocabulary: Vocabulary) -> tuple[str, ...]:
    """The primary tag first; former tags as the leaves that stand for them now."""
    tags = (listing.primary_tag, *listing.tags)
    present = [path for tag in tags for path in vocabulary.resolve(tag).paths or (tag,)]
    return tuple(dict.fromkeys(present))


def _tag_words(tags: tuple[str, ...], vocabulary: Vocabulary) -> str:
    """What the vocabulary says of the tags: captions and everyday names, not the vendor's words."""
    leaves = [vocabulary.leaves[tag] for tag in tags if tag in vocabulary.leaves]
    return "\n".join(word for leaf in leaves for word in (leaf.caption, *leaf.aliases))
