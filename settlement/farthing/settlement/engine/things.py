"""The things the engine keeps, each a frozen value with a document form.

Boundary: shape only. A record holds the whole new document of every thing it changes, so that
replaying a record needs no decision. Source: spec/journal.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Self, cast

from farthing.protocol.canonical import Json

__all__ = ["Agreement", "Charge", "Dispute", "Hold", "Key", "Listing", "Principal", "Thing"]

JsonObject = dict[str, Json]


class Thing:
    """Document form by naming convention: `*_units` are integer texts, the rest as they are.

    Mappings hold quantities, as integer texts.
    """

    __slots__ = ()

    def document(self) -> JsonObject:
        """The thing as it stands in a record."""
        document: JsonObject = {}
        for name in _names(type(self)):
            value = getattr(self, name)
            if name.endswith("_units"):
                document[name] = str(value)
            elif isinstance(value, tuple):
                document[name] = list(value)
            elif isinstance(value, Mapping):
                document[name] = {key: str(quantity) for key, quantity in value.items()}
            else:
                document[name] = value
        return document

    @classmethod
    def from_document(cls, document: Mapping[str, Json]) -> Self:
        """The thing that `document` wrote."""
        members: dict[str, object] = {}
        for name, value in document.items():
            if name.endswith("_units"):
                members[name] = int(cast("str", value))
            elif isinstance(value, list):
                members[name] = tuple(value)
            elif isinstance(value, dict) and name != "jwk":
                members[name] = {key: int(cast("str", quantity)) for key, quantity in value.items()}
            else:
                members[name] = value
        return cls(**members)


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal(Thing):
    """An organisation (its own organisation), an agent (its operator's) or platform staff."""

    principal_id: str
    organisation_id: str
    role: str
    status: str
    frozen_by: tuple[str, ...] = ()
    name_sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key(Thing):
    """A public key and its history: `until_us` 0 while it is in force."""

    thumbprint: str
    principal_id: str
    jwk: Mapping[str, str]
    status: str
    since_us: int
    until_us: int = 0
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing(Thing):
    """The head of a listing: the newest version and the documents it names."""

    listing_id: str
    vendor_id: str
    version: int
    state: str
    asset: str
    primary_tag: str
    tags: tuple[str, ...]
    listing_sha256: str
    rate_card_sha256: str
    terms_sha256: str
    output_schema_sha256: str
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement(Thing):
    """What a buyer and a vendor agreed, bound to exact documents."""

    agreement_id: str
    status: str
    buyer_id: str
    operator_id: str
    vendor_id: str
    listing_id: str
    listing_version: int
    listing_sha256: str
    rate_card_sha256: str
    terms_sha256: str
    output_schema_sha256: str
    tags: tuple[str, ...]
    asset: str
    fee_ppm: int
    delivery_deadline_s: int
    dispute_window_s: int
    evidence_window_s: int
    accepted_at_us: int
    quote_sha256: str
    acceptance_sha256: str
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold(Thing):
    """Money set aside. `position` is the rating position its capture is rated from."""

    hold_id: str
    agreement_id: str
    buyer_id: str
    operator_id: str
    vendor_id: str
    asset: str
    amount_units: int
    status: str
    position: Mapping[str, int]
    workload: Mapping[str, int]
    args_sha256: str
    grant_id: str
    day: str
    expires_at_us: int
    charge_id: str = ""
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge(Thing):
    """What was captured of a hold, and where the money stands.

    `trail_seqs` are the records that changed it after the capture, `seq`.
    """

    charge_id: str
    hold_id: str
    agreement_id: str
    buyer_id: str
    operator_id: str
    vendor_id: str
    asset: str
    rate_card_sha256: str
    amount_units: int
    fee_units: int
    released_units: int
    refunded_units: int = 0
    fee_returned_units: int = 0
    status: str
    position: Mapping[str, int]
    usage: Mapping[str, int]
    result_sha256: str
    captured_at_us: int
    window_closes_at_us: int
    dispute_id: str = ""
    seq: int
    trail_seqs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispute(Thing):
    """A dispute: what is held meanwhile, and the ruling once there is one."""

    dispute_id: str
    charge_id: str
    filed_by: str
    operator_id: str
    buyer_id: str
    vendor_id: str
    reason: str
    status: str
    asset: str
    held_net_units: int
    held_fee_units: int
    evidence_due_at_us: int = 0
    outcome: str = ""
    rule_id: str = ""
    credit_units: int = 0
    seq: int
    ruled_seq: int = 0


def _names(kind: type[Thing]) -> tuple[str, ...]:
    names = _NAMES.get(kind)
    if names is None:
        names = _NAMES[kind] = tuple(each.name for each in fields(kind))  # type: ignore[arg-type]
    return names


# `dataclasses.fields` walks the class at every call; a capture asks for them three times.
_NAMES: dict[type[Thing], tuple[str, ...]] = {}
