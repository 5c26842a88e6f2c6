"""A buyer's process killed in mid-session: its book goes on, and everything is paid once."""

from contextlib import aclosing
from pathlib import Path

from farthing.clients.buyers import Buyer
from farthing.clients.callbooks import CallState
from farthing.clients.home import Home
from tests.clients.test_processes import SHOP, heard, running, world
from tests.clients.trading import usd
from tests.processes import free_port

READER = Path(__file__).with_name("reader.py")
PDF = {"pdf": "one|two"}


async def test_a_buyer_killed_anywhere_in_a_session_never_reuses_a_number_and_pays_once(
    tmp_path: Path,
) -> None:
    port = free_port()
    async with world(tmp_path) as market:
        vendors, agents = await market.vendor(port), Home(tmp_path / "agent")
        listing_id = str(vendors.offer("pdf-text").listing["listing_id"])
        buyer = Buyer(market.buyer.connection, books=agents.books_path)
        agreement = await buyer.accept(await buyer.quote(listing_id, {"page": 1}))
        async with aclosing(
            await buyer.open_session(agreement.agreement_id, cap=usd("0.4"), per_call=usd("0.01"))
        ) as opened:
            session_id = opened.session_id
        shop = running(
            str(SHOP), str(port), str(tmp_path), env={"FARTHING_HOME": str(vendors.path)}
        )
        async with shop as vendor:
            await heard(vendor, b"serving")
            for place in ("before_call", "with_answer"):
                identity = (buyer.connection.url, buyer.connection.principal, str(agents.path))
                async with running(str(READER), *identity, session_id, place) as reader:
                    assert await reader.wait() == -9
            async with aclosing(await buyer.resume_session(session_id)) as session:
                cut_off = await session.calls(CallState.ASKED)
                again = [await session.call(PDF, again=each.seq) for each in cut_off]
                last = await session.call(PDF)
                calls = await session.calls()
                await session.close()
            vendor.terminate()
            await vendor.wait()
        view = await buyer.session_status(session_id)

    assert cut_off
    assert [each.seq for each in again] == [each.seq for each in cut_off]
    assert [each.seq for each in calls] == list(range(1, last.seq + 1))
    assert {each.state for each in calls} == {CallState.ANSWERED}
    assert not any(each.fault for each in calls)
    assert (view.calls, view.rejected) == (len(calls), 0)
    assert view.spent.units == sum(each.units for each in calls) == last.spent.units
    assert len((tmp_path / "runs").read_text().splitlines()) == len(calls)
