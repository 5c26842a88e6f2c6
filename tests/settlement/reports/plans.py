"""How SQLite goes about what a reading asks of it."""

from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy import event

from farthing.settlement.reports.reads import View

__all__ = ["plans_of", "steps_of"]


async def plans_of(view: View, reading: Callable[[], Awaitable[object]]) -> list[str]:
    """The plan of each statement of a reading, its steps in one text."""
    assert view.connection is not None
    asked: list[tuple[str, Any]] = []

    def note(*call: Any) -> None:
        asked.append((call[2], call[3]))

    event.listen(view.connection.sync_connection, "before_cursor_execute", note)
    await reading()
    event.remove(view.connection.sync_connection, "before_cursor_execute", note)
    found = []
    for sql, given in asked:
        steps = await view.connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", given)
        found.append("; ".join(step.detail for step in steps))
    return found


async def steps_of(view: View, reading: Callable[[], Awaitable[object]]) -> int:
    """How many steps SQLite's machine takes for a reading, whatever time they take."""
    assert view.connection is not None
    driver: Any = (await view.connection.get_raw_connection()).driver_connection
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    await driver.set_progress_handler(step, 1)
    await reading()
    await driver.set_progress_handler(None, 0)
    return steps
