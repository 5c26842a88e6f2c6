"""Keys and documents of a test market: real ones, the same in every run."""

from farthing.protocol.canonical import Json, document_sha256, sha256_hex
from farthing.protocol.ids import derive_id
from farthing.protocol.keys import PrivateKey
from farthing.protocol.messages.agents import PublicJwk
from farthing.protocol.terms import standard_terms

__all__ = ["card_document", "listing_document", "public_jwk", "signing_key", "terms_document"]

GRADUATED: tuple[dict[str, Json], ...] = (
    {"up_to": "10", "amount": "0.002", "per_quantity": "1"},
    {"amount": "0.0015", "per_quantity": "1"},
)


def signing_key(name: str) -> PrivateKey:
    """A key that is the same in every run."""
    return PrivateKey.from_seed(bytes.fromhex(sha256_hex(f"test key {name}".encode())))


def public_jwk(key: PrivateKey) -> PublicJwk:
    """A key's public half, as the messages carry it."""
    jwk = key.public.jwk()
    return PublicJwk(kty="OKP", crv="Ed25519", x=jwk["x"])


def card_document(
    tiers: tuple[dict[str, Json], ...] = GRADUATED, *, asset: str = "USD", version: int = 1
) -> dict[str, Json]:
    """A rate card with one graduated dimension, `page`."""
    return {
        "schema": "farthing-rate-card/1",
        "card_id": "pages",
        "version": version,
        "asset": asset,
        "rounding": "half_even",
        "period": "agreement",
        "dimensions": [
            {
                "rule_id": "page",
                "meter": "page",
                "unit": "page",
                "model": "graduated" if len(tiers) > 1 else "per_unit",
                "tiers": list(tiers),
            }
        ],
    }


def terms_document(
    *, dispute_window_s: int = 600, evidence_window_s: int = 60, usage_tolerance_ppm: int = 0
) -> dict[str, Json]:
    """Standard terms with short windows."""
    return standard_terms(
        delivery_deadline_s=60,
        dispute_window_s=dispute_window_s,
        evidence_window_s=evidence_window_s,
        correction_window_s=60,
        usage_tolerance_ppm=usage_tolerance_ppm,
    )


def listing_document(
    vendor_id: str,
    card: dict[str, Json],
    terms: dict[str, Json],
    *,
    name: str = "Text of PDF pages",
    url: str = "http://127.0.0.1:9000/mcp",
    version: int = 1,
    primary_tag: str = "documents.text.extract",
) -> dict[str, Json]:
    """A listing that passes its lint."""
    return {
        "schema": "farthing-listing/1",
        "listing_id": derive_id("lst", vendor_id, name),
        "vendor_id": vendor_id,
        "version": version,
        "name": name,
        "summary": "Returns the text of the pages of a PDF file, page by page.",
        "primary_tag": primary_tag,
        "tags": [primary_tag],
        "domains": [],
        "example_requests": ["get the text of this report", "read the pages of a PDF contract"],
        "not_for": ["scanned pages without a text layer"],
        "languages": ["en"],
        "interface": {"kind": "mcp", "url": url, "tool": "extract_text"},
        "input_schema": {"type": "object", "properties": {"pdf": {"type": "string"}}},
        "output_schema": {
            "type": "object",
            "properties": {"pages": {"type": "array", "items": {"type": "string"}}},
            "required": ["pages"],
        },
        "example": {"input": {"pdf": "JVBERi0="}, "output": {"pages": ["One page."]}},
        "meters": [{"meter": "page", "unit": "page", "from": "pages of the PDF that were read"}],
        "rate_card_sha256": document_sha256(card),
        "terms_sha256": document_sha256(terms),
        "sla": {
            "latency_ms_p50": 200,
            "latency_ms_p95": 1500,
            "availability_ppm": 999_000,
            "claim_kind": "declared",
        },
        "limits": {"input_bytes_max": 10_000_000, "concurrency_max": 4},
        "data_handling": {
            "regions": ["de"],
            "retention_days": 0,
            "training_use": False,
            "subprocessors": [],
        },
        "idempotent": True,
        "side_effects": False,
    }
