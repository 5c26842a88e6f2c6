"""Flips one bit in every byte of an evidence pack, one at a time, and verifies what is left.

Boundary: `python -I -m farthing.clients.demo.flips PACK THUMBPRINT` prints one JSON object. Where
all bytes would take too long, every so-manieth is tried, and the object says which.
"""

import json
import sys
import time
from pathlib import Path
from typing import Final

from farthing.clients.demo.offline import shut_off
from farthing.protocol.evidence import verify

__all__ = ["flip", "main"]

_NS_MAX: Final = 8_000_000_000
_TRIALS: Final = 64
_BITS: Final = 8


def flip(pack: bytes, trusted: frozenset[str], *, ns_max: int = _NS_MAX) -> dict[str, object]:
    """Flip bytes of a genuine pack.

    Args:
        pack: The pack.
        trusted: The journal's key.
        ns_max: About how long it may take.

    Returns:
        `accepted` holds the places whose change nobody noticed, `stride` the distance of those
        that were tried.
    """
    began = time.monotonic_ns()
    for place in range(0, len(pack), max(len(pack) // _TRIALS, 1)):
        _is_accepted(pack, place, trusted)
    one_ns = (time.monotonic_ns() - began) // _TRIALS
    stride = max(-(-one_ns * len(pack) // ns_max), 1)
    places = range(0, len(pack), stride)
    accepted = [place for place in places if _is_accepted(pack, place, trusted)]
    return {
        "bytes": len(pack),
        "tried": len(places),
        "stride": stride,
        "accepted": accepted,
        "not_covered": list(verify(pack, trusted).not_covered),
    }


def main() -> None:
    """Flip the bytes of a file."""
    shut_off()
    pack, thumbprint = sys.argv[1:]
    print(json.dumps(flip(Path(pack).read_bytes(), frozenset({thumbprint}))))


def _is_accepted(pack: bytes, place: int, trusted: frozenset[str]) -> bool:
    changed = bytearray(pack)
    changed[place] ^= 1 << place % _BITS
    return verify(bytes(changed), trusted).verified


if __name__ == "__main__":
    main()
