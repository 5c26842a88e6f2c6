"""Every use case, one file per noun; `HANDLERS` binds each declaration to what carries it out."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from farthing.protocol.messages.operations import OPERATIONS
from farthing.server.operations import (
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
from farthing.server.operations.replies import Handler, Reply

__all__ = ["HANDLERS", "Handler", "Reply"]

_NOUNS: Final = (
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
_CALLS: Final = {
    name: vars(noun)[name] for noun in _NOUNS for name in noun.__all__ if name in OPERATIONS
}

# A declaration without a handler is a KeyError at start, not at the first call.
HANDLERS: Final[Mapping[str, Handler]] = MappingProxyType({
    name: Handler(operation=operation, call=_CALLS[name]) for name, operation in OPERATIONS.items()
})  # fmt: skip
