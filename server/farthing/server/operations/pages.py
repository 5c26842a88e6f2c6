"""Pages of what a party has, newest first.

Boundary: what there is comes from the read model, what has become of it from the engine.
Source: spec/transport-http.md.
"""

from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeGuard, TypeVar

from farthing.identity.callers import Caller
from farthing.protocol.canonical import INTEGER_MAX
from farthing.server.market import Market
from farthing.server.operations.replies import organisation_asked_for, own
from farthing.settlement.engine.questions import Things
from farthing.settlement.engine.things import (
    Agreement,
    Charge,
    Dispute,
    Hold,
    Lot,
    Payout,
    Session,
    Thing,
    TopUp,
)

__all__ = ["Page", "page_of", "page_of_organisation", "page_under_agreement"]

Kind = TypeVar("Kind", bound=Thing)

_NOUNS: Final[dict[type[Thing], str]] = {
    Agreement: "agreement",
    Charge: "charge",
    Dispute: "dispute",
    Hold: "hold",
    Lot: "lot",
    Payout: "payout",
    Session: "session",
    TopUp: "top_up",
}


class _Ask(Protocol):
    @property
    def cursor(self) -> str: ...
    @property
    def limit(self) -> int: ...


class _AskOf(_Ask, Protocol):
    @property
    def organisation_id(self) -> str | None: ...


class _AskUnder(_Ask, Protocol):
    @property
    def agreement_id(self) -> str | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[Kind]):
    """Things as they are now, of those that had begun by a record; no cursor on the last page."""

    things: tuple[Kind, ...]
    as_of_seq: int
    cursor: str


async def page_of(
    market: Market,
    caller: Caller,
    kind: type[Kind],
    ask: _Ask,
    *,
    party: str = "",
    under: str | None = None,
    status: str | None = None,
) -> Page[Kind]:
    """A page of a party's things.

    Args:
        market: where they are.
        caller: who asks.
        kind: what is listed.
        ask: from where on, and how many at most.
        party: an agent, an organisation, or the platform; left out, the caller.
        under: only those under a listing (agreements), an agreement (charges, holds, sessions) or a
            charge (disputes).
        status: only those that stand so (payouts, top-ups).

    Raises:
        Refused: `overloaded` where too many read at once.
    """
    noun, before_seq = _NOUNS[kind], int(ask.cursor or INTEGER_MAX)
    async with market.reports.view(caller.organisation_id) as view:
        listed = await view.newest(
            party or caller.principal_id,
            noun,
            before_seq=before_seq,
            under=under or "",
            status=status or "",
            limit=ask.limit + 1,
        )
    shown = listed[: ask.limit]
    things = await market.ask(Things(noun=noun, ids=tuple([each.id for each in shown])))
    return Page(
        things=tuple([each for each in things if _stands(each, kind, status)]),
        as_of_seq=view.as_of_seq,
        cursor=str(shown[-1].seq) if len(listed) > ask.limit else "",
    )


def _stands(thing: object, kind: type[Kind], status: str | None) -> TypeGuard[Kind]:
    """Whether a thing is listed: what stood so by the record that is known may not any more."""
    return isinstance(thing, kind) and status in {None, getattr(thing, "status", None)}


async def page_of_organisation(
    market: Market, caller: Caller, kind: type[Kind], ask: _AskOf, *, status: str | None = None
) -> Page[Kind]:
    """A page of an organisation's things: the treasurer may name any, others have their own.

    Raises:
        Refused: `not_found` where it is not the caller's; as `page_of`.
    """
    organisation_id = await organisation_asked_for(market, caller, ask.organisation_id)
    return await page_of(market, caller, kind, ask, party=organisation_id, status=status)


async def page_under_agreement(
    market: Market, caller: Caller, kind: type[Kind], ask: _AskUnder
) -> Page[Kind]:
    """A page of the caller's things; of one agreement alone where it is named.

    Raises:
        Refused: `not_found` where that is none of the caller's; as `page_of`.
    """
    if ask.agreement_id is not None:
        await own(market, caller, Agreement, "agreement_id", ask.agreement_id)
    return await page_of(market, caller, kind, ask, under=ask.agreement_id)
