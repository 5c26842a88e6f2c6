"""A record tells of its calls: all of them with its batch, one of them by a path without it."""

from typing import Any

import pytest

from farthing.protocol.calls import proof_of, proven_call, reported_calls
from farthing.protocol.errors import Unverified
from farthing.protocol.records import line_of, parse_record
from tests.construction import Trade
from tests.protocol.replay.metered import Metered, events

COUNT = 7


def reported() -> tuple[Metered, bytes]:
    trade = Trade.opened()
    metered = Metered.opened(trade)
    at_us = trade.room.now_us
    metered.report([each for seq in range(1, COUNT + 1) for each in events(seq, 1, at_us=at_us)])
    return metered, trade.room.journal[-1]


METERED, ENTRY = reported()
WHOLE, BRIEF = parse_record(ENTRY)[0], parse_record(line_of(ENTRY))[0]


def proof(place: int) -> dict[str, Any]:
    event, path = proof_of(WHOLE, place)
    return {"place": place, "event": event, "path": path}


@pytest.mark.parametrize("place", range(COUNT))
def test_one_call_is_proven_without_the_others(place: int) -> None:
    call = proven_call(BRIEF, METERED.session_id, place + 1, **proof(place))
    assert call == reported_calls(WHOLE)[place]


@pytest.mark.parametrize(
    "changed",
    [
        {"seq": 3},
        {"session_id": "ses_" + "0" * 26},
        {"place": 2},
        {"event": proof(2)["event"]},
        {"event": proof(1)["event"].replace('"1"', '"2"')},
        {"event": "\udc80"},
        {"path": proof(2)["path"]},
        {"path": proof(1)["path"][:-1]},
        {"path": [each.upper() for each in proof(1)["path"]]},
        {"path": ["x"]},
    ],
    ids=str,
)
def test_another_call_or_path_proves_nothing(changed: dict[str, Any]) -> None:
    told = {"session_id": METERED.session_id, "seq": 2, **proof(1), **changed}
    session_id, seq = told.pop("session_id"), told.pop("seq")
    with pytest.raises(Unverified):
        proven_call(BRIEF, session_id, seq, **told)


def test_a_record_without_its_batch_tells_of_no_calls() -> None:
    with pytest.raises(Unverified, match="without its batch"):
        reported_calls(BRIEF)
