"""What is listed for whom: one row for a thing and a party to it, at the record that began it.

Boundary: pure. What has become of a thing since is the engine's to say; of what is looked for by
its status, the status is followed.
Source: spec/transport-http.md.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from farthing.protocol.records import Change, Record
from farthing.settlement.engine.commands import PLATFORM

__all__ = ["Listed", "fold_listed"]

_BOTH_SIDES: Final = ("buyer_id", "operator_id", "vendor_id")
# Whose a thing is, by noun. Staff acts for the platform: the treasurer's are listed for it too.
_PARTIES: Final[Mapping[str, tuple[str, ...]]] = {
    "agreement": _BOTH_SIDES,
    "charge": _BOTH_SIDES,
    "dispute": _BOTH_SIDES,
    "hold": _BOTH_SIDES,
    "lot": ("operator_id",),
    "payout": ("organisation_id",),
    "session": _BOTH_SIDES,
    "top_up": ("organisation_id",),
}
_STAFFS: Final = frozenset({"lot", "payout", "top_up"})
# What waits for somebody, and is looked for by how it stands.
_FOLLOWED: Final = frozenset({"payout", "top_up"})
# What it can be looked for under, besides whose it is.
_UNDER: Final[Mapping[str, str]] = {
    "agreement": "listing_id",
    "charge": "agreement_id",
    "dispute": "charge_id",
    "hold": "agreement_id",
    "session": "agreement_id",
}


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A thing of a party, and what it can be looked for under, where there is anything.

    Args:
        party: whose it is.
        noun: what it is.
        seq: the record that began it.
        under: the id that it is under.
        id: its own.
        status: how it stood after the records that were folded last.
    """

    party: str
    noun: str
    seq: int
    under: str
    id: str
    status: str = ""


def fold_listed(records: Iterable[Record]) -> list[Listed]:
    """What a stretch of records begins, or gives another status: the last row of a thing counts.

    A record begins at most one thing of a noun.
    """
    return [
        Listed(
            party=party,
            noun=change.noun,
            seq=int(change.after["seq"]),
            under=str(change.after.get(_UNDER.get(change.noun, ""), "")),
            id=change.id,
            status=str(change.after["status"]) if change.noun in _FOLLOWED else "",
        )
        for record in records
        for change in record.changed
        if change.noun in _PARTIES
        and (change.noun in _FOLLOWED or change.after["seq"] == record.seq)
        for party in _parties(change)
    ]


def _parties(change: Change) -> Iterable[str]:
    parties = [str(change.after[name]) for name in _PARTIES[change.noun]]
    if change.noun in _STAFFS:
        parties.append(PLATFORM)
    return dict.fromkeys(parties)
