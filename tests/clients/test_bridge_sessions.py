"""Spend sessions through the bridge: counted once against the ceiling, called through, closed."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from farthing.clients import bridge_sessions
from farthing.clients.sessions import SpendSession
from farthing.clients.transport import Connection
from farthing.protocol.messages.sessions import Session
from tests.clients.test_bridge import WORKLOAD, Agent, bridged, left_today
from tests.clients.trading import usd
from tests.patience import patiently


async def session_terms(agent: Agent) -> dict[str, Any]:
    """What a session is opened with, under an agreement of its own."""
    accepted = await agent("accept_terms", listing_id=agent.market.listing_id, workload=WORKLOAD)
    return {
        "agreement_id": accepted["agreement"]["agreement_id"],
        "cap": {"amount": "0.1", "asset": "USD"},
        "per_call": {"amount": "0.01", "asset": "USD"},
    }


async def in_session(agent: Agent, **more: Any) -> str:
    """Agree, and open a session; gives its id."""
    session = await agent("open_session", **await session_terms(agent), **more)
    return str(session["session_id"])


async def test_a_session_counts_once_against_the_ceiling_and_its_calls_no_more(
    tmp_path: Path,
) -> None:
    async with bridged(tmp_path) as agent:
        await agent.ready()
        session_id = await in_session(agent, low_water={"amount": "0.085", "asset": "USD"})
        opened = left_today(await agent("get_bridge_status"))
        calls = [
            await agent("call_in_session", session_id=session_id, arguments={"pdf": "one|two"})
            for _ in range(4)
        ]
        called = left_today(await agent("get_bridge_status"))
        await agent(
            "top_up_session", session_id=session_id, amount={"amount": "0.2", "asset": "USD"}
        )
        topped = left_today(await agent("get_bridge_status"))
        closed = await agent("close_session", session_id=session_id)
        after = left_today(await agent("get_bridge_status"))

    assert (opened, called, topped, after) == ("9.9", "9.9", "9.7", "9.984")
    assert [each["seq"] for each in calls] == [1, 2, 3, 4]
    assert calls[0]["untrusted_result"] == {"pages": ["one", "two"]}
    assert calls[-1]["spent"] == {"amount": "0.016", "asset": "USD"}
    assert [each["low"] for each in calls] == [False, False, False, True]
    assert calls[0]["signed"][0]["session_id"] == session_id
    assert closed["status"] == "closing"


async def test_the_same_session_asked_for_again_is_counted_once(tmp_path: Path) -> None:
    async with bridged(tmp_path) as agent:
        await agent.ready()
        terms = await session_terms(agent) | {"idempotency_key": "the-one-session-key"}
        first = await agent("open_session", **terms)
        again = await agent("open_session", **terms)
        less = {"amount": "0.05", "asset": "USD"}
        other = await agent.refused("open_session", **terms | {"cap": less})
        left = left_today(await agent("get_bridge_status"))

    assert first["session_id"] == again["session_id"]
    assert other["code"] == "idempotency_conflict"
    assert left == "9.9"


async def test_a_session_above_the_ceiling_is_not_opened_and_one_refused_counts_nothing(
    tmp_path: Path,
) -> None:
    async with bridged(tmp_path) as agent:
        await agent.ready()
        terms = {
            "agreement_id": "agr_00000000000000000000000000",
            "per_call": {"amount": "0.01", "asset": "USD"},
        }
        dear = await agent.refused("open_session", cap={"amount": "1.5", "asset": "USD"}, **terms)
        unknown = await agent.refused(
            "open_session", cap={"amount": "0.5", "asset": "USD"}, **terms
        )
        left = left_today(await agent("get_bridge_status"))

    assert (dear["code"], unknown["code"]) == ("local_limit_exceeded", "not_found")
    assert left == "10"


async def test_a_lost_answer_of_a_session_says_how_to_ask_for_it_again(tmp_path: Path) -> None:
    async with bridged(tmp_path) as agent:
        await agent.ready()
        session_id = await in_session(agent)
        agent.market.routes.lose_replies = 3
        call = {"session_id": session_id, "arguments": {"pdf": "one|two"}}
        lost = await agent.refused("call_in_session", **call)
        await agent("close_session", session_id=session_id)
        over = await agent.refused("call_in_session", **call)
        again = await agent("call_in_session", again=1, **call)

    assert (lost["code"], lost["path"]) == ("unavailable", "again")
    assert "again=1" in lost["message"]
    assert over["code"] == "session_closed"
    assert over["message"].endswith("are calls 1.")
    assert again["seq"] == 1
    assert agent.market.desk.runs == 1


async def test_a_cap_that_is_reached_tells_the_model_what_its_opener_wanted(tmp_path: Path) -> None:
    async with bridged(tmp_path) as agent:
        await agent.ready()
        terms = await session_terms(agent) | {"cap": {"amount": "0.01", "asset": "USD"}}
        call: dict[str, Any] = {"arguments": {"pdf": "one|two"}}
        hints: list[tuple[str, str, str]] = []
        for action in ("refuse", "top_up", "request_approval"):
            opened = await agent("open_session", final_action=action, **terms)
            call["session_id"] = opened["session_id"]
            await agent("call_in_session", **call)
            refused = await agent.refused("call_in_session", **call)
            hints.append((refused["code"], refused["next_action"], refused["hint"]))

    assert {code for code, _, _ in hints} == {"local_limit_exceeded"}
    assert [way_on for _, way_on, _ in hints] == ["reduce", "top_up", "request_approval"]
    assert "top_up_session" not in hints[0][2]
    assert "top_up_session" in hints[1][2]
    assert "ask a person" in hints[2][2]


async def test_a_session_that_does_not_close_keeps_no_other_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    both = asyncio.Barrier(2)
    closed: list[str] = []
    aclose = SpendSession.aclose

    async def met(session: SpendSession) -> None:
        async with patiently():
            await both.wait()
        await aclose(session)
        closed.append(session.session.session_id)
        if len(closed) == 1:
            raise OSError("the disk is full")

    monkeypatch.setattr(SpendSession, "aclose", met)
    async with bridged(tmp_path) as agent:
        await agent.ready()
        sessions = [await in_session(agent) for _ in range(2)]
        for session_id in sessions:
            await agent("call_in_session", session_id=session_id, arguments={"pdf": "one|two"})

    assert sorted(closed) == sorted(sessions)
    assert f"session {closed[0]} is not closed as it should be: OSError('the disk" in caplog.text


async def test_what_the_platform_says_of_a_session_does_not_lower_what_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"amount": {"amount": "0.2", "asset": "USD"}}
    call = {"arguments": {"pdf": "one|two"}}

    def less(answer: Any) -> Any:
        return replace(answer, cap=usd("0.01")) if isinstance(answer, Session) else answer

    async with bridged(tmp_path) as agent:
        await agent.ready()
        session_id = await in_session(agent)
        await agent("call_in_session", session_id=session_id, **call)
        with monkeypatch.context() as patched:
            patched.setattr(Connection, "call", lying(Connection.call, less))
            await agent("top_up_session", session_id=session_id, **asked)
            topped = left_today(await agent("get_bridge_status"))
            patched.setattr(Connection, "call", lying(Connection.call, still_open))
            refused = await agent.refused("close_session", session_id=session_id)
        after = left_today(await agent("get_bridge_status"))

    assert (topped, after) == ("9.7", "9.7")
    assert refused["code"] == "signature_invalid"
    assert refused["message"].endswith("was to be closed and is not.")


def still_open(answer: Any) -> Any:
    return replace(answer, status="open") if isinstance(answer, Session) else answer


def lying(method: Callable[..., Awaitable[Any]], change: Callable[[Any], Any]) -> Any:
    """A method whose answers are changed on the way."""

    async def answer(*asked: Any) -> Any:
        return change(await method(*asked))

    return answer


async def test_a_platform_that_grants_more_than_was_asked_for_is_not_taken_at_its_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def more(reply: Any) -> Any:
        if isinstance(reply.answer, Session):
            return replace(reply, answer=replace(reply.answer, cap=usd("9")))
        return reply

    async with bridged(tmp_path) as agent:
        await agent.ready()
        with monkeypatch.context() as patched:
            patched.setattr(Connection, "send", lying(Connection.send, more))
            refused = await agent.refused("open_session", **await session_terms(agent))
        left = left_today(await agent("get_bridge_status"))

    assert "is not the session that was asked for" in refused["message"]
    # It may have been set aside all the same.
    assert left == "9.9"


async def test_no_more_books_are_open_at_once_than_may_be_and_each_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge_sessions, "_BOOKS_MAX", 2)
    closed: list[str] = []
    aclose = SpendSession.aclose

    async def noted(session: SpendSession) -> None:
        closed.append(session.session_id)
        await aclose(session)

    monkeypatch.setattr(SpendSession, "aclose", noted)
    async with bridged(tmp_path) as agent:
        await agent.ready()
        first, second, third = [await in_session(agent) for _ in range(3)]
        one_each = [
            (await agent("call_in_session", session_id=each, arguments={"pdf": "one"}))["seq"]
            for each in (first, second, third, first)
        ]
        await agent("close_session", session_id=third)

    assert one_each == [1, 1, 1, 2]
    # Each for the next one, the third when it was closed, the rest in the end.
    assert closed == [*[first, second, third] * 2, first]
