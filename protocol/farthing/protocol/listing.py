"""The listing: one immutable version of what a vendor offers, complete for a machine.

Boundary: reads the document strictly and gives it types. Whether its prose, tags and prices hold
together is the publish report's question (`farthing.catalog.lint`). Source: spec/listing.md.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from farthing.protocol.canonical import Json, document_sha256
from farthing.protocol.documents import SLUG, Fields, read_document
from farthing.protocol.money import PPM

__all__ = [
    "LISTING_SCHEMA",
    "ClaimKind",
    "DataHandling",
    "Example",
    "Interface",
    "InterfaceKind",
    "Limits",
    "Listing",
    "Meter",
    "ServiceLevel",
    "listing_sha256",
    "parse_listing",
]

LISTING_SCHEMA: Final = "farthing-listing/1"
_VERSION_MAX: Final = 2**31 - 1
_LATENCY_MS_MAX: Final = 86_400_000
_TAG: Final = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*){0,4}")
_LANGUAGE: Final = re.compile(r"[a-z]{2,3}(?:-[A-Za-z0-9]{2,8}){0,3}")
_REGION: Final = re.compile(r"[a-z]{2}")
_TOOL: Final = re.compile(r"[A-Za-z0-9_./-]{1,128}")
# No user, no fragment, no blank: what is signed is what is called.
_URL: Final = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]+(?:[/?][!-\"$-?A-~]*)?")


class InterfaceKind(StrEnum):
    """How the service is called: a tool of an MCP server, or a POST to a URL."""

    MCP = "mcp"
    HTTP = "http"


class ClaimKind(StrEnum):
    """Where a figure comes from. Measured figures are written by the market, never by a vendor."""

    DECLARED = "declared"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """Where the service is called: one tool of one server, or without a `tool` one URL."""

    kind: InterfaceKind
    url: str
    tool: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One call that is valid against both schemas."""

    input: Any
    output: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """What is counted, in which unit, and how the vendor measures it."""

    meter: str
    unit: str
    measured_from: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLevel:
    """The vendor's figures for one call, and what kind of claim they are."""

    latency_ms_p50: int
    latency_ms_p95: int
    availability_ppm: int
    claim_kind: ClaimKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one call and one buyer may ask at most."""

    input_bytes_max: int
    concurrency_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DataHandling:
    """Where content is processed, how long it is kept, and who else sees it."""

    regions: tuple[str, ...]
    retention_days: int
    training_use: bool
    subprocessors: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """One version of a listing, as `parse_listing` read it."""

    listing_id: str
    vendor_id: str
    version: int
    name: str
    summary: str
    primary_tag: str
    tags: tuple[str, ...]
    domains: tuple[str, ...]
    example_requests: tuple[str, ...]
    not_for: tuple[str, ...]
    languages: tuple[str, ...]
    interface: Interface
    input_schema: Mapping[str, Any]
    output_schema: Mapping[str, Any]
    example: Example
    meters: tuple[Meter, ...]
    rate_card_sha256: str
    terms_sha256: str
    sla: ServiceLevel
    limits: Limits
    data_handling: DataHandling
    idempotent: bool
    side_effects: bool
    documentation_url: str
    listing_sha256: str

    def __hash__(self) -> int:
        # The generated hash would fail on the schemas; equal digests are equal documents.
        return hash(self.listing_sha256)


def parse_listing(document: Json) -> Listing:
    """Read a listing strictly.

    Raises:
        DocumentError: The first fault, with its path.
        InvalidJson: A member that no signed document may hold, such as a float.
    """
    fields = read_document(document, LISTING_SCHEMA)
    listing = Listing(
        listing_id=fields.typeid("listing_id", "lst"),
        vendor_id=fields.typeid("vendor_id", "org"),
        version=fields.integer("version", at_least=1, at_most=_VERSION_MAX),
        name=fields.text("name", length_max=80),
        summary=fields.text("summary", length_max=280),
        primary_tag=fields.text("primary_tag", length_max=80, form=_TAG),
        tags=fields.texts("tags", count_min=1, count_max=5, length_max=80, form=_TAG),
        domains=fields.texts("domains", count_min=0, count_max=3, length_max=40, form=SLUG),
        example_requests=fields.texts(
            "example_requests", count_min=2, count_max=10, length_max=200
        ),
        not_for=fields.texts("not_for", count_min=0, count_max=5, length_max=200),
        languages=fields.texts(
            "languages", count_min=0, count_max=100, length_max=40, form=_LANGUAGE
        ),
        interface=_interface(fields.fields("interface")),
        input_schema=fields.mapping("input_schema"),
        output_schema=fields.mapping("output_schema"),
        example=_example(fields.fields("example")),
        meters=tuple(_meter(each) for each in fields.each("meters", count_min=1, count_max=10)),
        rate_card_sha256=fields.digest("rate_card_sha256"),
        terms_sha256=fields.digest("terms_sha256"),
        sla=_sla(fields.fields("sla")),
        limits=_limits(fields.fields("limits")),
        data_handling=_data_handling(fields.fields("data_handling")),
        idempotent=fields.flag("idempotent"),
        side_effects=fields.flag("side_effects"),
        documentation_url=_documentation_url(fields),
        listing_sha256=listing_sha256(document),
    )
    fields.end()
    return listing


def listing_sha256(document: Json) -> str:
    """The content hash that quotes, agreements and search results name."""
    return document_sha256(document)


def _interface(fields: Fields) -> Interface:
    kind = fields.member("kind", InterfaceKind)
    interface = Interface(
        kind=kind,
        url=fields.text("url", length_max=2048, form=_URL),
        tool=fields.text("tool", length_max=128, form=_TOOL) if kind is InterfaceKind.MCP else "",
    )
    fields.end()
    return interface


def _example(fields: Fields) -> Example:
    example = Example(input=fields.value("input"), output=fields.value("output"))
    fields.end()
    return example


def _meter(fields: Fields) -> Meter:
    meter = Meter(
        meter=fields.text("meter", length_max=64, form=SLUG),
        unit=fields.text("unit", length_max=64),
        measured_from=fields.text("from", length_max=200),
    )
    fields.end()
    return meter


def _sla(fields: Fields) -> ServiceLevel:
    sla = ServiceLevel(
        latency_ms_p50=fields.integer("latency_ms_p50", at_least=1, at_most=_LATENCY_MS_MAX),
        latency_ms_p95=fields.integer("latency_ms_p95", at_least=1, at_most=_LATENCY_MS_MAX),
        availability_ppm=fields.integer("availability_ppm", at_least=0, at_most=PPM),
        claim_kind=fields.member("claim_kind", ClaimKind),
    )
    fields.end()
    return sla


def _limits(fields: Fields) -> Limits:
    limits = Limits(
        input_bytes_max=fields.integer("input_bytes_max", at_least=1, at_most=2**40),
        concurrency_max=fields.integer("concurrency_max", at_least=1, at_most=100_000),
    )
    fields.end()
    return limits


def _data_handling(fields: Fields) -> DataHandling:
    handling = DataHandling(
        regions=fields.texts("regions", count_min=1, count_max=50, length_max=2, form=_REGION),
        retention_days=fields.integer("retention_days", at_least=0, at_most=36_500),
        training_use=fields.flag("training_use"),
        subprocessors=fields.texts("subprocessors", count_min=0, count_max=20, length_max=80),
    )
    fields.end()
    return handling


def _documentation_url(fields: Fields) -> str:
    if not fields.has("documentation"):
        return ""
    documentation = fields.fields("documentation")
    url = documentation.text("url", length_max=2048, form=_URL) if documentation.has("url") else ""
    documentation.end()
    return url
