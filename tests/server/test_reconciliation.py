"""The platform counts the calls that it makes itself, beside the sessions of an agreement."""

from pathlib import Path

from farthing.clients.reconciling import Reconciling
from farthing.protocol.errors import Refused
from farthing.protocol.wire import Usage
from tests.server.calling import Selling, selling, usd


async def both(market: Selling) -> list[object]:
    """What buyer and vendor are told of the platform's calls."""
    agreement_id = market.agreement.agreement_id
    sides: tuple[Reconciling, ...] = (market.buyer, market.vendor)
    return [(await side.reconcile_agreement(agreement_id)).passed for side in sides]


async def test_the_platform_s_own_calls_are_counted_by_what_became_of_them(tmp_path: Path) -> None:
    async with selling(tmp_path) as market:
        none, _ = await both(market)
        for number in range(2):
            await market.call(key=f"a-call-that-is-paid-{number}")
        market.desk.fail = "no such file"
        failed = await market.attempt(key="a-call-that-failed-1")
        again = await market.call(key="a-call-that-is-paid-0")
        told = await both(market)
        found = await market.buyer.reconcile_agreement(market.agreement.agreement_id)

    assert isinstance(failed, Refused)
    assert again.replayed
    assert told[0] == told[1] == found.passed
    assert (none.asked, none.charged) == (0, usd("0"))  # type: ignore[attr-defined]
    passed = found.passed
    assert (passed.asked, passed.captured, passed.released, passed.open) == (3, 2, 1, 0)
    assert (passed.charged, passed.usage) == (usd("0.008"), (Usage(meter="page", quantity="4"),))
    assert (found.sessions, found.within) == ((), True)
