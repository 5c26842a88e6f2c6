"""An independent ledger: reads journal lines as plain JSON and imports nothing from farthing.

It knows three movements, four counters and the rule that a debit needs a credit. That is all an
auditor has to believe.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from fractions import Fraction
from typing import Any


class Oracle:
    """Folds journal lines; fails where the books do not balance."""

    def __init__(self) -> None:
        self.posted: dict[str, int] = defaultdict(int)
        self.pending: dict[str, int] = defaultdict(int)
        self.spent: dict[tuple[str, str], int] = defaultdict(int)
        self.prev = hashlib.sha256(b"farthing journal").hexdigest()
        self.grace: dict[str, int] = {}
        self.seq = 0

    def read(self, entries: Iterable[bytes]) -> None:
        """Fold entries, each chained to the one before; in the text of a batch nothing is moved."""
        for entry in entries:
            line = entry.partition(b"\n")[0]
            record = json.loads(line)
            assert record["prev"] == self.prev, "the chain is broken"
            assert record["seq"] == self.seq + 1, "a record is missing"
            self.prev = hashlib.sha256(line).hexdigest()
            self.seq = record["seq"]
            if "refused" in record:
                assert not {"moved", "counted", "changed"} & record.keys(), (
                    "a refusal did something"
                )
            for changed in record.get("changed", ()):
                if changed["noun"] == "grace":
                    policies = (changed["after"]["granted_units"], changed["after"]["chosen_units"])
                    self.grace[changed["id"]] = min(map(int, policies))
            for moved in record.get("moved", ()):
                self._move(moved)
            for counted in record.get("counted", ()):
                self.spent[counted["grant_id"], counted["day"]] += int(counted["units"])
            self.check()

    def check(self) -> None:
        """Debits equal credits; clearing and promotion alone are below zero, but for a grace."""
        by_asset: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for name in set(self.posted) | set(self.pending):
            asset = name.rsplit(":", 1)[1]
            by_asset[asset][0] += self.posted[name]
            by_asset[asset][1] += self.pending[name]
            if ":external_clearing:" not in name and ":promotion:" not in name:
                at_hand = self.posted[name] + min(self.pending[name], 0)
                assert at_hand >= -self.grace.get(name, 0), f"{name} is overdrawn"
        assert all(sums == [0, 0] for sums in by_asset.values()), dict(by_asset)
        assert all(units >= 0 for units in self.spent.values()), dict(self.spent)

    def _move(self, moved: dict[str, Any]) -> None:
        units = int(moved["units"])
        assert units > 0
        assets = {moved[side].rsplit(":", 1)[1] for side in ("debit", "credit")}
        assert assets == {moved["asset"]}, "one asset becomes another"
        book = self.posted if moved["movement"] == "post" else self.pending
        sign = -1 if moved["movement"] == "void" else 1
        book[moved["debit"]] -= sign * units
        book[moved["credit"]] += sign * units


def graduated_price(position: int, quantity: int) -> int:
    """What the test card asks for pages: 10 at 0.002, the rest at 0.0015, in billionths."""

    def cumulative(pages: int) -> Fraction:
        first = min(pages, 10)
        return Fraction(2_000_000) * first + Fraction(1_500_000) * (pages - first)

    return int(cumulative(position + quantity)) - int(cumulative(position))
