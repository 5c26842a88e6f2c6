"""What the engine answers of the state, besides doing commands."""

from typing import Any, cast

from farthing.settlement.engine.commands import Question
from farthing.settlement.engine.questions import Members, MembersOf, PlaceInMembers
from farthing.settlement.engine.standing import answer
from tests.construction import Room


def test_who_only_asks_to_be_an_agent_keeps_none_of_an_operators_own_off_a_list() -> None:
    room = Room()
    operator = room.organisation("operator", "Operator One")
    first = room.agent(operator, "Agent One")
    asking = [room.agent(operator, f"Stranger {n}", approve=False) for n in range(3)]
    last = room.agent(operator, "Agent Two")

    def listed(limit: int) -> list[list[str]]:
        """Page by page."""
        pages: list[list[str]] = []
        begin: PlaceInMembers | None = PlaceInMembers()
        while begin is not None:
            asked: Question[Any] = MembersOf(
                organisation_id=operator.principal_id, begin=begin, limit=limit
            )
            page = cast("Members", answer(room.state, asked, room.now_us))
            pages.append([each.principal_id for each in page.agents])
            begin = page.more
        return pages

    own = [first.principal_id, last.principal_id]
    strangers = [each.principal_id for each in asking]
    assert listed(2) == [own, strangers[:2], strangers[2:]]
    assert listed(3) == [[*own, strangers[0]], strangers[1:]]
    assert listed(5) == [own + strangers]
    assert listed(1) == [[each] for each in own + strangers]
