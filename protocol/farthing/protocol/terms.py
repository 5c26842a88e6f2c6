"""Standard terms as data: a closed set of clauses, each one sentence for people and typed params.

Boundary: reads, types and writes the document. The params bind; the sentences explain and never
decide anything. A clause that this module does not know is refused, since it might bind somebody.
Source: spec/terms.md.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

from farthing.protocol.canonical import Json, document_sha256
from farthing.protocol.disputes.case import Reason
from farthing.protocol.documents import SLUG, DocumentError, Fault, Fields, read_document
from farthing.protocol.times import DAY_US, SECOND_US

__all__ = [
    "TERMS_SCHEMA",
    "TERMS_SCHEMA_1",
    "TOLERANCE_PPM_MAX",
    "Automation",
    "Correction",
    "DataHandlingClause",
    "Delivery",
    "Dispute",
    "Ending",
    "Liability",
    "PriceBinding",
    "Refunds",
    "ServiceLevelClause",
    "Substitution",
    "Terms",
    "UsageClause",
    "parse_terms",
    "standard_terms",
    "terms_sha256",
]

TERMS_SCHEMA: Final = "farthing-terms/2"
TERMS_SCHEMA_1: Final = "farthing-terms/1"
"""The same without `usage`: no tolerance."""
TOLERANCE_PPM_MAX: Final = 100_000
_DAY_S: Final = DAY_US // SECOND_US
_VERSION_MAX: Final = 2**31 - 1
_WINDOW_S_MAX: Final = 3660 * _DAY_S
_SUMMARY_LENGTH_MAX: Final = 400
_LANGUAGE: Final = re.compile(r"[a-z]{2,3}(?:-[A-Za-z0-9]{2,8}){0,3}")

T = TypeVar("T")


class Semantics(StrEnum):
    """What binds."""

    ENUMERATED = "enumerated"
    """The typed params, and nothing else."""


class PriceMode(StrEnum):
    """How an agreement is bound to a price."""

    PINNED = "pinned"
    """To one version of one rate card, named by its digest, until the agreement ends."""


class DeliveredWhen(StrEnum):
    """What counts as delivered."""

    SCHEMA_VALID_SIGNED_DIGEST = "schema_valid_signed_digest"
    """A result that fits the output schema, whose digest the vendor has signed."""


class Remedy(StrEnum):
    """What a missed service level leads to."""

    NONE = "none"


class SubstitutionMode(StrEnum):
    """Whether the service behind an agreement may change."""

    NEW_VERSION_ONLY = "new_version_only"


class Undelivered(StrEnum):
    """What becomes of the money where nothing was delivered."""

    NOT_CHARGED = "not_charged"


class Attribution(StrEnum):
    """To whom the acts of an agent belong."""

    PRINCIPAL = "principal"


class StatedIn(StrEnum):
    """The document that states what is promised on data."""

    LISTING = "listing"


class LiabilityCap(StrEnum):
    """What limits a vendor's liability."""

    CHARGES_PAID = "charges_paid"


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceBinding:
    """The price does not move under an agreement."""

    summary: str
    mode: PriceMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How soon, and what counts: also how long money may be held for one delivery."""

    summary: str
    deadline_s: int
    delivered_when: DeliveredWhen


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLevelClause:
    """Whether the figures of the listing carry a remedy. `none` is said, never implied."""

    summary: str
    remedy: Remedy


@dataclass(frozen=True, slots=True, kw_only=True)
class Substitution:
    """What happens when the vendor changes the service."""

    summary: str
    mode: SubstitutionMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Refunds:
    """Money that goes back without a dispute."""

    summary: str
    undelivered: Undelivered
    vendor_may_refund: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispute:
    """Until when a charge can be disputed, how long evidence may take, what is decided by rule."""

    summary: str
    window_s: int
    evidence_window_s: int
    tier1: tuple[Reason, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """How long a buyer whose agent accepted in error may take the acceptance back."""

    summary: str
    window_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How either side ends the agreement."""

    summary: str
    notice_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Automation:
    """Both sides act through software; whose acts they are."""

    summary: str
    acts_attributed_to: Attribution


@dataclass(frozen=True, slots=True, kw_only=True)
class DataHandlingClause:
    """Where the promises on data stand; the agreement names that document by digest."""

    summary: str
    stated_in: StatedIn


