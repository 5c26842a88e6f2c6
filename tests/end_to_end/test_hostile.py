"""Whatever is sent by whomever, no operation fails of itself and the writer goes on.

Arguments are made from the messages' schemas and then bent; every operation is called as every
role that may call it, with a good proof, so that all that is behind the door is reached.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from farthing.protocol.canonical import Json
from farthing.protocol.contracts import Acceptance, DeliveryRecord, QuoteDocument
from farthing.protocol.keys import PrivateKey
from farthing.protocol.messages.operations import OPERATIONS
from farthing.protocol.wire import Role
from farthing.settlement.engine.questions import Lookup
from farthing.settlement.engine.things import Agreement, Hold
from tests.hostile import Attack, Known, attacks, filled
from tests.papers import card_document, listing_document, signing_key, terms_document
from tests.raw import Desk, call_body, in_a_task, opened

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXAMPLES = 12
# One desk serves all examples of one operation: what an earlier example did is there for the next,
# so that a smaller one of an example that failed would be another story.
HOSTILE = settings(
    max_examples=EXAMPLES,
    phases=[Phase.generate],
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)


@pytest_asyncio.fixture(loop_scope="module")
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with in_a_task(lambda: opened(tmp_path)) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def known(desk: Desk) -> Known:
    """Everything real that an attacker could hold in its hands."""
    dispute = await desk.shop.buyer.dispute(desk.charge_id, "not_delivered")
    offered = await desk.shop.buyer.quote(desk.shop.listing_id, {"page": 1})
    card, terms = card_document(version=2), terms_document()
    acceptance = Acceptance.of(
        QuoteDocument.from_document(dict(offered.document)),  # type: ignore[arg-type]
        accepted_at_us=desk.server.clock(),
        nonce="0" * 32,
    )
    assert isinstance(desk.buyer.signer, PrivateKey)
    assert isinstance(desk.vendor.signer, PrivateKey)
    documents: dict[str, dict[str, Json]] = {
        "listing": listing_document(desk.vendor.principal, card, terms, version=2),
        "rate_card": card,
        "terms": terms,
        "delivery": await delivery(desk),
        "quote": dict(offered.document),  # type: ignore[arg-type]
        "acceptance": acceptance.document(),
    }
    return Known(
        ids={
            "agt": desk.buyer.principal,
            "org": desk.operator.principal,
            "stf": desk.as_role(Role.ADMIN).principal,
            "lst": desk.shop.listing_id,
            "agr": desk.agreement.agreement_id,
            "hld": desk.hold_id,
            "chg": desk.charge_id,
            "dsp": dispute.dispute_id,
            "thumbprint": desk.buyer.signer.thumbprint,
            "x": signing_key("Nobody").public.jwk()["x"],
        },
        documents=documents,
        signatures={"quote": offered.signature},
        signers={
            "listing": desk.vendor.signer,
            "delivery": desk.vendor.signer,
            "acceptance": desk.buyer.signer,
        },
    )


async def delivery(desk: Desk) -> dict[str, Json]:
    market = desk.server.service.market
    agreement = await market.ask(Lookup(noun="agreement", id=desk.agreement.agreement_id))
    hold = await market.ask(Lookup(noun="hold", id=desk.hold_id))
    assert isinstance(agreement, Agreement)
    assert isinstance(hold, Hold)
    return DeliveryRecord(
        hold_id=hold.hold_id,  # type: ignore[arg-type]
        agreement_id=agreement.agreement_id,  # type: ignore[arg-type]
        vendor_id=agreement.vendor_id,  # type: ignore[arg-type]
        listing_id=agreement.listing_id,  # type: ignore[arg-type]
        args_sha256=hold.args_sha256,
        result_sha256="b" * 64,
        output_schema_sha256=agreement.output_schema_sha256,
        usage={"page": 1},
        delivered_at_us=desk.server.clock(),
    ).document()


async def survives(desk: Desk) -> bool:
    """Whether the writer goes on: it answers a question and does a command."""
    health = await desk.server.http.get(f"{desk.issuer}/healthz")
    return health.status_code == 200


@pytest.mark.parametrize("name", OPERATIONS)
@HOSTILE
@given(data=st.data())
async def test_an_operation_fails_of_itself_for_nobody(
    desk: Desk, known: Known, name: str, data: st.DataObject
) -> None:
    operation = OPERATIONS[name]
    attack: Attack = data.draw(attacks(operation))
    arguments = filled(attack, known)
    roles = operation.roles if not operation.public else {Role.ANYONE, Role.BUYER, Role.VENDOR}
    for role in sorted(roles):
        answer = await desk.call(desk.as_role(role), name, arguments)
        assert answer.code not in {"internal_error", "unavailable", -32603}, answer.text
        assert answer.status < 500, answer.text
    assert await survives(desk)


@pytest.mark.parametrize("role", [each.value for each in Role])
async def test_an_operation_of_others_is_refused_whatever_is_sent(desk: Desk, role: str) -> None:
    connection = desk.as_role(Role(role))
    written = await desk.written()
    for operation in OPERATIONS.values():
        # Who is registered may enrol again: it is told so, as a newcomer's lost reply would be.
        if operation.public or operation.roles & {Role(role), Role.NEWCOMER}:
            continue
        tried: tuple[object, ...] = ({}, {"idempotency_key": "k" * 16}, {"a": "\x00"}, [])
        for arguments in tried:
            answer = await desk.call(connection, operation.name, arguments)
            assert answer.code in {
                "unauthenticated",
                "not_permitted",
                "unknown_key",
                -32602,
            }, (operation.name, answer.text)
    assert await desk.written() == written
    assert await survives(desk)


@settings(HOSTILE, max_examples=60)
@given(
    cuts=st.lists(
        st.tuples(st.integers(0, 600), st.binary(max_size=6), st.integers(0, 12)), max_size=4
    )
)
async def test_bytes_that_were_bent_are_answered_or_refused(
    desk: Desk, cuts: list[tuple[int, bytes, int]]
) -> None:
    arguments = {
        "agreement_id": desk.agreement.agreement_id,
        "workload": [{"meter": "page", "quantity": "1"}],
        "args_sha256": "a" * 64,
        "idempotency_key": "k" * 16,
    }
    body = call_body("place_hold", arguments)
    for at, put, left_out in cuts:
        body = body[:at] + put + body[at + left_out :]
    answer = await desk.post(body, authorization=desk.proof(desk.buyer, body), tool="place_hold")
    assert answer.code not in {"internal_error", "unavailable", -32603}, answer.text
    assert answer.status < 500, answer.text
    assert await survives(desk)


@settings(HOSTILE, max_examples=30)
@given(
    path=st.text(max_size=60).filter(str.isprintable),
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]),
)
async def test_a_page_that_is_not_there_is_refused_in_the_one_shape(
    desk: Desk, path: str, method: str
) -> None:
    for place in (f"/{path}", f"/v1/documents/{path}", f"/mcp/{path}", f"/.well-known/{path}"):
        response = await desk.server.http.request(
            method,
            f"{desk.issuer}{quote(place)}",
            headers={"content-type": "application/json"},
            content=b"{}" if method == "POST" else None,
        )
        assert response.status_code < 500, (place, response.text)
        if response.status_code >= 400 and response.text:
            assert {"code", "message", "request_id"} <= json.loads(response.text).keys()
