"""Calls vendors, each in the way that its listing says.

Boundary: chooses; `mcp_vendors` and `http_vendors` speak. Source: spec/services.md.
"""

from collections.abc import Callable
from typing import TypeVar

from farthing.protocol.listing import InterfaceKind
from farthing.server.adapters.http_vendors import call_route
from farthing.server.adapters.mcp_vendors import call_tool
from farthing.server.adapters.outbound import Outbound
from farthing.server.ports import Delivered, PaidCall, Progress

__all__ = ["Vendors"]

T = TypeVar("T")


class Vendors:
    """The port to vendors, over HTTP.

    Args:
        outbound: the way out.
        answer_bytes_max: the most that an answer may have, progress included.
    """

    def __init__(self, outbound: Outbound, *, answer_bytes_max: int) -> None:
        self._outbound = outbound
        self._answer_bytes_max = answer_bytes_max

    def check(self, url: str) -> None:
        """Judge an address by itself; raises `NotSent`."""
        self._outbound.check(url)

    async def call(self, call: PaidCall, progress: Progress) -> Delivered:
        """Call a vendor once; only tools tell of their progress."""
        match call.kind:
            case InterfaceKind.MCP:
                return await call_tool(self._outbound, call, progress, self._answer_bytes_max)
            case InterfaceKind.HTTP:
                return await call_route(self._outbound, call, self._answer_bytes_max)

    async def beside(self, work: Callable[[], T]) -> T:
        """Do work beside the loop."""
        return await self._outbound.beside(work)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._outbound.aclose()
