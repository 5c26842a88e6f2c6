"""One comparison over a whole agreement, in as many asks as its lists and its length need.

Boundary: asks and adds up. Source: spec/metering.md#reconciliation.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from farthing.clients.pages import Pages
from farthing.clients.transport import Connection
from farthing.protocol.canonical import Json, canonical_bytes
from farthing.protocol.gateways import GatewayReport
from farthing.protocol.keys import Signer
from farthing.protocol.messages.reconciliation import (
    ACKNOWLEDGED_MAX,
    RECONCILE_USAGE,
    SESSIONS_MAX,
    AcknowledgedSession,
    ReconcileUsage,
    UsageReconciliation,
)
from farthing.protocol.messages.sessions import GET_SESSION, GetSession
from farthing.protocol.signatures import Typ, sign_detached
from farthing.protocol.tallies import merged
from farthing.protocol.wire import document_of

__all__ = ["SignedCount", "fitting", "gathered", "signed_count", "with_count"]

# Of the mebibyte that an ask may have.
_LISTS_BYTES_MAX: Final = 800_000
_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedCount:
    """A gateway's count and its signature."""

    document: dict[str, Json]
    signature: str


def signed_count(signer: Signer, report: GatewayReport) -> SignedCount:
    """A gateway's count, signed with a key of the organisation that it stands with."""
    signature = sign_detached(signer, Typ.GATEWAY, report.signed_bytes())
    return SignedCount(document=report.document(), signature=signature)


def with_count(ask: ReconcileUsage, gateway: SignedCount | None) -> ReconcileUsage:
    """An ask that hands a gateway's count in."""
    if gateway is None:
        return ask
    return replace(ask, gateway=dict(gateway.document), gateway_signature=gateway.signature)


async def gathered(
    connection: Connection, ask: ReconcileUsage, lists: Sequence[AcknowledgedSession]
) -> UsageReconciliation:
    """What an agreement's sessions come to, all pages and all lists together.

    Args:
        connection: the party's.
        ask: names agreement and period; lists and place are put in.
        lists: those of other agreements or periods are left out.

    Raises:
        ValueError: one list is too long for an ask.
        Unverified: its pages do not end.
        Refused: as `reconcile_usage`.
    """
    parts = _parts(await _in_order(connection, ask, lists))
    answers: list[UsageReconciliation] = []
    pages = Pages()
    for number, part in enumerate(parts, 1):
        is_last = number == len(parts)
        through = "" if is_last else part[-1].session_id
        while True:
            answer = await connection.call(
                RECONCILE_USAGE, replace(ask, acknowledged=part, through=through)
            )
            answers.append(answer)
            ask = replace(ask, cursor=answer.cursor)
            if not answer.cursor or answer.cursor.partition("-")[2] == through:
                break
            pages.next(answer.cursor, len(answer.sessions) + answer.passed.asked)
    return merged(answers)


async def _in_order(
    connection: Connection, ask: ReconcileUsage, lists: Sequence[AcknowledgedSession]
) -> list[AcknowledgedSession]:
    """The lists that are asked about, by the time at which their sessions were opened."""
    turns = asyncio.Semaphore(_AT_ONCE)

    async def placed(listed: AcknowledgedSession) -> tuple[str, str, AcknowledgedSession] | None:
        async with turns:
            session = await connection.call(GET_SESSION, GetSession(session_id=listed.session_id))
        is_asked = session.agreement_id == ask.agreement_id and session.opened_at >= ask.since
        if not is_asked or (ask.until and session.opened_at >= ask.until):
            return None
        return session.opened_at, session.session_id, listed

    places = await asyncio.gather(*map(placed, lists))
    return [each[2] for each in sorted((each for each in places if each), key=lambda it: it[:2])]


def _parts(lists: Sequence[AcknowledgedSession]) -> list[tuple[AcknowledgedSession, ...]]:
    """Lists in stretches that one ask holds each; at least one, which may be empty."""
    parts: list[list[AcknowledgedSession]] = [[]]
    calls = size = 0
    for each in map(fitting, lists):
        calls, size = calls + len(each.calls), size + _size(each)
        is_full = len(parts[-1]) == SESSIONS_MAX
        if parts[-1] and (is_full or calls > ACKNOWLEDGED_MAX or size > _LISTS_BYTES_MAX):
            parts.append([])
            calls, size = len(each.calls), _size(each)
        parts[-1].append(each)
    return [tuple(part) for part in parts]


def fitting(listed: AcknowledgedSession) -> AcknowledgedSession:
    """A list that fits an ask, without the usage where that is what makes it too long.

    Raises:
        ValueError: it has more acknowledgements than an ask holds.
    """
    if len(listed.calls) > ACKNOWLEDGED_MAX:
        text = f"{listed.session_id}: an ask holds {ACKNOWLEDGED_MAX} acknowledgements at most"
        raise ValueError(text)
    if _size(listed) <= _LISTS_BYTES_MAX:
        return listed
    return replace(listed, calls=tuple(replace(each, usage=None) for each in listed.calls))


def _size(listed: AcknowledgedSession) -> int:
    return len(canonical_bytes(document_of(listed)))
