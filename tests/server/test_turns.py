"""As many read at once as may, and who waits too long for a turn is told so."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from farthing.protocol.errors import Code, Refused
from farthing.server import app
from farthing.server.market import Market
from farthing.settlement.reports import reads
from tests.patience import patiently, until
from tests.serving import Shop, serving

Turn = Callable[[Market, int], AbstractAsyncContextManager[Any]]
READERS = 8


@pytest.mark.parametrize(
    ("turn", "asked"),
    [
        (lambda market, _: market.reads(), "search_catalog"),
        (lambda market, number: market.reports.view(f"org_{number}"), "get_statement"),
    ],
    ids=["tables", "lines"],
)
async def test_who_waits_too_long_for_a_turn_to_read_is_told_that_it_is_overloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turn: Turn, asked: str
) -> None:
    monkeypatch.setattr(reads, "READER_WAIT_S", 0.1)
    async with serving(tmp_path) as server:
        operator = await server.organisation("operator", "Operator One")
        await until((tmp_path / "reports.sqlite").exists)
        async with AsyncExitStack() as stack, patiently():
            for number in range(READERS):
                await stack.enter_async_context(turn(server.service.market, number))
            with pytest.raises(Refused) as refused:
                await operator.send_raw(asked, {}, repeatable=False)
        await operator.send_raw(asked, {}, repeatable=False)

    assert refused.value.code is Code.OVERLOADED


async def test_an_organisation_that_reads_as_much_as_it_may_keeps_no_other_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "READER_WAIT_S", 0.1)
    async with serving(tmp_path) as server:
        one = await server.organisation("operator", "Operator One")
        two = await server.organisation("operator", "Operator Two")
        async with AsyncExitStack() as stack, patiently():
            for _ in range(READERS // 2):
                await stack.enter_async_context(server.service.market.reports.view(one.principal))
            with pytest.raises(Refused) as refused:
                await one.send_raw("get_statement", {}, repeatable=False)
            await two.send_raw("get_statement", {}, repeatable=False)
            await two.send_raw("list_agreements", {}, repeatable=False)

    assert refused.value.code is Code.OVERLOADED


async def test_comparisons_of_usage_are_made_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "READER_WAIT_S", 0.1)
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server)
        quote = await shop.buyer.quote(shop.listing_id, {"page": 1})
        agreement_id = (await shop.buyer.accept(quote)).agreement_id
        async with server.service.market.comparing.of("another"):
            with pytest.raises(Refused) as refused:
                await shop.buyer.reconcile_agreement(agreement_id)
        found = await shop.buyer.reconcile_agreement(agreement_id)

    assert refused.value.code is Code.OVERLOADED
    assert found.within