@dataclass(frozen=True, slots=True, kw_only=True)
class Liability:
    """The cap: what the buyer paid under the agreement in the window before the claim."""

    summary: str
    cap: LiabilityCap
    window_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageClause:
    """How far apart, in millionths of the larger, two countings may be that are called equal."""

    summary: str = ""
    tolerance_ppm: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """One version of a terms document, as `parse_terms` read it."""

    terms_id: str
    version: int
    language: str
    semantics: Semantics
    price_binding: PriceBinding
    delivery: Delivery
    service_level: ServiceLevelClause
    substitution: Substitution
    refunds: Refunds
    dispute: Dispute
    correction: Correction
    ending: Ending
    automation: Automation
    data_handling: DataHandlingClause
    liability: Liability
    terms_sha256: str
    usage: UsageClause = UsageClause()


def parse_terms(document: Json) -> Terms:
    """Read a terms document strictly. Each clause stands once; none is left out or unknown.

    Raises:
        DocumentError: The first fault, with its path.
        InvalidJson: A member that no signed document may hold.
    """
    fields = _opened(document)
    has_usage = fields.value("schema") == TERMS_SCHEMA
    terms_id = fields.text("terms_id", length_max=64, form=SLUG)
    version = fields.integer("version", at_least=1, at_most=_VERSION_MAX)
    language = fields.text("language", length_max=40, form=_LANGUAGE)
    semantics = fields.member("semantics", Semantics)
    clauses = fields.fields("clauses")
    terms = Terms(
        terms_id=terms_id,
        version=version,
        language=language,
        semantics=semantics,
        price_binding=_clause(clauses, "price_binding", _price_binding),
        delivery=_clause(clauses, "delivery", _delivery),
        service_level=_clause(clauses, "service_level", _service_level),
        substitution=_clause(clauses, "substitution", _substitution),
        refunds=_clause(clauses, "refunds", _refunds),
        dispute=_clause(clauses, "dispute", _dispute),
        correction=_clause(clauses, "correction", _correction),
        ending=_clause(clauses, "ending", _ending),
        automation=_clause(clauses, "automation", _automation),
        data_handling=_clause(clauses, "data_handling", _data_handling),
        liability=_clause(clauses, "liability", _liability),
        terms_sha256=terms_sha256(document),
        usage=_clause(clauses, "usage", _usage) if has_usage else UsageClause(),
    )
    clauses.end()
    fields.end()
    return terms


def terms_sha256(document: Json) -> str:
    """The content hash that listings, quotes and acceptances name."""
    return document_sha256(document)


def standard_terms(
    *,
    terms_id: str = "farthing-standard",
    version: int = 1,
    delivery_deadline_s: int = 60,
    dispute_window_s: int = 7 * _DAY_S,
    evidence_window_s: int = _DAY_S,
    correction_window_s: int = 600,
    usage_tolerance_ppm: int = 0,
) -> dict[str, Json]:
    """The standard terms, in English; only windows and tolerance vary.

    Without a tolerance they are of schema 1, as they were before there was one.
    """
    params: dict[str, dict[str, Json]] = {
        "price_binding": {"mode": PriceMode.PINNED.value},
        "delivery": {
            "deadline_s": delivery_deadline_s,
            "delivered_when": DeliveredWhen.SCHEMA_VALID_SIGNED_DIGEST.value,
        },
        "service_level": {"remedy": Remedy.NONE.value},
        "substitution": {"mode": SubstitutionMode.NEW_VERSION_ONLY.value},
        "refunds": {"undelivered": Undelivered.NOT_CHARGED.value, "vendor_may_refund": True},
        "dispute": {
            "window_s": dispute_window_s,
            "evidence_window_s": evidence_window_s,
            "tier1": [reason.value for reason in Reason],
        },
        "correction": {"window_s": correction_window_s},
        "ending": {"notice_s": 0},
        "automation": {"acts_attributed_to": Attribution.PRINCIPAL.value},
        "data_handling": {"stated_in": StatedIn.LISTING.value},
        "liability": {"cap": LiabilityCap.CHARGES_PAID.value, "window_s": 365 * _DAY_S},
    }
    if usage_tolerance_ppm:
        params["usage"] = {"tolerance_ppm": usage_tolerance_ppm}
    return {
        "schema": TERMS_SCHEMA if usage_tolerance_ppm else TERMS_SCHEMA_1,
        "terms_id": terms_id,
        "version": version,
        "language": "en",
        "semantics": Semantics.ENUMERATED.value,
        "clauses": {
            name: {"summary": _STANDARD_SUMMARIES[name], "params": each}
            for name, each in params.items()
        },
    }


