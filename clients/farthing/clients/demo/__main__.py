"""`python -m farthing.clients.demo`: one whole trade, from search to a reversed dispute.

Boundary: the command line. `--json` prints one object and nothing else.
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path

from farthing.clients.demo.errand import NoSuchFile
from farthing.clients.demo.story import BUDGET, PACKS, Telling, tell
from farthing.protocol.money import InvalidAmount, parse_units
from farthing.protocol.wire import Money

__all__ = ["main"]

_OUTCOMES = """\
outcomes, the last line and the member `outcome`:
  delivered       the text came and was paid for; the whole story was told
  over_budget     no listing reads the file within the budget; nothing was agreed
  no_text         the pages are scanned pictures    | the vendor says so, gives the hold
  encrypted       the PDF needs a password          | back at once, and nothing is charged
  broken          no PDF, or damaged beyond reading |
  too_slow        it takes longer than the vendor gives itself
  too_many_pages  more pages than one call takes
  too_large       larger than any listing takes (nothing is agreed), or it unpacks to too much
  vendor_failed, capture_exceeds_hold and other codes of spec/errors.md: nothing is charged
  failed          something that was promised did not hold; the story says what

exit codes:
  0    the story came to its end and everything that was promised held, whatever the outcome
  1    something did not hold
  2    called wrongly: no such file, or a budget that is no amount of USD
  130  stopped by a signal
"""


def main() -> int:
    """Tell the story; gives the exit code."""
    given = _arguments()
    telling = Telling(file=given.file, budget=given.budget, packs=given.out, quiet=given.json)
    try:
        facts = asyncio.run(tell(telling))
    except NoSuchFile as error:
        print(f"farthing demo: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("farthing demo: stopped; every process has been ended", file=sys.stderr)
        return 130
    if given.json:
        print(json.dumps(facts, indent=2))
    return 0 if facts["held"] else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m farthing.clients.demo",
        description="Start a market with three vendors and an agent on this machine, and let them "
        "trade: for the text of a PDF, and for what can go wrong.",
        epilog=_OUTCOMES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--file", type=Path, metavar="PDF", help="any PDF; without it, a sample")
    parser.add_argument(
        "--budget",
        type=_usd,
        default=BUDGET,
        metavar="USD",
        help=f"what its text may cost (default {BUDGET.amount})",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=PACKS,
        metavar="DIR",
        help=f"where the evidence packs are written (default {PACKS})",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, not the story")
    return parser.parse_args()


def _usd(text: str) -> Money:
    try:
        units = parse_units(text, BUDGET.asset)
    except InvalidAmount as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no amount of {BUDGET.asset}") from error
    if not 0 < units <= parse_units("1000", BUDGET.asset):
        raise argparse.ArgumentTypeError("a budget is above 0 and at most 1000")
    return Money(amount=text, asset=BUDGET.asset)


if __name__ == "__main__":
    sys.exit(main())
