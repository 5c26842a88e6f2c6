"""Lightbox, a vendor: pictures resized, paid by the megapixel.

Boundary: an ordinary MCP server; what makes its tool payable are the lines with `farthing`.
"""

from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel

from farthing.clients.demo.outcomes import Unworkable
from farthing.clients.demo.work_images import ImageFormat
from farthing.clients.demo.worker import Worker
from farthing.clients.paid import Seller

__all__ = ["Resized", "shop"]


class Resized(BaseModel):
    """The new picture as base64, and how many pixels the old one had."""

    image: str
    pixels: int


def shop(farthing: Seller, worker: Worker) -> MCPServer[Any]:
    """The vendor's server."""
    mcp: MCPServer[Any] = MCPServer("lightbox", lifespan=farthing.lifespan, log_level="WARNING")

    @mcp.tool(meta=farthing.advert("image-resize"))
    @farthing.paid(listing="image-resize", meter={"pixel": lambda result: result.pixels})
    async def resize_image(image: str, width: int, height: int, format: ImageFormat) -> Resized:  # noqa: A002 - as `work_images.resize`
        """A picture, sent as base64, scaled to exactly this width and height."""
        sides = {"width": width, "height": height}
        try:
            return Resized.model_validate(
                await worker.perform("resize_image", {"image": image, "format": format, **sides})
            )
        except Unworkable as error:
            raise ToolError(str(error)) from error

    return mcp
