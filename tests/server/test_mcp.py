"""The MCP door as a stock client meets it: the official SDK's, over a real socket."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import orjson
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, TextContent

from farthing.clients.signing import RequestSigner
from farthing.clients.transport import Connection
from farthing.protocol.errors import Code
from farthing.protocol.messages.operations import OPERATIONS
from farthing.protocol.wire import EXTENSION, Effect, Role
from farthing.server.doors.mcp import tools_for
from tests.server.listening import envelope, listening, wire_of
from tests.serving import Shop, serving

MODERN, LEGACY = "2026-07-28", "2025-11-25"
REVISIONS = pytest.mark.parametrize("revision", [MODERN, LEGACY])
ABSENT = "00000000000000000000000000"


@asynccontextmanager
async def stock(
    url: str, revision: str, connection: Connection | None = None
) -> AsyncIterator[Client]:
    """The SDK's own client; signing is the one thing it has to be given."""
    auth = None
    if connection is not None:
        assert connection.signer is not None
        auth = RequestSigner(
            connection.signer, principal=connection.principal, audience=connection.url
        )
    mode = "legacy" if revision == LEGACY else "auto"
    async with (
        httpx2.AsyncClient(auth=auth) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http), mode=mode) as client,
    ):
        yield client


def text(result: CallToolResult) -> str:
    (block,) = result.content
    assert isinstance(block, TextContent)
    return block.text


@REVISIONS
async def test_anybody_finds_and_reads_with_no_credential(tmp_path: Path, revision: str) -> None:
    async with listening(tmp_path) as server:
        shop = await Shop.opened(server)
        async with stock(server.service.issuer, revision) as client:
            listed = await client.list_tools()
            found = await client.call_tool("search_catalog", {"query": "text of pdf pages"})
            read = await client.call_tool("get_listing", {"listing_id": shop.listing_id})
            context = await client.call_tool("get_legal_context", {"listing_id": shop.listing_id})
            spoken, told = client.protocol_version, client.server_info

        assert spoken == revision
        assert told is not None
        assert told.name == "farthing"
        assert {tool.name for tool in listed.tools} == {
            name for name, operation in OPERATIONS.items() if operation.public
        }
        # The client holds every answer to the tool's output schema.
        assert found.structured_content is not None
        assert found.structured_content["results"][0]["listing_id"] == shop.listing_id
        assert text(found) == "Search the catalog: 1 result."
        assert read.structured_content is not None
        assert context.structured_content is not None
        assert context.structured_content["acceptance_required"] is True


@REVISIONS
async def test_a_buyer_is_known_by_its_signature_and_served_in_its_role(
    tmp_path: Path, revision: str
) -> None:
    async with listening(tmp_path) as server:
        shop = await Shop.opened(server)
        quoted = {"listing_id": shop.listing_id, "workload": [{"meter": "page", "quantity": "2"}]}
        async with stock(server.service.issuer, revision, shop.buyer.connection) as client:
            listed = await client.list_tools()
            balance = await client.call_tool("get_balance", {})
            quote = await client.call_tool("get_quote", quoted)
            refused = await client.call_tool("get_hold", {"hold_id": f"hld_{ABSENT}"})
            forbidden = await client.call_tool(
                "fund_account",
                {
                    "organisation_id": shop.operator.connection.principal,
                    "amount": {"amount": "1", "asset": "USD"},
                    "reference": "self-service",
                    "idempotency_key": "k" * 16,
                },
            )

        assert [tool.name for tool in listed.tools] == [tool.name for tool in tools_for(Role.BUYER)]
        assert not balance.is_error
        assert quote.structured_content is not None
        assert quote.structured_content["allowed"] is True
        assert text(quote).endswith("0.004 USD.")
        for result, code in ((refused, Code.NOT_FOUND), (forbidden, Code.NOT_PERMITTED)):
            assert result.is_error
            assert result.structured_content is not None
            assert result.structured_content["code"] == code
            assert result.structured_content["request_id"].startswith("req_")
            assert orjson.loads(text(result)) == result.structured_content


@REVISIONS
async def test_a_write_says_whether_it_was_done_before(tmp_path: Path, revision: str) -> None:
    async with listening(tmp_path) as server:
        shop = await Shop.opened(server)
        freeze = {
            "principal_id": shop.buyer.connection.principal,
            "reason": "test",
            "idempotency_key": "k" * 16,
        }
        async with stock(server.service.issuer, revision, shop.operator.connection) as client:
            first = await client.call_tool("freeze", freeze)
            again = await client.call_tool("freeze", freeze)
            other = await client.call_tool("freeze", {**freeze, "reason": "another"})

        assert first.meta is not None
        assert again.meta is not None
        assert first.meta["org.farthing/replayed"] is False
        assert again.meta["org.farthing/replayed"] is True
        assert again.meta["org.farthing/seq"] == first.meta["org.farthing/seq"]
        assert again.structured_content == first.structured_content
        assert text(again) == text(first)[:-1] + "; answered before under this key."
        assert other.structured_content is not None
        assert other.structured_content["code"] == Code.IDEMPOTENCY_CONFLICT
        assert other.structured_content["path"] == "reason"


