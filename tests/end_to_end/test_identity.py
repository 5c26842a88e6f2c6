"""Principals and keys as a caller meets them: approval, rotation, revocation, freeze."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from farthing.clients.operators import Member, Newcomer, Operator, public_jwk
from farthing.clients.transport import Connection
from farthing.protocol.canonical import canonical_bytes, document_sha256, sha256_hex
from farthing.protocol.errors import Code, Refused
from farthing.protocol.messages.accounts import GET_BALANCE, GetBalance
from farthing.protocol.messages.agents import (
    REGISTER_AGENT,
    ROTATE_KEY,
    RegisterAgent,
    RotateKey,
)
from farthing.protocol.messages.holds import PLACE_HOLD, PlaceHold
from farthing.protocol.signatures import Typ, sign_detached
from farthing.protocol.wire import Usage
from tests.papers import signing_key
from tests.serving import Shop, serving

ABSENT = "agr_00000000000000000000000000"


def purchase(key: str = "k" * 16) -> PlaceHold:
    """A write of an agent's that finds nothing: what is judged before it shows."""
    return PlaceHold(
        agreement_id=ABSENT,
        workload=(Usage(meter="page", quantity="1"),),
        args_sha256="a" * 64,
        idempotency_key=key,
    )


async def code_of(connection: Connection, key: str = "k" * 16) -> Code:
    with pytest.raises(Refused) as refused:
        await connection.call(PLACE_HOLD, purchase(key))
    return refused.value.code


async def test_an_organisation_writes_nothing_until_admin_approves_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        newcomer = Newcomer(server.connect(signing_key("Operator One")))
        registration = await newcomer.enrol("operator", "Operator One")
        operator = Operator(newcomer.member(registration))

        with pytest.raises(Refused) as refused:
            await operator.freeze(registration.principal_id, "test", key="k" * 16)
        seen = await operator.registration()
        await server.admin.approve(registration.principal_id)
        frozen = await operator.freeze(registration.principal_id, "test", key="k" * 16)

        assert refused.value.code is Code.REGISTRATION_PENDING
        assert (seen.status, frozen.frozen) == ("pending", True)


async def test_an_agent_writes_nothing_until_its_operator_approves_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        operator = Operator(await server.organisation("operator", "Operator One"))
        newcomer = Newcomer(server.connect(signing_key("Agent One")))
        registration = await newcomer.register(operator.connection.principal, "Agent One")
        agent = newcomer.member(registration)

        before = await code_of(agent)
        with pytest.raises(Refused) as foreign:
            await server.admin.approve(registration.principal_id)
        await operator.approve(registration.principal_id)

        assert before is Code.REGISTRATION_PENDING
        assert foreign.value.code is Code.NOT_FOUND
        assert await code_of(agent) is Code.NOT_FOUND


