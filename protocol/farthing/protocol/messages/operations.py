"""The one list of all operations."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from farthing.protocol.messages import (
    accounts,
    agents,
    agreements,
    allowances,
    authority,
    catalog,
    charges,
    corrections,
    disputes,
    holds,
    listings,
    metering,
    payments,
    reconciliation,
    services,
    sessions,
    statements,
    trails,
    treasury,
)
from farthing.protocol.wire import Effect, Operation

__all__ = ["OPERATIONS", "AnyOperation", "is_destructive"]

# Asks and answers differ per operation; whoever calls one names its declaration and is checked.
AnyOperation = Operation[Any, Any]

OPERATIONS: Final[Mapping[str, AnyOperation]] = MappingProxyType({
    operation.name: operation
    for noun in (
        catalog, listings, agreements, allowances, holds, services, sessions, metering,
        reconciliation, corrections, charges, disputes, accounts, statements, agents, authority,
        payments, treasury, trails,
    )
    for name in sorted(vars(noun))
    if isinstance(operation := vars(noun)[name], Operation)
})  # fmt: skip

# Writes that move no money themselves, and yet end, replace or let go of something.
_DESTRUCTIVE: Final = frozenset({
    "close_account", "freeze", "revoke_authority", "revoke_key", "rotate_key", "send_payout",
    "set_authority", "set_grace", "set_partner", "terminate_agreement", "withdraw_listing",
})  # fmt: skip


def is_destructive(operation: AnyOperation) -> bool:
    """Whether an operation does more than add: the `destructiveHint` of MCP."""
    return operation.effect is Effect.MOVES_MONEY or operation.name in _DESTRUCTIVE
