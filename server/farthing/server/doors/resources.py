"""Balances as MCP resources, and their changes as subscription streams of revision 2026-07-28.

Boundary: names, reads by way of dispatch, tells. In 2025-11-25 every request stands alone, so that
resources can be read there and not subscribed to. Source: spec/statements.md, transport-mcp.md.
"""

import re
from typing import Any, Final, cast

import orjson
from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import SUBSCRIPTION_ID_META_KEY
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    ListResourcesResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    Resource,
    ResourceUpdatedNotification,
    ResourceUpdatedNotificationParams,
    SubscriptionFilter,
    SubscriptionsAcknowledgedNotification,
    SubscriptionsAcknowledgedNotificationParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    TextResourceContents,
)
from starlette.requests import Request

from farthing.identity.callers import Caller
from farthing.protocol.errors import Code, Refused, refuse
from farthing.protocol.ledger import account_name, split_account
from farthing.protocol.messages.accounts import AccountBalance
from farthing.protocol.messages.statements import GET_STATEMENT, Statement
from farthing.protocol.wire import document_of
from farthing.server.dispatch import dispatch, may_use
from farthing.server.doors.admission import caller_of
from farthing.server.doors.streams import HEARTBEAT_S, check_watcher, watching
from farthing.server.followers.feed import Feed
from farthing.server.market import Market

__all__ = ["BalanceResources"]

Context = ServerRequestContext[Any, Request]

_JSON: Final = "application/json"
_URI: Final = re.compile(r"farthing://accounts/([a-z0-9_]+)/([a-z_]+)/([A-Z]+)/balance")
_SUBSCRIBED_MAX: Final = 100


class BalanceResources:
    """What the MCP server is given for resources.

    Args:
        market: what is read.
        feed: what tells of changes.
    """

    def __init__(self, market: Market, feed: Feed) -> None:
        self._market = market
        self._feed = feed

    async def listed(
        self, ctx: Context, params: PaginatedRequestParams | None
    ) -> ListResourcesResult:
        """The balances of the caller's organisation; nobody else's are named."""
        del params
        caller = _caller(ctx)
        if not may_use(caller, GET_STATEMENT):
            return ListResourcesResult(resources=[])
        balances, _ = await self._balances(caller)
        return ListResourcesResult(
            resources=[
                Resource(
                    uri=uri,
                    name=f"{balance.account} {balance.available.asset}",
                    title=f"Balance of {balance.account}, {balance.available.asset}",
                    mime_type=_JSON,
                )
                for uri, balance in balances.items()
            ]
        )

    async def read(self, ctx: Context, params: ReadResourceRequestParams) -> ReadResourceResult:
        """A balance as it is now. A foreign one is as absent as one that never was."""
        balances, seq = await self._balances(_caller(ctx))
        balance = balances.get(params.uri)
        if balance is None:
            raise _error(Refused(refuse(Code.NOT_FOUND, path="uri")))
        text = orjson.dumps({**document_of(balance), "as_of_seq": seq}).decode()
        contents = TextResourceContents(uri=params.uri, mime_type=_JSON, text=text)
        return ReadResourceResult(contents=[contents])

    async def listen(
        self, ctx: Context, params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        """Tell of changes until the caller goes, its key ends or the server stops.

        Acknowledged is what will be told of: the caller's own balances. A notification says that
        a resource may be read again, and several changes of one may be one notification.
        """
        caller = _caller(ctx)
        meta: dict[str, Any] = {SUBSCRIPTION_ID_META_KEY: ctx.request_id}
        try:
            with watching(self._feed, caller) as watcher:
                await check_watcher(self._market, watcher)
                wanted = _own(caller, params.notifications.resource_subscriptions or [])
                await self._acknowledge(ctx, list(wanted.values()), meta)
                while not watcher.closed:
                    await watcher.wait(HEARTBEAT_S)
                    touched, watcher.touched = watcher.touched, set()
                    for name in sorted(touched & wanted.keys()):
                        notification = ResourceUpdatedNotification(
                            params=ResourceUpdatedNotificationParams(uri=wanted[name], _meta=meta)
                        )
                        await ctx.session.send_notification(
                            notification, related_request_id=ctx.request_id
                        )
        except Refused as refused:
            raise _error(refused) from refused
        return SubscriptionsListenResult(_meta=meta)

    async def _acknowledge(self, ctx: Context, uris: list[str], meta: dict[str, Any]) -> None:
        honoured = SubscriptionFilter(resource_subscriptions=uris or None)
        await ctx.session.send_notification(
            SubscriptionsAcknowledgedNotification(
                params=SubscriptionsAcknowledgedNotificationParams(
                    notifications=honoured, _meta=meta
                )
            ),
            related_request_id=ctx.request_id,
        )

    async def _balances(self, caller: Caller) -> tuple[dict[str, AccountBalance], int]:
        """The caller's balances by URI, and the record they are as of."""
        try:
            reply = await dispatch(self._market, caller, GET_STATEMENT.name, {"limit": 1})
        except Refused as refused:
            raise _error(refused) from refused
        statement = cast("Statement", reply.answer)
        closing = [each.closing for each in statement.accounts]
        return {_uri(caller, each): each for each in closing}, statement.as_of_seq


def _uri(caller: Caller, balance: AccountBalance) -> str:
    owner, asset = caller.organisation_id, balance.available.asset
    return f"farthing://accounts/{owner}/{balance.account}/{asset}/balance"


def _own(caller: Caller, uris: list[str]) -> dict[str, str]:
    """The wanted URIs that are of the caller's own accounts, there already or not, by account."""
    wanted: dict[str, str] = {}
    for uri in uris[:_SUBSCRIBED_MAX]:
        parts = _URI.fullmatch(uri)
        if parts is None or parts[1] != caller.organisation_id:
            continue
        try:
            owner, kind, asset = split_account(":".join(parts.groups()))
        except ValueError:  # there is no such kind of account
            continue
        wanted[account_name(owner, kind, asset)] = uri
    return wanted


def _error(refused: Refused) -> MCPError:
    """A refusal where MCP has no place for one: a JSON-RPC error with the refusal as its data."""
    refusal = refused.refusal
    return MCPError(INVALID_PARAMS, refusal.message, refusal.document())


def _caller(ctx: Context) -> Caller:
    assert ctx.request is not None, "the door is HTTP"
    return caller_of(ctx.request.scope)
