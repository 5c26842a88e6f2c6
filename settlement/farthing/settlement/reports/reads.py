"""Reading statement lines: what the tables hold, completed from the journal's tail.

Boundary: a connection that cannot write and the engine's port. A view is of one moment, and says
which: the last record that it has. Source: spec/statements.md.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from sqlalchemy import URL, Row, Select, Table, and_, or_, select, tuple_
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from farthing.protocol.canonical import INTEGER_MAX, parse_json
from farthing.protocol.errors import Code, Refused, refuse
from farthing.protocol.ledger import Account, Movement, split_account
from farthing.protocol.records import Record, head_of
from farthing.settlement.engine.commands import Committed
from farthing.settlement.engine.questions import FiguresNow, RecordAt
from farthing.settlement.port import Engine
from farthing.settlement.reports.lines import (
    LATENESS_MAX,
    Entry,
    Line,
    Needs,
    Side,
    fold_lines,
    lateness_below_us,
    moved_by,
    needs_of,
)
from farthing.settlement.reports.listed import Listed, fold_listed
from farthing.settlement.reports.projection import (
    DamagedRow,
    FileId,
    account_of,
    file_at,
    is_damage,
)
from farthing.settlement.reports.tables import (
    ACCOUNT,
    CURSOR,
    ENTRY,
    FOLLOWED,
    LATE,
    LINE,
    LISTED,
    REFERENCE,
    VERSION,
)
from farthing.settlement.reports.turns import Turns
from farthing.settlement.reports.usage import Usage, fold_usage

__all__ = ["READER_WAIT_S", "Kept", "Reports", "View", "reading"]

# How many read at once, each on a thread of its own, and how long the next may wait for its turn.
_READERS_MAX: Final = 8
_OF_ONE_MAX: Final = 4
READER_WAIT_S: Final = 10

# The most records that one reading takes from the journal itself.
_TAIL_MAX: Final = 1000

# An account as the tables know it; number 0 where only the tail does.
_UNKNOWN: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An account that has lines: its name; in the tables its number and its longest lag there."""

    name: str
    number: int = _UNKNOWN
    lag_us_max: int = 0


def reading(path: Path) -> AsyncEngine:
    """Connections to a file of SQLite's that cannot write."""
    query = {"mode": "ro", "uri": "true"}
    url = URL.create("sqlite+aiosqlite", database=path.absolute().as_uri(), query=query)
    return create_async_engine(
        url, pool_size=_READERS_MAX, max_overflow=0, pool_timeout=READER_WAIT_S
    )


