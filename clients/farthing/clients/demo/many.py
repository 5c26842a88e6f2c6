"""Two hundred calls: money is set aside once, every call has its price, few records settle all.

Boundary: one act. What a session is, the clients know as anybody's do. Source: spec/sessions.md.
"""

import asyncio
import re
import time
from typing import Final

from farthing.clients.demo.narration import counted, shown
from farthing.clients.demo.stage import Bought, Stage
from farthing.clients.demo.work_text import SHORT_CHARACTERS_MAX
from farthing.clients.session_answers import Answer
from farthing.protocol.messages.holds import Charge
from farthing.protocol.messages.sessions import Session
from farthing.protocol.wire import Money, document_of, money

__all__ = ["LABEL", "call_many"]

LABEL: Final = "counts"
_CALLS: Final = 200
_CAP: Final = Money(amount="0.02", asset="USD")
_PER_CALL: Final = Money(amount="0.0004", asset="USD")
_REPORTED_S_MAX: Final = 20.0
_POLL_S: Final = 0.1
_NS_PER_MS: Final = 1_000_000
_LETTER: Final = re.compile("[a-z]")
_ANY_TEXT: Final = "The farthing was the smallest coin."


async def call_many(stage: Stage) -> None:
    """The agent has two hundred lines counted, many at a time, in one session."""
    tell, market, agent = stage.narrator, stage.market, stage.market.agent
    tell.act("Two hundred calls, set aside once")
    tell.say(
        f"A third tool counts a line for a thousandth of a cent or so. The agent sets "
        f"{shown(_CAP)} aside and calls it {_CALLS} times, many at once: each call is "
        "numbered and signed, none of them asks the platform."
    )
    before = await stage.available()
    listing_id = market.listing_id("short-counts")
    agreement = await agent.accept(await agent.quote(listing_id, {"character": 1}))
    began_ns = time.monotonic_ns()
    async with agent.session(agreement.agreement_id, cap=_CAP, per_call=_PER_CALL) as session:
        calls = (session.call({"text": line}) for line in _lines(stage.text))
        answers = await asyncio.gather(*calls)
        elapsed_ms = (time.monotonic_ns() - began_ns) // _NS_PER_MS
    settled = await _settled(stage, session.session_id, listing_id)
    charges = await _charges(stage, agreement.agreement_id)
    for number, charge in enumerate(charges, start=1):
        label = LABEL if number == 1 else f"{LABEL}-{number}"
        stage.bought.append(
            Bought(
                label=label,
                listing_id=listing_id,
                agreement_id=agreement.agreement_id,
                charge_id=charge.charge_id,
            )
        )
    _tell(stage, answers, settled, charges, elapsed_ms)
    after = await stage.available()
    tell.promise(
        "the account has exactly that much less, and the rest of what was set aside is back",
        holds=after.units == before.units - settled.spent.units,
        seen=after,
    )


def _tell(
    stage: Stage,
    answers: list[Answer],
    settled: Session,
    charges: list[Charge],
    elapsed_ms: int,
) -> None:
    tell, asset = stage.narrator, settled.cap.asset
    amounts = sorted(each.amount.units for each in answers)
    least, most = (money(units, asset).amount for units in (amounts[0], amounts[-1]))
    receipts = ", ".join(f"record {each.seq}" for each in charges)
    tell.facts(
        ("session", f"{settled.session_id}, {settled.status}"),
        ("calls", f"{len(answers)} in {elapsed_ms} ms, {least} to {most} {asset} each"),
        ("settled", f"{shown(settled.spent)} in {counted(len(charges), 'charge')}"),
        ("receipt", f"{receipts} of the journal, for all of them"),
    )
    listing_id = stage.market.listing_id("short-counts")
    price = stage.market.price(listing_id, {"character": sum(map(_characters, answers))})
    tell.promise(
        f"every call cost what its characters cost, and together {shown(price)}",
        holds=sum(amounts) == price.units == settled.spent.units and settled.calls == len(answers),
        seen=settled,
    )
    stage.facts["session"] = {
        **document_of(settled),
        "elapsed_ms": elapsed_ms,
        "charges": [each.charge_id for each in charges],
        "least": least,
        "most": most,
    }


async def _settled(stage: Stage, session_id: str, listing_id: str) -> Session:
    """The session when its vendor has reported every call, and closed it in its turn."""
    vendor = stage.market.selling(listing_id).vendor
    deadline = time.monotonic() + _REPORTED_S_MAX
    session = await stage.market.agent.session_status(session_id)
    while session.calls < _CALLS and time.monotonic() < deadline:
        await asyncio.sleep(_POLL_S)
        session = await stage.market.agent.session_status(session_id)
    return await vendor.close_session(session_id)


async def _charges(stage: Stage, agreement_id: str) -> list[Charge]:
    found = (await stage.market.agent.charges()).charges
    return [each for each in reversed(found) if each.agreement_id == agreement_id]


def _characters(answer: Answer) -> int:
    return answer.usage["character"]


def _lines(text: str) -> list[str]:
    """As many lines of the text as there are calls, from the beginning again where it is short."""
    lines = [line.strip()[:SHORT_CHARACTERS_MAX] for line in text.splitlines()]
    found = [line for line in lines if _LETTER.search(line)] or [_ANY_TEXT]
    return [found[number % len(found)] for number in range(_CALLS)]
