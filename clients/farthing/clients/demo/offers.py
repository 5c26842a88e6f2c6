"""What the demo's vendors publish: listings with their real schemas, prices and terms.

Boundary: documents only. The tools themselves are in `vendor_*`; a test compares each listing with
the tool that is served under it.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from farthing.clients.demo import work_images, work_pdf, work_text
from farthing.clients.documents import Offer
from farthing.protocol.canonical import Json
from farthing.protocol.ids import derive_id
from farthing.protocol.terms import standard_terms

__all__ = ["ASSET", "DEADLINE_S", "OFFERS", "Draft", "offer"]

ASSET: Final = "USD"
DEADLINE_S: Final = 20
"""How long a delivery may take under the terms of every listing here."""
_DISPUTE_WINDOW_S: Final = 3600
_EVIDENCE_WINDOW_S: Final = 60
_KIB: Final = 1024


class Draft(NamedTuple):
    """One offer before its vendor and its address are known."""

    listing: dict[str, Json]
    tiers: Sequence[dict[str, Json]]


def offer(name: str, vendor_id: str, url: str) -> Offer:
    """The offer of a vendor under one of the names in `OFFERS`."""
    listing, tiers = OFFERS[name]
    (meter,) = _objects(listing["meters"])
    card: dict[str, Json] = {
        "schema": "farthing-rate-card/1",
        "card_id": name,
        "version": 1,
        "asset": ASSET,
        "rounding": "half_even",
        "period": "agreement",
        "dimensions": [
            {
                "rule_id": str(meter["meter"]),
                "meter": meter["meter"],
                "unit": meter["unit"],
                "model": "graduated" if len(tiers) > 1 else "per_unit",
                "tiers": list(tiers),
            }
        ],
    }
    terms = standard_terms(
        delivery_deadline_s=DEADLINE_S,
        dispute_window_s=_DISPUTE_WINDOW_S,
        evidence_window_s=_EVIDENCE_WINDOW_S,
    )
    where: dict[str, Json] = {"kind": "mcp", "url": url, "tool": listing["interface"]}
    document: dict[str, Json] = {
        "schema": "farthing-listing/1",
        "version": 1,
        "vendor_id": vendor_id,
        "listing_id": derive_id("lst", vendor_id, name),
        "tags": [listing["primary_tag"]],
        "domains": [],
        "languages": ["en"],
        **listing,
        "interface": where,
        "data_handling": {
            "regions": ["de"],
            "retention_days": 31,
            "training_use": False,
            "subprocessors": [],
        },
        "idempotent": True,
        "side_effects": False,
    }
    return Offer.bind(document, card, terms)


def _object(**properties: Json) -> dict[str, Json]:
    """The schema of an object that has all of these members and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _objects(value: Json) -> list[dict[str, Json]]:
    assert isinstance(value, list)
    return [each for each in value if isinstance(each, dict)]


def _meter(meter: str, measured_from: str) -> list[Json]:
    return [{"meter": meter, "unit": meter, "from": measured_from}]


def _promise(p50_ms: int, p95_ms: int) -> dict[str, Json]:
    return {
        "latency_ms_p50": p50_ms,
        "latency_ms_p95": p95_ms,
        "availability_ppm": 995_000,
        "claim_kind": "declared",
    }


def _limits(content_bytes_max: int, concurrency_max: int = 2) -> dict[str, Json]:
    # As base64 the content is a third longer; the rest of the arguments is small.
    return {
        "input_bytes_max": content_bytes_max * 4 // 3 + 64 * _KIB,
        "concurrency_max": concurrency_max,
    }


_TEXT: Final[dict[str, Json]] = {"type": "string"}
_COUNT: Final[dict[str, Json]] = {"type": "integer", "minimum": 0}
_COUNTS: Final[dict[str, Json]] = _object(
    characters=_COUNT,
    words=_COUNT,
    sentences=_COUNT,
    paragraphs=_COUNT,
    syllables=_COUNT,
)
_BASE64: Final[dict[str, Json]] = {"type": "string", "contentEncoding": "base64"}
_STRINGS: Final[dict[str, Json]] = {"type": "array", "items": {"type": "string"}}

_READING: Final[dict[str, Json]] = {
    "primary_tag": "documents.text.extract",
    "interface": "extract_text",
    "input_schema": _object(pdf=_BASE64),
    "output_schema": _object(pages=_STRINGS),
    "example": {"input": {"pdf": "JVBERi0="}, "output": {"pages": ["One page."]}},
    "meters": _meter("page", "pages of the PDF that were read"),
    "limits": _limits(work_pdf.BYTES_MAX),
}

