"""What is listed by how it stands, however far the follower is."""

import random
from pathlib import Path

import pytest

from farthing.protocol.canonical import INTEGER_MAX
from tests.settlement.engine.test_reversals import market
from tests.settlement.reports.test_reports import extend, viewed
from tests.settlement.reports.trades import committed

STATUSES = ("", "pending", "posted", "failed", "expired")


@pytest.mark.parametrize("seed", range(6))
async def test_what_stands_so_is_listed_newest_first_however_far_the_follower_is(
    tmp_path: Path, seed: int
) -> None:
    treasury, chance = market(), random.Random(seed)
    made = [treasury.top_up(number + 1) for number in range(6)]
    treasury.room.advance(86_401)
    for top_up_id in chance.sample(made, 4):
        treasury.ask(treasury.treasurer, "confirm_top_up", top_up_id=top_up_id)
        made.append(treasury.top_up(7))
        treasury.ask(treasury.treasurer, "fail_top_up", top_up_id=chance.choice(made))
    records, top_ups = committed(treasury.trade), treasury.room.state.top_ups
    owner, path = treasury.trade.operator.organisation_id, tmp_path / "reports.sqlite"
    assert len({each.status for each in top_ups.values()}) > 2

    for stored in range(0, len(records) + 1, 3):
        extend(path, records[:stored], batch=3)
        async with viewed(path, records) as view:
            for status in STATUSES:
                wanted = [
                    each
                    for each in sorted(top_ups.values(), key=lambda each: each.seq, reverse=True)
                    if status in {"", each.status}
                ]
                found: list[str] = []
                before = INTEGER_MAX
                while some := await view.newest(
                    owner, "top_up", before_seq=before, under="", status=status, limit=2
                ):
                    found += [each.id for each in some]
                    before = some[-1].seq
                assert found == [each.top_up_id for each in wanted]
