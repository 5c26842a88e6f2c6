"""The publish report: everything that is wrong with a listing, its rate card and its terms.

Boundary: three documents in, findings out. Nothing is corrected and nothing is published here; a
publication whose report has an error is refused with the whole report. Source: spec/listing.md.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from typing import Final
from urllib.parse import urlsplit

from jsonschema import Draft202012Validator

from farthing.catalog.prose import (
    instruction_in,
    mixed_script_in,
    same_words,
    stuffing_in,
    url_in,
)
from farthing.catalog.vocabulary import Via, Vocabulary
from farthing.protocol.canonical import InvalidJson, Json, canonical_bytes
from farthing.protocol.documents import DocumentError, misread, unseen
from farthing.protocol.listing import Listing, parse_listing
from farthing.protocol.messages.listings import Finding, LintReport
from farthing.protocol.rating import CardError, CardFault, RateCard, parse_card
from farthing.protocol.schemas import check_schema, violation
from farthing.protocol.terms import Terms, parse_terms

__all__ = ["DOCUMENT_BYTES_MAX", "FINDINGS_MAX", "LintCode", "LintSeverity", "lint"]

DOCUMENT_BYTES_MAX: Final = 65_536
"""How large each of the three documents may be in canonical form."""
FINDINGS_MAX: Final = 50
_DISPUTE_WINDOW_S_MIN: Final = 60
# Anybody may ask for a report, and a vendor writes both.
_EXAMPLE_STEPS_MAX: Final = 10_000
_DISPUTE_WINDOW_S_MAX: Final = 400 * 86_400
_DELIVERY_DEADLINE_S_MAX: Final = 30 * 86_400
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


class LintSeverity(StrEnum):
    """Whether a finding stands in the way of publication."""

    ERROR = "error"
    WARNING = "warning"


class LintCode(StrEnum):
    """Every finding there is, in the order in which they are reported."""

    DOCUMENT_INVALID = "document_invalid"
    DOCUMENT_TOO_LARGE = "document_too_large"
    LISTING_SCHEMA = "listing_schema"
    RATE_CARD_INVALID = "rate_card_invalid"
    TERMS_INVALID = "terms_invalid"
    ASSET_UNKNOWN = "asset_unknown"
    RATE_CARD_HASH = "rate_card_hash"
    TERMS_HASH = "terms_hash"
    TEXT_UNSEEN = "text_unseen"
    TEXT_MIXED_SCRIPT = "text_mixed_script"
    NAME_MISREAD = "name_misread"
    TEXT_INSTRUCTION = "text_instruction"
    TEXT_URL = "text_url"
    TEXT_STUFFED = "text_stuffed"
    EXAMPLE_REQUEST_DUPLICATE = "example_request_duplicate"
    TAG_UNKNOWN = "tag_unknown"
    TAG_NOT_LEAF = "tag_not_leaf"
    TAG_DEPRECATED = "tag_deprecated"
    PRIMARY_TAG_APART = "primary_tag_apart"
    DOMAIN_UNKNOWN = "domain_unknown"
    METER_DUPLICATE = "meter_duplicate"
    METER_UNPRICED = "meter_unpriced"
    METER_UNDECLARED = "meter_undeclared"
    METER_NOT_STANDARD = "meter_not_standard"
    PRICE_RISING = "price_rising"
    SCHEMA_NOT_OBJECT = "schema_not_object"
    SCHEMA_UNSUPPORTED = "schema_unsupported"
    EXAMPLE_INPUT = "example_input"
    EXAMPLE_OUTPUT = "example_output"
    SLA_ORDER = "sla_order"
    SLA_BEYOND_DEADLINE = "sla_beyond_deadline"
    TERMS_WINDOW = "terms_window"
    TERMS_UNKEPT = "terms_unkept"
    INTERFACE_INSECURE = "interface_insecure"

    @property
    def severity(self) -> LintSeverity:
        """`warning` for what still works but should be changed."""
        return LintSeverity.WARNING if self in _WARNINGS else LintSeverity.ERROR


_WARNINGS: Final = frozenset({LintCode.TAG_DEPRECATED, LintCode.METER_NOT_STANDARD})
_ORDER: Final = {code: place for place, code in enumerate(LintCode)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trio:
    """The three documents, read: what a check across them needs."""

    listing: Listing
    card: RateCard
    terms: Terms
    vocabulary: Vocabulary


Check = Callable[[_Trio], Iterator[Finding]]


def lint(
    listing: Mapping[str, Json],
    rate_card: Mapping[str, Json],
    terms: Mapping[str, Json],
    *,
    vocabulary: Vocabulary,
    tool_names: Collection[str],
) -> LintReport:
    """Report on a publication.

    Args:
        listing: The document as received, like the two below.
        rate_card: The prices it names by hash.
        terms: The terms it names by hash.
        vocabulary: The vocabulary to publish against.
        tool_names: The market's own tools, which no listing may name in its prose.

    Returns:
        At most `FINDINGS_MAX` findings in the order of `LintCode`. A report that is publishable
        holds for three documents that parse and name each other by hash.
    """
    documents = {"listing": listing, "rate_card": rate_card, "terms": terms}
    findings = [finding for name in documents for finding in _alphabet(name, documents[name])]
    if not findings:
        findings.extend(_schema(listing))
        findings.extend(_prose(documents, tool_names))
        trio = _read(documents, vocabulary, findings)
        if trio is not None:
            findings.extend(finding for check in _CHECKS for finding in check(trio))
    findings.sort(key=lambda finding: (_ORDER[LintCode(finding.code)], finding.path))
    errors = any(finding.severity == LintSeverity.ERROR for finding in findings)
    return LintReport(publishable=not errors, findings=tuple(findings[:FINDINGS_MAX]))


def _finding(code: LintCode, path: str, message: str) -> Finding:
    return Finding(code=code.value, severity=code.severity.value, path=path, message=message)


def _alphabet(name: str, document: Mapping[str, Json]) -> Iterator[Finding]:
    try:
        size = len(canonical_bytes(dict(document)))
    except InvalidJson as error:
        says = f"Not JSON of the signed alphabet: {error.reason.value}."
        yield _finding(LintCode.DOCUMENT_INVALID, name, says)
        return
    if size > DOCUMENT_BYTES_MAX:
        says = f"{size} bytes are more than {DOCUMENT_BYTES_MAX}."
        yield _finding(LintCode.DOCUMENT_TOO_LARGE, name, says)


@lru_cache(maxsize=1)
def _listing_schema() -> Draft202012Validator:
    source = files("farthing.spec") / "schemas" / "listing.schema.json"
    return Draft202012Validator(json.loads(source.read_bytes()))


def _schema(listing: Mapping[str, Json]) -> Iterator[Finding]:
    lacking: set[str] = set()
    for count, error in enumerate(_listing_schema().iter_errors(dict(listing))):
        if count == FINDINGS_MAX:
            return
        path = ".".join(["listing", *(str(step) for step in error.absolute_path)])
        if error.validator == "required":
            # The validator says it once for each that is missing, and not of which.
            if path in lacking:
                continue
            lacking.add(path)
            missing = [name for name in error.validator_value if name not in error.instance]
            says = f"Lacks {', '.join(missing)}."
        else:
            rule = json.dumps(error.validator_value, sort_keys=True)[:80]
            says = f"Does not keep the published schema: {error.validator} {rule}."
        yield _finding(LintCode.LISTING_SCHEMA, path, says)


def _read(
    documents: Mapping[str, Mapping[str, Json]], vocabulary: Vocabulary, findings: list[Finding]
) -> _Trio | None:
    """The documents with their types; what cannot be read is added to the findings."""
    listing: Listing | None = None
    card: RateCard | None = None
    terms: Terms | None = None
    seen = {finding.path for finding in findings}
    try:
        listing = parse_listing(dict(documents["listing"]))
    except DocumentError as error:
        path = f"listing.{error.path}"
        # The schema and the search for unseen characters have said most of it already.
        if not _reported(path, seen):
            says = f"Cannot be read: {error.reason.value}."
            findings.append(_finding(LintCode.LISTING_SCHEMA, path, says))
    try:
        card = parse_card(dict(documents["rate_card"]))
    except CardError as error:
        unknown_asset = error.path == "asset" and error.reason is CardFault.UNKNOWN_VALUE
        code = LintCode.ASSET_UNKNOWN if unknown_asset else LintCode.RATE_CARD_INVALID
        says = f"Cannot be read: {error.reason.value}."
        findings.append(_finding(code, f"rate_card.{error.path}", says))
    try:
        terms = parse_terms(dict(documents["terms"]))
    except DocumentError as error:
        path = f"terms.{error.path}"
        if not _reported(path, seen):
            says = f"Cannot be read: {error.reason.value}."
            findings.append(_finding(LintCode.TERMS_INVALID, path, says))
    if listing is None or card is None or terms is None:
        return None
    return _Trio(listing=listing, card=card, terms=terms, vocabulary=vocabulary)


def _reported(path: str, seen: Collection[str]) -> bool:
    return any(path == each or path.startswith(f"{each}.") for each in seen)


# Prose. Every string is looked at for what nobody can see; sentences for what they try to do.


def _prose(
    documents: Mapping[str, Mapping[str, Json]], tool_names: Collection[str]
) -> Iterator[Finding]:
    for name, document in documents.items():
        for path, text in _strings(dict(document), name):
            character = unseen(text)
            if character:
                says = f"Holds U+{ord(character):04X}, which nobody can see."
                yield _finding(LintCode.TEXT_UNSEEN, path, says)
            if _is_prose(path):
                yield from _sentence(path, text, tool_names)
    requests = documents["listing"].get("example_requests")
    if isinstance(requests, list):
        first: dict[tuple[str, ...], int] = {}
        for index, request in enumerate(requests):
            words = same_words(request) if isinstance(request, str) else ()
            if words and first.setdefault(words, index) != index:
                path = f"listing.example_requests.{index}"
                says = f"Says the same as request {first[words]}."
                yield _finding(LintCode.EXAMPLE_REQUEST_DUPLICATE, path, says)


def _sentence(path: str, text: str, tool_names: Collection[str]) -> Iterator[Finding]:
    for code, found, says in (
        (LintCode.TEXT_MIXED_SCRIPT, mixed_script_in(text), "Mixes alphabets in one word"),
        (LintCode.TEXT_INSTRUCTION, instruction_in(text, tool_names), "Speaks to the agent"),
        (LintCode.TEXT_URL, url_in(text), "Holds a link; links have fields of their own"),
        (LintCode.TEXT_STUFFED, stuffing_in(text), "Repeats words for the search index"),
    ):
        if found:
            yield _finding(code, path, f"{says}: {found[:60]!r}.")


def _strings(value: Json, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _strings(each, f"{path}.{index}")
    elif isinstance(value, dict):
        for name in sorted(value):
            yield from _strings(value[name], f"{path}.{name}")


_PROSE_FIELDS: Final = (
    "listing.name", "listing.summary", "listing.example_requests", "listing.not_for",
    "listing.meters", "listing.data_handling.subprocessors", "terms.clauses",
)  # fmt: skip
_PROSE_MEMBERS: Final = frozenset({"$comment", "description", "title"})


def _is_prose(path: str) -> bool:
    if path.startswith(("listing.input_schema.", "listing.output_schema.")):
        return path.rpartition(".")[2] in _PROSE_MEMBERS
    return _reported(path, _PROSE_FIELDS)


# Checks across the documents.


def _name(trio: _Trio) -> Iterator[Finding]:
    if wanted := misread(trio.listing.name):
        yield _finding(LintCode.NAME_MISREAD, "listing.name", f"A name is {wanted}.")


def _hashes(trio: _Trio) -> Iterator[Finding]:
    if trio.listing.rate_card_sha256 != trio.card.card_sha256:
        says = f"The rate card sent along has {trio.card.card_sha256}."
        yield _finding(LintCode.RATE_CARD_HASH, "listing.rate_card_sha256", says)
    if trio.listing.terms_sha256 != trio.terms.terms_sha256:
        says = f"The terms sent along have {trio.terms.terms_sha256}."
        yield _finding(LintCode.TERMS_HASH, "listing.terms_sha256", says)


def _tags(trio: _Trio) -> Iterator[Finding]:
    for index, tag in enumerate(trio.listing.tags):
        path = f"listing.tags.{index}"
        resolution = trio.vocabulary.resolve(tag)
        present = ", ".join(resolution.paths)
        match resolution.via:
            case Via.LEAF:
                pass
            case Via.UNKNOWN:
                version = trio.vocabulary.version
                says = f"{tag!r} is not in vocabulary {version}."
                yield _finding(LintCode.TAG_UNKNOWN, path, says)
            case Via.BRANCH:
                leaves = ", ".join(trio.vocabulary.leaves_below(tag))
                says = f"{tag!r} is a branch; publish one of its leaves: {leaves[:160]}."
                yield _finding(LintCode.TAG_NOT_LEAF, path, says)
            case Via.DEPRECATED | Via.ALIAS:
                says = f"{tag!r} is now {present}."
                yield _finding(LintCode.TAG_DEPRECATED, path, says)
    if trio.listing.primary_tag not in trio.listing.tags:
        says = "The primary tag is not one of the tags."
        yield _finding(LintCode.PRIMARY_TAG_APART, "listing.primary_tag", says)
    for index, domain in enumerate(trio.listing.domains):
        if domain not in trio.vocabulary.domains:
            known = ", ".join(trio.vocabulary.domains)
            says = f"{domain!r} is none of {known}."
            yield _finding(LintCode.DOMAIN_UNKNOWN, f"listing.domains.{index}", says)


def _meters(trio: _Trio) -> Iterator[Finding]:
    priced = {dimension.meter for dimension in trio.card.dimensions}
    declared: set[str] = set()
    for index, meter in enumerate(trio.listing.meters):
        path = f"listing.meters.{index}"
        name = meter.meter
        if name in declared:
            says = f"Meter {name!r} is declared twice."
            yield _finding(LintCode.METER_DUPLICATE, path, says)
        declared.add(name)
        if name not in priced:
            says = f"The rate card has no price for meter {name!r}; a free meter costs 0."
            yield _finding(LintCode.METER_UNPRICED, path, says)
        if name not in trio.vocabulary.meters:
            says = f"{name!r} is no standard meter; buyers compare prices by standard meters."
            yield _finding(LintCode.METER_NOT_STANDARD, path, says)
    for index, dimension in enumerate(trio.card.dimensions):
        if dimension.meter not in declared:
            says = f"Prices meter {dimension.meter!r}, which the listing does not declare."
            yield _finding(LintCode.METER_UNDECLARED, f"rate_card.dimensions.{index}", says)


def _schemas(trio: _Trio) -> Iterator[Finding]:
    example = trio.listing.example
    for code, name, schema, instance in (
        (LintCode.EXAMPLE_INPUT, "input", trio.listing.input_schema, example.input),
        (LintCode.EXAMPLE_OUTPUT, "output", trio.listing.output_schema, example.output),
    ):
        path = f"listing.{name}_schema"
        if schema.get("type") != "object":
            says = "A tool takes and gives an object: the schema's type must be 'object'."
            yield _finding(LintCode.SCHEMA_NOT_OBJECT, path, says)
            continue
        unsound = check_schema(dict(schema))
        if unsound is not None:
            says = f"{unsound.keyword!r} is outside the subset that every side evaluates alike."
            place = f"{path}.{unsound.path}" if unsound.path else path
            yield _finding(LintCode.SCHEMA_UNSUPPORTED, place, says)
            continue
        broken = violation(schema, instance, steps_max=_EXAMPLE_STEPS_MAX)
        if broken is not None:
            place = f"listing.example.{name}" + (f".{broken.path}" if broken.path else "")
            yield _finding(code, place, f"Does not fit its schema: {broken.keyword!r}.")


def _promises(trio: _Trio) -> Iterator[Finding]:
    sla = trio.listing.sla
    if sla.latency_ms_p50 > sla.latency_ms_p95:
        says = f"The median, {sla.latency_ms_p50} ms, is above the 95th, {sla.latency_ms_p95} ms."
        yield _finding(LintCode.SLA_ORDER, "listing.sla.latency_ms_p50", says)
    deadline_s = trio.terms.delivery.deadline_s
    if sla.latency_ms_p95 > deadline_s * 1000:
        says = f"{sla.latency_ms_p95} ms are beyond the delivery deadline of {deadline_s} s."
        yield _finding(LintCode.SLA_BEYOND_DEADLINE, "listing.sla.latency_ms_p95", says)
    url = urlsplit(trio.listing.interface.url)
    if url.scheme != "https" and url.hostname not in _LOOPBACK:
        says = "Outside this machine the service must be called over https."
        yield _finding(LintCode.INTERFACE_INSECURE, "listing.interface.url", says)


def _windows(trio: _Trio) -> Iterator[Finding]:
    dispute, delivery = trio.terms.dispute, trio.terms.delivery
    for path, absurd, says in (
        (
            "dispute.params.window_s",
            not _DISPUTE_WINDOW_S_MIN <= dispute.window_s <= _DISPUTE_WINDOW_S_MAX,
            f"A dispute window is {_DISPUTE_WINDOW_S_MIN} to {_DISPUTE_WINDOW_S_MAX} s.",
        ),
        (
            "dispute.params.evidence_window_s",
            dispute.evidence_window_s > dispute.window_s,
            "Evidence may not take longer than the dispute window itself.",
        ),
        (
            "delivery.params.deadline_s",
            delivery.deadline_s > _DELIVERY_DEADLINE_S_MAX,
            f"A delivery may take {_DELIVERY_DEADLINE_S_MAX} s at most.",
        ),
        (
            "delivery.params.deadline_s",
            delivery.deadline_s > dispute.window_s,
            "The dispute window would close before the delivery is due.",
        ),
    ):
        if absurd:
            yield _finding(LintCode.TERMS_WINDOW, f"terms.clauses.{path}", says)


def _prices(trio: _Trio) -> Iterator[Finding]:
    """A hold pins its position, so calls at the same time share the tier they start in.

    While prices fall, that costs the buyer, who can see it; were they to rise, or to start free, it
    would cost the vendor.
    """
    for index, dimension in enumerate(trio.card.dimensions):
        for place, (before, after) in enumerate(pairwise(dimension.tiers), start=1):
            if after.amount_units * before.per_quantity > before.amount_units * after.per_quantity:
                says = "A tier may not cost more than the one before it."
                path = f"rate_card.dimensions.{index}.tiers.{place}"
                yield _finding(LintCode.PRICE_RISING, path, says)


def _kept(trio: _Trio) -> Iterator[Finding]:
    """Terms promise only what the market keeps."""
    if trio.terms.ending.notice_s:
        says = "An agreement ends at once; a notice could not be kept."
        yield _finding(LintCode.TERMS_UNKEPT, "terms.clauses.ending.params.notice_s", says)
    if not trio.terms.refunds.vendor_may_refund:
        says = "A vendor may always refund; terms cannot take that away."
        path = "terms.clauses.refunds.params.vendor_may_refund"
        yield _finding(LintCode.TERMS_UNKEPT, path, says)


_CHECKS: Final[tuple[Check, ...]] = (
    _name,
    _hashes,
    _tags,
    _meters,
    _prices,
    _schemas,
    _promises,
    _windows,
    _kept,
)
