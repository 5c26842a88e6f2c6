"""The story of one run: which acts follow on which, and what it all came to.

Boundary: the order of the acts. A file whose text cannot be had ends the trade; the books and the
proofs come all the same.
"""

import asyncio
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from farthing.clients.demo.errand import Errand, measure, write_sample
from farthing.clients.demo.many import call_many
from farthing.clients.demo.market import opened
from farthing.clients.demo.mishaps import (
    agent_hits_its_limit,
    reply_is_lost,
    vendor_dies,
    vendor_gives_back,
    vendor_lies,
)
from farthing.clients.demo.narration import Narrator, counted
from farthing.clients.demo.processes import DidNotStart, ending_on_signals
from farthing.clients.demo.proof import balance_books, save_packs, verify_offline
from farthing.clients.demo.stage import DELIVERED, FAILED, Stage
from farthing.clients.demo.trade import open_market, read_pages, understand_text
from farthing.protocol.errors import FarthingError, Refused
from farthing.protocol.wire import Money

__all__ = ["BUDGET", "PACKS", "Telling", "tell"]

BUDGET: Final = Money(amount="0.05", asset="USD")
PACKS: Final = Path("farthing-demo") / "packs"
_NS_PER_MS: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    """How a story is to be told.

    Args:
        file: The PDF whose text is wanted; None for the sample.
        budget: What that may cost.
        packs: Where the evidence packs are written.
        quiet: Print nothing.
    """

    file: Path | None = None
    budget: Money = BUDGET
    packs: Path = PACKS
    quiet: bool = False


async def tell(telling: Telling) -> dict[str, object]:
    """Tell the story; gives everything that a program may want to know of it.

    Raises:
        NoSuchFile: The file is not there.
    """
    began_ns = time.monotonic_ns()
    narrator = Narrator(quiet=telling.quiet)
    facts: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="farthing-demo-") as name, ending_on_signals():
        folder = Path(name)
        path = telling.file
        if path is None:
            path = await asyncio.to_thread(write_sample, folder)
        errand = await measure(path)
        narrator.title("Farthing: a trade between an agent and three vendors")
        _tell_errand(narrator, errand, facts, sample=telling.file is None)
        with _reporting(narrator):
            async with opened(folder) as market:
                stage = Stage(
                    narrator=narrator,
                    market=market,
                    errand=errand,
                    budget=telling.budget,
                    per_call=max(telling.budget, BUDGET, key=lambda each: each.units),
                    packs=telling.packs.absolute(),
                    facts=facts,
                )
                facts["refusals"] = stage.refusals
                facts["outcome"] = await _acts(stage)
    outcome = facts.pop("outcome", FAILED)
    elapsed_ms = (time.monotonic_ns() - began_ns) // _NS_PER_MS
    narrator.end(str(outcome), elapsed_ms)
    return {
        "outcome": FAILED if narrator.failures else outcome,
        "held": not narrator.failures,
        "failures": list(narrator.failures),
        "elapsed_ms": elapsed_ms,
        **facts,
    }


async def _acts(stage: Stage) -> str:
    await open_market(stage)
    outcome = await read_pages(stage)
    if outcome == DELIVERED:
        await understand_text(stage)
        await call_many(stage)
        await reply_is_lost(stage)
        await agent_hits_its_limit(stage)
        await vendor_gives_back(stage)
        await vendor_lies(stage)
        await vendor_dies(stage)
    await balance_books(stage)
    await save_packs(stage)
    await verify_offline(stage)
    return outcome


def _tell_errand(
    narrator: Narrator, errand: Errand, facts: dict[str, object], *, sample: bool
) -> None:
    narrator.act("A file")
    # The sample is gone with the folder it was made in; its name says enough.
    name = f"{errand.path.name}, made for this" if sample else f"{errand.path}"
    pages = (
        f"the agent cannot count them: {errand.uncounted}"
        if errand.page_count is None
        else counted(errand.page_count, "page")
    )
    narrator.facts(
        ("file", f"{name}, {counted(errand.size_bytes, 'byte')}"),
        ("pages", pages),
        ("sha256", errand.sha256),
    )
    facts["file"] = {
        "path": errand.path.name if sample else str(errand.path),
        "bytes": errand.size_bytes,
        "sha256": errand.sha256,
        "page_count": errand.page_count,
        **({"uncounted": errand.uncounted.value} if errand.uncounted else {}),
    }


@contextmanager
def _reporting(narrator: Narrator) -> Iterator[None]:
    """Say what broke the story off; the processes are ended by then."""
    try:
        yield
    except Refused as refused:
        narrator.promise("no call is refused unforeseen", holds=False, seen=refused.refusal)
    except (FarthingError, DidNotStart, OSError) as error:
        narrator.promise("the story goes on", holds=False, seen=f"{type(error).__name__}: {error}")
