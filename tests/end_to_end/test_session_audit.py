"""What an outside auditor makes of a market whose buyer called through a session."""

import asyncio
from pathlib import Path

from farthing.protocol.wire import money
from tests.clients.cli.running import run
from tests.clients.test_session_trade import FLAT, LIMITS, PDF
from tests.clients.trading import trading


async def test_a_market_with_sessions_is_audited_as_one_of_holds_is(tmp_path: Path) -> None:
    async with trading(tmp_path, card=FLAT, listing=LIMITS) as market:
        quote = await market.buyer.quote(market.listing_id, {"page": 1})
        agreement = await market.buyer.accept(quote)
        async with market.buyer.session(
            agreement.agreement_id, cap=money(8 * 10**8, "USD"), per_call=money(10**7, "USD")
        ) as session:
            await asyncio.gather(*(session.call(PDF) for _ in range(40)))
        await market.close_shop()
        spent = (await market.buyer.session_status(session.session_id)).spent
    folder = next(each.parent for each in tmp_path.rglob("journal.sqlite"))

    ran = run("audit", "verify", "--data-dir", str(folder))

    assert ran.code == 0, ran
    assert spent == money(40 * 4_000_000, "USD")
