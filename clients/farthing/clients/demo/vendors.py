"""Runs one of the demo's vendors: `python -m farthing.clients.demo.vendors NAME --fd FD`.

Boundary: the socket, which the demo has opened so that the listing can name its port, and the
lines on standard output by which the demo follows what the vendor does. Everything a vendor would
write is in `vendor_*`.
"""

import argparse
import json
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final

import uvicorn
from mcp.server import MCPServer

from farthing.clients.demo import vendor_images, vendor_pdf, vendor_text
from farthing.clients.demo.offers import DEADLINE_S
from farthing.clients.demo.worker import Worker
from farthing.clients.paid import Seller

__all__ = ["SHOPS", "main"]

SHOPS: Final[Mapping[str, Callable[[Seller, Worker], MCPServer[Any]]]] = {
    "pagewright": vendor_pdf.shop,
    "lightbox": vendor_images.shop,
    "plainword": vendor_text.shop,
}
_BODY_BYTES_MAX: Final = 64 * 1024**2
# Less than the terms give, so that the vendor can still say why nothing came.
_WORK_S_MAX: Final = DEADLINE_S - 2


def main() -> None:
    """Serve one vendor until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m farthing.clients.demo.vendors")
    parser.add_argument("name", choices=SHOPS)
    parser.add_argument("--fd", type=int, required=True, help="the socket to listen on")
    given = parser.parse_args()
    worker = Worker(deadline_s=_WORK_S_MAX, begun=lambda _: _tell("working"))
    mcp = SHOPS[given.name](Seller.from_env(), worker)
    app = mcp.streamable_http_app(json_response=True, max_request_body_size=_BODY_BYTES_MAX)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)
    with socket.socket(fileno=given.fd) as listener:
        _Telling(config).run(sockets=[listener])


class _Telling(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        _tell("serving")


def _tell(event: str) -> None:
    print(json.dumps({"event": event}), flush=True)


if __name__ == "__main__":
    main()
