"""Statements: a period's lines with opening and closing balances, and the record behind a line."""

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field

from farthing.protocol.canonical import INTEGER_MAX
from farthing.protocol.errors import Code
from farthing.protocol.messages.accounts import AccountBalance
from farthing.protocol.messages.charges import Receipt
from farthing.protocol.messages.listings import Document
from farthing.protocol.wire import (
    EVERY_PRINCIPAL,
    AssetCode,
    Effect,
    Money,
    Operation,
    OrganisationRef,
    Slug,
    Text,
    Time,
    message,
)

__all__ = [
    "GET_RECORD",
    "GET_STATEMENT",
    "LINES_MAX",
    "AccountPeriod",
    "BalanceEvent",
    "GetRecord",
    "GetStatement",
    "RecordView",
    "Statement",
    "StatementLine",
]

LINES_MAX = 200

Seq = Annotated[int, Field(ge=1, le=INTEGER_MAX)]


@message
class GetStatement:
    """Ask for a statement of the caller's organisation; of the platform's own, where staff asks.

    Args:
        organisation_id: whose statement, where the treasurer asks for another's.
        account: a kind of account, such as `prepaid`; all of them if left out.
        asset: one asset; all of them if left out.
        by: whether the period is one of recording or of taking effect.
        since: the period's begin, included; from the very first line if left out.
        until: the period's end, not included; up to now if left out.
        reference: the lines alone that are booked under it outside; all of them if left out.
        cursor: where a page left off. The other arguments stay as they were.
        limit: the most lines of the page.
    """

    organisation_id: OrganisationRef | None = None
    account: Slug = ""
    asset: AssetCode = ""
    by: Literal["recorded", "effective"] = "recorded"
    since: Time = ""
    until: Time = ""
    reference: Text = ""
    cursor: Annotated[str, Field(max_length=400, pattern=r"^[A-Za-z0-9_-]*$")] = ""
    limit: Annotated[int, Field(ge=1, le=LINES_MAX)] = 50


@message
class StatementLine:
    """One side of one transfer, and the account as it stood after it.

    Args:
        seq: the record it comes from; `get_record` opens it.
        line: its place in that record.
        movement: pending, void or post.
        side: whether the account was debited or credited.
        amount: how much; never negative.
        counterpart: the kind of the account on the other side.
        after: the account after this line, in the order of the statement.
        operation: what was asked for.
        ids: the things behind it, by noun; an agent is given those of its own trades.
        reference: what it is booked under outside, such as a wire's number; no agent is told.
    """

    seq: int
    line: int
    account: str
    movement: Literal["pending", "void", "post"]
    side: Literal["debit", "credit"]
    amount: Money
    counterpart: str
    after: AccountBalance
    operation: str
    ids: dict[str, str]
    recorded_at: str
    effective_at: str
    reference: str = ""


@message
class AccountPeriod:
    """An account at both ends of the whole period, whichever page it is."""

    opening: AccountBalance
    closing: AccountBalance


@message
class Statement:
    """A page of a statement, oldest line first.

    All pages are of the statement as it was when the first was read: what was recorded up to
    `as_of_seq`. `cursor` is there while there are more.
    """

    organisation_id: str
    by: str
    accounts: tuple[AccountPeriod, ...]
    lines: tuple[StatementLine, ...]
    as_of_seq: int
    cursor: str = ""


@message
class BalanceEvent:
    """What a stream tells: accounts as they stood after a record, and what it was about.

    The first event of a stream that begins anew is of all accounts, and about nothing.
    """

    seq: int
    accounts: tuple[AccountBalance, ...]
    operation: str = ""
    recorded_at: str = ""
    ids: dict[str, str] = field(default_factory=dict)


@message
class GetRecord:
    """Ask for the record behind a line."""

    seq: Seq


@message
class RecordView:
    """A record that the caller is party to: what it moved, the things behind it, and its proof."""

    seq: int
    operation: str
    recorded_at: str
    effective_at: str
    ids: dict[str, str]
    postings: tuple[Document, ...]
    receipt: Receipt


GET_STATEMENT = Operation(
    name="get_statement",
    title="Get a statement",
    says="List an organisation's lines of a period, with balances before, after and at each line.",
    ask=GetStatement,
    answer=Statement,
    effect=Effect.READS,
    roles=EVERY_PRINCIPAL,
    codes=(Code.UNAVAILABLE, Code.INVALID_ARGUMENT, Code.NOT_FOUND),
)
GET_RECORD = Operation(
    name="get_record",
    title="Get a record",
    says="Open a line: the journal record behind it, its postings and its proof.",
    ask=GetRecord,
    answer=RecordView,
    effect=Effect.READS,
    roles=EVERY_PRINCIPAL,
    codes=(Code.NOT_FOUND,),
)
