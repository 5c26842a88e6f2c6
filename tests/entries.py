"""What a journal has of a record, as one document and back: for who changes it or judges it alone.

The text of a batch is the fact `usage` of the document.
"""

import json
from typing import Any

from farthing.protocol.canonical import canonical_bytes, sha256_hex
from farthing.protocol.records import GENESIS

__all__ = ["chained", "document_in", "entry_of", "head_of"]


def document_in(entry: bytes) -> dict[str, Any]:
    """The document of an entry."""
    line, has_text, text = entry.partition(b"\n")
    document: dict[str, Any] = json.loads(line)
    if has_text:
        document["facts"]["usage"] = text.decode()
    return document


def entry_of(document: dict[str, Any]) -> bytes:
    """The entry of a document."""
    facts = document.get("facts", {})
    if "usage" not in facts:
        return canonical_bytes(document)
    rest = {name: value for name, value in facts.items() if name != "usage"}
    line = canonical_bytes({**document, "facts": rest})
    return line + b"\n" + str(facts["usage"]).encode()


def head_of(entry: bytes) -> str:
    """What the next record names as the one before it."""
    return sha256_hex(entry.partition(b"\n")[0])


def chained(documents: list[dict[str, Any]]) -> list[bytes]:
    """The entries of a journal that is written anew."""
    entries: list[bytes] = []
    for each in documents:
        each["prev"] = head_of(entries[-1]) if entries else GENESIS
        entries.append(entry_of(each))
    return entries
