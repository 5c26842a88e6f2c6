"""What a call that the platform made came to: what is kept of it, and its hold's word on it.

Boundary: an answer is accepted, then kept, then paid for, in this order; whoever finds one that is
kept and not paid for pays. How a call ended its hold alone says. Source: spec/services.md,
spec/design/16-paid-on-acceptance.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from farthing.identity.callers import Caller
from farthing.protocol.canonical import LooseJson
from farthing.protocol.contracts import DeliveryRecord, read_delivery
from farthing.protocol.errors import Code, Refusal, Refused, refuse
from farthing.protocol.signatures import InvalidSignature, read_header
from farthing.server.market import Market
from farthing.server.operations.replies import Reply, check_key, known, record_at
from farthing.settlement.engine.commands import platform_command
from farthing.settlement.engine.holds import charge_view, lines_view
from farthing.settlement.engine.questions import Lookup
from farthing.settlement.engine.services import AbandonHold, AcceptAnswer
from farthing.settlement.engine.things import Charge, Hold

__all__ = [
    "Ending",
    "give_back",
    "gone",
    "nothing_charged",
    "paid_by_platform",
    "pay",
    "signed_answer",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a call ended: with an answer that was accepted, or with a refusal.

    `delivery` and `signature` are the vendor's for the answer; they are what it is paid by.
    """

    result: LooseJson = None
    content: tuple[LooseJson, ...] = ()
    delivery: Mapping[str, Any] | None = None
    signature: str = ""
    refusal: Refusal | None = None

    def to_bytes(self) -> bytes:
        """What is kept of it."""
        if self.refusal is not None:
            return orjson.dumps({"refusal": self.refusal.document()})
        return orjson.dumps({
            "result": self.result,
            "content": self.content,
            "delivery": self.delivery,
            "signature": self.signature,
        })  # fmt: skip

    @classmethod
    def from_bytes(cls, kept: bytes) -> "Ending":
        """The ending that `to_bytes` wrote."""
        document = orjson.loads(kept)
        if "refusal" in document:
            return cls(refusal=Refusal.from_document(document["refusal"]))
        return cls(**(document | {"content": tuple(document["content"])}))


async def pay(market: Market, hold_id: str, kept: bytes) -> Hold:
    """Pay for an answer that is kept; done twice it is done once.

    Args:
        market: the composition.
        hold_id: whose call.
        kept: its ending; one that is empty or a refusal is worth nothing.

    Returns:
        The hold as it is then: captured, or given back where nothing can be paid for.
    """
    hold = await known(market, Hold, hold_id)
    if hold.status != "open":
        return hold
    ending = Ending.from_bytes(kept) if kept else Ending()
    if ending.delivery is not None:
        answer = await signed_answer(market, ending.delivery, ending.signature)
        if isinstance(answer, AcceptAnswer):
            await market.engine.submit(answer.command)
    return await give_back(market, hold_id)


async def paid_by_platform(
    market: Market, caller: Caller, hold_id: str, delivery: DeliveryRecord
) -> Reply | None:
    """The charge of a call that the platform made, for its vendor; None where there is none.

    An answer that was accepted, and not come to being paid for, is paid for now.

    Raises:
        Refused: `answer_awaited` while the call is on its way; `key_revoked`.
    """
    hold = await market.ask(Lookup(noun="hold", id=hold_id))
    if not isinstance(hold, Hold) or not hold.on_answer or hold.vendor_id != caller.principal_id:
        return None
    # What follows is no command of the caller's, which the engine would look at the key for.
    await check_key(market, caller)
    if hold.status == "open" and (kept := await market.flights.kept(hold_id)):
        hold = await pay(market, hold_id, kept)
    if hold.status == "open" and market.now_us() < hold.expires_at_us:
        raise Refused(refuse(Code.ANSWER_AWAITED, path="hold_id", retry_after_s=1))
    if not hold.charge_id:
        return None
    charge = await known(market, Charge, hold.charge_id)
    if (delivery.hold_id, delivery.result_sha256) != (hold_id, charge.result_sha256):
        return None
    view = charge_view(charge, lines_view(await record_at(market, charge.seq)))
    return Reply(answer=view, replayed=True, seq=charge.seq)


async def give_back(market: Market, hold_id: str, code: Code = Code.VENDOR_FAILED) -> Hold:
    """Give a hold back where it is open; gives the hold as it is then."""
    hold = await known(market, Hold, hold_id)
    if hold.status != "open":
        return hold
    body = AbandonHold(hold_id=hold_id, reason=code.value)
    await market.engine.submit(platform_command("abandon_hold", body))
    return await known(market, Hold, hold_id)


async def signed_answer(
    market: Market, delivery: Mapping[str, Any], signature: str
) -> AcceptAnswer | Refusal:
    """What a vendor signed for its answer, or `invalid_argument`, `signature_invalid`.

    Whether the key is the vendor's and in force the engine says, with the effect.
    """
    try:
        thumbprint = read_header(signature).kid
    except InvalidSignature:
        return refuse(Code.SIGNATURE_INVALID, path="delivery_signature")
    holder = await market.directory.holder(thumbprint)
    keys = {} if holder is None else {thumbprint: holder.key}
    read = read_delivery(delivery, signature, keys.get)
    if isinstance(read, Refusal):
        return read
    return AcceptAnswer(delivery=read, signature=signature, signed_by=thumbprint)


async def gone(market: Market, hold: Hold) -> Refusal:
    """What is left to say of a call whose result is not here: the journal's word on its hold."""
    if not hold.charge_id:
        return nothing_charged()
    charge = await known(market, Charge, hold.charge_id)
    return refuse(
        Code.RESULT_EXPIRED,
        path=hold.charge_id,
        remaining=charge.result_sha256,
        message=f"{Code.RESULT_EXPIRED.says} The call was charged as {hold.charge_id}.",
    )


def nothing_charged(why: str = "") -> Refusal:
    """That a call came to nothing and cost nothing."""
    says = f"{Code.VENDOR_FAILED.says} Nothing is charged."
    return refuse(Code.VENDOR_FAILED, message=f"{says} ({why})" if why else says)