class Reports:
    """The read model of one journal, for reading.

    Args:
        path: the file that the follower writes; it may be behind, or not there yet.
        engine: whose journal it is.
        tail_max: the most records that a reading takes from the journal.
    """

    def __init__(self, path: Path, engine: Engine, *, tail_max: int = _TAIL_MAX) -> None:
        self._path = path
        self._file: FileId | None = None
        self._reading = reading(path)
        self._turns = Turns(in_all=_READERS_MAX, of_one=_OF_ONE_MAX, wait_s=READER_WAIT_S)
        self._engine = engine
        self._tail_max = tail_max
        self._verified = (0, "")

    @asynccontextmanager
    async def view(self, whose: str) -> AsyncIterator["View"]:
        """Everything up to a moment that is no earlier than this call, or as near as it may be.

        Where the follower is further behind than a reading may catch up, `as_of_seq` says so.

        Args:
            whose: the organisation that asks.

        Raises:
            Refused: `overloaded` where too many read at once, in all or of the organisation;
                `unavailable` where the file is damaged. It is gone then, and the follower makes it
                anew.
        """
        async with self._turns.of(whose), self._opened() as view:
            yield view

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator["View"]:
        until_seq = (await self._engine.ask(FiguresNow())).seq
        file = await self._file_now()
        try:
            connection = await self._reading.connect()
        except OperationalError:  # there is no file yet
            yield await self._viewed(None, 0, until_seq)
            return
        try:
            # One snapshot for everything that is read.
            await connection.exec_driver_sql("BEGIN")
            stored_seq = await self._ours(*await _cursor(connection))
            known = connection if stored_seq else None
            yield await self._viewed(known, stored_seq, until_seq)
        except (DatabaseError, DamagedRow) as error:
            if not is_damage(error):
                raise
            self._remove(file)
            text = "What statements are read from is damaged, and is made anew."
            raise Refused(refuse(Code.UNAVAILABLE, message=text, retry_after_s=1)) from error
        finally:
            # Kept open, it would be read for ever, also when the file is another.
            if file != await self._file_now():
                await connection.invalidate()
            await connection.close()

    async def dispose(self) -> None:
        """Close the connections."""
        await self._reading.dispose()

    async def _file_now(self) -> FileId | None:
        """Which file it is; of another one than before nothing stays open."""
        file = file_at(self._path)
        if file != self._file:
            self._file = file
            await self._reading.dispose()
        return file

    def _remove(self, file: FileId | None) -> None:
        """Take a damaged file away: whoever follows into it sees that, and may never see why."""
        if file == file_at(self._path):
            self._path.unlink(missing_ok=True)

    async def _ours(self, seq: int, record_sha256: str) -> int:
        """How far the file goes; 0 where it is of another journal, until the follower has seen."""
        if seq and self._verified != (seq, record_sha256):
            data = await self._engine.ask(RecordAt(seq=seq))
            if data is None or head_of(data) != record_sha256:
                return 0
            self._verified = (seq, record_sha256)
        return seq

    async def _viewed(
        self, connection: AsyncConnection | None, stored_seq: int, until_seq: int
    ) -> "View":
        view = View(
            connection=connection,
            stored_seq=stored_seq,
            as_of_seq=stored_seq,
            until_seq=max(stored_seq, until_seq),
        )
        if stored_seq < until_seq:
            await view.complete(await self._tail(stored_seq, until_seq))
        return view

    async def _tail(self, after_seq: int, until_seq: int) -> list[Record]:
        until_seq = min(until_seq, after_seq + self._tail_max)
        records: list[Record] = []
        following = cast("AsyncGenerator[Committed, None]", self._engine.follow(after_seq))
        async with aclosing(following):
            async for committed in following:
                records.append(committed.record)
                if committed.seq >= until_seq:
                    break
        return records


