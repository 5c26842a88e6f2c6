"""The agent's network: it works, but now and then a reply is lost on the way back.

Boundary: between the agent's client and everybody else. What was asked has been done; only the
agent does not hear of it.
"""

from typing import Final

import httpx2

__all__ = ["LosesReplies"]

_TOOL: Final = "mcp-name"


class LosesReplies(httpx2.AsyncBaseTransport):
    """Carries requests, and loses the replies that it was told to lose."""

    def __init__(self) -> None:
        self._road = httpx2.AsyncHTTPTransport()
        self._to_lose: dict[str, int] = {}
        self.lost: list[str] = []

    def lose_next(self, tool: str) -> None:
        """Lose the reply of the next call of a tool."""
        self._to_lose[tool] = self._to_lose.get(tool, 0) + 1

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._road.handle_async_request(request)
        tool = request.headers.get(_TOOL, "")
        if not self._to_lose.get(tool):
            return response
        # The whole reply has been sent by then: it is lost on the agent's side of the road.
        await response.aread()
        await response.aclose()
        self._to_lose[tool] -= 1
        self.lost.append(tool)
        raise httpx2.ReadError("the connection broke before the reply was there", request=request)

    async def aclose(self) -> None:
        await self._road.aclose()
