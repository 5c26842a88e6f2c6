"""What the engine answers of the state, besides doing commands."""

from typing import Any, cast

from farthing.settlement.engine.commands import Question
from farthing.settlement.engine.questions import MembersOf
from farthing.settlement.engine.standing import answer
from farthing.settlement.engine.things import Principal
from tests.construction import Room


def test_who_only_asks_to_be_an_agent_keeps_none_of_an_operators_own_off_a_list() -> None:
    room = Room()
    operator = room.organisation("operator", "Operator One")
    first = room.agent(operator, "Agent One")
    asking = [room.agent(operator, f"Stranger {n}", approve=False) for n in range(3)]
    last = room.agent(operator, "Agent Two")

    def listed(limit: int) -> list[str]:
        asked: Question[Any] = MembersOf(organisation_id=operator.principal_id, limit=limit)
        members = answer(room.state, asked, room.now_us)
        return [each.principal_id for each in cast("tuple[Principal, ...]", members)]

    own = [first.principal_id, last.principal_id]
    assert listed(2) == own
    assert listed(4) == own + [each.principal_id for each in asking[:2]]
