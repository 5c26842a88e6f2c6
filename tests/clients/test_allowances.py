"""An allowance over the wire: made by two sides, seen alike by all, kept by what is sold."""

from dataclasses import replace
from pathlib import Path

import pytest

from farthing.clients.buyers import Buyer
from farthing.protocol.canonical import Json
from farthing.protocol.errors import Code, Refused
from farthing.protocol.messages.allowances import MeterUse
from farthing.protocol.messages.trails import GET_OUTCOME, GetOutcome
from tests.clients.trading import trading, usd
from tests.papers import card_document

FLAT = card_document(({"amount": "0.002", "per_quantity": "1"},))
LIMITS: dict[str, Json] = {"limits": {"input_bytes_max": 10_000, "concurrency_max": 64}}
TWO_PAGES = {"pdf": "one|two"}


async def test_a_session_s_calls_are_served_as_far_as_the_allowance_goes(tmp_path: Path) -> None:
    async with trading(tmp_path, card=FLAT, listing=LIMITS) as market:
        buyer, vendor, operator = market.buyer, market.vendor, market.operator
        agreement = await buyer.accept(await buyer.quote(market.listing_id, {"page": 1}))
        agreement_id = agreement.agreement_id
        offered = await vendor.propose_allowance(agreement_id, per_day={"page": 5}, key="k" * 16)
        outcome = await vendor.connection.call(
            GET_OUTCOME, GetOutcome(operation="propose_allowance", key="k" * 16)
        )
        assert offered.proposed is not None
        with pytest.raises(Refused) as alone:
            await vendor.approve_allowance(agreement_id, offered.proposed.allowance_id)
        before = await buyer.allowance(agreement_id)
        agreed = await operator.approve_allowance(agreement_id, offered.proposed.allowance_id)
        async with buyer.session(agreement_id, cap=usd("0.3"), per_call=usd("0.01")) as session:
            answers = [await session.call(TWO_PAGES) for _ in range(2)]
            with pytest.raises(Refused) as beyond:
                await session.call(TWO_PAGES)
        await market.close_shop()

        status = await buyer.session_status(session.session_id)
        rejected = await operator.rejected_usage(agreement_id=agreement_id)
        seen = [await side.allowance(agreement_id) for side in (buyer, vendor, operator)]

    assert outcome.answer is not None
    assert outcome.answer["agreement_id"] == agreement_id
    assert alone.value.code is Code.NOT_PERMITTED
    assert (before.status, before.proposed) == ("none", offered.proposed)
    assert agreed.in_force is not None
    assert replace(agreed.in_force, approved_by="", approved_at="") == offered.proposed
    assert len(answers) == 2
    assert beyond.value.code is Code.ALLOWANCE_EXCEEDED
    assert (status.rejected, status.spent, rejected.rejected) == (0, usd("0.008"), ())
    assert [each.status for each in seen] == ["in_force"] * 3
    day = MeterUse(meter="page", period="day", limit="5", used="4", held="0", remaining="1")
    assert [each.meters for each in seen] == [(day,)] * 3


async def test_an_allowance_is_its_agreement_s_parties_alone_to_see(tmp_path: Path) -> None:
    async with trading(tmp_path, card=FLAT, listing=LIMITS) as market:
        agreement = await market.buyer.accept(
            await market.buyer.quote(market.listing_id, {"page": 1})
        )
        house = await market.serving.organisation("operator", "Operator Two")
        other = Buyer(await market.serving.agent(house, "Agent Two"))
        refused = []
        for ask in (
            other.allowance(agreement.agreement_id),
            other.propose_allowance(agreement.agreement_id, per_day={"page": 1}),
        ):
            with pytest.raises(Refused) as caught:
                await ask
            refused.append((caught.value.code, caught.value.refusal.path))

    assert refused == [(Code.NOT_FOUND, "agreement_id")] * 2
