"""Reading what was published: the offered version of a listing, and any document by its hash.

Boundary: reads through a connection that cannot write. A listing that is withdrawn is still found,
since agreements in force rest on it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from farthing.catalog.tables import DOCUMENT, LISTING, LISTING_HEAD
from farthing.protocol.canonical import Json, parse_json

__all__ = ["Published", "document_by_sha256", "newest_version"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The newest version of a listing, with everything it names."""

    listing_id: str
    version: int
    vendor_id: str
    state: str
    listing_sha256: str
    rate_card_sha256: str
    terms_sha256: str
    signature: str
    listing: Mapping[str, Json]
    rate_card: Mapping[str, Json]
    terms: Mapping[str, Json]
    seq: int


async def document_by_sha256(conn: AsyncConnection, sha256: str) -> dict[str, Json] | None:
    """A published listing, rate card or terms document; None if there is none of this hash."""
    query = select(DOCUMENT.c.body).where(DOCUMENT.c.sha256 == sha256)
    body = (await conn.execute(query)).scalar_one_or_none()
    if body is None:
        return None
    document = parse_json(body)
    assert isinstance(document, dict)
    return document


async def newest_version(conn: AsyncConnection, listing_id: str) -> Published | None:
    """The newest version of a listing, offered or withdrawn; None if there is none."""
    query = (
        select(LISTING, LISTING_HEAD.c.state)
        .join(LISTING_HEAD, LISTING_HEAD.c.row_id == LISTING.c.row_id)
        .where(LISTING_HEAD.c.listing_id == listing_id)
    )
    row = (await conn.execute(query)).one_or_none()
    if row is None:
        return None
    listing = await document_by_sha256(conn, row.listing_sha256)
    card = await document_by_sha256(conn, row.rate_card_sha256)
    terms = await document_by_sha256(conn, row.terms_sha256)
    assert listing is not None
    assert card is not None
    assert terms is not None
    return Published(
        listing_id=row.listing_id,
        version=row.version,
        vendor_id=row.vendor_id,
        state=row.state,
        listing_sha256=row.listing_sha256,
        rate_card_sha256=row.rate_card_sha256,
        terms_sha256=row.terms_sha256,
        signature=row.signature,
        listing=listing,
        rate_card=card,
        terms=terms,
        seq=row.row_id,
    )
