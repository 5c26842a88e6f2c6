"""The feed by itself, over a journal that a test writes: who is woken, and whose stream ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from farthing.identity.callers import Caller
from farthing.protocol.errors import Broken, Code, Refused, refuse
from farthing.protocol.records import Change, Record, Signer
from farthing.protocol.wire import Role
from farthing.server.followers.feed import Feed, Watcher
from farthing.settlement.engine.commands import Committed
from farthing.settlement.engine.questions import Figures, FiguresNow, KeyFacts, KeyOf
from farthing.settlement.journal.store import Unreadable
from tests.patience import PATIENCE_S, patiently

OWNER = Caller(
    principal_id="org_a", organisation_id="org_a", role=Role.OPERATOR, key_thumbprint="key-a"
)


@dataclass(slots=True)
class Quiet:
    """An engine whose journal, faults and keys a test writes."""

    records: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)
    ended_keys: set[str] = field(default_factory=set)
    asked: asyncio.Queue[object] = field(default_factory=asyncio.Queue)
    followed: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    follows: int = 0
    away: bool = False

    async def ask(self, question: Any) -> Any:
        self.asked.put_nowait(question)
        if self.away:
            raise Refused(refuse(Code.OVERLOADED))
        if isinstance(question, FiguresNow):
            return Figures(fee_ppm=0, seq=0, at_us=0)
        assert isinstance(question, KeyOf)
        return KeyFacts(
            thumbprint=question.thumbprint,
            principal_id="org_a",
            organisation_id="org_a",
            role="operator",
            jwk={},
            status="revoked" if question.thumbprint in self.ended_keys else "active",
        )

    async def follow(self, after_seq: int) -> AsyncIterator[Committed]:
        del after_seq
        self.follows += 1
        self.followed.set()
        try:
            while True:
                record = await self.records.get()
                if isinstance(record, Exception):
                    raise record
                yield record
        finally:
            self.left.set()


class Following:
    """A record as followers get it, with no bytes."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.seq = record.seq


@asynccontextmanager
async def feeding(engine: Quiet | None = None, **options: Any) -> AsyncIterator[tuple[Quiet, Feed]]:
    engine = engine or Quiet()
    feed = Feed(engine, **options)  # type: ignore[arg-type]
    async with feed.running():
        yield engine, feed


async def ended(watcher: Watcher) -> bool:
    """Whether a watcher ends, however often it is woken before."""
    while not watcher.closed:
        assert await watcher.wait(PATIENCE_S), "it stays open"
    return True


def revocation() -> Any:
    return Following(
        Record(
            seq=1,
            at_us=1,
            operation="revoke_key",
            by=Signer(),
            asked={},
            changed=(Change(noun="key", id="key-a", after={"status": "revoked"}),),
        )
    )


async def test_all_streams_together_are_bounded() -> None:
    async with feeding(streams_max=2, per_caller_max=2) as (_, feed):
        third = replace(OWNER, principal_id="agt_c")
        with (
            feed.watch(OWNER),
            feed.watch(replace(OWNER, principal_id="agt_b")),
            pytest.raises(Refused) as refused,
            feed.watch(third),
        ):
            pass
        with feed.watch(OWNER), feed.watch(OWNER):
            pass

    assert refused.value.code is Code.OVERLOADED


async def test_an_organisation_and_its_agents_share_a_bound() -> None:
    async with feeding(per_owner_max=2) as (_, feed):
        other = replace(OWNER, principal_id="org_b", organisation_id="org_b")
        third = replace(OWNER, principal_id="agt_c")
        with (
            feed.watch(OWNER),
            feed.watch(replace(OWNER, principal_id="agt_b")),
            feed.watch(other),
            pytest.raises(Refused) as refused,
            feed.watch(third),
        ):
            pass

    assert refused.value.code is Code.RATE_LIMITED


async def test_the_journal_is_followed_only_while_somebody_watches() -> None:
    async with feeding() as (engine, feed):
        with feed.watch(OWNER):
            await engine.followed.wait()
        engine.records.put_nowait(revocation())
        async with patiently():
            await engine.left.wait()
        with feed.watch(OWNER) as watcher:
            engine.records.put_nowait(revocation())
            assert await ended(watcher)

    assert engine.follows == 2


@pytest.mark.parametrize("fault", [Unreadable("a torn page"), Broken("a defect"), KeyError("x")])
async def test_streams_end_when_nothing_would_be_told_any_more(fault: Exception) -> None:
    async with feeding() as (engine, feed):
        with feed.watch(OWNER) as watcher:
            engine.records.put_nowait(fault)
            assert await ended(watcher)
        with feed.watch(OWNER) as watcher:
            engine.records.put_nowait(revocation())
            assert await ended(watcher)


async def test_however_often_streams_begin_and_end_the_journal_is_followed_once() -> None:
    async with feeding() as (engine, feed):
        for _ in range(50):
            with feed.watch(OWNER):
                await engine.followed.wait()
        with feed.watch(OWNER) as watcher:
            engine.records.put_nowait(revocation())
            assert await ended(watcher)

    assert engine.follows == 1


async def test_a_key_that_ended_before_the_journal_could_be_followed_ends_its_stream() -> None:
    async with feeding(Quiet(away=True), again_s=0) as (engine, feed):
        with feed.watch(OWNER) as watcher, feed.watch(replace(OWNER, key_thumbprint="b")) as other:
            await engine.asked.get()
            # No record that is followed from here on tells of it.
            engine.ended_keys.add("key-a")
            engine.away = False
            assert await ended(watcher)
            assert not other.closed


async def test_many_changes_of_one_balance_wait_as_one() -> None:
    watcher = Watcher(OWNER)
    for _ in range(1000):
        watcher.touched.add("org_a:prepaid:USD")
        watcher.woken.set()

    assert await watcher.wait(PATIENCE_S)
    assert watcher.touched == {"org_a:prepaid:USD"}
    assert not watcher.woken.is_set()
