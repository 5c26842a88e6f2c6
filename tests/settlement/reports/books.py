"""A brute-force statement: reads journal lines as plain JSON and adds up, from the first record.

It imports nothing from farthing, so that it is wrong in other ways than what it checks.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Side", "balances", "sides"]

Counters = dict[str, int]


@dataclass(frozen=True, slots=True)
class Side:
    """What one transfer did to one account."""

    account: str
    seq: int
    line: int
    at_us: int
    effective_at_us: int
    counter: str
    units: int

    @property
    def key(self) -> tuple[int, int]:
        """Its place in the journal."""
        return self.seq, self.line

    @property
    def effective_key(self) -> tuple[int, int, int]:
        """Its place in the order of taking effect."""
        return self.effective_at_us, self.seq, self.line


def sides(journal: Iterable[bytes]) -> list[Side]:
    """Every side of every transfer of a journal."""
    found: list[Side] = []
    times: dict[int, int] = {}
    for data in journal:
        record = json.loads(data)
        at_us = times[record["seq"]] = record["at_us"]
        effective_us = at_us
        if record["operation"] == "capture_hold" and "refused" not in record:
            hold = next(each["after"] for each in record["changed"] if each["noun"] == "hold")
            told_us = record["facts"]["delivery"]["delivered_at_us"]
            effective_us = sorted((times[hold["seq"]], told_us, at_us))[1]
        for number, moved in enumerate(record.get("moved", ())):
            posted = "posted" if moved["movement"] == "post" else "pending"
            units = int(moved["units"]) * (-1 if moved["movement"] == "void" else 1)
            found += [
                Side(
                    account=moved[side],
                    seq=record["seq"],
                    line=2 * number + place,
                    at_us=at_us,
                    effective_at_us=effective_us,
                    counter=f"{side}s_{posted}",
                    units=units,
                )
                for place, side in enumerate(("debit", "credit"))
            ]
    return found


def balances(some: Iterable[Side]) -> dict[str, Counters]:
    """The counters that some sides add up to, by account."""
    found: dict[str, Counters] = {}
    for side in some:
        counters = found.setdefault(
            side.account,
            dict.fromkeys(
                ("debits_pending", "debits_posted", "credits_pending", "credits_posted"), 0
            ),
        )
        counters[side.counter] += side.units
    return found
