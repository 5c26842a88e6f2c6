"""Lives of a vendor's spool, from seeds: each call is reported until it is answered for good."""

import asyncio
import random
import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest

from farthing.clients.counter import Sold
from farthing.clients.spooled import read_spool
from farthing.clients.sqlite_file import SqliteFile
from farthing.clients.usage_spool import UsageSpool
from farthing.protocol.errors import Code, Refused, refuse
from farthing.protocol.keys import PrivateKey
from farthing.protocol.messages.sessions import UsageReport
from farthing.protocol.signatures import read_header
from farthing.protocol.times import SECOND_US
from farthing.protocol.x402 import Presented, read_used
from tests.clients.settling import MAC_KEY, Payer, Shop, shop
from tests.patience import until

LIVES = 6
STEPS = 16
PASSING = frozenset({"in_future", "beyond_voucher"})
REASONS = (*PASSING, "over_per_call", "before_session")
BILLED, REFUSED = "", "frozen"
# The places of no two batches of a session meet, whatever was put back.
_MEETING = """
SELECT count(*) FROM batch AS one JOIN batch AS other ON other.session_id = one.session_id
    AND other.number > one.number AND other.first <= one.place
"""
_LEFT = "SELECT 1 FROM call UNION SELECT 1 FROM batch UNION SELECT 1 FROM session"


class Asked(NamedTuple):
    """A call with its payment."""

    payer: Payer
    presented: Presented
    arguments: dict[str, str]


@dataclass
class Disk:
    """A vendor's: a write fails, or is the last that its process makes."""

    write: Callable[..., None]
    fails_in: int = -1
    ends_in: int = -1
    is_kept: bool = False
    has_ended: bool = False

    def make(self, file: SqliteFile, steps: Any) -> None:
        self.fails_in -= 1
        self.ends_in -= 1
        if self.has_ended or self.fails_in == 0:
            raise sqlite3.OperationalError("disk I/O error")
        self.has_ended = self.ends_in == 0
        if not self.has_ended or self.is_kept:
            self.write(file, steps)
        if self.has_ended:
            raise sqlite3.OperationalError("killed")


