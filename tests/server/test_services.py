"""A call that the platform makes is made once, paid once, and told truthfully."""

from pathlib import Path

from tests.server.calling import selling


async def test_one_ask_gives_the_result_its_charge_and_its_receipt(tmp_path: Path) -> None:
    async with selling(tmp_path) as market:
        reply = await market.call()

        assert reply.answer.untrusted_result == {"pages": ["one", "two"]}
