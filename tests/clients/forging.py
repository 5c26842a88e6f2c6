"""What somebody can answer who has stolen a key of the platform's."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from farthing.protocol.checkpoints import sign_checkpoint, verify_checkpoint
from farthing.protocol.keys import PrivateKey, PublicKey
from farthing.protocol.messages.charges import Evidence, Receipt
from farthing.protocol.wire import Operation

__all__ = ["Call", "answering", "proven_by"]

Call = Callable[[Operation[Any, Any], Any], Awaitable[Any]]


def answering(call: Call, change: Callable[[Any], Any]) -> Call:
    """Calls whose answers are changed on the way."""

    async def answer(operation: Operation[Any, Any], ask: Any) -> Any:
        return change(await call(operation, ask))

    return answer


def proven_by(thief: PrivateKey, journal: PublicKey) -> Callable[[Any], Any]:
    """An answer as it was, with every tree head in it signed by another key than the journal's."""

    def resigned(receipt: Receipt) -> Receipt:
        note = receipt.tree_head
        head = verify_checkpoint(note, note.partition("\n")[0], journal)
        return replace(receipt, tree_head=sign_checkpoint(thief, head))

    def change(answer: Any) -> Any:
        match answer:
            case Receipt():
                return resigned(answer)
            case Evidence():
                receipts = tuple(map(resigned, answer.receipts))
                return replace(answer, receipts=receipts, journal_key=dict(thief.public.jwk()))
            case _:
                return replace(answer, receipt=resigned(answer.receipt))

    return change
