"""Statements, balances of an earlier moment, and the record behind a line."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from farthing.identity.callers import Caller
from farthing.protocol import base64url
from farthing.protocol.canonical import (
    INTEGER_MAX,
    InvalidJson,
    Json,
    canonical_bytes,
    document_sha256,
    parse_json,
)
from farthing.protocol.claims import SKEW_S
from farthing.protocol.errors import Code, Refused, refuse
from farthing.protocol.ledger import AccountKind, split_account
from farthing.protocol.messages.accounts import Balances, GetBalance
from farthing.protocol.messages.statements import (
    AccountPeriod,
    GetRecord,
    GetStatement,
    RecordView,
    Statement,
    StatementLine,
)
from farthing.protocol.money import ASSETS
from farthing.protocol.records import Record, parse_record
from farthing.protocol.times import SECOND_US, format_time, parse_time
from farthing.protocol.views import effective_at_us, held_seq, ids_of
from farthing.protocol.wire import Role, document_of, money
from farthing.server.market import Market
from farthing.server.operations.replies import (
    Reply,
    balance_of,
    foreign_cursor,
    not_yet,
    organisation_asked_for,
    receipt_at,
    record_at,
)
from farthing.settlement.engine.commands import PLATFORM
from farthing.settlement.engine.questions import RecordAt
from farthing.settlement.reports.lines import Entry, Line
from farthing.settlement.reports.reads import Kept
from farthing.settlement.reports.statements import Period, Place, balances_at, page_of

__all__ = [
    "balances_then",
    "get_record",
    "get_statement",
    "ids_shown",
]

_KINDS: Final = frozenset(kind.value for kind in AccountKind)
# What a trade is made of, and the members of its documents that name who is party to it.
_TRADES: Final = frozenset({"hold", "session", "charge", "dispute"})
_PARTIES: Final = ("buyer_id", "operator_id", "vendor_id")


async def get_statement(market: Market, caller: Caller, ask: GetStatement) -> Reply:
    """A page of a statement of an organisation."""
    owner = await organisation_asked_for(market, caller, ask.organisation_id)
    if ask.reference and caller.role is Role.BUYER:
        text = "What its organisation books outside is not told to an agent."
        raise Refused(refuse(Code.NOT_PERMITTED, path="reference", message=text))
    if ask.account and ask.account not in _KINDS:
        text = f"There are these kinds of account: {', '.join(sorted(_KINDS))}."
        raise Refused(refuse(Code.INVALID_ARGUMENT, path="account", message=text))
    if ask.asset and ask.asset not in ASSETS:
        text = f"An asset is one of {', '.join(ASSETS)}."
        raise Refused(refuse(Code.INVALID_ARGUMENT, path="asset", message=text))
    period = Period(
        order=ask.by,
        since_us=parse_time(ask.since) if ask.since else 0,
        until_us=parse_time(ask.until) if ask.until else INTEGER_MAX,
        reference=ask.reference,
    )
    if period.since_us > period.until_us:
        text = "The period ends before it begins."
        raise Refused(refuse(Code.INVALID_ARGUMENT, path="until", message=text))
    question = document_sha256(
        document_of(replace(ask, organisation_id=None, cursor="", limit=1)) | {"of": owner}
    )
    async with market.reports.view(caller.organisation_id) as view:
        place = _place(ask.cursor, question) if ask.cursor else Place(as_of_seq=view.as_of_seq)
        if place.as_of_seq > view.as_of_seq:
            raise not_yet(view, place.as_of_seq, "cursor")
        accounts = _wanted(await view.accounts_of(owner), ask)
        page = await page_of(view, accounts, period, place, ask.limit)
    answer = Statement(
        organisation_id=owner,
        by=ask.by,
        accounts=tuple(
            AccountPeriod(
                opening=balance_of(name, page.opening[name]),
                closing=balance_of(name, page.closing[name]),
            )
            for name in page.opening
        ),
        lines=tuple(_line_view(caller, line) for line in page.lines),
        as_of_seq=page.as_of_seq,
        cursor="" if page.more is None else _cursor(page.more, question),
    )
    return Reply(answer=answer)


async def balances_then(market: Market, caller: Caller, owner: str, ask: GetBalance) -> Reply:
    """The balances of an organisation as they were at an earlier moment."""
    if ask.at_seq and ask.at:
        text = "`at` and `at_seq` name one moment in two ways: give one of them."
        raise Refused(refuse(Code.INVALID_ARGUMENT, path="at", message=text))
    for path, at in (("at", ask.at), ("effective_at", ask.effective_at)):
        if at and parse_time(at) > market.now_us() + SKEW_S * SECOND_US:
            text = "That moment has not come; what is by then will be known when it has."
            raise Refused(refuse(Code.INVALID_ARGUMENT, path=path, message=text))
    async with market.reports.view(caller.organisation_id) as view:
        if ask.at_seq > view.as_of_seq or (view.behind and not ask.at_seq):
            raise not_yet(view, ask.at_seq, "at_seq")
        seq = ask.at_seq or view.as_of_seq
        if ask.at:
            seq = await view.seq_at(parse_time(ask.at))
        accounts = await view.accounts_of(owner)
        effective_us = parse_time(ask.effective_at) if ask.effective_at else None
        found = await balances_at(view, accounts, seq=seq, effective_at_us=effective_us)
    balances = tuple(balance_of(name, account) for name, account in found.items())
    return Reply(answer=Balances(organisation_id=owner, accounts=balances, as_of_seq=seq))


async def get_record(market: Market, caller: Caller, ask: GetRecord) -> Reply:
    """The record behind a line, for those who are party to it; to others there is none."""
    data = await market.ask(RecordAt(seq=ask.seq))
    record = None if data is None else parse_record(data)[0]
    if record is None or not _is_party(caller, record):
        raise Refused(refuse(Code.NOT_FOUND, path="seq"))
    hold_seq = held_seq(record)
    held_at_us = (await record_at(market, hold_seq)).at_us if hold_seq else record.at_us
    return Reply(
        answer=RecordView(
            seq=record.seq,
            operation=record.operation,
            recorded_at=format_time(record.at_us),
            effective_at=format_time(effective_at_us(record, held_at_us)),
            ids=ids_of(record),
            postings=tuple(dict[str, object](each.document()) for each in record.moved),
            receipt=await receipt_at(market, record.seq, "seq"),
        )
    )


def _line_view(caller: Caller, line: Line) -> StatementLine:
    """A line as its account's owner sees it."""
    _, kind, asset = split_account(line.account)
    return StatementLine(
        seq=line.seq,
        line=line.line,
        account=kind.value,
        movement=line.movement.value,
        side=line.side,
        amount=money(line.units, asset),
        counterpart=line.counterpart,
        after=balance_of(line.account, line.after),
        operation=line.entry.operation,
        ids=ids_shown(caller, line.entry),
        recorded_at=format_time(line.entry.at_us),
        effective_at=format_time(line.entry.effective_at_us),
        reference="" if caller.role is Role.BUYER else line.entry.reference,
    )


