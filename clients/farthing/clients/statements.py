"""What everybody who has accounts can read: balances, statements, records, changes as they come.

Boundary: the holder's calls to the platform; who it is, `Buyer`, `Vendor` and `Operator` say.
Source: spec/statements.md.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Final, Literal

import httpx2
from pydantic import TypeAdapter, ValidationError

from farthing.clients.pages import Pages
from farthing.clients.pins import Pinning
from farthing.clients.posting import json_object, refused_by, whole
from farthing.protocol.errors import Code, Refused, Unreachable, Unverified, refuse
from farthing.protocol.messages.accounts import GET_BALANCE, Balances, GetBalance
from farthing.protocol.messages.statements import (
    GET_RECORD,
    GET_STATEMENT,
    LINES_MAX,
    BalanceEvent,
    GetRecord,
    GetStatement,
    RecordView,
    Statement,
    StatementLine,
)
from farthing.protocol.views import check_view

__all__ = ["AccountHolder"]

# The platform says that it is still there every 15 seconds.
_SILENCE_S: Final = 60
_EVENT_BYTES_MAX: Final = 4 * 2**20
_DATA: Final = b"data: "
_EVENT: Final = TypeAdapter(BalanceEvent)


class AccountHolder(Pinning):
    """What a principal can read of its organisation's accounts.

    Balances and lines are the platform's word; `record` proves the one behind a line.
    """

    async def balance(
        self,
        *,
        organisation_id: str = "",
        at_seq: int = 0,
        at: str = "",
        effective_at: str = "",
    ) -> Balances:
        """The organisation's balances: now, or as they were.

        Args:
            organisation_id: whose, where the treasurer asks for another's.
            at_seq: after this record of the journal.
            at: after all that was recorded up to this time.
            effective_at: of that, only what had taken effect by this time.
        """
        ask = GetBalance(
            organisation_id=organisation_id or None,
            at_seq=at_seq,
            at=at,
            effective_at=effective_at,
        )
        return await self.connection.call(GET_BALANCE, ask)

    async def statement(
        self,
        *,
        organisation_id: str = "",
        account: str = "",
        asset: str = "",
        by: Literal["recorded", "effective"] = "recorded",
        since: str = "",
        until: str = "",
        reference: str = "",
        cursor: str = "",
        limit: int = 50,
    ) -> Statement:
        """A page of a statement, oldest line first; `cursor` of the answer asks for the next.

        Args:
            organisation_id: whose, where the treasurer asks for another's.
            account: one kind of account; else all.
            asset: one asset; else all.
            by: which time the period is of, and the lines are ordered by.
            since: the period's begin, included.
            until: its end, not included.
            reference: the lines alone that are booked under it outside.
            cursor: where a page left off.
            limit: the most lines.
        """
        ask = GetStatement(
            organisation_id=organisation_id or None,
            account=account,
            asset=asset,
            by=by,
            since=since,
            until=until,
            reference=reference,
            cursor=cursor,
            limit=limit,
        )
        return await self.connection.call(GET_STATEMENT, ask)

    async def lines(
        self,
        *,
        organisation_id: str = "",
        account: str = "",
        asset: str = "",
        by: Literal["recorded", "effective"] = "recorded",
        since: str = "",
        until: str = "",
        reference: str = "",
    ) -> AsyncIterator[StatementLine]:
        """Every line of a `statement`, whatever number of pages it takes.

        Raises:
            Unverified: Its pages do not end.
            Refused: As `get_statement`.
        """
        ask = GetStatement(
            organisation_id=organisation_id or None,
            account=account,
            asset=asset,
            by=by,
            since=since,
            until=until,
            reference=reference,
            limit=LINES_MAX,
        )
        pages = Pages()
        while True:
            page = await self.connection.call(GET_STATEMENT, ask)
            for line in page.lines:
                yield line
            if not page.cursor:
                return
            ask = replace(ask, cursor=pages.next(page.cursor, len(page.lines)))

    async def record(self, seq: int) -> RecordView:
        """The record behind a line, with its postings, verified with the platform's key.

        Raises:
            Refused: `not_found` where there is none that the caller is party to.
            Unverified: Its proof does not hold, or it is shown otherwise than it is proven.
        """
        view = await self.connection.call(GET_RECORD, GetRecord(seq=seq))
        check_view(view, seq, await self.proven(view.receipt))
        return view

    async def balance_events(self, last_seq: int = -1) -> AsyncGenerator[BalanceEvent, None]:
        """Each change of the organisation's balances, until the platform ends the stream.

        Args:
            last_seq: the last event that was seen, to go on after it; without it the first event
                is of everything as it is.

        Raises:
            Refused: the platform said no.
            Unreachable: the stream broke off; go on after the last event that was seen.
        """
        mine = self.connection
        headers = {"accept": "text/event-stream"}
        if last_seq >= 0:
            headers["last-event-id"] = str(last_seq)
        timeout = httpx2.Timeout(mine.timeout_s, read=_SILENCE_S)
        url = f"{mine.url}/v1/events"
        try:
            async with mine.http.stream(
                "GET", url, headers=headers, auth=mine.auth, timeout=timeout
            ) as response:
                if not response.is_success:
                    raise _refused(await whole(response))
                async with aclosing(_data(response)) as found:
                    async for data in found:
                        yield _EVENT.validate_json(data, extra="ignore")
        except httpx2.HTTPError as error:
            raise Unreachable(f"{url} broke off") from error
        except ValidationError as error:
            raise Unverified(f"an event of {url} does not have its form") from error


async def _data(response: httpx2.Response) -> AsyncGenerator[bytes, None]:
    """The data of each event; each is one line, as the platform writes it.

    Raises:
        Unreachable: A line does not end.
    """
    begun = bytearray()
    async for chunk in response.aiter_bytes():
        begun += chunk
        # What has begun is looked at again only where a line of it ends.
        if b"\n" in chunk:
            *lines, begun = begun.split(b"\n")
            for line in lines:
                if line.startswith(_DATA):
                    yield bytes(line.removeprefix(_DATA))
        if len(begun) > _EVENT_BYTES_MAX:
            raise Unreachable(
                f"{response.url} sends an event of more than {_EVENT_BYTES_MAX} bytes"
            )


def _refused(body: bytes) -> Refused:
    shape = json_object(body)
    return Refused(refuse(Code.INTERNAL_ERROR)) if shape is None else refused_by(shape)
