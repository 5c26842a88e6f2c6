"""A vendor's process that sends reports which were signed before, all at once, as fast as it can.

Started as `python -m tests.end_to_end.hammer`; reads what to send from its input as JSON, says
"ready", and begins with the next line. Its last line is what came of each report.
"""

import asyncio
import json
import sys
from typing import Any

from farthing.clients.transport import Connection
from farthing.protocol.errors import Refused
from farthing.protocol.messages.sessions import REPORT_USAGE, ReportUsage
from tests.papers import signing_key


async def hammer(told: dict[str, Any]) -> list[int]:
    """Send; gives the units that each report billed."""
    signer = signing_key(told["vendor_key"])
    async with Connection(told["url"], signer=signer, principal=told["vendor_id"]) as vendor:

        async def send(ask: ReportUsage) -> int:
            while True:
                try:
                    return (await vendor.call(REPORT_USAGE, ask)).amount.units
                except Refused as refused:
                    if refused.refusal.retry_after_s is None:
                        raise
                    await asyncio.sleep(refused.refusal.retry_after_s)

        return list(await asyncio.gather(*(send(ReportUsage(**each)) for each in told["asks"])))


def main() -> None:
    """Wait for the word, then send."""
    told = json.loads(sys.stdin.readline())
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    sys.stdout.write(json.dumps(asyncio.run(hammer(told))) + "\n")


if __name__ == "__main__":
    main()
