"""A platform whose front ends stop dead where a test wants to kill them.

    python -m tests.standing PLACE FILE serve --data-dir ...

It makes FILE and stands still: with an answer that is accepted and not kept, or kept and not paid.
"""

import asyncio
import sys
from pathlib import Path
from typing import NoReturn

from farthing.clients.cli import main
from farthing.server.adapters.results import Results
from farthing.server.operations import services

__all__ = ["PLACES"]

PLACES = ("accepted", "kept")


def stand_still(place: str, file: Path) -> None:
    """Have every front end that is forked from here stand still at a place."""
    assert place in PLACES

    async def stand(*reached: object) -> NoReturn:
        del reached
        file.touch()
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")

    if place == "accepted":
        Results.end = stand  # type: ignore[assignment]
    else:
        vars(services)["pay"] = stand


if __name__ == "__main__":
    stand_still(sys.argv[1], Path(sys.argv[2]))
    sys.argv[1:] = sys.argv[3:]
    main()
