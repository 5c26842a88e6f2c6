"""A vendor's process for tests: serves one paid tool, and kills itself where it is told to.

Started as `python shop.py PORT FOLDER`; `FOLDER/kill_at` names the place, once.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import uvicorn
from mcp.server import MCPServer
from pydantic import BaseModel

from farthing.clients.paid import Seller


class PageTexts(BaseModel):
    pages: list[str]


class Announcing(uvicorn.Server):
    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        sys.stdout.write("serving\n")
        sys.stdout.flush()


def main() -> None:
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    seller = Seller.from_env()
    mcp: MCPServer[Any] = MCPServer("pdf", lifespan=seller.lifespan, log_level="ERROR")
    kill_at, runs = folder / "kill_at", folder / "runs"

    def reached(place: str) -> None:
        if kill_at.exists() and kill_at.read_text() == place:
            kill_at.unlink()
            os.kill(os.getpid(), signal.SIGKILL)

    @mcp.tool()
    @seller.paid(listing="pdf-text", meter={"page": lambda result: len(result.pages)})
    async def extract_text(pdf: str) -> PageTexts:
        with runs.open("a") as log:
            log.write("run\n")
        reached("working")
        return PageTexts(pages=pdf.split("|"))

    capture = seller.vendor.capture_signed

    async def watched(*args: Any, **named: Any) -> Any:
        reached("before_capture")
        charge = await capture(*args, **named)
        reached("after_capture")
        return charge

    report = seller.vendor.report_usage

    async def watched_report(*args: Any, **named: Any) -> Any:
        reached("before_report")
        answer = await report(*args, **named)
        reached("after_report")
        return answer

    seller.vendor.capture_signed = watched  # type: ignore[method-assign]
    seller.vendor.report_usage = watched_report  # type: ignore[method-assign]
    config = uvicorn.Config(
        mcp.streamable_http_app(json_response=True), port=port, log_level="error"
    )
    asyncio.run(Announcing(config).serve())


if __name__ == "__main__":
    main()
