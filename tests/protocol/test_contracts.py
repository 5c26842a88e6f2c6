"""The signed documents of a trade: one value, one document, and each fits only what it is for."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.protocol.canonical import Json, canonical_bytes, document_sha256
from farthing.protocol.contracts import (
    Acceptance,
    DeliveryRecord,
    QuoteDocument,
    check_acceptance,
    check_price,
    read_acceptance,
    read_delivery,
    read_quote,
)
from farthing.protocol.documents import DocumentError, Fault
from farthing.protocol.errors import Code, Refusal
from farthing.protocol.ids import (
    AgreementId,
    HoldId,
    ListingId,
    OrganisationId,
    PrincipalId,
    QuoteId,
    derive_id,
)
from farthing.protocol.keys import PrivateKey, PublicKey
from farthing.protocol.rating import parse_card, rate
from farthing.protocol.signatures import Typ, sign_detached
from tests.protocol.rating.cards import PAGES
from tests.protocol.vectors import cases, vectors

KEY = PrivateKey.from_seed(bytes(range(32)))
OTHER = PrivateKey.from_seed(bytes(32))
ISSUED_AT_US = 1_790_000_000_000_000
CARD = parse_card(
    {
        **PAGES,
        "dimensions": [
            {
                "rule_id": "pages",
                "meter": "page",
                "unit": "page",
                "model": "graduated",
                "tiers": [
                    {"up_to": "10", "amount": "0.001", "per_quantity": "1"},
                    {"amount": "0.0005", "per_quantity": "1"},
                ],
            },
            {
                "rule_id": "bytes",
                "meter": "byte",
                "unit": "byte",
                "model": "per_unit",
                "tiers": [{"amount": "0.000001", "per_quantity": "1000000"}],
            },
        ],
    }
)
AGENT = PrincipalId(derive_id("agt", "a"))
OPERATOR = OrganisationId(PrincipalId(derive_id("org", "o")))
VENDOR = OrganisationId(PrincipalId(derive_id("org", "v")))
VECTORS = vectors("contracts")
GOOD = {case["kind"]: case for case in VECTORS["documents"]}
QUANTITIES = st.integers(0, 10**9)


def quoted(pages: int = 12, byte: int = 5, position: int = 0) -> QuoteDocument:
    workload, start = {"page": pages, "byte": byte}, {"page": position}
    rating = rate(CARD, start, workload)
    return QuoteDocument(
        quote_id=QuoteId(derive_id("qte", "q")),
        platform="http://127.0.0.1:8402",
        buyer_id=AGENT,
        operator_id=OPERATOR,
        vendor_id=VENDOR,
        listing_id=ListingId(derive_id("lst", "l")),
        listing_version=3,
        listing_sha256="1" * 64,
        rate_card_sha256=CARD.card_sha256,
        terms_sha256="3" * 64,
        asset="USD",
        workload=workload,
        position=start,
        total_units=rating.total_units,
        lines=rating.lines,
        issued_at_us=ISSUED_AT_US,
        expires_at_us=ISSUED_AT_US + 60_000_000,
        agreement_id=AgreementId(derive_id("agr", "g")) if position else None,
    )


def accepted(quote: QuoteDocument, after_us: int = 1) -> Acceptance:
    return Acceptance.of(quote, accepted_at_us=ISSUED_AT_US + after_us, nonce="n" * 22)


def delivered(pages: int = 12) -> DeliveryRecord:
    return DeliveryRecord(
        hold_id=HoldId(derive_id("hld", "h")),
        agreement_id=AgreementId(derive_id("agr", "g")),
        vendor_id=VENDOR,
        listing_id=ListingId(derive_id("lst", "l")),
        args_sha256="a" * 64,
        result_sha256="b" * 64,
        output_schema_sha256="c" * 64,
        usage={"page": pages},
        delivered_at_us=ISSUED_AT_US,
    )


READERS: dict[Typ, tuple[dict[str, Json], Callable[..., object], Callable[[Json], object]]] = {
    Typ.QUOTE: (quoted().document(), read_quote, QuoteDocument.from_document),
    Typ.ACCEPTANCE: (accepted(quoted()).document(), read_acceptance, Acceptance.from_document),
    Typ.DELIVERY: (delivered().document(), read_delivery, DeliveryRecord.from_document),
}


def known(thumbprint: str) -> PublicKey | None:
    return KEY.public if thumbprint == KEY.thumbprint else None


def signed(typ: Typ, document: Json, key: PrivateKey = KEY) -> str:
    return sign_detached(key, typ, canonical_bytes(document))


def code_of(result: object) -> Code:
    assert isinstance(result, Refusal)
    return result.code


@given(pages=QUANTITIES, byte=QUANTITIES, position=QUANTITIES)
def test_a_quote_is_read_as_it_was_written(pages: int, byte: int, position: int) -> None:
    quote = quoted(pages, byte, position)

    again = QuoteDocument.from_document(quote.document())

    assert again == quote
    assert again.document() == quote.document()
    assert check_price(again, CARD) is None


@given(st.integers(0, 10**15))
def test_a_delivery_record_is_read_as_it_was_written(pages: int) -> None:
    assert DeliveryRecord.from_document(delivered(pages).document()) == delivered(pages)


def test_an_acceptance_is_read_as_it_was_written() -> None:
    assert Acceptance.from_document(accepted(quoted()).document()) == accepted(quoted())


@pytest.mark.parametrize("typ", READERS)
def test_a_document_signed_by_a_known_key_is_taken(typ: Typ) -> None:
    document, read, from_document = READERS[typ]

    assert read(document, signed(typ, document), known) == from_document(document)


@pytest.mark.parametrize("typ", READERS)
@pytest.mark.parametrize("other", [typ for typ in Typ if typ.value.endswith("+json")])
def test_a_signature_of_another_kind_or_key_is_refused(typ: Typ, other: Typ) -> None:
    document, read, _ = READERS[typ]
    foreign = signed(typ, document, OTHER) if typ is other else signed(other, document)

    assert code_of(read(document, foreign, known)) is Code.SIGNATURE_INVALID


@pytest.mark.parametrize("typ", READERS)
def test_no_member_can_be_missing_changed_added_or_of_another_type(typ: Typ) -> None:
    document, read, from_document = READERS[typ]
    signature = signed(typ, document)

    for name in document:
        less = {key: value for key, value in document.items() if key != name}
        with pytest.raises(DocumentError) as missing:
            from_document(less)
        assert missing.value.reason in {Fault.MISSING, Fault.UNKNOWN_VALUE}
        wrong = code_of(read({**document, name: True}, signature, known))
        assert wrong is Code.INVALID_ARGUMENT
    for odd in (None, 0.5, {"ä": 1}):
        assert code_of(read({**document, "more": odd}, signature, known)) is Code.INVALID_ARGUMENT
    with pytest.raises(DocumentError) as unknown:
        from_document({**document, "more": "x"})
    assert (unknown.value.path, unknown.value.reason) == ("more", Fault.UNKNOWN_FIELD)


@pytest.mark.parametrize(
    ("usage", "path", "fault"),
    [
        ([], "usage", Fault.WRONG_COUNT),
        ([("page", "1"), ("page", "1")], "usage.1.meter", Fault.DUPLICATE),
        ([("page", "1"), ("byte", "1")], "usage.1.meter", Fault.INVALID_FORM),
        ([("page", "01")], "usage.0.quantity", Fault.INVALID_FORM),
        ([("page", "-1")], "usage.0.quantity", Fault.INVALID_FORM),
        ([("page", "1" + "0" * 16)], "usage.0.quantity", Fault.INVALID_TEXT),
        ([("Page", "1")], "usage.0.meter", Fault.INVALID_FORM),
    ],
)
def test_quantities_have_one_spelling(
    usage: list[tuple[str, str]], path: str, fault: Fault
) -> None:
    meters: list[Json] = [{"meter": meter, "quantity": quantity} for meter, quantity in usage]

    with pytest.raises(DocumentError) as error:
        DeliveryRecord.from_document({**delivered().document(), "usage": meters})

    assert (error.value.path, error.value.reason) == (path, fault)


@pytest.mark.parametrize(
    ("member", "value", "path"),
    [
        ("total_units", "1", "total_units"),
        ("total_units", "9223372036854775808", "total_units"),
        ("asset", "GBP", "asset"),
        ("expires_at_us", ISSUED_AT_US, "expires_at_us"),
        ("lines", ["x"], "lines.0"),
        ("lines", "x", "lines"),
        ("lines", [], "lines"),
    ],
)
def test_a_quote_that_contradicts_itself_is_no_quote(member: str, value: Json, path: str) -> None:
    with pytest.raises(DocumentError) as error:
        QuoteDocument.from_document({**quoted().document(), member: value})

    assert error.value.path == path


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("quote_sha256", "f" * 64),
        ("listing_sha256", "f" * 64),
        ("rate_card_sha256", "f" * 64),
        ("terms_sha256", "f" * 64),
        ("buyer_id", derive_id("agt", "x")),
        ("operator_id", derive_id("org", "x")),
        ("vendor_id", derive_id("org", "x")),
    ],
)
def test_an_acceptance_fits_its_own_quote_only(member: str, value: str) -> None:
    quote = quoted()
    acceptance = accepted(quote)

    refusal = check_acceptance(
        Acceptance.from_document({**acceptance.document(), member: value}), quote
    )

    assert check_acceptance(acceptance, quote) is None
    assert refusal is not None
    assert (refusal.code, refusal.path) == (Code.SIGNATURE_INVALID, f"acceptance.{member}")


def test_an_acceptance_lies_within_the_life_of_its_quote() -> None:
    quote = quoted()
    early = replace(accepted(quote), accepted_at_us=quote.issued_at_us - 1)

    assert code_of(check_acceptance(early, quote)) is Code.SIGNATURE_INVALID
    assert check_acceptance(accepted(quote, -5_000_000), quote) is None
    assert check_acceptance(accepted(quote, 59_999_999), quote) is None
    assert code_of(check_acceptance(accepted(quote, 60_000_000), quote)) is Code.QUOTE_EXPIRED


def test_a_quote_that_the_card_does_not_give_is_found() -> None:
    quote, dearer = quoted(), quoted(pages=13)

    wrong_lines = replace(quote, lines=dearer.lines, total_units=dearer.total_units)
    wrong_total = replace(quote, total_units=quote.total_units + 1)
    other_card = replace(quote, rate_card_sha256="0" * 64)
    unknown_meter = replace(quote, workload={"minute": 1})

    assert code_of(check_price(wrong_lines, CARD)) is Code.INVALID_AMOUNT
    assert code_of(check_price(wrong_total, CARD)) is Code.INVALID_AMOUNT
    assert code_of(check_price(other_card, CARD)) is Code.TERMS_CHANGED
    assert code_of(check_price(unknown_meter, CARD)) is Code.USAGE_INVALID


def of_kind(kind: str) -> Typ:
    return Typ(f"farthing-{kind}+json")


@pytest.mark.parametrize("case", cases(VECTORS["documents"]))
def test_the_documents_of_the_vectors_have_these_digests_and_signatures(
    case: dict[str, Any],
) -> None:
    typ, document = of_kind(case["kind"]), case["document"]
    key = PrivateKey.from_jwk(VECTORS["keys"][VECTORS["signers"][case["kind"]]])
    _, read, _ = READERS[typ]

    value = read(document, case["signature"], {key.thumbprint: key.public}.get)

    assert not isinstance(value, Refusal)
    assert document_sha256(document) == case["sha256"]
    assert signed(typ, document, key) == case["signature"]
    if isinstance(value, QuoteDocument):
        assert check_price(value, parse_card(VECTORS["rate_card"])) is None


@pytest.mark.parametrize("case", cases(VECTORS["refused"]))
def test_what_the_vectors_refuse_is_refused_at_its_place(case: dict[str, Any]) -> None:
    _, _, from_document = READERS[of_kind(case["kind"])]

    with pytest.raises(DocumentError) as error:
        from_document(GOOD[case["kind"]]["document"] | case["change"])

    assert (error.value.path, error.value.reason.value) == (case["path"], case["reason"])


@pytest.mark.parametrize("case", cases(VECTORS["unfitting"]))
def test_what_the_vectors_call_unfitting_fits_no_quote(case: dict[str, Any]) -> None:
    quote = QuoteDocument.from_document(GOOD["quote"]["document"])
    acceptance = Acceptance.from_document(GOOD["acceptance"]["document"])
    other = Acceptance.from_document(acceptance.document() | case["change"])

    refusal = check_acceptance(other, quote)

    assert check_acceptance(acceptance, quote) is None
    assert refusal is not None
    assert (refusal.code.value, refusal.path) == (case["code"], case["path"])
