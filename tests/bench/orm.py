"""The baseline: the same checks as a hold, in one pooled SQLAlchemy transaction each.

Idempotency key, agreement, price, authority per call and per day, balance, four counters, a hold,
a journal row: what most services would write, honestly done.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import BigInteger, ForeignKey, Integer, String, event, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = ["Baseline", "baseline"]

POOL = 8
PAGE_UNITS = 2_000_000


class Base(DeclarativeBase):
    type_annotation_map = {int: BigInteger, str: String}  # noqa: RUF012  # as SQLAlchemy asks


class Account(Base):
    __tablename__ = "account"
    name: Mapped[str] = mapped_column(primary_key=True)
    debits_pending: Mapped[int] = mapped_column(default=0)
    debits_posted: Mapped[int] = mapped_column(default=0)
    credits_pending: Mapped[int] = mapped_column(default=0)
    credits_posted: Mapped[int] = mapped_column(default=0)


class Agreement(Base):
    __tablename__ = "agreement"
    agreement_id: Mapped[str] = mapped_column(primary_key=True)
    buyer: Mapped[str]
    prepaid: Mapped[str] = mapped_column(ForeignKey("account.name"))
    pending: Mapped[str] = mapped_column(ForeignKey("account.name"))


class Spend(Base):
    __tablename__ = "spend"
    buyer: Mapped[str] = mapped_column(primary_key=True)
    day: Mapped[str] = mapped_column(primary_key=True)
    per_call_max: Mapped[int]
    per_day_max: Mapped[int]
    spent: Mapped[int] = mapped_column(default=0)


class Hold(Base):
    __tablename__ = "hold"
    hold_id: Mapped[str] = mapped_column(primary_key=True)
    agreement_id: Mapped[str]
    units: Mapped[int]
    status: Mapped[str]


class Journal(Base):
    __tablename__ = "journal"
    # BIGINT does not make a rowid on SQLite; INTEGER does.
    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    key: Mapped[str] = mapped_column(unique=True)
    body: Mapped[str]


class Baseline:
    """Places holds."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._sessions = sessions
        # SQLite has one writer: callers that queue here do not spin on its busy handler.
        self._turn = asyncio.Semaphore(1)

    async def hold(self, key: str, agreement_id: str, pages: int) -> None:
        """Place one hold, durable when this returns."""
        async with self._turn, self._sessions() as session, session.begin():
            seen = await session.scalar(select(Journal).where(Journal.key == key))
            if seen is not None:
                return
            agreement = await session.get_one(Agreement, agreement_id)
            units = pages * PAGE_UNITS
            spend = await session.get_one(Spend, (agreement.buyer, "today"))
            prepaid = await session.get_one(Account, agreement.prepaid)
            pending = await session.get_one(Account, agreement.pending)
            assert units <= spend.per_call_max
            assert spend.spent + units <= spend.per_day_max
            reserved = prepaid.debits_pending + prepaid.debits_posted
            assert reserved + units <= prepaid.credits_posted
            prepaid.debits_pending += units
            pending.credits_pending += units
            spend.spent += units
            session.add(Hold(hold_id=key, agreement_id=agreement_id, units=units, status="open"))
            session.add(Journal(key=key, body=f"hold {agreement_id} {units}"))


@asynccontextmanager
async def baseline(path: Path) -> AsyncIterator[Baseline]:
    """A baseline on a file of its own, with one agreement `agr` ready."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", pool_size=POOL)

    @event.listens_for(engine.sync_engine, "connect")
    def _durable(connection: object, _: object) -> None:
        cursor = connection.cursor()  # type: ignore[attr-defined]
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()

    sessions = async_sessionmaker(engine, expire_on_commit=False)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with sessions() as session, session.begin():
        session.add_all(
            [
                Account(name="prepaid", credits_posted=2**62),
                Account(name="pending"),
                Agreement(agreement_id="agr", buyer="b", prepaid="prepaid", pending="pending"),
                Spend(buyer="b", day="today", per_call_max=2**62, per_day_max=2**62),
            ]
        )
    yield Baseline(sessions)
    await engine.dispose()
