"""What a call of the platform's leaves in the journal, an auditor and a buyer can follow."""

from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

from farthing.clients.verify import verify_file
from farthing.protocol.canonical import Json
from farthing.protocol.faults import RuleBroken
from farthing.protocol.records import Record, parse_record
from farthing.protocol.replay.rulebook import Rulebook
from farthing.server.app import Service
from farthing.settlement.engine.commands import platform_command
from farthing.settlement.engine.questions import FiguresNow, RecordAt
from farthing.settlement.engine.services import AbandonHold
from tests.server.calling import PDF, Selling, answering, selling
from tests.server.lies import Lies

FAILED = b'{"jsonrpc":"2.0","id":1,"result":{"content":[],"isError":true}}'


async def records(market: Selling) -> list[Record]:
    service: Service = market.serving.service
    count = (await service.market.ask(FiguresNow())).seq
    found = [await service.market.ask(RecordAt(seq=seq)) for seq in range(1, count + 1)]
    return [parse_record(each)[0] for each in found if each]


async def abandoned(market: Selling, hold_id: str) -> None:
    command = platform_command("abandon_hold", AbandonHold(hold_id=hold_id, reason="vendor_failed"))
    await market.serving.service.market.engine.submit(command)


async def test_an_auditor_finds_nothing_against_calls_that_came_off_and_that_failed(
    tmp_path: Path,
) -> None:
    async with selling(tmp_path) as market:
        answer = (await market.call()).answer
        market.desk.instead = answering(200, FAILED)
        await market.attempt(key="one-that-fails-01")
        # The hold has ended long ago: nothing happens.
        await abandoned(market, answer.hold_id)

        written = await records(market)

    rulebook = Rulebook()
    for record in written:
        rulebook.follow(record)
    operations = [record.operation for record in written]
    assert operations[-5:] == [
        "call_service", "accept_answer", "call_service", "abandon_hold", "abandon_hold",
    ]  # fmt: skip
    assert not written[-1].changed
    assert not written[-1].moved
    assert written[-2].changed[0].after["status"] == "released"


async def test_a_platform_that_gives_back_a_buyers_own_hold_is_caught(tmp_path: Path) -> None:
    async with selling(tmp_path) as market:
        market.desk.instead = answering(200, FAILED)
        await market.attempt(key="one-that-fails-01")
        await market.buyer.hold(market.agreement.agreement_id, {"page": 3}, PDF)

        *before, given_back, held = await records(market)

    assert (given_back.operation, held.operation) == ("abandon_hold", "place_hold")
    rulebook = Rulebook()
    for record in (*before, given_back, held):
        rulebook.follow(record)
    (hold,) = (each for each in held.changed if each.noun == "hold")
    released = replace(hold, after={**hold.after, "status": "released"})
    asked: dict[str, Json] = {"hold_id": hold.id, "reason": "vendor_failed"}
    with pytest.raises(RuleBroken, match="no call of its own"):
        rulebook.follow(replace(given_back, asked=asked, changed=(released,)))


@pytest.mark.parametrize(
    ("forged", "says"),
    [
        ({"operation": "capture_hold"}, "before its answer is accepted"),
        ({"asked": {"hold_id": "", "result_sha256": "0" * 64}}, "another answer is accepted"),
        ({"facts.delivery_signature": "e30..e30"}, "the delivery record"),
        ({"facts.delivery.vendor_id": f"org_{'0' * 26}"}, "the delivery record"),
    ],
)
async def test_a_platform_that_pays_for_another_answer_than_was_signed_for_is_caught(
    tmp_path: Path, forged: dict[str, Any], says: str
) -> None:
    async with selling(tmp_path) as market:
        await market.call()
        *before, paid = await records(market)
        # As its vendor would have done it.
        captor = (await captured(market)).by

    rulebook = Rulebook()
    for record in before:
        rulebook.follow(record)
    facts = dict(paid.facts or {})
    delivery = dict(cast("dict[str, Json]", facts["delivery"]))
    for path, value in forged.items():
        match path.split("."):
            case ["facts", "delivery", member]:
                facts["delivery"] = delivery | {member: value}
            case ["facts", member]:
                facts[member] = value
            case ["operation"]:
                paid = replace(paid, operation=value, by=captor)
            case _:
                paid = replace(paid, **{path: value})
    with pytest.raises(RuleBroken, match=says):
        rulebook.follow(replace(paid, facts=facts))


async def captured(market: Selling) -> Record:
    """The record of a capture by the vendor itself."""
    held = await market.buyer.hold(market.agreement.agreement_id, {"page": 3}, PDF)
    lies = Lies(market, {"pages": []}, {})
    await market.vendor.capture(await lies.delivery(held.answer.hold_id))
    return (await records(market))[-1]


async def test_a_hold_that_says_another_than_its_operation_is_caught(tmp_path: Path) -> None:
    async with selling(tmp_path) as market:
        await market.call()
        *before, placed, _ = await records(market)

    rulebook = Rulebook()
    for record in before:
        rulebook.follow(record)
    (held, *others) = placed.changed
    after = {name: value for name, value in held.after.items() if name != "on_answer"}
    with pytest.raises(RuleBroken, match="its on_answer does not follow"):
        rulebook.follow(replace(placed, changed=(replace(held, after=after), *others)))


async def test_the_pack_of_such_a_charge_verifies_like_every_other(tmp_path: Path) -> None:
    async with selling(tmp_path) as market:
        charge = (await market.call()).answer.charge
        pack = tmp_path / "charge.zip"

        await market.buyer.save_evidence(charge.charge_id, pack)

        findings = verify_file(pack)
        assert findings.verified, findings.bad


async def test_the_outcome_of_a_call_whose_reply_was_lost_names_its_hold(tmp_path: Path) -> None:
    async with selling(tmp_path) as market:
        answer = (await market.call(key="a-key-that-is-lost")).answer

        outcome = await market.buyer.outcome("call_service", "a-key-that-is-lost")

        assert outcome.answer is not None
        assert outcome.answer["hold_id"] == answer.hold_id
