"""`make bench`: every figure beside an honest baseline of the same run."""

import argparse
import asyncio

from tests.bench import door, engine, session
from tests.bench.report import show

SUITES = {"engine": engine.run, "door": door.run, "session": session.run}


def main() -> None:
    """Run the suites that were asked for."""
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--only", default=",".join(SUITES), help="suites, comma separated")
    parser.add_argument("--json", action="store_true", help="one JSON object a suite")
    parser.add_argument(
        "--rows", type=int, default=1_000_000, help="records before the clock starts"
    )
    given = parser.parse_args()
    for name in given.only.split(","):
        show(name, asyncio.run(SUITES[name](given.rows)), as_json=given.json)


main()
