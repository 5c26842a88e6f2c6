"""What a key of one purpose may do: the documents it signs, the operations it calls.

Boundary: pure. A key without a purpose may do all that its holder may. What is not named here, or
by an operation's own declaration, no key of a purpose does. Source: spec/identity.md.
"""

from collections.abc import Mapping
from typing import Final

from farthing.protocol.messages.operations import OPERATIONS
from farthing.protocol.signatures import Typ
from farthing.protocol.wire import KeyPurpose

__all__ = ["KEYS_MAX", "may_call", "may_sign"]

KEYS_MAX: Final = 16
"""How many keys of one purpose a principal has in force at once."""

_SIGNS: Final[Mapping[str, frozenset[Typ]]] = {
    KeyPurpose.METERING: frozenset({Typ.DELIVERY, Typ.GATEWAY, Typ.REQUEST, Typ.USAGE}),
}
_CALLS: Final[Mapping[str, frozenset[str]]] = {
    purpose: frozenset(
        name
        for name, operation in OPERATIONS.items()
        if operation.public or purpose in operation.purposes
    )
    for purpose in KeyPurpose
}
_NOTHING: Final[frozenset[str]] = frozenset()


def may_sign(purpose: str, typ: Typ) -> bool:
    """Whether a key of this purpose, "" for none, signs documents of this kind."""
    return not purpose or typ in _SIGNS.get(purpose, _NOTHING)


def may_call(purpose: str, operation: str) -> bool:
    """Whether a key of this purpose, "" for none, calls the operation of this name."""
    return not purpose or operation in _CALLS.get(purpose, _NOTHING)
