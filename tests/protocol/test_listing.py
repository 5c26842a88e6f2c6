"""A listing is read strictly, and the published schema says the same as the reader."""

import json
from importlib.resources import files
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from farthing.protocol.canonical import InvalidJson
from farthing.protocol.documents import DocumentError, Fault, unseen
from farthing.protocol.listing import InterfaceKind, listing_sha256, parse_listing
from tests.protocol.documents import changed
from tests.protocol.vectors import cases, vectors

VECTORS = vectors("listing")
DOCUMENT: dict[str, Any] = VECTORS["document"]
SCHEMA = Draft202012Validator(
    json.loads((files("farthing.spec") / "schemas" / "listing.schema.json").read_bytes())
)


def test_the_listing_of_the_vectors_is_read_whole() -> None:
    listing = parse_listing(DOCUMENT)
    assert listing.listing_sha256 == listing_sha256(DOCUMENT) == VECTORS["listing_sha256"]
    assert listing.tags == ("documents.text.extract", "documents.tables.extract")
    assert listing.meters[0].measured_from == "Pages whose text is returned"
    assert listing.sla.latency_ms_p95 == 1200
    assert listing.data_handling.regions == ("de", "eu")
    assert listing.documentation_url == "https://pdf.example/docs?topic=pages"
    assert SCHEMA.is_valid(DOCUMENT)


@pytest.mark.parametrize("case", cases(VECTORS["refused"]))
def test_a_defective_listing_is_refused_at_the_place_of_the_defect(case: dict[str, Any]) -> None:
    with pytest.raises(DocumentError) as refused:
        parse_listing(changed(DOCUMENT, case))
    assert (refused.value.path, refused.value.reason) == (case["path"], case["reason"])


@pytest.mark.parametrize("case", cases(VECTORS["refused"]))
def test_the_published_schema_refuses_what_the_reader_refuses(case: dict[str, Any]) -> None:
    document = changed(DOCUMENT, case)
    # What nobody can see is beyond the patterns of a portable schema.
    hidden = any(isinstance(each, str) and unseen(each) for each in document.values())
    assert hidden or not SCHEMA.is_valid(document)


def test_the_vectors_show_every_fault() -> None:
    assert {case["reason"] for case in VECTORS["refused"]} == {fault.value for fault in Fault}


def test_documentation_may_be_left_out_or_empty() -> None:
    for document in (
        changed(DOCUMENT, {"unset": ["documentation"]}),
        changed(DOCUMENT, {"set": {"documentation": {}}}),
    ):
        assert parse_listing(document).documentation_url == ""
        assert SCHEMA.is_valid(document)


def test_a_service_is_a_tool_of_a_server_or_a_route() -> None:
    document = changed(DOCUMENT, {"set": {"interface.kind": "http"}, "unset": ["interface.tool"]})
    interface = parse_listing(document).interface
    assert (interface.kind, interface.tool) == (InterfaceKind.HTTP, "")
    assert SCHEMA.is_valid(document)


def test_what_no_signed_document_may_hold_is_refused_within_a_schema_too() -> None:
    with pytest.raises(InvalidJson):
        parse_listing(changed(DOCUMENT, {"set": {"input_schema.minimum": 0.5}}))


def test_two_readings_of_one_document_are_equal_and_hash_alike() -> None:
    one, other = parse_listing(DOCUMENT), parse_listing(DOCUMENT)
    assert one == other
    assert len({one, other}) == 1


@pytest.mark.parametrize("document", [[], "listing", 1, True])
def test_anything_but_an_object_is_no_listing(document: Any) -> None:
    with pytest.raises(DocumentError) as refused:
        parse_listing(document)
    assert (refused.value.path, refused.value.reason) == ("", Fault.WRONG_TYPE)
