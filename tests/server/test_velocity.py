"""How fast proven callers may call, and that nobody but they themselves are slowed by it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import httpx2
import orjson

from farthing.clients.signing import RequestSigner
from farthing.clients.transport import Connection
from farthing.identity.callers import Caller
from farthing.protocol.canonical import sha256_hex
from farthing.protocol.errors import Code
from farthing.protocol.keys import PrivateKey
from farthing.protocol.messages.holds import PlaceHold
from farthing.protocol.wire import Money, Role, document_of, usage_of
from farthing.server.velocity import Quota, Velocity
from farthing.settlement.engine.questions import FiguresNow
from tests.server.listening import Wire, envelope, wire_of
from tests.serving import Serving, Shop, serving

NOW_US = 1_795_176_000_000_000
SECOND_US = 1_000_000
AGENT = Caller(
    principal_id="agt_1", organisation_id="org_1", role=Role.BUYER, key_thumbprint="key 1"
)
SIBLING = replace(AGENT, principal_id="agt_2", key_thumbprint="key 2")
THIRD = replace(AGENT, principal_id="agt_3", key_thumbprint="key 3")
OPERATOR = Caller(
    principal_id="org_1", organisation_id="org_1", role=Role.OPERATOR, key_thumbprint="key 4"
)
FOREIGN = replace(AGENT, principal_id="agt_5", organisation_id="org_2", key_thumbprint="key 5")


def taken(take: Callable[[], tuple[bool, object]], most: int = 10_000) -> int:
    """How often something can be taken in one instant."""
    return next(number for number in range(most) if not take()[0])


def test_a_quota_can_be_taken_at_once_and_then_as_fast_as_it_refills() -> None:
    quota = Quota(b"key", 10, 2)

    at_once = taken(lambda: quota.take("one", NOW_US))
    a_second_later = taken(lambda: quota.take("one", NOW_US + SECOND_US))
    long_after = taken(lambda: quota.take("one", NOW_US + 3600 * SECOND_US))

    assert (at_once, a_second_later, long_after) == (10, 5, 10)


def test_what_is_left_is_told_with_the_time_in_which_it_refills() -> None:
    quota = Quota(b"key", 10, 2)
    _, left = quota.take("one", NOW_US, 7)
    enough, still_left = quota.take("one", NOW_US, 4)

    assert quota.policy == b'"key";q=10;w=2'
    assert quota.left(left) == b'"key";r=3;t=2'
    assert (enough, still_left) == (False, 3)
    assert quota.left(10) == b'"key";r=10;t=0'


def test_a_whole_quota_is_enough_for_several_calls_of_which_one_was_counted_before() -> None:
    velocity = Velocity(calls_per_second=2)
    one, _ = velocity.take(OPERATOR, NOW_US)
    others, _ = velocity.take(OPERATOR, NOW_US, 15)
    again, _ = velocity.take(OPERATOR, NOW_US)

    assert (one, others, again) == (True, True, False)


def test_a_clock_that_is_set_back_makes_nobody_wait_for_more_than_a_whole_quota() -> None:
    quota = Quota(b"key", 10, 2)
    quota.take("one", NOW_US)
    back_us = NOW_US - 3600 * SECOND_US

    assert taken(lambda: quota.take("one", back_us)) == 0
    assert taken(lambda: quota.take("one", back_us + 2 * SECOND_US)) == 10


def test_a_clock_that_is_set_back_makes_no_debt_longer_either() -> None:
    quota = Quota(b"key", 10, 2)
    quota.spend("one", NOW_US)
    back_us = NOW_US - 3600 * SECOND_US

    assert 0 < quota.wait_us("one", back_us) <= 2 * SECOND_US
    assert quota.wait_us("one", back_us + 2 * SECOND_US) == 0


def test_who_owes_waits_until_it_is_refilled_and_never_for_more_than_a_whole_quota() -> None:
    quota = Quota(b"key", 10, 2)
    for _ in range(11):
        quota.spend("one", NOW_US)
    owed = quota.wait_us("one", NOW_US)
    for _ in range(1000):
        quota.spend("one", NOW_US)

    assert owed == 2 * SECOND_US // 10 * 2
    assert quota.wait_us("one", NOW_US) == 2 * SECOND_US
    assert quota.wait_us("one", NOW_US + 2 * SECOND_US) == SECOND_US // 5
    assert quota.wait_us("one", NOW_US + 3 * SECOND_US) == 0
    assert quota.wait_us("another", NOW_US) == 0


def test_however_many_names_come_only_the_last_are_remembered() -> None:
    quota = Quota(b"key", 1, 60)
    for number in range(25_000):
        quota.take(f"name {number}", NOW_US)

    remembered = [quota.wait_us(f"name {number}", NOW_US) > 0 for number in range(25_000)]

    assert 5_000 <= sum(remembered) <= 10_000
    assert all(remembered[-5_000:])


def test_one_agent_has_half_of_what_its_organisation_has_and_all_of_them_no_more() -> None:
    velocity = Velocity(calls_per_second=100)

    def take(caller: Caller) -> int:
        return taken(lambda: velocity.take(caller, NOW_US))

    assert [take(AGENT), take(SIBLING), take(THIRD)] == [100, 100, 0]
    assert [take(OPERATOR), take(FOREIGN)] == [200, 100]


def test_an_agent_that_is_slowed_takes_nothing_from_its_organisation() -> None:
    velocity = Velocity(calls_per_second=100)
    for _ in range(1000):
        velocity.take(AGENT, NOW_US)

    assert taken(lambda: velocity.take(SIBLING, NOW_US)) == 100


def test_an_agent_that_owes_its_share_of_refusals_takes_nothing_from_its_organisation() -> None:
    velocity = Velocity(refusals_per_second=2)
    # All of them were on their way before the first was refused.
    for _ in range(1000):
        velocity.refused(AGENT, Code.BUDGET_EXCEEDED, NOW_US)

    assert velocity.refuse_write(AGENT, NOW_US) is not None
    assert velocity.refuse_write(SIBLING, NOW_US) is None


def test_refusals_for_good_slow_the_writes_of_who_causes_them() -> None:
    velocity = Velocity(refusals_per_second=2)

    def written(caller: Caller, code: Code, now_us: int = NOW_US) -> int:
        for number in range(1000):
            if velocity.refuse_write(caller, now_us):
                return number
            velocity.refused(caller, code, now_us)
        return 1000

    assert written(AGENT, Code.STALE) == 1000
    assert written(AGENT, Code.BUDGET_EXCEEDED) == 200
    assert written(SIBLING, Code.BUDGET_EXCEEDED) == 200
    assert written(THIRD, Code.BUDGET_EXCEEDED) == 0
    assert written(OPERATOR, Code.BUDGET_EXCEEDED) == 400
    assert written(FOREIGN, Code.BUDGET_EXCEEDED) == 200
    assert written(AGENT, Code.BUDGET_EXCEEDED, NOW_US + 3 * SECOND_US) == 3


def hold(agreement_id: str, key: str, pages: int = 1) -> dict[str, Any]:
    ask = PlaceHold(
        agreement_id=agreement_id,
        workload=usage_of({"page": pages}),
        args_sha256=sha256_hex(b"{}"),
        idempotency_key=f"{key:k<22}",
    )
    return document_of(ask)


async def sent(server: Serving, by: Connection, name: str, ask: dict[str, Any]) -> httpx2.Response:
    return await server.http.post(
        f"{server.service.issuer}/v1/{name}",
        content=orjson.dumps(ask),
        headers={"content-type": "application/json"},
        auth=cast("RequestSigner", by.auth),
    )


async def records(server: Serving) -> int:
    return (await server.service.market.ask(FiguresNow())).seq


async def agreed(shop: Shop) -> str:
    quote = await shop.buyer.quote(shop.listing_id, {"page": 1})
    return (await shop.buyer.accept(quote)).agreement_id


def is_limited(response: httpx2.Response) -> bool:
    shape = response.json()
    return (
        response.status_code == 429
        and shape["code"] == Code.RATE_LIMITED
        and shape["retryable"] is True
        and response.headers["retry-after"] == str(shape["retry_after"])
    )


async def test_a_flood_by_one_key_is_refused_and_nobody_else_is_slowed(tmp_path: Path) -> None:
    async with serving(tmp_path, calls_per_second=40) as server:
        shop, other = await Shop.opened(server), await Shop.opened(server, suffix="Two")
        agreement_id = await agreed(shop)
        server.clock.ahead_us += 10 * SECOND_US
        server.clock.stop()
        by = shop.buyer.connection
        ask = hold(agreement_id, "one")

        reads = [await sent(server, by, "get_balance", {}) for _ in range(60)]
        before = await records(server)
        write = await sent(server, by, "place_hold", ask)
        elsewhere = await sent(server, other.buyer.connection, "get_balance", {})
        operator = await sent(server, shop.operator.connection, "get_balance", {})
        after = await records(server)
        server.clock.ahead_us += SECOND_US
        again = await sent(server, by, "place_hold", ask)

        assert reads[0].headers["ratelimit"].startswith('"key";r=39;')
        assert is_limited(reads[-1])
        assert reads[-1].headers["ratelimit"].startswith('"key";r=0;')
        assert is_limited(write)
        assert (elsewhere.status_code, operator.status_code) == (200, 200)
        assert after == before
        assert again.status_code == 200
        assert "idempotent-replayed" not in again.headers


async def test_who_is_refused_for_good_too_often_waits_before_its_next_write(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, refusals_per_second=2) as server:
        shop = await Shop.opened(server)
        agreement_id = await agreed(shop)
        by = shop.buyer.connection
        beyond = [hold(agreement_id, f"far{number}", 1000) for number in range(210)]
        server.clock.stop()

        codes = [(await sent(server, by, "place_hold", ask)).json()["code"] for ask in beyond]
        before = await records(server)
        limited = await sent(server, by, "place_hold", hold(agreement_id, "one"))
        on_mcp = await called(wire_of(server), by, hold(agreement_id, "one"))
        read = await sent(server, by, "get_balance", {})
        limits = Money(amount="1", asset="USD")
        await shop.operator.set_authority(by.principal, per_call_max=limits, per_day_max=limits)
        after = await records(server)
        server.clock.ahead_us += 5 * SECOND_US
        again = await sent(server, by, "place_hold", hold(agreement_id, "one"))

        assert codes[0] == Code.PER_CALL_LIMIT_EXCEEDED
        assert set(codes[-5:]) == {Code.RATE_LIMITED}
        assert is_limited(limited)
        assert on_mcp["code"] == Code.RATE_LIMITED
        assert read.status_code == 200
        assert after == before + 1
        assert (again.status_code, "idempotent-replayed" in again.headers) == (200, False)


async def called(wire: Wire, by: Connection, ask: dict[str, Any]) -> dict[str, Any]:
    """What the MCP door says to the same ask."""
    body = envelope("place_hold", ask)
    assert isinstance(by.signer, PrivateKey)
    proof = wire.proof(by.signer, body, principal=by.principal)
    response = await wire.send(body, name="place_hold", proof=proof)
    found: dict[str, Any] = response.json()["result"]["structuredContent"]
    return found