_STANDARD_SUMMARIES: Final = {
    "price_binding": "The price is the rate card named by its digest, and does not change while "
    "the agreement lasts.",
    "delivery": "The vendor delivers within the deadline; a result counts once it fits the output "
    "schema and the vendor has signed its digest.",
    "service_level": "Latency and availability are the vendor's own figures; missing them carries "
    "no automatic credit.",
    "substitution": "A changed service is a new listing version and needs a new agreement.",
    "refunds": "What was not delivered is not charged; the vendor may refund a charge unasked.",
    "dispute": "Within the window a charge can be disputed; the listed grounds are decided by "
    "rule, and silence at the evidence deadline counts against the side that owed the evidence.",
    "correction": "Until the window ends, a buyer whose agent accepted in error may end the "
    "agreement; what was delivered by then stays charged.",
    "ending": "Either side may end the agreement with this notice; charges already made stand.",
    "automation": "Both sides act through software; its acts are those of the principal it is "
    "registered for.",
    "data_handling": "Regions, retention, training use and subprocessors are as the listing "
    "version states them.",
    "liability": "The vendor's liability ends at what the buyer paid under this agreement in the "
    "window before the claim.",
    "usage": "Two countings of the same usage that are no further apart than the tolerance are "
    "reconciled; it changes no charge.",
}


def _opened(document: Json) -> Fields:
    try:
        return read_document(document, TERMS_SCHEMA)
    except DocumentError as error:
        if error.path != "schema":
            raise
        return read_document(document, TERMS_SCHEMA_1)


def _clause(clauses: Fields, name: str, read: Callable[[str, Fields], T]) -> T:
    fields = clauses.fields(name)
    summary = fields.text("summary", length_max=_SUMMARY_LENGTH_MAX)
    params = fields.fields("params")
    clause = read(summary, params)
    params.end()
    fields.end()
    return clause


def _price_binding(summary: str, params: Fields) -> PriceBinding:
    return PriceBinding(summary=summary, mode=params.member("mode", PriceMode))


def _delivery(summary: str, params: Fields) -> Delivery:
    return Delivery(
        summary=summary,
        deadline_s=_window_s(params, "deadline_s", at_least=1),
        delivered_when=params.member("delivered_when", DeliveredWhen),
    )


def _service_level(summary: str, params: Fields) -> ServiceLevelClause:
    return ServiceLevelClause(summary=summary, remedy=params.member("remedy", Remedy))


def _substitution(summary: str, params: Fields) -> Substitution:
    return Substitution(summary=summary, mode=params.member("mode", SubstitutionMode))


def _refunds(summary: str, params: Fields) -> Refunds:
    return Refunds(
        summary=summary,
        undelivered=params.member("undelivered", Undelivered),
        vendor_may_refund=params.flag("vendor_may_refund"),
    )


def _dispute(summary: str, params: Fields) -> Dispute:
    words = params.texts("tier1", count_min=1, count_max=len(Reason), length_max=40)
    known = {reason.value for reason in Reason}
    for index, word in enumerate(words):
        if word not in known:
            raise DocumentError(f"{params.at('tier1')}.{index}", Fault.UNKNOWN_VALUE)
    return Dispute(
        summary=summary,
        window_s=_window_s(params, "window_s", at_least=1),
        evidence_window_s=_window_s(params, "evidence_window_s", at_least=1),
        tier1=tuple(Reason(word) for word in words),
    )


def _correction(summary: str, params: Fields) -> Correction:
    return Correction(summary=summary, window_s=_window_s(params, "window_s", at_least=0))


def _ending(summary: str, params: Fields) -> Ending:
    return Ending(summary=summary, notice_s=_window_s(params, "notice_s", at_least=0))


def _automation(summary: str, params: Fields) -> Automation:
    return Automation(
        summary=summary, acts_attributed_to=params.member("acts_attributed_to", Attribution)
    )


def _data_handling(summary: str, params: Fields) -> DataHandlingClause:
    return DataHandlingClause(summary=summary, stated_in=params.member("stated_in", StatedIn))


def _liability(summary: str, params: Fields) -> Liability:
    return Liability(
        summary=summary,
        cap=params.member("cap", LiabilityCap),
        window_s=_window_s(params, "window_s", at_least=1),
    )


def _usage(summary: str, params: Fields) -> UsageClause:
    ppm = params.integer("tolerance_ppm", at_least=0, at_most=TOLERANCE_PPM_MAX)
    return UsageClause(summary=summary, tolerance_ppm=ppm)


def _window_s(params: Fields, name: str, *, at_least: int) -> int:
    return params.integer(name, at_least=at_least, at_most=_WINDOW_S_MAX)