@REVISIONS
async def test_a_name_that_is_no_tool_is_refused_like_anything_else(
    tmp_path: Path, revision: str
) -> None:
    async with listening(tmp_path) as server, stock(server.service.issuer, revision) as client:
        result = await client.call_tool("transfer_everything", {"to": "me"})

    assert result.is_error
    assert result.structured_content is not None
    assert result.structured_content["code"] == Code.UNKNOWN_OPERATION


async def test_the_extension_is_declared(tmp_path: Path) -> None:
    async with listening(tmp_path) as server, stock(server.service.issuer, MODERN) as client:
        assert client.server_capabilities.extensions == {EXTENSION: {"version": "1"}}


@pytest.mark.parametrize("role", Role)
def test_a_role_is_shown_what_it_can_use_and_nothing_else(role: Role) -> None:
    shown = {tool.name for tool in tools_for(role)}

    assert shown == {
        name
        for name, operation in OPERATIONS.items()
        if operation.public or role in operation.roles
    }
    assert len(tools_for(role)) == len(shown)


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_tool_says_what_its_operation_does(name: str) -> None:
    operation = OPERATIONS[name]
    role = next(iter(operation.roles))
    (tool,) = [each for each in tools_for(role) if each.name == name]
    hints = tool.annotations

    assert hints is not None
    assert hints.read_only_hint is (operation.effect is Effect.READS)
    assert hints.destructive_hint is not True or operation.effect is not Effect.READS
    assert hints.destructive_hint is True or operation.effect is not Effect.MOVES_MONEY
    assert hints.idempotent_hint is True
    assert hints.open_world_hint is (name == "call_service")
    assert tool.description == operation.says
    assert tool.output_schema is not None
    assert tool.input_schema["type"] == tool.output_schema["type"] == "object"
    assert tool.input_schema["additionalProperties"] is False


def test_what_takes_something_away_says_so() -> None:
    tools = {tool.name: tool for role in Role for tool in tools_for(role)}
    destructive = {
        name
        for name, tool in tools.items()
        if tool.annotations is not None and tool.annotations.destructive_hint
    }

    assert {"freeze", "revoke_key", "revoke_authority", "terminate_agreement"} <= destructive
    assert {"close_account", "send_payout", "set_authority"} <= destructive
    assert not {"enrol_organisation", "unfreeze", "publish_listing", "get_quote"} & destructive


async def test_no_vendors_text_reaches_the_list_of_tools(tmp_path: Path) -> None:
    async def digest(connection: Connection) -> str:
        return hashlib.sha256(orjson.dumps(await connection.tools())).hexdigest()

    async with serving(tmp_path) as server:
        nobody = server.connect()
        before = await digest(nobody), await digest(server.staff(Role.ADMIN))
        shop = await Shop.opened(server)
        after = await digest(nobody), await digest(server.staff(Role.ADMIN))
        first = await digest(shop.buyer.connection)
        await Shop.opened(server, suffix="Two")

        assert after == before
        assert await digest(shop.buyer.connection) == first


@pytest.mark.parametrize(
    ("method", "number"),
    [
        ("tools/sell", -32601),
        ("initialize", -32601),
        ("prompts/list", -32601),
        ("prompts/get", -32601),
        ("subscriptions/listen", -32602),
        ("", -32601),
    ],
)
async def test_a_fault_of_the_protocol_is_a_json_rpc_error_and_never_our_refusal(
    tmp_path: Path, method: str, number: int
) -> None:
    async with serving(tmp_path) as server:
        call = orjson.loads(envelope("search_catalog", {"query": "text"}))
        body = orjson.dumps({**call, "method": method})
        response = await wire_of(server).send(body, headers={"mcp-method": method})

    error = response.json()["error"]
    assert error["code"] == number
    assert response.status_code in {200, 400, 404}


async def test_a_header_that_contradicts_the_body_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        body = envelope("search_catalog", {"query": "text"})
        response = await wire_of(server).send(body, name="get_balance")

    assert (response.status_code, response.json()["error"]["code"]) == (400, -32020)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
async def test_the_door_takes_posts_alone(tmp_path: Path, method: str) -> None:
    async with serving(tmp_path) as server:
        response = await server.http.request(method, f"{server.service.issuer}/mcp")

    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
