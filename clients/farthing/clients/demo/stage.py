"""What the acts share: who is there, what has been bought, what will be told to a program.

Boundary: a place to put things. The acts are in `trade`, `mishaps` and `proof`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from farthing.clients.demo.errand import Errand
from farthing.clients.demo.market import Market
from farthing.clients.demo.narration import Narrator
from farthing.protocol.messages.agreements import Agreement
from farthing.protocol.wire import Money

__all__ = ["DELIVERED", "FAILED", "OVER_BUDGET", "Bought", "Stage"]

DELIVERED: Final = "delivered"
"""The text of the file was delivered and paid for; the whole story was told."""
OVER_BUDGET: Final = "over_budget"
"""No listing keeps the limits; nothing was agreed."""
FAILED: Final = "failed"
"""Something that was promised did not hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bought:
    """One charge of the story; `label` names its pack."""

    label: str
    listing_id: str
    agreement_id: str
    charge_id: str


@dataclass(slots=True, kw_only=True)
class Stage:
    """The stage of one run.

    Args:
        narrator: Tells the story.
        market: Who takes part.
        errand: The file.
        budget: What the errand may cost.
        per_call: What the agent may spend in one call.
        packs: Where the evidence packs are written.
        facts: What a program is told, filled act by act.
        refusals: Every refusal of the story, as part of that.
        bought: The charges, in order.
        text: What the pages hold, once they are delivered.
        agreement: The agreement on the pages, once there is one.
    """

    narrator: Narrator
    market: Market
    errand: Errand
    budget: Money
    per_call: Money
    packs: Path
    facts: dict[str, object] = field(default_factory=dict)
    refusals: list[dict[str, object]] = field(default_factory=list)
    bought: list[Bought] = field(default_factory=list)
    text: str = ""
    agreement: Agreement | None = None

    async def available(self) -> Money:
        """What the operator has left to spend."""
        return (await self.market.agent.balance()).accounts[0].available