OFFERS: Final[dict[str, Draft]] = {
    "pdf-text": Draft(
        {
            **_READING,
            "name": "Text of PDF pages",
            "summary": "Returns the text of every page of a PDF file, page by page.",
            "example_requests": ["get the text of this report", "read the pages of a PDF contract"],
            "not_for": ["scanned pages without a text layer", "files that need a password"],
            "sla": _promise(400, 1500),
        },
        (
            {"up_to": "20", "amount": "0.0005", "per_quantity": "1"},
            {"amount": "0.0002", "per_quantity": "1"},
        ),
    ),
    "document-text": Draft(
        {
            **_READING,
            "name": "Text of PDF documents",
            "summary": "Takes the text of the pages out of a PDF document, ready to be analysed.",
            "example_requests": ["get the text of a PDF before a summary", "pdf pages to text"],
            "not_for": ["photographed pages"],
            "sla": _promise(500, 1800),
        },
        ({"amount": "0.0008", "per_quantity": "1"},),
    ),
    "image-resize": Draft(
        {
            "name": "Image resizing",
            "summary": "Scales a picture to a given width and height, with smooth edges.",
            "primary_tag": "images.resize",
            "example_requests": ["make a thumbnail of this photo", "scale an image to 320 pixels"],
            "not_for": ["vector graphics"],
            "interface": "resize_image",
            "input_schema": _object(
                image=_BASE64,
                width={"type": "integer", "minimum": 1, "maximum": work_images.SIDE_MAX},
                height={"type": "integer", "minimum": 1, "maximum": work_images.SIDE_MAX},
                format={"type": "string", "enum": list(work_images.ImageFormat)},
            ),
            "output_schema": _object(image=_BASE64, pixels=_COUNT),
            "example": {
                "input": {"image": "iVBORw0=", "width": 32, "height": 24, "format": "png"},
                "output": {"image": "iVBORw0=", "pixels": 786_432},
            },
            "meters": _meter("pixel", "pixels of the picture that was sent"),
            "limits": _limits(work_images.BYTES_MAX),
            "sla": _promise(500, 2000),
        },
        ({"amount": "0.0005", "per_quantity": "1000000"},),
    ),
    "text-analysis": Draft(
        {
            "name": "Keywords, readability and summary",
            "summary": "Says what an English text is about, how hard it is to read, and sums it "
            "up in sentences of its own.",
            "primary_tag": "text.analyse.keywords",
            "tags": ["text.analyse.keywords", "text.analyse.readability", "text.summarise"],
            "example_requests": ["what is this report about", "how hard is this text to read"],
            "not_for": ["languages other than English"],
            "interface": "analyse_text",
            "input_schema": _object(text=_TEXT),
            "output_schema": _object(
                counts=_COUNTS,
                keywords={"type": "array", "items": _object(word=_TEXT, count=_COUNT)},
                readability=_object(
                    reading_ease_milli={"type": "integer"}, grade_milli={"type": "integer"}
                ),
                summary=_STRINGS,
            ),
            "example": {
                "input": {"text": "The farthing was small."},
                "output": {
                    "counts": {
                        "characters": 23,
                        "words": 4,
                        "sentences": 1,
                        "paragraphs": 1,
                        "syllables": 5,
                    },
                    "keywords": [{"word": "farthing", "count": 1}],
                    "readability": {"reading_ease_milli": 97_025, "grade_milli": 720},
                    "summary": ["The farthing was small."],
                },
            },
            "meters": _meter("character", "Unicode code points of the text that was sent"),
            "limits": _limits(work_text.CHARACTERS_MAX * 6),
            "sla": _promise(300, 1500),
        },
        ({"amount": "0.00002", "per_quantity": "1000"},),
    ),
    "short-counts": Draft(
        {
            "name": "Counts of a short text",
            "summary": "Counts the words, sentences and syllables of one short English text, many "
            "texts at a time.",
            "primary_tag": "text.analyse.readability",
            "example_requests": ["how many words are in this line", "count these syllables"],
            "not_for": ["languages other than English", "whole documents"],
            "interface": "count_text",
            "input_schema": _object(text=_TEXT),
            "output_schema": _COUNTS,
            "example": {
                "input": {"text": "The farthing was small."},
                "output": {
                    "characters": 23,
                    "words": 4,
                    "sentences": 1,
                    "paragraphs": 1,
                    "syllables": 5,
                },
            },
            "meters": _meter("character", "Unicode code points of the text that was sent"),
            "limits": _limits(work_text.SHORT_CHARACTERS_MAX * 6, concurrency_max=64),
            "sla": _promise(20, 200),
        },
        ({"amount": "0.0000002", "per_quantity": "1"},),
    ),
    "translation": Draft(
        {
            "name": "Translation of short texts",
            "summary": "Translates plain text from English into German.",
            "primary_tag": "language.translate.text",
            "example_requests": ["translate this into German", "say this letter in German"],
            "not_for": ["legal documents"],
            "interface": "translate_text",
            "input_schema": _object(text=_TEXT),
            "output_schema": _object(translation=_TEXT),
            "example": {"input": {"text": "Good day."}, "output": {"translation": "Guten Tag."}},
            "meters": _meter("character", "Unicode code points of the text that was sent"),
            "limits": _limits(64 * _KIB),
            "sla": _promise(200, 900),
        },
        ({"amount": "0.01", "per_quantity": "1000"},),
    ),
}
