"""The double-entry ledger as arithmetic: accounts of four counters, transfers, the fold.

Boundary: pure. The engine applies transfers with it; an auditor folds the journal with the very
same functions. Source: spec/ledger.md.
"""

from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

import msgspec

from farthing.protocol.canonical import Json
from farthing.protocol.errors import Broken
from farthing.protocol.money import INT64_MAX

__all__ = [
    "COUNTER_MAX",
    "Account",
    "AccountKind",
    "Movement",
    "Transfer",
    "account_name",
    "apply",
    "fold",
    "imbalances",
    "split_account",
]

# Lifetime gross counters are 128-bit (spec/ledger.md): an amount fits int64, their sum may not.
COUNTER_MAX: Final = 2**127 - 1
_NO_GRACE: Final[Mapping[str, int]] = MappingProxyType({})


class AccountKind(StrEnum):
    """The chart of accounts. Every account belongs to one owner and one asset."""

    PREPAID = "prepaid"
    RECEIVABLE = "receivable"
    DEFERRED_REVENUE = "deferred_revenue"
    PROMOTIONAL_CREDIT = "promotional_credit"
    VENDOR_PENDING = "vendor_pending"
    VENDOR_PAYABLE = "vendor_payable"
    PARTNER_PENDING = "partner_pending"
    PARTNER_PAYABLE = "partner_payable"
    PLATFORM_FEE = "platform_fee"
    BREAKAGE = "breakage"
    PROMOTION = "promotion"
    DISPUTE_ESCROW = "dispute_escrow"
    EXTERNAL_CLEARING = "external_clearing"

    @property
    def may_go_negative(self) -> bool:
        """Money that is elsewhere, what is owed, and what was given away: an expense."""
        return self in {
            AccountKind.EXTERNAL_CLEARING,
            AccountKind.PROMOTION,
            AccountKind.RECEIVABLE,
        }

    @property
    def closed_together(self) -> "tuple[AccountKind, ...]":
        """What is closed by closing it: with a prepaid account its credit lots and its debt."""
        if self is not AccountKind.PREPAID:
            return (self,)
        lots = AccountKind.DEFERRED_REVENUE, AccountKind.PROMOTIONAL_CREDIT
        return (self, *lots, AccountKind.RECEIVABLE)


class Movement(StrEnum):
    """What a transfer does to the counters."""

    PENDING = "pending"
    VOID = "void"
    POST = "post"


@dataclass(slots=True)
class Account:
    """Four lifetime counters, in units of the account's asset."""

    debits_pending: int = 0
    debits_posted: int = 0
    credits_pending: int = 0
    credits_posted: int = 0

    @property
    def posted_units(self) -> int:
        """Settled balance."""
        return self.credits_posted - self.debits_posted

    @property
    def available_units(self) -> int:
        """What can be debited now: pending debits reserve, pending credits do not count."""
        return self.credits_posted - self.debits_posted - self.debits_pending

    def counters(self) -> dict[str, str]:
        """The counters as they stand in a bundle and in a row."""
        return {
            "credits_pending": str(self.credits_pending),
            "credits_posted": str(self.credits_posted),
            "debits_pending": str(self.debits_pending),
            "debits_posted": str(self.debits_posted),
        }


class Transfer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`units` from the debit account to the credit account, pending, voided or posted."""

    movement: Movement
    debit: str
    credit: str
    asset: str
    units: int

    def document(self) -> dict[str, Json]:
        """The transfer as it stands in a journal record."""
        return {
            "asset": self.asset,
            "credit": self.credit,
            "debit": self.debit,
            "movement": str(self.movement),
            "units": str(self.units),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Json]) -> "Transfer":
        """The transfer that `document` wrote."""
        return cls(
            movement=Movement(str(document["movement"])),
            debit=str(document["debit"]),
            credit=str(document["credit"]),
            asset=str(document["asset"]),
            units=int(str(document["units"])),
        )


def account_name(owner: str, kind: AccountKind, asset: str) -> str:
    """The name of an account: `owner:kind:asset`."""
    return f"{owner}:{kind}:{asset}"


def split_account(name: str) -> tuple[str, AccountKind, str]:
    """Owner, kind and asset of an account's name."""
    owner, kind, asset = name.split(":")
    return owner, AccountKind(kind), asset


def apply(
    accounts: MutableMapping[str, Account],
    transfer: Transfer,
    grace: Mapping[str, int] | None = _NO_GRACE,
) -> None:
    """Apply one transfer; both sides move together.

    Args:
        accounts: changed in place; an account begins with its first transfer.
        transfer: what moves.
        grace: by how many units an account may be below zero; of others none may. None where
            that has been judged before, by whoever wrote the transfer down.

    Raises:
        Broken: the transfer breaks an invariant of the ledger. Deciding refuses such a transfer
            beforehand, so this is a defect, never bad input.
    """
    units = transfer.units
    if not 0 < units <= INT64_MAX or transfer.debit == transfer.credit:
        text = f"not a transfer: {transfer}"
        raise Broken(text)
    suffix = f":{transfer.asset}"
    if not (transfer.debit.endswith(suffix) and transfer.credit.endswith(suffix)):
        text = f"the accounts are of another asset: {transfer}"
        raise Broken(text)
    debit = _account(accounts, transfer.debit)
    credit = _account(accounts, transfer.credit)
    match transfer.movement:
        case Movement.PENDING:
            debit.debits_pending += units
            credit.credits_pending += units
        case Movement.VOID:
            debit.debits_pending -= units
            credit.credits_pending -= units
        case Movement.POST:
            debit.debits_posted += units
            credit.credits_posted += units
    _check(transfer.debit, debit, grace)
    _check(transfer.credit, credit, grace)


def fold(
    transfers: Iterable[Transfer], grace: Mapping[str, int] | None = _NO_GRACE
) -> dict[str, Account]:
    """The accounts that a sequence of transfers leaves."""
    accounts: dict[str, Account] = {}
    for transfer in transfers:
        apply(accounts, transfer, grace)
    return accounts


def imbalances(accounts: Mapping[str, Account]) -> dict[str, int]:
    """Per asset, credits minus debits, posted and pending together; empty when balanced."""
    sums: dict[str, list[int]] = {}
    for name, account in accounts.items():
        pair = sums.setdefault(split_account(name)[2], [0, 0])
        pair[0] += account.credits_posted - account.debits_posted
        pair[1] += account.credits_pending - account.debits_pending
    return {
        asset: posted or pending for asset, (posted, pending) in sums.items() if posted or pending
    }


def _account(accounts: MutableMapping[str, Account], name: str) -> Account:
    known = accounts.get(name)
    if known is None:
        _check_name(name)
        known = accounts[name] = Account()
    return known


def _check_name(name: str) -> None:
    try:
        split_account(name)
    except ValueError:
        text = f"not an account of the chart: {name}"
        raise Broken(text) from None


def _check(name: str, account: Account, grace: Mapping[str, int] | None) -> None:
    # Spelled out, because this runs four times on every paid call.
    if not (
        0 <= account.debits_pending <= COUNTER_MAX
        and 0 <= account.debits_posted <= COUNTER_MAX
        and 0 <= account.credits_pending <= COUNTER_MAX
        and 0 <= account.credits_posted <= COUNTER_MAX
    ):
        text = f"a counter of {name} is out of range: {account}"
        raise Broken(text)
    available_units = account.available_units
    if available_units >= 0 or grace is None or available_units >= -grace.get(name, 0):
        return
    if not split_account(name)[1].may_go_negative:
        text = f"{name} would be overdrawn by {-available_units}"
        raise Broken(text)