def ids_shown(caller: Caller, entry: Entry) -> dict[str, str]:
    """The things behind a line: all to the organisation, to an agent those of its own trades."""
    if caller.role is Role.BUYER and entry.buyer_id != caller.principal_id:
        return {}
    return dict(entry.ids)


def _is_party(caller: Caller, record: Record) -> bool:
    """Whether a record, which can only be proven whole, may be shown to a caller."""
    owners = {split_account(name)[0] for each in record.moved for name in (each.debit, each.credit)}
    if caller.organisation_id == PLATFORM:
        return PLATFORM in owners
    trades = [change.after for change in record.changed if change.noun in _TRADES]
    if trades:
        return bool(owners) and all(
            caller.principal_id in [after.get(name) for name in _PARTIES] for after in trades
        )
    return caller.role is not Role.BUYER and owners - {PLATFORM} == {caller.organisation_id}


def _wanted(accounts: Sequence[Kept], ask: GetStatement) -> list[Kept]:
    return [
        each
        for each in accounts
        for _, kind, asset in [split_account(each.name)]
        if ask.account in {"", kind.value} and ask.asset in {"", asset}
    ]


def _cursor(place: Place, question: str) -> str:
    document: Json = {"as_of": place.as_of_seq, "key": list(place.key), "of": question[:16]}
    return base64url.encode(canonical_bytes(document))


def _place(cursor: str, question: str) -> Place:
    """Where a page begins; a cursor of another question, or made up, is no place."""
    invalid = Refused(foreign_cursor())
    try:
        document = parse_json(base64url.decode(cursor))
    except (base64url.InvalidBase64, InvalidJson):
        raise invalid from None
    match document:
        case {"as_of": int(seq), "key": [int(at), int(of), int(line)], "of": str(asked)}:
            # A boolean is an integer to Python, and none to a database.
            are_places = all(type(each) is int and each >= 0 for each in (seq, at, of, line))
            if asked == question[:16] and are_places:
                return Place(as_of_seq=seq, key=(at, of, line))
        case _:
            pass
    raise invalid
