"""How long a test waits for what has to come. A slow machine passes; what never comes fails."""

import asyncio
from collections.abc import Callable
from typing import Final

__all__ = ["PATIENCE_S", "patiently", "until"]

PATIENCE_S: Final = 60
_PAUSE_S: Final = 0.01


def patiently() -> asyncio.Timeout:
    """A block that has to end."""
    return asyncio.timeout(PATIENCE_S)


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what has no event: another process's doing, or a thing that says so nowhere else."""
    async with patiently():
        while not holds():  # noqa: ASYNC110 # there is no event
            await asyncio.sleep(_PAUSE_S)
