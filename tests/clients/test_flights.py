"""A call that is worked for, and those who wait for it."""

import asyncio

import pytest

from farthing.clients.flights import Flight


async def test_who_asks_and_goes_away_again_and_again_leaves_nothing_behind() -> None:
    flight = Flight("")

    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await flight.landed()

    assert not flight.waiting
