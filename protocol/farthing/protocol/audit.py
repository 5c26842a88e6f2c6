"""Verify a journal from its bytes alone: chain, tree, ledger, rules and signed heads.

Boundary: pure; whoever holds the records' bytes, the signed heads and the platform's public keys
can run it, with no server and no engine. Source: spec/audit.md.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from farthing.protocol.chain import BadRecord, Chain
from farthing.protocol.checkpoints import Checkpoint, CheckpointError, verify_checkpoint
from farthing.protocol.errors import Broken, Unverified
from farthing.protocol.faults import Fault, FaultKind, RuleBroken
from farthing.protocol.keys import PublicKey
from farthing.protocol.ledger import (
    Account,
    AccountKind,
    Movement,
    account_name,
    apply,
    imbalances,
    split_account,
)
from farthing.protocol.merkle import Tree
from farthing.protocol.records import Record, head_of, parse_record

__all__ = ["AuditFindings", "take", "verify_head", "verify_journal"]

# By these money comes for an operator, and goes back.
_COMES_AND_GOES: Final = frozenset(
    {"confirm_top_up", "fund_account", "process_event", "reverse_top_up", "withdraw_funds"}
)
# From these an operator sets aside no more than what is over its debt.
_SPENT: Final = frozenset({AccountKind.PREPAID, AccountKind.PARTNER_PAYABLE})
_OPERATORS: Final = frozenset({AccountKind.PREPAID, AccountKind.RECEIVABLE})


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFindings:
    """What was verified, and the first fault if there is one.

    Args:
        records: how many records, from the first, verify.
        root_sha256: the root of their tree.
        heads: how many signed heads fit.
        proven_records: how many records the largest of these heads covers.
        accounts: every account as folded from the transfers, the journal's trial balance.
        fault: the first fault.
    """

    records: int
    root_sha256: str
    heads: int
    proven_records: int
    accounts: Mapping[str, Account]
    fault: Fault | None = None

    @property
    def imbalances(self) -> Mapping[str, int]:
        """Per asset, credits minus debits; empty when balanced."""
        return imbalances(self.accounts)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.fault is None and not self.imbalances


def verify_journal(
    records: Iterable[bytes],
    *,
    notes: Iterable[str] = (),
    origin: str = "",
    keys: Sequence[PublicKey] = (),
    follow: Callable[[Record], None] | None = None,
) -> AuditFindings:
    """Verify a journal from its first record on.

    Args:
        records: the bytes of each record, in order.
        notes: signed heads, in any order; what fits below a fault still counts.
        origin: the log that the heads must name.
        keys: the platform's keys, old ones included; a head must be signed by one of them.
        follow: judges each record that stands in the chain, as `Rulebook.follow` does.
    """
    chain = Chain()
    accounts: dict[str, Account] = {}
    fault = _read(iter(records), chain, accounts, follow)
    fitting: list[int] = []
    misfits: list[Fault] = []
    for note in notes:
        misfit = _fit(note, chain.tree, fitting, origin, keys)
        if misfit is not None:
            misfits.append(misfit)
    proven = max(fitting, default=0)
    if fault is None and misfits:
        fault = min(misfits, key=lambda misfit: misfit.seq)
    elif fault is not None and fault.kind is FaultKind.RECORD and proven >= fault.seq:
        # The chain left two records under suspicion, and the head clears the first of them.
        fault = replace(fault, seq=proven + 1)
    broken = fault is not None and fault.kind not in {FaultKind.HEAD, FaultKind.MISSING}
    sound = fault.seq - 1 if fault is not None and broken else chain.seq
    return AuditFindings(
        records=sound,
        root_sha256=chain.tree.root(sound).hex(),
        heads=len(fitting),
        proven_records=proven,
        accounts=accounts,
        fault=fault,
    )


def verify_head(note: str, origin: str, keys: Sequence[PublicKey]) -> Checkpoint:
    """The signed head that one of the platform's keys signed.

    Raises:
        Unverified: none of them did, or it is no head of this log.
    """
    reason = "no key"
    for key in keys:
        try:
            return verify_checkpoint(note, origin, key)
        except CheckpointError as error:
            reason = error.reason.value
    raise Unverified(f"the signed head does not verify: {reason}")


def take(
    record: Record, accounts: MutableMapping[str, Account], grace: MutableMapping[str, int]
) -> None:
    """Apply a record's transfers, and learn how far it lets an account be below zero.

    Who owes for a top-up that went back has nothing left, when money came or went, and sets
    nothing aside but what it has beyond that; a debt is paid of money, not of grace. An account
    that is closed is empty.

    Raises:
        Broken: as `ledger.apply`.
    """
    for transfer in record.moved:
        apply(accounts, transfer, grace)
    comes_or_goes = record.operation in _COMES_AND_GOES
    for transfer in record.moved:
        if transfer.movement is Movement.PENDING:
            _check_set_aside(accounts, transfer.debit, grace)
        elif transfer.movement is Movement.POST and comes_or_goes:
            _check_owed(accounts, transfer.debit, pays=True)
            _check_owed(accounts, transfer.credit)
    for change in record.changed:
        if change.noun == "grace":
            policies = (change.after["granted_units"], change.after["chosen_units"])
            grace[change.id] = min(map(int, policies))
        elif change.noun == "closure":
            _check_empty(accounts, change.id)


def _check_empty(accounts: Mapping[str, Account], name: str) -> None:
    owner, kind, asset = split_account(name)
    for each in kind.closed_together:
        account = accounts.get(account_name(owner, each, asset), Account())
        if account.posted_units or account.debits_pending or account.credits_pending:
            text = f"{name} is closed, and something is left on it"
            raise Broken(text)


def _check_set_aside(accounts: Mapping[str, Account], name: str, grace: Mapping[str, int]) -> None:
    owner, kind, asset = split_account(name)
    receivable = accounts.get(account_name(owner, AccountKind.RECEIVABLE, asset))
    if kind not in _SPENT or receivable is None:
        return
    owed_units, has_units = -receivable.posted_units, accounts[name].available_units
    if owed_units and has_units + grace.get(name, 0) < owed_units:
        text = f"{owner} owes {owed_units} {asset}, and sets aside what it has"
        raise Broken(text)


def _check_owed(accounts: Mapping[str, Account], name: str, *, pays: bool = False) -> None:
    owner, kind, asset = split_account(name)
    if kind not in _OPERATORS:
        return
    prepaid, receivable = (
        accounts.get(account_name(owner, each, asset), Account())
        for each in (AccountKind.PREPAID, AccountKind.RECEIVABLE)
    )
    owed_units, has_units = -receivable.posted_units, prepaid.available_units
    if owed_units < 0 or (owed_units and has_units > 0):
        text = f"{owner} owes {owed_units} {asset}, and has {has_units}"
        raise Broken(text)
    if pays and kind is AccountKind.PREPAID and has_units < 0:
        text = f"{owner} pays {-has_units} {asset} of its grace"
        raise Broken(text)


def _read(
    records: Iterator[bytes],
    chain: Chain,
    accounts: dict[str, Account],
    follow: Callable[[Record], None] | None,
) -> Fault | None:
    grace: dict[str, int] = {}
    for data in records:
        try:
            record = chain.read(data)
            take(record, accounts, grace)
            if follow is not None:
                follow(record)
        except BadRecord as error:
            seq = error.seq
            if _follows_nothing(data, chain) and not _is_disowned(data, records):
                seq -= 1
            return Fault(kind=FaultKind.RECORD, seq=seq, why=error.why)
        except RuleBroken as error:
            return _clear(error, chain, records)
        except (Broken, LookupError, TypeError, ValueError) as error:
            return Fault(kind=FaultKind.LEDGER, seq=chain.seq, why=str(error))
    return None


def _clear(error: RuleBroken, chain: Chain, records: Iterator[bytes]) -> Fault:
    """The rule that was broken, unless the next record shows that somebody changed this one."""
    following = next(records, None)
    try:
        changed = following is not None and parse_record(following)[1] != chain.head
    except Unverified:
        changed = False
    if changed:
        return Fault(kind=FaultKind.RECORD, seq=chain.seq, why="was changed after it was chained")
    return Fault(kind=error.kind, seq=chain.seq, why=error.why)


def _follows_nothing(data: bytes, chain: Chain) -> bool:
    """Whether `data` is in itself a next record, but names another predecessor.

    Then either the record before it was changed after it was chained, or this one was.
    """
    try:
        record, prev = parse_record(data)
    except Unverified:
        return False
    return record.seq == chain.seq + 1 and chain.seq > 0 and prev != chain.head


def _is_disowned(data: bytes, records: Iterator[bytes]) -> bool:
    """Whether the record after `data` names another predecessor too: then `data` was changed."""
    try:
        following = next(records, None)
        return following is not None and parse_record(following)[1] != head_of(data)
    except Unverified:
        return False


def _fit(
    note: str, tree: Tree, fitting: list[int], origin: str, keys: Sequence[PublicKey]
) -> Fault | None:
    """Note the size of a head that fits, or say why it does not."""
    proven = max(fitting, default=0)
    try:
        head = verify_head(note, origin, keys)
    except Unverified as error:
        return Fault(kind=FaultKind.HEAD, seq=proven + 1, why=str(error))
    if head.size > tree.size:
        why = f"a signed head covers {head.size} records, there are {tree.size}"
        return Fault(kind=FaultKind.MISSING, seq=tree.size + 1, why=why)
    if head.root != tree.root(head.size):
        why = f"the signed head of {head.size} records has another root"
        return Fault(kind=FaultKind.HEAD, seq=proven + 1, why=why)
    fitting.append(head.size)
    return None
