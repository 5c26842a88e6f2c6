"""The things the engine keeps, each a frozen value with a document form.

Boundary: shape only. A record holds the whole new document of every thing it changes, so that
replaying a record needs no decision. Source: spec/journal.md.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple, Self, get_origin

import msgspec

from farthing.protocol.canonical import Json

__all__ = ["Agreement", "Charge", "Dispute", "Hold", "Key", "Listing", "Principal", "Thing"]

JsonObject = dict[str, Json]


class Thing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Document form by naming convention: `*_units` are integer texts, the rest as they are.

    Mappings hold quantities, as integer texts.
    """

    def document(self) -> JsonObject:
        """The thing as it stands in a record."""
        document: dict[str, Any] = msgspec.to_builtins(self)
        shape = _shape(type(self))
        for name in shape.units:
            document[name] = str(document[name])
        for name in shape.quantities:
            document[name] = {key: str(quantity) for key, quantity in document[name].items()}
        for name in shape.lists:
            document[name] = list(document[name])
        return document

    @classmethod
    def from_document(cls, document: Mapping[str, Json]) -> Self:
        """The thing that `document` wrote."""
        return msgspec.convert(document, cls, strict=False)


class Principal(Thing, frozen=True, kw_only=True):
    """An organisation (its own organisation), an agent (its operator's) or platform staff."""

    principal_id: str
    organisation_id: str
    role: str
    status: str
    frozen_by: tuple[str, ...] = ()
    name_sha256: str = ""


class Key(Thing, frozen=True, kw_only=True):
    """A public key and its history: `until_us` 0 while it is in force."""

    thumbprint: str
    principal_id: str
    jwk: Mapping[str, str]
    status: str
    since_us: int
    until_us: int = 0
    seq: int


class Listing(Thing, frozen=True, kw_only=True):
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


class Agreement(Thing, frozen=True, kw_only=True):
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


class Hold(Thing, frozen=True, kw_only=True):
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


class Charge(Thing, frozen=True, kw_only=True):
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


class Dispute(Thing, frozen=True, kw_only=True):
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


class _Shape(NamedTuple):
    """The members of a kind of thing that are not written as they are."""

    units: tuple[str, ...]
    quantities: tuple[str, ...]
    lists: tuple[str, ...]


@cache
def _shape(kind: type[Thing]) -> _Shape:
    members = {each.name: each.type for each in msgspec.structs.fields(kind)}
    origins = {name: get_origin(annotation) for name, annotation in members.items()}
    return _Shape(
        units=tuple(name for name in members if name.endswith("_units")),
        quantities=tuple(
            name for name, annotation in members.items() if annotation == Mapping[str, int]
        ),
        lists=tuple(name for name, origin in origins.items() if origin is tuple),
    )