@dataclass(slots=True, kw_only=True)
class View:
    """Statement lines as of one record of the journal.

    Every reading is of one account and of what was recorded up to a given record, so that pages
    that are read one after another are of the same moment.
    """

    connection: AsyncConnection | None
    stored_seq: int
    as_of_seq: int
    until_seq: int
    tail: list[Line] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    listed: list[Listed] = field(default_factory=list)

    @property
    def behind(self) -> bool:
        """Whether the journal was longer, when the view was taken, than the view reaches."""
        return self.as_of_seq < self.until_seq

    async def complete(self, records: Sequence[Record]) -> None:
        """Add the journal's next records, folded onto what the tables hold."""
        needs = needs_of(records)
        # In the one snapshot, an account's row is where its last line left it.
        rows = await self.rows(select(ACCOUNT).where(ACCOUNT.c.name.in_(sorted(needs.accounts))))
        accounts = {row.name: account_of(row) for row in rows}
        folded = fold_lines(records, accounts, await self._times(needs))
        self.tail = [line for _, lines in folded for line in lines]
        self.usage = fold_usage(records)
        self.listed = fold_listed(records)
        if records:
            self.as_of_seq = records[-1].seq

    async def accounts_of(self, owner: str) -> list[Kept]:
        """The accounts of an owner, by name."""
        stored = select(ACCOUNT).where(ACCOUNT.c.owner == owner)
        found = {row.name: _kept(row) for row in await self.rows(stored)}
        for line in self.tail:
            if split_account(line.account)[0] == owner:
                found.setdefault(line.account, Kept(name=line.account))
        return [found[name] for name in sorted(found)]

    async def seq_at(self, at_us: int) -> int:
        """The last record that moved anything and was recorded at a time or before it; 0 if none.

        Between two such records no account changes.
        """
        late = [line.seq for line in self.tail if line.entry.at_us <= at_us]
        if late:
            return late[-1]
        newest = (
            select(ENTRY.c.seq)
            .where(ENTRY.c.at_us <= at_us)
            .order_by(ENTRY.c.at_us.desc(), ENTRY.c.seq.desc())
            .limit(1)
        )
        rows = await self.rows(newest)
        return int(rows[0].seq) if rows else 0

    async def at_seq(self, kept: Kept, seq: int) -> Account:
        """An account as it stood after a record."""
        late = [line for line in self.tail if line.account == kept.name and line.seq <= seq]
        return late[-1].after if late else await self._stored_last(kept.number, seq)

    async def recorded(
        self, kept: Kept, after: tuple[int, int], until_seq: int, limit: int, reference: str = ""
    ) -> list[Line]:
        """Lines in the order of recording: those after a key, up to a record.

        `reference`, unless empty, is what they are to be booked under outside.
        """
        lines, of = _lines_under(reference)
        key = (of.c.seq, of.c.line)
        where = (of.c.account == kept.number, tuple_(*key) > after, of.c.seq <= until_seq)
        found = await self._read(kept, lines.where(*where).order_by(*key).limit(limit))
        if len(found) < limit:
            late = self._late(kept, lambda line: after < line.key and line.seq <= until_seq)
            found += _under(reference, late)
        return found[:limit]

    async def effective(
        self,
        kept: Kept,
        after: tuple[int, int, int],
        until_us: int,
        seq_max: int,
        limit: int,
        *,
        reference: str = "",
    ) -> list[Line]:
        """Lines in the order of taking effect: those after a key and before a time.

        Args:
            kept: whose lines.
            after: (effective time, seq, line) that they come after.
            until_us: the time that they are effective before.
            seq_max: the last record that is known.
            limit: how many.
            reference: what they are to be booked under outside, unless empty.
        """
        lines, of = _lines_under(reference)
        key = (of.c.effective_at_us, of.c.seq, of.c.line)
        where = (
            of.c.account == kept.number,
            tuple_(*key) > after,
            # Nothing that is known then takes effect later; it would be read in vain.
            of.c.effective_at_us < min(until_us, await self._after(seq_max)),
            of.c.seq <= seq_max,
        )
        found = await self._read(kept, lines.where(*where).order_by(*key).limit(limit))
        late = self._late(
            kept, lambda line: after < line.effective_key < (until_us,) and line.seq <= seq_max
        )
        found += _under(reference, late)
        return sorted(found, key=lambda line: line.effective_key)[:limit]

    async def effective_before(
        self, kept: Kept, key: tuple[int, int, int], seq_max: int
    ) -> Account:
        """An account by all that took effect before a key and was recorded up to a record.

        What was recorded before that time is all effective before it, since nothing takes effect
        after it was recorded; what is added is what was recorded late.
        """
        from_us = key[0]
        base_seq = min(await self.seq_at(from_us - 1), seq_max)
        base = await self.at_seq(kept, base_seq)
        where = (
            LINE.c.account == kept.number,
            LINE.c.effective_at_us >= from_us - kept.lag_us_max,
            tuple_(LINE.c.effective_at_us, LINE.c.seq, LINE.c.line) < key,
            LINE.c.at_us >= from_us,
            # The late ones are read by themselves.
            LINE.c.at_us < LINE.c.effective_at_us + lateness_below_us(0),
            LINE.c.seq <= seq_max,
        )
        late = await self._read(kept, _lines().where(*where))
        late += await self._read(kept, _late_lines(kept.number, key).where(LINE.c.seq <= seq_max))
        late += self._late(
            kept,
            lambda line: (
                line.effective_key < key and line.entry.at_us >= from_us and line.seq <= seq_max
            ),
        )
        return moved_by(base, late)

    async def newest(
        self, party: str, noun: str, *, before_seq: int, under: str, status: str = "", limit: int
    ) -> list[Listed]:
        """A party's things of a noun, newest first, of those that began before a record.

        `under` and `status`, unless empty, are what they are to be under, and to have (`Listed`).
        """
        given = (party, noun, under)
        late = {
            each.seq: each
            for each in self.listed
            if given == (each.party, each.noun, under and each.under) and each.seq < before_seq
        }
        query = select(LISTED).where(
            LISTED.c.party == party, LISTED.c.noun == noun, LISTED.c.seq < before_seq
        )
        if under:
            query = query.where(LISTED.c.under == under)
        if status:
            query = query.where(FOLLOWED, LISTED.c.status == status)
        # What the tail says of a thing counts, and not what the tables do.
        known = sum(seq <= self.stored_seq for seq in late)
        rows = await self.rows(query.order_by(LISTED.c.seq.desc()).limit(limit + known))
        found = {row.seq: Listed(**row._asdict()) for row in rows} | late
        some = [each for _, each in sorted(found.items(), reverse=True)]
        return [each for each in some if status in {"", each.status}][:limit]

    async def _after(self, seq: int) -> int:
        """A time after the last record up to one that moved anything."""
        if seq >= self.stored_seq:
            return INTEGER_MAX
        last = select(ENTRY.c.at_us).where(ENTRY.c.seq <= seq).order_by(ENTRY.c.seq.desc())
        rows = await self.rows(last.limit(1))
        return int(rows[0].at_us) + 1 if rows else 0

    def _late(self, kept: Kept, wanted: Callable[[Line], bool]) -> list[Line]:
        return [line for line in self.tail if line.account == kept.name and wanted(line)]

    async def _times(self, needs: Needs) -> dict[int, int]:
        columns = select(ENTRY.c.seq, ENTRY.c.at_us).where(ENTRY.c.seq.in_(sorted(needs.seqs)))
        return {row.seq: row.at_us for row in await self.rows(columns)}

    async def _stored_last(self, number: int, seq: int) -> Account:
        newest = (
            select(LINE)
            .where(LINE.c.account == number, LINE.c.seq <= seq)
            .order_by(LINE.c.seq.desc(), LINE.c.line.desc())
            .limit(1)
        )
        rows = await self.rows(newest)
        return account_of(rows[0]) if rows else Account()

    async def _read(self, kept: Kept, query: Select[Any]) -> list[Line]:
        rows = await self.rows(query) if kept.number else ()
        return [_line(row, kept.name) for row in rows]

    async def rows(self, query: Select[Any]) -> Sequence[Row[Any]]:
        """What the tables hold; nothing where there is no file yet."""
        if self.connection is None:
            return ()
        found: Sequence[Row[Any]] = (await self.connection.execute(query)).all()
        return found