@dataclass
class Life:
    """A vendor, its payers, and what settlement said about each call, once for each report."""

    market: Shop
    disk: Disk
    dice: random.Random
    payers: list[Payer]
    asked: list[Asked] = field(default_factory=list)
    sold: set[tuple[str, int]] = field(default_factory=set)
    told: dict[str, list[tuple[str, int, str]]] = field(default_factory=dict)
    refused: dict[str, Refused] = field(default_factory=dict)
    late: set[str] = field(default_factory=set)
    is_over: bool = False

    def listen(self) -> None:
        """Note what settlement answers; a refusal is remembered under its key, as a platform's."""
        settlement = self.market.settlement
        bill = settlement.report_usage

        async def report_usage(
            session_id: str, batch: str, signature: str, voucher: str, *, key: str
        ) -> UsageReport:
            if self.disk.has_ended:
                raise AssertionError("a process that was killed reports nothing")
            if key in self.refused:
                raise self.refused[key]
            is_older = read_header(signature).kid != settlement.signer.thumbprint
            if is_older and key not in settlement.answers:
                self.refused[key] = Refused(refuse(Code.SIGNATURE_INVALID))
                raise self.refused[key]
            if key in settlement.answers:
                settlement.refusals = []
            events = [(session_id, int(each["id"])) for each in orjson.loads(batch)]
            if self.is_over:
                self.late.add(key)
            try:
                return await bill(session_id, batch, signature, voucher, key=key)
            except Refused as refused:
                if refused.code.remembered:
                    self.refused[key] = refused
                    self.told[key] = [(*each, REFUSED) for each in events]
                raise
            finally:
                if (answer := settlement.answers.get(key)) is not None:
                    reasons = {int(each.id): each.reason for each in answer.rejected}
                    self.told[key] = [(*each, reasons.get(each[1], BILLED)) for each in events]

        settlement.report_usage = report_usage  # type: ignore[method-assign]

    async def call(self) -> None:
        """Several calls at once, of any session, under vouchers and MACs."""
        self.asked = [self.asks() for _ in range(self.dice.randint(1, 5))]
        await self.ask()

    def asks(self) -> Asked:
        payer, arguments = self.dice.choice(self.payers), {"pdf": self.dice.choice(("a", "a|b"))}
        voucher = payer.voucher(arguments)
        if voucher.seq > 1 and self.dice.random() < 0.5:
            return Asked(payer, payer.maced(voucher), arguments)
        return Asked(payer, payer.signed(voucher, mac_key=MAC_KEY), arguments)

    async def ask(self) -> None:
        """Ask for what was asked for last, again where it was before."""
        calls = (self.market.sell(each.presented, each.arguments) for each in self.asked)
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        for each, outcome in zip(self.asked, outcomes, strict=True):
            if isinstance(outcome, Sold) and (used := read_used(outcome.response)) is not None:
                if (name := (used.session_id, used.seq)) not in self.sold:
                    each.payer.answered(outcome)
                self.sold.add(name)

    async def step(self) -> None:
        """One thing that happens."""
        settlement, dice = self.market.settlement, self.dice
        what = dice.choice(
            (*["call"] * 8, *["wait"] * 3, *["end"] * 3, "fail", "bad", "away", "say")
        )
        settlement.is_down = what == "away"
        self.market.desk.fail = ValueError("no page") if what == "fail" else None
        if what == "wait":
            self.market.clock.now_us += dice.randint(0, 12) * SECOND_US
            await asyncio.sleep(0.01)
        elif what == "end":
            await self.end()
        elif what == "bad":
            self.disk.fails_in = dice.randint(1, 4)
        elif what == "say":
            settlement.lose_answers = dice.randint(0, 2)
            settlement.reject = {dice.randint(1, 20): dice.choice(REASONS) for _ in range(6)}
            codes = Code.FROZEN, Code.UNAVAILABLE
            settlement.refusals = [refuse(dice.choice(codes)) for _ in range(dice.randint(0, 2))]
            if dice.random() < 0.3:
                settlement.connection.signer = PrivateKey.from_seed(dice.randbytes(32))
        await self.call()

    async def end(self) -> None:
        """The process ends at one of its next writes, or is stopped; the next is asked again."""
        self.disk.ends_in, self.disk.is_kept = self.dice.randint(1, 5), self.dice.random() < 0.5
        for _ in range(self.dice.randint(1, 3)):
            await self.call()
        await asyncio.sleep(self.dice.choice((0, 0.01)))
        if not self.disk.has_ended and self.dice.random() < 0.3:
            self.disk.ends_in = self.disk.fails_in = -1
            await self.market.counter.close()
        else:
            await self.market.crash()
        self.disk.fails_in, self.disk.ends_in, self.disk.has_ended = -1, -1, False
        await self.market.open()
        await self.ask()

    def answered(self) -> Counter[tuple[str, int]]:
        """How often each call was answered for good: what may pass does so until the end."""
        return Counter(
            (session_id, seq)
            for key, told in self.told.items()
            for session_id, seq, reason in told
            if reason not in PASSING or key in self.late
        )


def is_empty(market: Shop) -> bool:
    """Whether settlement has answered all that is in the spool."""
    return not any(each.unsent + each.unanswered for each in read_spool(market.spool, 0)[0])


@pytest.mark.parametrize("seed", range(LIVES))
async def test_each_call_is_reported_until_it_is_answered_for_good_and_then_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    disk, dice = Disk(SqliteFile.write), random.Random(seed)

    def write(file: SqliteFile, steps: Any) -> None:
        disk.make(file, steps)

    monkeypatch.setattr(SqliteFile, "write", write)
    async with shop(tmp_path, desks_max=dice.choice((1, 2, 9))) as market:
        payers = [market.payer(name, unsigned=12) for name in ("one", "two", "three")]
        life = Life(market, disk, dice, payers)
        life.listen()
        for _ in range(STEPS):
            await life.step()
        # The sessions are over, with all the time for reports after them, and everything works.
        settlement = market.settlement
        settlement.is_down, settlement.reject, settlement.refusals = False, {}, []
        settlement.lose_answers, market.desk.fail, disk.fails_in = 0, None, -1
        market.clock.now_us += 1000 * SECOND_US
        life.is_over = True
        await market.counter.close()
        await market.open()
        await until(lambda: is_empty(market))

        ends = life.answered()
        assert life.sold <= set(ends)
        assert set(ends.values()) <= {1}
        assert market.file.file.do(_MEETING)[0][0] == 0
        sessions, not_taken = read_spool(market.spool, 10_000)
        reasons = {
            (session_id, seq): reason
            for told in life.told.values()
            for session_id, seq, reason in told
        }
        assert {(each.session_id, each.seq): each.reason for each in not_taken} == {
            name: reason for name, reason in reasons.items() if reason != BILLED
        }
        assert sum(each.ended for each in sessions) == len(ends)
        usage = UsageSpool(market.file.file)
        while usage.forget(market.clock.now_us + 1, 7):
            pass
        assert market.file.file.do(_LEFT) == []
