"""What anybody can fetch by URL, and what a wrong URL is told."""

from collections.abc import AsyncIterator
from typing import NamedTuple, cast

import httpx2
import pytest
import pytest_asyncio

from farthing.identity.keyring import Purpose
from farthing.protocol.canonical import (
    Json,
    canonical_bytes,
    document_sha256,
    parse_json,
    sha256_hex,
)
from farthing.protocol.checkpoints import verify_checkpoint
from farthing.protocol.errors import Code
from farthing.protocol.messages.listings import GET_LISTING, GetListing
from farthing.protocol.platform_keys import PlatformKeys
from farthing.protocol.proofs import REQUEST_LIFETIME_S_MAX
from farthing.protocol.terms import parse_terms
from farthing.settlement.engine.questions import FiguresNow
from tests.papers import card_document, terms_document
from tests.server.listening import held
from tests.serving import Serving, Shop, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Place(NamedTuple):
    server: Serving
    shop: Shop

    async def get(self, path: str) -> httpx2.Response:
        return await self.server.http.get(f"{self.server.service.issuer}{path}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    async with held(serving(tmp_path_factory.mktemp("market"))) as server:
        yield Place(server, await Shop.opened(server))


async def test_health_is_told(place: Place) -> None:
    response = await place.get("/healthz")

    assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def test_the_platforms_keys_are_published_without_their_private_half(place: Place) -> None:
    keys = (await place.get("/.well-known/jwks.json")).json()["keys"]

    own = place.server.service.keyring
    platform, journal = own.public(Purpose.PLATFORM), own.public(Purpose.JOURNAL)
    assert [key["kid"] for key in keys] == [platform.thumbprint, journal.thumbprint]
    assert PlatformKeys.read(keys) == PlatformKeys.of(platform=[platform], journal=[journal])
    assert not any("d" in key for key in keys)


@pytest.mark.parametrize("path", ["", "/mcp"])
async def test_the_metadata_names_the_resource_that_it_was_found_by(
    place: Place, path: str
) -> None:
    shape = (await place.get(f"/.well-known/oauth-protected-resource{path}")).json()

    issuer = place.server.service.issuer
    assert shape["resource"] == f"{issuer}{path}"
    assert shape["org.farthing/commerce"] == {
        "alg_values_supported": ["EdDSA", "Ed25519", "ES256"],
        "assurance": "A4",
        "aud": issuer,
        "lifetime_s_max": REQUEST_LIFETIME_S_MAX,
        "typ": "farthing-request+jwt",
    }
    assert (await place.get(shape["jwks_uri"].removeprefix(issuer))).status_code == 200


async def test_a_published_document_is_its_canonical_bytes_by_hash_for_ever(place: Place) -> None:
    ask = GetListing(listing_id=place.shop.listing_id)
    view = await place.shop.buyer.connection.call(GET_LISTING, ask)
    for document in (card_document(), terms_document(), cast("Json", view.listing)):
        sha256 = document_sha256(document)

        response = await place.get(f"/v1/documents/{sha256}")

        assert response.content == canonical_bytes(document)
        assert sha256_hex(response.content) == sha256
        assert "immutable" in response.headers["cache-control"]


@pytest.mark.parametrize(
    ("sha256", "status", "code"),
    [
        ("0" * 64, 404, Code.NOT_FOUND),
        ("0" * 63, 400, Code.INVALID_ARGUMENT),
        ("G" * 64, 400, Code.INVALID_ARGUMENT),
        ("..%2F..%2Fkeys", 404, Code.NOT_FOUND),
    ],
)
async def test_a_document_that_is_not_there_is_refused_in_the_one_shape(
    place: Place, sha256: str, status: int, code: Code
) -> None:
    response = await place.get(f"/v1/documents/{sha256}")

    shape = response.json()
    assert (response.status_code, shape["status"], shape["code"]) == (status, status, code)
    assert response.headers["content-type"] == "application/problem+json"
    assert shape["type"] == f"urn:farthing:error:{code}"
    assert shape["request_id"] == response.headers["request-id"]


async def test_the_tree_head_is_signed_and_covers_the_journal(place: Place) -> None:
    response = await place.get("/v1/tree-head")

    market, keyring = place.server.service.market, place.server.service.keyring
    head = verify_checkpoint(response.text, keyring.origin, keyring[Purpose.JOURNAL].public)
    assert head.size == (await market.ask(FiguresNow())).seq
    assert response.headers["cache-control"] == "no-store"


async def test_the_legal_context_names_terms_that_are_there_and_their_hash(place: Place) -> None:
    context = (await place.get("/.well-known/legal-context.json")).json()

    response = await place.get(context["terms"].removeprefix(place.server.service.issuer))
    assert context["atrHash"] == f"0x{sha256_hex(response.content)}"
    assert context["acceptanceRequired"] is True
    assert parse_terms(parse_json(response.content)).terms_id == "farthing-standard"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, Code.NOT_FOUND),
        ("GET", "/v1/documents/", 404, Code.NOT_FOUND),
        ("GET", "/v1/get_balances", 404, Code.UNKNOWN_OPERATION),
        ("GET", "/.well-known/openid-configuration", 404, Code.NOT_FOUND),
        ("DELETE", "/v1/tree-head", 405, Code.NOT_FOUND),
    ],
)
async def test_where_there_is_nothing_the_answer_has_the_one_shape(
    place: Place, method: str, path: str, status: int, code: Code
) -> None:
    response = await place.server.http.request(method, f"{place.server.service.issuer}{path}")

    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"


async def test_a_stopped_writer_is_unhealthy_and_says_so_in_the_one_shape(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    async with held(serving(tmp_path_factory.mktemp("stopped"))) as server:
        place = Place(server, await Shop.opened(server))
        await server.service.market.engine.close()  # type: ignore[attr-defined]

        health = await place.get("/healthz")
        head = await place.get("/v1/tree-head")

    assert (health.status_code, health.json()) == (503, {"status": "stopped"})
    assert (head.status_code, head.json()["code"]) == (503, Code.UNAVAILABLE)