async def _cursor(connection: AsyncConnection) -> tuple[int, str]:
    try:
        row = (await connection.execute(select(CURSOR))).one_or_none()
    except OperationalError:  # the follower has made the file and not yet the tables
        return 0, ""
    if row is None or row.version != VERSION:
        return 0, ""
    return row.seq, row.record_sha256


def _kept(row: Row[Any]) -> Kept:
    return Kept(name=row.name, number=row.number, lag_us_max=row.lag_us_max)


def _lines() -> Select[Any]:
    entry = (ENTRY.c.operation, ENTRY.c.ids, ENTRY.c.buyer_id, ENTRY.c.reference)
    return select(LINE, *entry).join(ENTRY, ENTRY.c.seq == LINE.c.seq)


def _lines_by(table: Table) -> Select[Any]:
    """The lines that another table names."""
    names = ("account", "seq", "line")
    return _lines().join(table, and_(*(table.c[name] == LINE.c[name] for name in names)))


def _lines_under(reference: str) -> tuple[Select[Any], Table]:
    """All lines, or those of a reference, and the table that tells which they are."""
    if not reference:
        return _lines(), LINE
    return _lines_by(REFERENCE).where(REFERENCE.c.reference == reference), REFERENCE


def _under(reference: str, lines: list[Line]) -> list[Line]:
    return [line for line in lines if reference in {"", line.entry.reference}]


def _late_lines(number: int, key: tuple[int, int, int]) -> Select[Any]:
    """Late lines that took effect before a key and were recorded at its time or after it.

    Those of a lateness took effect within the time that it is below, and few others did.
    """
    from_us = key[0]
    spans = (
        and_(
            LATE.c.account == number,
            LATE.c.lateness == lateness,
            LATE.c.effective_at_us > from_us - lateness_below_us(lateness),
            LATE.c.effective_at_us <= from_us,
        )
        for lateness in range(1, LATENESS_MAX + 1)
    )
    return _lines_by(LATE).where(
        or_(*spans),
        tuple_(LATE.c.effective_at_us, LATE.c.seq, LATE.c.line) < key,
        LATE.c.at_us >= from_us,
    )


def _line(row: Row[Any], account: str) -> Line:
    try:
        movement, ids = Movement(row.movement), parse_json(row.ids.encode())
    except ValueError as error:
        raise DamagedRow(str(error)) from error
    return Line(
        entry=Entry(
            seq=row.seq,
            at_us=row.at_us,
            effective_at_us=row.effective_at_us,
            operation=row.operation,
            ids=cast("dict[str, str]", ids),
            buyer_id=row.buyer_id,
            reference=row.reference,
        ),
        line=row.line,
        account=account,
        side=cast("Side", row.side),
        movement=movement,
        units=row.units,
        counterpart=row.counterpart,
        after=account_of(row),
    )
