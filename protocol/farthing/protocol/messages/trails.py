"""What became of a call, the signed tree head that everything is proven under, and its growth."""

from typing import Annotated

from pydantic import Field

from farthing.protocol.canonical import INTEGER_MAX
from farthing.protocol.errors import Code
from farthing.protocol.messages.listings import Document
from farthing.protocol.wire import (
    EVERY_PRINCIPAL,
    Effect,
    IdempotencyKey,
    Operation,
    Role,
    Sha256,
    Slug,
    message,
)

__all__ = [
    "GET_CONSISTENCY_PROOF",
    "GET_OUTCOME",
    "GET_TREE_HEAD",
    "ConsistencyProof",
    "GetConsistencyProof",
    "GetOutcome",
    "GetTreeHead",
    "OutcomeView",
    "TreeHead",
]


@message
class GetOutcome:
    """Ask what became of a call of the caller's whose reply was lost."""

    operation: Slug
    key: IdempotencyKey


@message
class OutcomeView:
    """`unknown` means it was never done: the call can be made again with the same key.

    `refused` carries the refusal, `done` the answer the call gave.
    """

    outcome: str
    seq: int = 0
    answer: Document | None = None
    refusal: Document | None = None


@message
class GetTreeHead:
    """Ask for the newest signed tree head."""


@message
class TreeHead:
    """A signed note over the journal's size and root (spec/merkle.md)."""

    origin: str
    size: int
    root_sha256: str
    note: str


TreeSize = Annotated[int, Field(ge=0, le=INTEGER_MAX)]


@message
class GetConsistencyProof:
    """Ask for proof that the journal only grew.

    From `first_size` records, of a head that the caller has kept, to `second_size`: 0 or left out
    for as many as the newest head covers.
    """

    first_size: TreeSize
    second_size: TreeSize = 0


@message
class ConsistencyProof:
    """The path of RFC 9162, section 2.1.4, between two sizes, and the newest head as a note."""

    first_size: int
    second_size: int
    proof: tuple[Sha256, ...]
    tree_head: str


GET_CONSISTENCY_PROOF = Operation(
    name="get_consistency_proof",
    title="Get a consistency proof",
    says="Prove that the journal at one size only adds to what it was at a smaller one.",
    ask=GetConsistencyProof,
    answer=ConsistencyProof,
    effect=Effect.READS,
    roles=frozenset({Role.ANYONE}),
    codes=(Code.NOT_FOUND,),
)
GET_OUTCOME = Operation(
    name="get_outcome",
    title="Get an outcome",
    says="Say what became of a call whose reply was lost.",
    ask=GetOutcome,
    answer=OutcomeView,
    effect=Effect.READS,
    roles=EVERY_PRINCIPAL,
    codes=(Code.KEY_EXPIRED,),
)
GET_TREE_HEAD = Operation(
    name="get_tree_head",
    title="Get the tree head",
    says="Return the newest signed head of the journal's Merkle tree.",
    ask=GetTreeHead,
    answer=TreeHead,
    effect=Effect.READS,
    roles=frozenset({Role.ANYONE}),
)
