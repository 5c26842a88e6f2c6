"""Whoever watches the journal follows its tree by URL, and reads no record."""

from collections.abc import AsyncIterator
from importlib.resources import files

import httpx2
import pytest
import pytest_asyncio

from farthing.protocol.checkpoints import Checkpoint, verifier_key, verify_checkpoint
from farthing.protocol.errors import Code, Refused
from farthing.protocol.keys import PublicKey
from farthing.protocol.merkle import Tree, verify_consistency
from farthing.protocol.messages.trails import GET_CONSISTENCY_PROOF, GetConsistencyProof
from tests.server.listening import held
from tests.serving import Serving, Shop, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    async with held(serving(tmp_path_factory.mktemp("market"))) as server:
        await Shop.opened(server)
        yield server


async def fetched(server: Serving, path: str) -> httpx2.Response:
    return await server.http.get(f"{server.service.issuer}{path}")


def head_of(server: Serving, note: str) -> Checkpoint:
    market = server.service.market
    return verify_checkpoint(note, market.origin, PublicKey.from_jwk(market.journal_jwk))


def hashes_of(response: httpx2.Response) -> list[bytes]:
    return [response.content[at : at + 32] for at in range(0, len(response.content), 32)]


async def test_the_tiles_give_the_root_of_the_signed_head(server: Serving) -> None:
    checkpoint = await fetched(server, "/checkpoint")
    head = head_of(server, checkpoint.text)
    tile = await fetched(server, f"/tile/0/000.p/{head.size}")

    tree = Tree()
    for leaf in hashes_of(tile):
        tree.append(leaf)
    assert (tree.size, tree.root()) == (head.size, head.root)
    assert checkpoint.headers["cache-control"] == "no-store"
    assert "immutable" in tile.headers["cache-control"]
    assert tile.headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(
    "path",
    ["/tile/0/000", "/tile/0/000.p/200", "/tile/1/000.p/1", "/tile/0/0", "/tile/entries/000"],
)
async def test_there_is_no_tile_beyond_the_tree_and_none_of_records(
    server: Serving, path: str
) -> None:
    assert (await fetched(server, path)).status_code == 404


async def test_growth_is_proven_to_anybody(server: Serving) -> None:
    first = head_of(server, (await fetched(server, "/checkpoint")).text)
    await server.organisation("operator", "Operator Two")
    anybody = server.connect()

    grown = await anybody.call(GET_CONSISTENCY_PROOF, GetConsistencyProof(first_size=first.size))

    head = head_of(server, grown.tree_head)
    path = [bytes.fromhex(node) for node in grown.proof]
    assert (grown.first_size, grown.second_size) == (first.size, head.size)
    assert head.size > first.size
    assert verify_consistency(first.size, head.size, first.root, head.root, path)


@pytest.mark.parametrize(("first", "second"), [(10**6, 0), (1, 10**6), (3, 2)])
async def test_no_growth_is_proven_that_there_was_not(
    server: Serving, first: int, second: int
) -> None:
    anybody = server.connect()

    with pytest.raises(Refused) as refused:
        await anybody.call(
            GET_CONSISTENCY_PROOF, GetConsistencyProof(first_size=first, second_size=second)
        )

    assert refused.value.code is Code.NOT_FOUND


async def test_the_verifier_can_be_downloaded(server: Serving) -> None:
    response = await fetched(server, "/farthing_verify.py")

    assert response.content == (files("farthing.spec") / "farthing_verify.py").read_bytes()
    assert response.headers["content-type"].startswith("text/x-python")


async def test_the_key_of_the_heads_is_told_as_other_tools_read_it(server: Serving) -> None:
    market = server.service.market

    response = await fetched(server, "/checkpoint.vkey")

    line = verifier_key(market.origin, PublicKey.from_jwk(market.journal_jwk))
    assert response.text == f"{line}\n"
    assert line.startswith(f"{market.origin}+")
