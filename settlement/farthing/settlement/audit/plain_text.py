"""The books as plain-text accounting: what hledger and beancount read, one entry a record.

Boundary: lines of text from a stream of entries. Each account is four leaves, one for each of its
counters, so that the program's own balances are the journal's; the file ends with assertions that
say so. Source: spec/audit.md.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from farthing.protocol.ledger import Account, AccountKind, Movement, split_account
from farthing.protocol.money import ASSETS
from farthing.protocol.times import DAY_US, format_time, utc_day
from farthing.settlement.audit.postings import Books, Entry, amount_of

__all__ = ["beancount_lines", "hledger_lines", "leaves"]


class Leaf(NamedTuple):
    """One counter of one account, as accountants sign it: debits above zero, credits below."""

    account: str
    counter: str
    units: int
    asset: str

    @property
    def is_pending(self) -> bool:
        """Whether it is a promise, and no money yet."""
        return self.counter.endswith("_pending")


_SIDES: Final = {
    "debits_posted": 1,
    "credits_posted": -1,
    "debits_pending": 1,
    "credits_pending": -1,
}


def leaves(accounts: dict[str, Account]) -> Iterator[Leaf]:
    """Every counter of every account, in the order of their names."""
    for name in sorted(accounts):
        asset = split_account(name)[2]
        for counter, sign in _SIDES.items():
            yield Leaf(name, counter, sign * getattr(accounts[name], counter), asset)


def hledger_lines(entries: Iterable[Entry], origin: str, books: Books) -> Iterator[str]:
    """The lines of an hledger journal.

    What is posted are real postings, what is pending balanced virtual ones, in brackets:
    `hledger --real` shows money alone. `books` must count the same entries.
    """
    yield f"; The books of {origin}: spec/audit.md says how to read them."
    yield "decimal-mark ."
    for asset in ASSETS.values():
        yield f"commodity {amount_of(1000 * 10**asset.scale, asset.code)} {asset.code}"
    declared: set[str] = set()
    for entry in entries:
        if not entry.record.moved:
            continue
        named = [(_hledger_name(leaf), leaf) for leaf in _moved(entry)]
        yield ""
        for name in sorted({name.strip("[]") for name, _ in named} - declared):
            declared.add(name)
            yield f"account {name}"
        record = entry.record
        yield f"{utc_day(record.at_us)} * ({record.seq}) {record.operation}"
        yield f"    ; record_sha256:{entry.sha256}, at:{format_time(record.at_us)}"
        for name, leaf in named:
            yield f"    {name}  {amount_of(leaf.units, leaf.asset)} {leaf.asset}"
    if books.accounts:
        yield ""
        yield f"{utc_day(books.at_us)} * the journal's own counters at record {books.seq}"
        for leaf in leaves(books.accounts):
            nothing, counter = amount_of(0, leaf.asset), amount_of(leaf.units, leaf.asset)
            if _hledger_name(leaf).strip("[]") in declared:
                yield f"    {_hledger_name(leaf)}  {nothing} {leaf.asset} = {counter} {leaf.asset}"


def beancount_lines(entries: Iterable[Entry], origin: str, books: Books) -> Iterator[str]:
    """The lines of a beancount file.

    What is posted lies below `Assets` and `Liabilities`, what is pending below `Equity:Pending`.
    `books` must count the same entries.
    """
    yield f"; The books of {origin}: spec/audit.md says how to read them."
    # An origin is visible ASCII; a quotation mark would end the text.
    title = origin.replace('"', "'").replace("\\", "/")
    yield f'option "title" "{title}"'
    for asset in ASSETS.values():
        yield f"1970-01-01 commodity {asset.code}"
    opened: set[str] = set()
    for entry in entries:
        if not entry.record.moved:
            continue
        record, day = entry.record, utc_day(entry.record.at_us)
        named = [(_beancount_name(leaf), leaf) for leaf in _moved(entry)]
        yield ""
        for name in sorted({name for name, _ in named} - opened):
            opened.add(name)
            yield f"{day} open {name}"
        yield f'{day} * "{record.operation}" "record {record.seq}"'
        yield f"  seq: {record.seq}"
        yield f'  record_sha256: "{entry.sha256}"'
        yield f'  at: "{format_time(record.at_us)}"'
        for name, leaf in named:
            yield f"  {name}  {amount_of(leaf.units, leaf.asset)} {leaf.asset}"
    if books.accounts:
        yield ""
        # A balance is of the beginning of its day. The tolerance is nothing, and said.
        day = utc_day(books.at_us + DAY_US)
        for leaf in leaves(books.accounts):
            name, counter = _beancount_name(leaf), amount_of(leaf.units, leaf.asset)
            if name in opened:
                yield f"{day} balance {name}  {counter} ~ 0 {leaf.asset}"


def _moved(entry: Entry) -> Iterator[Leaf]:
    """What an entry adds to the counters: both sides of each transfer."""
    for transfer in entry.record.moved:
        end = "posted" if transfer.movement is Movement.POST else "pending"
        units = -transfer.units if transfer.movement is Movement.VOID else transfer.units
        yield Leaf(transfer.debit, f"debits_{end}", units, transfer.asset)
        yield Leaf(transfer.credit, f"credits_{end}", -units, transfer.asset)


def _class_of(kind: AccountKind) -> str:
    """What the platform holds or has given away is an asset to it; all else it owes somebody."""
    return "assets" if kind.may_go_negative else "liabilities"


def _hledger_name(leaf: Leaf) -> str:
    owner, kind, _ = split_account(leaf.account)
    side = leaf.counter.partition("_")[0]
    if leaf.is_pending:
        return f"[pending:{kind.value}:{owner}:{side}]"
    return f"{_class_of(kind)}:{kind.value}:{owner}:{side}"


def _beancount_name(leaf: Leaf) -> str:
    owner, kind, _ = split_account(leaf.account)
    parts = [kind.value, owner, leaf.counter.partition("_")[0]]
    above = "Equity:Pending" if leaf.is_pending else _class_of(kind).capitalize()
    return ":".join([above, *map(_component, parts)])


def _component(text: str) -> str:
    """A name as beancount takes it: words that begin with a capital, joined by hyphens."""
    return "-".join(word[:1].upper() + word[1:] for word in text.split("_"))
