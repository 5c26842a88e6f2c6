"""Rating: rate cards and the exact price of usage, the same on both sides of a trade."""

from farthing.protocol.rating.card import (
    CardError,
    CardFault,
    CompiledCard,
    RateCard,
    card_document,
    card_sha256,
    compile_card,
    parse_card,
)
from farthing.protocol.rating.rate import (
    START,
    InvalidLine,
    Line,
    Portion,
    Position,
    Rating,
    RatingCode,
    RatingError,
    first_fault,
    line_document,
    parse_line,
    rate,
)

__all__ = [
    "START",
    "CardError",
    "CardFault",
    "CompiledCard",
    "InvalidLine",
    "Line",
    "Portion",
    "Position",
    "RateCard",
    "Rating",
    "RatingCode",
    "RatingError",
    "card_document",
    "card_sha256",
    "compile_card",
    "first_fault",
    "line_document",
    "parse_card",
    "parse_line",
    "rate",
]