async def test_a_registration_is_signed_with_the_key_that_it_names(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        operator = await server.organisation("operator", "Operator One")
        ask = RegisterAgent(
            operator_id=operator.principal,
            name="Agent One",
            key=public_jwk(signing_key("Agent One").public),
            idempotency_key="k" * 16,
        )

        with pytest.raises(Refused) as refused:
            await server.connect(signing_key("Agent Two")).call(REGISTER_AGENT, ask)

        assert refused.value.code is Code.UNKNOWN_KEY


async def test_a_key_is_registered_once_and_its_lost_reply_is_found(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        operator = await server.organisation("operator", "Operator One")
        newcomer = server.connect(signing_key("Agent One"))

        def ask(key: str) -> RegisterAgent:
            return RegisterAgent(
                operator_id=operator.principal,
                name="Agent One",
                key=public_jwk(signing_key("Agent One").public),
                idempotency_key=key,
            )

        first = await newcomer.send(REGISTER_AGENT, ask("a" * 16))
        again = await newcomer.send(REGISTER_AGENT, ask("a" * 16))
        await Operator(operator).approve(first.answer.principal_id)
        with pytest.raises(Refused) as refused:
            await newcomer.send(REGISTER_AGENT, ask("b" * 16))
        outcome = await Member(newcomer).outcome("register_agent", "a" * 16)

        assert (first.replayed, again.replayed) == (False, True)
        assert first.answer == again.answer
        assert refused.value.code is Code.ALREADY_REGISTERED
        assert outcome.outcome == "done"


async def test_a_rotated_key_signs_nothing_more_and_the_new_one_everything(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server)
        principal = shop.buyer.connection.principal
        state = await Member(shop.buyer.connection).rotate_key(signing_key("Agent Two"))
        renewed = server.connect(signing_key("Agent Two"), principal)

        assert (state.principal_id, state.status) == (principal, "active")
        assert await refused_everywhere(server.connect(signing_key("Agent One"), principal))
        assert (await Member(renewed).registration()).principal_id == principal
        assert await code_of(renewed) is Code.NOT_FOUND


@pytest.mark.parametrize("lie", ["another_key", "another_principal"])
async def test_a_rotation_needs_possession_of_the_new_key(tmp_path: Path, lie: str) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server)
        connection = shop.buyer.connection
        new = signing_key("Agent Two")
        shown = {
            "new": new.thumbprint,
            "old": signing_key("Agent One").thumbprint,
            "principal": ABSENT if lie == "another_principal" else connection.principal,
        }
        signer = signing_key("Agent Three") if lie == "another_key" else new
        ask = RotateKey(
            key=public_jwk(new.public),
            possession=sign_detached(signer, Typ.ROTATION, canonical_bytes(dict(shown))),
            idempotency_key="k" * 16,
        )

        with pytest.raises(Refused) as refused:
            await connection.call(ROTATE_KEY, ask)

        assert refused.value.code is Code.SIGNATURE_INVALID
        assert await code_of(connection) is Code.NOT_FOUND


@pytest.mark.parametrize("who", ["itself", "operator"])
async def test_a_revoked_key_neither_writes_nor_reads(tmp_path: Path, who: str) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server)
        connection = shop.buyer.connection
        by = Member(connection) if who == "itself" else shop.operator
        thumbprint = signing_key("Agent One").thumbprint

        state = await by.revoke_key(connection.principal, thumbprint)

        assert state.status == "revoked"
        assert await refused_everywhere(connection)


async def test_a_freeze_binds_on_the_very_next_call(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server)
        agreement = await shop.buyer.accept(await shop.buyer.quote(shop.listing_id, {"page": 2}))
        principal = shop.buyer.connection.principal

        await shop.operator.freeze(principal, "test")
        with pytest.raises(Refused) as frozen:
            await shop.buyer.hold(agreement.agreement_id, {"page": 2}, {"call": 1})
        await shop.operator.unfreeze(principal, "test")
        thawed = await shop.buyer.hold(agreement.agreement_id, {"page": 2}, {"call": 2})
        await server.admin.freeze(shop.operator.connection.principal, "test")
        with pytest.raises(Refused) as outranked:
            await shop.operator.unfreeze(shop.operator.connection.principal, "test")

        assert frozen.value.code is Code.FROZEN
        assert thawed.answer.status == "open"
        assert outranked.value.code is Code.NOT_PERMITTED


async def test_an_operators_agents_come_in_pages_its_own_before_who_asks(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        operator = await server.organisation("operator", "Operator One")
        stranger = Newcomer(server.connect(signing_key("Stranger")))
        await stranger.register(operator.principal, "Stranger")
        for name in ("Agent One", "Agent Two"):
            await server.agent(operator, name)
        page = await Operator(operator).agents(limit=1)
        shown = list(page.agents)
        while page.cursor:
            page = await Operator(operator).agents(limit=1, cursor=page.cursor)
            shown += page.agents

    assert [(each.name, each.status) for each in shown] == [
        ("Agent One", "active"),
        ("Agent Two", "active"),
        ("Stranger", "pending"),
    ]


async def test_no_name_and_no_digest_of_one_stands_in_the_journal(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server)
        agents = await shop.operator.agents()
    journal = journal_of(tmp_path)

    assert [each.name for each in agents.agents] == ["Agent One"]
    for name in ("Agent One", "Operator One", "Vendor One"):
        for trace in (name, document_sha256(name), sha256_hex(name.encode())):
            assert trace.encode() not in journal


async def refused_everywhere(connection: Connection) -> bool:
    """Whether a connection's key is refused for what it is, reading and writing."""
    with pytest.raises(Refused) as read:
        await connection.call(GET_BALANCE, GetBalance())
    return {read.value.code, await code_of(connection)} == {Code.KEY_REVOKED}


def journal_of(data_dir: Path) -> bytes:
    path = data_dir / "journal.sqlite"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT records FROM journal_batch").fetchall()
    return b"\n".join(row[0] for row in rows)
