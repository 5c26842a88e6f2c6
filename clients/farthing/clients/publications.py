"""Published documents by their hash: what a listing version, a rate card and terms are named by.

Boundary: asks the platform; what a document says is for its own reader.
Source: spec/contracts.md.
"""

from typing import cast

from farthing.clients.transport import Connection
from farthing.protocol.canonical import InvalidJson, Json, document_sha256
from farthing.protocol.errors import Unverified
from farthing.protocol.messages.listings import GET_DOCUMENT, GetDocument

__all__ = ["published"]


async def published(connection: Connection, sha256: str) -> dict[str, Json]:
    """A published document; its canonical bytes are those of the hash.

    Raises:
        Refused: `not_found`.
        Unverified: The platform gave another.
    """
    answer = await connection.call(GET_DOCUMENT, GetDocument(sha256=sha256))
    document = cast("dict[str, Json]", answer.document)
    if not _is_of(document, sha256):
        raise Unverified(f"the document given for {sha256} is another")
    return document


def _is_of(document: dict[str, Json], sha256: str) -> bool:
    try:
        return document_sha256(document) == sha256
    except InvalidJson:
        return False
