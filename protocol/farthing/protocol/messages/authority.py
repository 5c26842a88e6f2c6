"""Authority grants: what an agent may spend, set by its operator, judged on every hold."""

from typing import Annotated

from pydantic import Field

from farthing.protocol.errors import Code
from farthing.protocol.wire import (
    AgentRef,
    AssetCode,
    Effect,
    IdempotencyKey,
    ListingRef,
    Money,
    Operation,
    OrganisationRef,
    Role,
    Time,
    form,
    message,
)

__all__ = [
    "CHECK_AUTHORITY",
    "GET_AUTHORITY",
    "REVOKE_AUTHORITY",
    "SET_AUTHORITY",
    "Authority",
    "AuthorityCheck",
    "CheckAuthority",
    "GetAuthority",
    "GrantView",
    "RevokeAuthority",
    "SetAuthority",
]

# Every hold walks them, on the one thread that writes.
_LIST_MAX = 200

Tag = Annotated[
    str,
    form(r"^[a-z0-9_]+(\.[a-z0-9_]+)*$", "It is a tag of the vocabulary, dotted.", max_length=120),
]

Vendors = Annotated[tuple[OrganisationRef, ...], Field(max_length=_LIST_MAX)]
Capabilities = Annotated[tuple[Tag, ...], Field(max_length=_LIST_MAX)]


@message
class SetAuthority:
    """Set what an agent may spend of one asset. Replaces the agent's grant for that asset.

    Empty allow lists allow every vendor or capability; a deny always wins. A capability covers
    every tag below it. `expires_at` empty means the grant does not expire.
    """

    agent_id: AgentRef
    per_call_max: Money
    per_day_max: Money
    vendors_allow: Vendors = ()
    vendors_deny: Vendors = ()
    capabilities_allow: Capabilities = ()
    capabilities_deny: Capabilities = ()
    expires_at: Time = ""
    idempotency_key: IdempotencyKey


@message
class GrantView:
    """A grant as its operator and its agent see it."""

    grant_id: str
    agent_id: str
    per_call_max: Money
    per_day_max: Money
    spent_today: Money
    remaining_today: Money
    vendors_allow: tuple[str, ...] = ()
    vendors_deny: tuple[str, ...] = ()
    capabilities_allow: tuple[str, ...] = ()
    capabilities_deny: tuple[str, ...] = ()
    expires_at: str = ""
    revoked: bool = False


@message
class RevokeAuthority:
    """Take an agent's grant of one asset away."""

    agent_id: AgentRef
    asset: AssetCode
    idempotency_key: IdempotencyKey


@message
class GetAuthority:
    """Ask for an agent's grants; `agent_id` empty means the caller."""

    agent_id: AgentRef | None = None


@message
class Authority:
    """An agent's grants, one per asset."""

    agent_id: str
    frozen: bool
    grants: tuple[GrantView, ...]


@message
class CheckAuthority:
    """Ask whether a purchase from a listing would be allowed now. Consumes nothing."""

    listing_id: ListingRef
    amount: Money


@message
class AuthorityCheck:
    """Whether the purchase would be allowed, and every reason why not."""

    allowed: bool
    reasons: tuple[str, ...] = ()
    remaining_today: Money | None = None
    per_call_max: Money | None = None


SET_AUTHORITY = Operation(
    name="set_authority",
    title="Set authority",
    says="Set what an agent may spend per call and per day, with whom and on what.",
    ask=SetAuthority,
    answer=GrantView,
    effect=Effect.WRITES,
    roles=frozenset({Role.OPERATOR}),
    codes=(Code.INVALID_ARGUMENT, Code.INVALID_AMOUNT, Code.NOT_FOUND, Code.ASSET_MISMATCH),
)
REVOKE_AUTHORITY = Operation(
    name="revoke_authority",
    title="Revoke authority",
    says="Take an agent's authority for one asset away, from the next call on.",
    ask=RevokeAuthority,
    answer=GrantView,
    effect=Effect.WRITES,
    roles=frozenset({Role.OPERATOR}),
    codes=(Code.NOT_FOUND,),
)
GET_AUTHORITY = Operation(
    name="get_authority",
    title="Get authority",
    says="Show what an agent may spend and what remains of it today.",
    ask=GetAuthority,
    answer=Authority,
    effect=Effect.READS,
    roles=frozenset({Role.BUYER, Role.OPERATOR}),
    codes=(Code.NOT_FOUND,),
)
CHECK_AUTHORITY = Operation(
    name="check_authority",
    title="Check authority",
    says="Say whether a purchase would be allowed now, with every reason why not.",
    ask=CheckAuthority,
    answer=AuthorityCheck,
    effect=Effect.READS,
    roles=frozenset({Role.BUYER}),
    codes=(Code.NOT_FOUND,),
)
