"""What became of a call, and the signed tree head that everything is proven under."""

from farthing.protocol.errors import Code
from farthing.protocol.messages.listings import Document
from farthing.protocol.wire import Effect, IdempotencyKey, Operation, Role, Slug, message

__all__ = [
    "GET_OUTCOME",
    "GET_TREE_HEAD",
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
    """A signed note over the journal's size and root (spec/receipts.md)."""

    origin: str
    size: int
    root_sha256: str
    note: str


GET_OUTCOME = Operation(
    name="get_outcome",
    title="Get an outcome",
    says="Say what became of a call whose reply was lost.",
    ask=GetOutcome,
    answer=OutcomeView,
    effect=Effect.READS,
    roles=frozenset({Role.BUYER, Role.OPERATOR, Role.VENDOR, Role.TREASURER, Role.ADMIN}),
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
