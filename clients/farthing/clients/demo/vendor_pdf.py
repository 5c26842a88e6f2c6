"""Pagewright, a vendor: the text of PDF pages, paid by the page.

Boundary: an ordinary MCP server; what makes its tool payable are the lines with `farthing`.
"""

from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel

from farthing.clients.demo.outcomes import Unworkable
from farthing.clients.demo.worker import Worker
from farthing.clients.paid import Seller

__all__ = ["PageTexts", "shop"]


class PageTexts(BaseModel):
    """The text of each page, in order; a page without text is empty."""

    pages: list[str]


def shop(farthing: Seller, worker: Worker) -> MCPServer[Any]:
    """The vendor's server."""
    mcp: MCPServer[Any] = MCPServer("pagewright", lifespan=farthing.lifespan, log_level="WARNING")

    @mcp.tool(meta=farthing.advert("pdf-text"))
    @farthing.paid(listing="pdf-text", meter={"page": lambda result: len(result.pages)})
    async def extract_text(pdf: str) -> PageTexts:
        """The text of every page of a PDF, which is sent as base64."""
        try:
            return PageTexts.model_validate(await worker.perform("extract_text", {"pdf": pdf}))
        except Unworkable as error:
            raise ToolError(str(error)) from error

    return mcp
