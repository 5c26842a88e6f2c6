"""The things the engine keeps, each a frozen value with a document form.

Boundary: shape only. A record holds the whole new document of every thing it changes, so that
replaying a record needs no decision. Source: spec/journal.md.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final, NamedTuple, Self, get_origin

import msgspec

from farthing.protocol.canonical import Json

__all__ = [
    "Agreement",
    "Allowance",
    "Charge",
    "Closure",
    "Dispute",
    "Drawn",
    "Grace",
    "Hold",
    "Key",
    "Limits",
    "Listing",
    "Lot",
    "Partner",
    "Payout",
    "Principal",
    "Session",
    "Tail",
    "Thing",
    "TopUp",
]

JsonObject = dict[str, Json]


class Thing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Document form by naming convention: `*_units` are integer texts, the rest as they are.

    Mappings hold quantities, as integer texts. What few things have, `_SPARSE`, is left out where
    there is none of it, so that a plain charge is written as if it were not known.
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
        for name in shape.sparse:
            value = getattr(self, name)
            if not value:
                del document[name]
            elif isinstance(value, tuple):
                document[name] = [
                    each.document() if isinstance(each, Thing) else each for each in value
                ]
            elif isinstance(value, Thing):
                document[name] = value.document()
        return document

    @classmethod
    def from_document(cls, document: Mapping[str, Json]) -> Self:
        """The thing that `document` wrote."""
        return msgspec.convert(document, cls, strict=False)


class Principal(Thing, frozen=True, kw_only=True):
    """An organisation (its own organisation), an agent (its operator's) or platform staff.

    `frozen_at_us` is since when it has been frozen by anybody.
    """

    principal_id: str
    organisation_id: str
    role: str
    status: str
    frozen_by: tuple[str, ...] = ()
    frozen_at_us: int = 0
    name_sha256: str = ""


class Key(Thing, frozen=True, kw_only=True):
    """A public key and its history: `until_us` 0 while it is in force.

    Without a `purpose` it may do all that its holder may.
    """

    thumbprint: str
    principal_id: str
    jwk: Mapping[str, str]
    status: str
    since_us: int
    until_us: int = 0
    seq: int
    purpose: str = ""


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


class Partner(Thing, frozen=True, kw_only=True):
    """Who brought a listing's or a vendor's trade, and its share of each charge in millionths."""

    partner_id: str
    ppm: int


class Drawn(Thing, frozen=True, kw_only=True):
    """What a hold sets aside of a credit lot, or a charge consumed of it. `kind` is its account."""

    lot_id: str
    kind: str
    amount_units: int


class Tail(Thing, frozen=True, kw_only=True):
    """The partner's share of a charge, and what of it was given back."""

    partner_id: str
    amount_units: int
    returned_units: int = 0

    @property
    def kept_units(self) -> int:
        """What of it stands."""
        return self.amount_units - self.returned_units


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
    partner: Partner | None = None

    @property
    def parties(self) -> tuple[str, str, str]:
        """Whose it is: the buyer, its operator, the vendor."""
        return self.buyer_id, self.operator_id, self.vendor_id


class Limits(Thing, frozen=True, kw_only=True):
    """The most of each meter that may be used, and who wants it so. `expires_at_us` 0 is never."""

    allowance_id: str
    per_day: Mapping[str, int]
    in_all: Mapping[str, int]
    enforcement: str
    expires_at_us: int
    proposed_by: str
    proposed_at_us: int
    approved_by: str = ""
    approved_at_us: int = 0


class Allowance(Thing, frozen=True, kw_only=True):
    """What may be used under an agreement: the limits in force, those proposed, what counts.

    `used_today` is of the UTC day `day`, `held` the workloads of open holds; both are counted while
    limits are in force. What was used in all is the agreement's position.
    """

    agreement_id: str
    buyer_id: str
    operator_id: str
    vendor_id: str
    day: str = ""
    used_today: Mapping[str, int] = {}
    held: Mapping[str, int] = {}
    limits: Limits | None = None
    proposed: Limits | None = None


class Hold(Thing, frozen=True, kw_only=True):
    """Money set aside. `position` is the rating position its capture is rated from.

    One that pays `on_answer` is for a call that the platform makes, and is captured by it alone.
    """

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
    drawn: tuple[Drawn, ...] = ()
    on_answer: bool = False


class Session(Thing, frozen=True, kw_only=True):
    """Money set aside for many calls. What is left of it, `drawn` included, is pending.

    `payer_thumbprint` is the key whose vouchers it is spent by; `top` and `seen` are the window of
    the calls' numbers (`protocol.sequences`); `voucher_seq` and `max_cum_units` the highest of all
    vouchers seen. `counted` is what of its cap counts against the grant, by UTC day.
    """

    session_id: str
    agreement_id: str
    buyer_id: str
    operator_id: str
    vendor_id: str
    asset: str
    status: str
    cap_units: int
    per_call_units: int
    low_water_units: int
    unsigned_units: int
    final_action: str
    spent_units: int = 0
    calls: int = 0
    rejected: int = 0
    top: int = 0
    seen: str = "0"
    voucher_seq: int = 0
    max_cum_units: int = 0
    rate_card_sha256: str
    payer_thumbprint: str
    grant_id: str
    counted: Mapping[str, int]
    opened_at_us: int
    expires_at_us: int
    ended_at_us: int = 0
    seq: int
    drawn: tuple[Drawn, ...] = ()

    @property
    def parties(self) -> tuple[str, str, str]:
        """Whose it is: the buyer, its operator, the vendor."""
        return self.buyer_id, self.operator_id, self.vendor_id

    @property
    def left_units(self) -> int:
        """What is still set aside."""
        return self.cap_units - self.spent_units

    @property
    def end_us(self) -> int:
        """When it was closed, or else expires; reports are taken for a while longer."""
        return self.ended_at_us or self.expires_at_us

    @property
    def is_live(self) -> bool:
        """Whether money is set aside for it."""
        return self.status in {"open", "closing"}


class Charge(Thing, frozen=True, kw_only=True):
    """What was captured of a hold or billed of a session, and where the money stands.

    A session's charge is of one batch; its `usage` is the sum of what was billed. `trail_seqs` are
    the records that changed it after the capture, `seq`; `corrected` the calls of which some usage
    was taken back.
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
    tail: Tail | None = None
    drawn: tuple[Drawn, ...] = ()
    session_id: str = ""
    corrected: tuple[int, ...] = ()


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
    held_partner_units: int = 0


class Lot(Thing, frozen=True, kw_only=True):
    """Credit of an operator's that is spent before its money, and ends. Spent is what is missing.

    `kind` is the account that it lies on: bought or given. `expires_at_us` 0 is never.
    """

    lot_id: str
    operator_id: str
    kind: str
    asset: str
    amount_units: int
    free_units: int
    held_units: int = 0
    expired_units: int = 0
    withdrawn_units: int = 0
    priority: int
    expires_at_us: int = 0
    created_at_us: int
    seq: int


class Grace(Thing, frozen=True, kw_only=True):
    """How far an operator's prepaid account may be below zero: the least of both policies."""

    account: str
    organisation_id: str
    asset: str
    granted_units: int
    chosen_units: int

    @property
    def units(self) -> int:
        """What is in force."""
        return min(self.granted_units, self.chosen_units)


class Closure(Thing, frozen=True, kw_only=True):
    """An account on which nothing new begins."""

    account: str
    seq: int


class TopUp(Thing, frozen=True, kw_only=True):
    """Money on its way in: `pending` until the processor says `posted`, `failed` or `expired`.

    `reversed_units` of what came have gone back.
    """

    top_up_id: str
    organisation_id: str
    asset: str
    amount_units: int
    status: str
    processor: str
    expires_at_us: int
    reference: str = ""
    event_id: str = ""
    reversed_units: int = 0
    seq: int


class Payout(Thing, frozen=True, kw_only=True):
    """Money on its way out: `requested`, `sent`, then `paid`, `failed` or `cancelled`.

    `reversed_units` of what left have come back.
    """

    payout_id: str
    organisation_id: str
    kind: str
    asset: str
    amount_units: int
    status: str
    processor: str
    destination: str
    sent_at_us: int = 0
    reference: str = ""
    event_id: str = ""
    reversed_units: int = 0
    seq: int


# Members that are left out of a document where they are empty.
_SPARSE: Final[Mapping[str, tuple[str, ...]]] = {
    "Agreement": ("partner",),
    "Allowance": ("limits", "proposed"),
    "Charge": ("tail", "drawn", "session_id", "corrected"),
    "Dispute": ("held_partner_units",),
    "Hold": ("drawn", "on_answer"),
    "Key": ("purpose",),
    "Lot": ("withdrawn_units",),
    "Payout": ("reversed_units", "sent_at_us"),
    "Principal": ("frozen_at_us",),
    "Session": ("ended_at_us", "drawn"),
    "TopUp": ("reversed_units",),
}


class _Shape(NamedTuple):
    """The members of a kind of thing that are not written as they are."""

    units: tuple[str, ...]
    quantities: tuple[str, ...]
    lists: tuple[str, ...]
    sparse: tuple[str, ...]


@cache
def _shape(kind: type[Thing]) -> _Shape:
    members = {each.name: each.type for each in msgspec.structs.fields(kind)}
    sparse = _SPARSE.get(kind.__name__, ())
    origins = {name: get_origin(annotation) for name, annotation in members.items()}
    return _Shape(
        units=tuple(name for name in members if name.endswith("_units")),
        quantities=tuple(
            name for name, annotation in members.items() if annotation == Mapping[str, int]
        ),
        lists=tuple(
            name for name, origin in origins.items() if origin is tuple and name not in sparse
        ),
        sparse=sparse,
    )
