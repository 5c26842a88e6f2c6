"""Reading what a record says, and saying which part of it is not what follows from the rest.

Boundary: access and comparison only; what is expected is for who reads to know.
"""

from collections.abc import Mapping, Sequence

from farthing.protocol.canonical import Json, document_sha256
from farthing.protocol.errors import Unverified
from farthing.protocol.ledger import Movement, Transfer
from farthing.protocol.records import Change, Record

__all__ = [
    "JsonObject",
    "changes",
    "fact",
    "half_digest",
    "integer",
    "member",
    "only",
    "post",
    "quantities",
    "require",
    "same",
    "same_postings",
    "text_fact",
    "texts",
    "transfer",
    "units",
]

JsonObject = dict[str, Json]


def require(holds: bool, record: Record, what: str) -> None:  # noqa: FBT001 - reads as a sentence
    """Raise `Unverified`, naming the record, unless the condition holds."""
    if not holds:
        raise Unverified(f"record {record.seq} ({record.operation}): {what}")


def same(record: Record, what: str, found: Mapping[str, Json], **expected: Json) -> None:
    """Require members of a document to be what follows from other documents."""
    for name, value in expected.items():
        require(found.get(name) == value, record, f"{what}.{name} does not follow")


def same_postings(record: Record, expected: Sequence[Transfer]) -> None:
    """Require exactly these transfers, in this order."""
    require(record.moved == tuple(expected), record, "its postings do not follow")


def transfer(
    movement: Movement, debit: str, credit: str, asset: str, amount_units: int
) -> list[Transfer]:
    """One transfer, or none where there is nothing to move."""
    if amount_units == 0:
        return []
    return [
        Transfer(movement=movement, debit=debit, credit=credit, asset=asset, units=amount_units)
    ]


def post(debit: str, credit: str, asset: str, amount_units: int) -> list[Transfer]:
    """A posted transfer, or none where there is nothing to move."""
    return transfer(Movement.POST, debit, credit, asset, amount_units)


def changes(record: Record, *nouns: str) -> tuple[Change, ...]:
    """The record's changes, which must be of exactly these nouns in this order.

    Credit lots and allowances may change with them: the past of a lot is its operator's, that of an
    allowance its agreement's, and neither is part of a charge.
    """
    changed = tuple(each for each in record.changed if each.noun not in {"allowance", "lot"})
    found = tuple(change.noun for change in changed)
    require(found == nouns, record, f"it changes {', '.join(found) or 'nothing'}")
    return changed


def only(change: Change, name: str, record: Record) -> JsonObject:
    """What a change leaves, whose own id must be the change's."""
    require(change.after.get(name) == change.id, record, f"{change.noun} {change.id} is another")
    return change.after


def fact(record: Record, name: str) -> JsonObject:
    """A document among the record's facts."""
    value = (record.facts or {}).get(name)
    if not isinstance(value, dict):
        raise Unverified(f"record {record.seq} ({record.operation}): no {name} among its facts")
    return value


def text_fact(record: Record, name: str) -> str:
    """A text among the record's facts, such as a signature."""
    return member(record.facts or {}, name)


def member(document: Mapping[str, Json], name: str) -> str:
    """A text member; raises `KeyError` or `TypeError`, which the replay reports."""
    value = document[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is not a text")
    return value


def integer(document: Mapping[str, Json], name: str) -> int:
    """An integer member; as `member`."""
    value = document[name]
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is not an integer")
    return value


def units(document: Mapping[str, Json], name: str) -> int:
    """An amount, which records write as an integer text; as `member`, or `ValueError`."""
    return int(member(document, name))


def quantities(value: Json) -> dict[str, int]:
    """Quantities by meter, as the things of a record hold them."""
    if not isinstance(value, dict):
        raise TypeError("quantities are an object")
    return {meter: int(member(value, meter)) for meter in value}


def texts(document: Mapping[str, Json], name: str) -> list[str]:
    """A list of texts, empty where it is left out."""
    value = document.get(name, [])
    if not isinstance(value, list):
        raise TypeError(f"{name} is not a list")
    return [str(each) for each in value]


def half_digest(document: Mapping[str, Json]) -> bytes:
    """What stands for a document in an auditor's memory."""
    return bytes.fromhex(document_sha256(document))[:16]
