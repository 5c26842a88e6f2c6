"""Whoever answers lists or streams without end is not believed, and is asked no more."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from itertools import count, repeat
from typing import Any

import httpx2
import pytest

from farthing.clients import pages, statements
from farthing.clients.gathering import gathered
from farthing.clients.operators import Operator
from farthing.clients.transport import Connection
from farthing.clients.trial_balance import whole_trial_balance
from farthing.protocol.errors import Unreachable, Unverified
from farthing.protocol.keys import PrivateKey
from farthing.protocol.messages.accounts import (
    GET_TRIAL_BALANCE,
    AccountBalance,
    TrialBalance,
    TrialRow,
)
from farthing.protocol.messages.reconciliation import (
    RECONCILE_USAGE,
    PassedCalls,
    ReconcileUsage,
    Tally,
    UsageReconciliation,
)
from farthing.protocol.messages.statements import GET_STATEMENT, Statement, StatementLine
from farthing.protocol.times import format_time
from farthing.protocol.wire import money

URL = "http://127.0.0.1:8321"
ASKS_MAX = 10
NOTHING = money(0, "USD")
THEN = format_time(0)
ROW = TrialRow(
    account="platform:clearing:USD",
    asset="USD",
    debits_posted="0",
    credits_posted="0",
    debits_pending="0",
    credits_pending="0",
)
LINE = StatementLine(
    seq=1,
    line=0,
    account="prepaid",
    movement="post",
    side="credit",
    amount=NOTHING,
    counterpart="clearing",
    after=AccountBalance(account="prepaid", posted=NOTHING, held=NOTHING, available=NOTHING),
    operation="fund_account",
    ids={},
    recorded_at=THEN,
    effective_at=THEN,
)
COUNTED = Tally(
    reported="0",
    billed="0",
    acknowledged="0",
    over="0",
    under="0",
    rejected="0",
    gateway="0",
    gateway_over="0",
    gateway_under="0",
)
COMPARED = UsageReconciliation(
    agreement_id="agr_00000000000000000000000000",
    terms_sha256="a" * 64,
    tolerance_ppm=0,
    calls=COUNTED,
    meters=(),
    billed=NOTHING,
    acknowledged=NOTHING,
    over=NOTHING,
    under=NOTHING,
    sessions=(),
    passed=PassedCalls(charged=NOTHING),
    differences=(),
    differences_in_all=0,
    other_results=0,
    within=True,
    as_of_seq=1,
)
# A page of each list, with a row or without one.
FULL: dict[str, Any] = {
    GET_STATEMENT.name: Statement(
        organisation_id="", by="recorded", accounts=(), lines=(LINE,), as_of_seq=1
    ),
    GET_TRIAL_BALANCE.name: TrialBalance(rows=(ROW,), totals=(), balanced=True, as_of_seq=1),
    RECONCILE_USAGE.name: replace(COMPARED, passed=PassedCalls(charged=NOTHING, asked=1)),
}
EMPTY: dict[str, Any] = {
    GET_STATEMENT.name: replace(FULL[GET_STATEMENT.name], lines=()),
    GET_TRIAL_BALANCE.name: replace(FULL[GET_TRIAL_BALANCE.name], rows=()),
    RECONCILE_USAGE.name: COMPARED,
}


class Endless(Connection):
    """A connection to a platform that always has one page more."""

    told = FULL
    asks = 0

    def __init__(self, http: httpx2.AsyncClient | None = None) -> None:
        super().__init__(URL, signer=PrivateKey.from_seed(bytes(32)), http=http)
        self.cursors: Iterator[str] = map("{}-ses".format, count(1))

    async def call(self, operation: Any, ask: Any) -> Any:  # noqa: ARG002 - as a connection has it
        self.asks += 1
        assert self.asks <= ASKS_MAX, "it is asked without end"
        return replace(self.told[operation.name], cursor=next(self.cursors))


async def lines(connection: Connection) -> None:
    assert [each async for each in Operator(connection).lines()]


async def compared(connection: Connection) -> None:
    await gathered(connection, ReconcileUsage(agreement_id=COMPARED.agreement_id), ())


LISTS = pytest.mark.parametrize("read", [lines, whole_trial_balance, compared])
Read = Callable[[Connection], Awaitable[object]]


@LISTS
async def test_a_page_that_names_one_which_was_there_before_is_not_believed(read: Read) -> None:
    connection = Endless()
    connection.cursors = repeat("1-ses")

    with pytest.raises(Unverified, match="do not end"):
        await read(connection)
    assert connection.asks == 2


@LISTS
async def test_a_page_without_rows_that_names_another_is_not_believed(read: Read) -> None:
    connection = Endless()
    connection.told = EMPTY

    with pytest.raises(Unverified, match="do not end"):
        await read(connection)
    assert connection.asks == 1


@LISTS
async def test_a_list_has_so_many_pages_and_no_more(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "_PAGES_MAX", 5)
    connection = Endless()

    with pytest.raises(Unverified, match="do not end"):
        await read(connection)
    assert connection.asks == 6


@pytest.mark.parametrize("status", [200, 500])
async def test_an_event_or_a_refusal_that_does_not_end_is_read_no_further(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "_EVENT_BYTES_MAX", 1000)
    monkeypatch.setattr("farthing.clients.posting._RESULT_BYTES_MAX", 1000)

    async def dripping() -> AsyncIterator[bytes]:
        yield b"data: "
        for _ in range(ASKS_MAX):
            yield b"x" * 500
        raise AssertionError("it is read without end")

    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, content=dripping())

    http = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    with pytest.raises(Unreachable, match="more than 1000 bytes"):
        await anext(Operator(Endless(http)).balance_events())
