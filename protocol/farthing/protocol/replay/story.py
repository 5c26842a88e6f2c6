"""What has been proven of a charge so far, while its records are replayed one after another.

Boundary: a value that others fill in; no checks of its own but that a thing is there.
"""

from dataclasses import dataclass, field

from farthing.protocol.contracts import QuoteDocument
from farthing.protocol.errors import Unverified
from farthing.protocol.keys import PublicKey
from farthing.protocol.ledger import Transfer
from farthing.protocol.listing import Listing
from farthing.protocol.rating import RateCard
from farthing.protocol.records import Record
from farthing.protocol.replay.keys import KeyHistory
from farthing.protocol.replay.reading import JsonObject
from farthing.protocol.terms import Terms

__all__ = ["Offer", "Story"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What the vendor published, and the documents its listing names."""

    listing: Listing
    card: RateCard
    terms: Terms
    output_schema_sha256: str


@dataclass(slots=True, kw_only=True)
class Story:
    """The things of one charge, as the records replayed so far leave them.

    The things of the engine stay documents: only what is checked is read. `hold` is what the charge
    was paid from; where that is a session, the charge itself, for which all that it bills was set
    aside. `payer` is the key of the session's vouchers, `report` the record that made its charge.
    `moved` are all transfers; `proved` says in sentences what holds.
    """

    quote_key: PublicKey
    keys: KeyHistory = field(default_factory=KeyHistory)
    offer: Offer | None = None
    quote: QuoteDocument | None = None
    agreement: JsonObject | None = None
    hold: JsonObject | None = None
    session: JsonObject | None = None
    payer: PublicKey | None = None
    report: Record | None = None
    charge: JsonObject | None = None
    dispute: JsonObject | None = None
    moved: list[Transfer] = field(default_factory=list)
    proved: list[str] = field(default_factory=list)

    def the_offer(self) -> Offer:
        """The publication, which must have come before."""
        if self.offer is None:
            raise Unverified("the record of the publication is missing")
        return self.offer

    def the_agreement(self) -> JsonObject:
        """The agreement, which must have come before."""
        return _there(self.agreement, "agreement")

    def the_hold(self) -> JsonObject:
        """The hold, which must have come before."""
        return _there(self.hold, "hold")

    def the_session(self) -> JsonObject:
        """The session, which must have been opened before."""
        return _there(self.session, "session")

    def the_charge(self) -> JsonObject:
        """The charge, which must have come before."""
        return _there(self.charge, "capture")

    def the_dispute(self) -> JsonObject:
        """The dispute, which must have come before."""
        return _there(self.dispute, "dispute")


def _there(thing: JsonObject | None, what: str) -> JsonObject:
    if thing is None:
        raise Unverified(f"the record of the {what} is missing")
    return thing
