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
from farthing.protocol.wire import Operation

__all__ = ["OPERATIONS", "AnyOperation"]

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
