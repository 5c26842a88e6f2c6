"""Billed usage taken back over the real server: what each side sees, and what is proven of it."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from farthing.clients.documents import sign_correction
from farthing.protocol.canonical import Json, canonical_bytes
from farthing.protocol.errors import Code, Refusal, Refused
from farthing.protocol.evidence import gather, verify
from farthing.protocol.keys import PublicKey
from farthing.protocol.messages.charges import (
    EXPLAIN_CHARGE,
    GET_EVIDENCE,
    ExplainCharge,
    GetEvidence,
)
from farthing.protocol.messages.corrections import (
    CORRECT_USAGE,
    CallCorrection,
    CorrectUsage,
    UsageCorrection,
)
from farthing.protocol.messages.trails import GET_OUTCOME, GetOutcome
from farthing.protocol.signatures import Typ, sign_detached
from farthing.protocol.wire import document_of
from tests.clients.cli.running import run
from tests.papers import signing_key
from tests.server.listening import held
from tests.server.test_sessions import Opened, opened, usd
from tests.serving import Shop, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    async with held(serving(tmp_path_factory.mktemp("corrections"))) as server:
        yield await Shop.opened(server, balance="1000", per_day="1000")


async def billed(shop: Shop, *pages: int) -> tuple[Opened, str]:
    """A session of which calls 1, 2, … of so many pages were billed, and their charge."""
    made = await opened(shop)
    return made, (await made.report(made.batch(1, *pages))).charge_id


def asked(made: Opened, charge_id: str, taken: Mapping[int, Mapping[str, int]]) -> CorrectUsage:
    key = made.vendor.new_key()
    return sign_correction(made.shop.vendor.signer, charge_id, taken, key=key)


def turned_round(made: Opened, charge_id: str) -> CorrectUsage:
    """Signed as it is, and not in the order of the calls."""
    calls = tuple(CallCorrection(call=call, usage={"page": "1"}) for call in ("2", "1"))
    signed: dict[str, Json] = {
        "charge_id": charge_id,
        "corrections": [document_of(each) for each in calls],
    }
    signature = sign_detached(made.shop.vendor.signer, Typ.CORRECTION, canonical_bytes(signed))
    ask = asked(made, charge_id, {1: {"page": 1}})
    return replace(ask, corrections=calls, signature=signature)


async def refused(made: Opened, ask: CorrectUsage) -> Refusal:
    with pytest.raises(Refused) as refused:
        await made.vendor.call(CORRECT_USAGE, ask)
    return refused.value.refusal


async def test_a_call_is_corrected_and_its_retry_is_answered_alike(shop: Shop) -> None:
    made, charge_id = await billed(shop, 2, 3)
    ask = asked(made, charge_id, {2: {"page": 1}})
    first = await made.vendor.call(CORRECT_USAGE, ask)
    again = await made.vendor.call(CORRECT_USAGE, ask)
    outcome = await made.vendor.call(
        GET_OUTCOME, GetOutcome(operation="correct_usage", key=ask.idempotency_key)
    )

    assert (first.amount, first.refunded_in_all, first.calls) == (usd("0.002"), usd("0.002"), 1)
    assert first.session_id == made.session.session_id
    assert [(each.meter, each.quantity) for each in first.lines] == [("page", "1")]
    assert replace(again, standing=None) == replace(first, standing=None)
    assert outcome.answer == document_of(replace(first, standing=None))


async def test_the_vendor_s_sdk_corrects_calls(shop: Shop) -> None:
    _, charge_id = await billed(shop, 2, 3)
    found = await shop.vendor.correct_usage(charge_id, {1: {"page": 1}, 2: {"page": 3}})

    assert (found.calls, found.amount) == (2, usd("0.008"))
    assert isinstance(found, UsageCorrection)
    assert found.fee_returned.units > 0


async def test_either_side_reads_what_was_taken_back_of_which_call(shop: Shop) -> None:
    made, charge_id = await billed(shop, 2, 3)
    corrected = await made.vendor.call(CORRECT_USAGE, asked(made, charge_id, {2: {"page": 1}}))
    ask = ExplainCharge(charge_id=charge_id)
    for side in (shop.buyer.connection, shop.operator.connection, made.vendor):
        found = await side.call(EXPLAIN_CHARGE, ask)
        taken = [[(x.meter, x.quantity) for x in each.taken_back] for each in found.calls]
        assert taken == [[], [("page", "1")]]
        assert found.corrections == (replace(corrected, standing=None),)
        assert (found.charge.amount, found.charge.refunded) == (usd("0.01"), usd("0.002"))


async def test_a_pack_of_the_charge_proves_the_correction(shop: Shop) -> None:
    made, charge_id = await billed(shop, 2, 3)
    await made.vendor.call(CORRECT_USAGE, asked(made, charge_id, {1: {"page": 2}}))
    evidence = await shop.buyer.connection.call(GET_EVIDENCE, GetEvidence(charge_id=charge_id))
    trusted = PublicKey.from_jwk(shop.serving.service.market.journal_jwk)
    findings = verify(gather(evidence), frozenset({trusted.thumbprint}))

    assert findings.bad == ""
    assert "the vendor signed that 1 of the calls had used less" in " ".join(findings.proved)


async def test_what_is_forged_or_does_not_fit_gives_nothing_back(shop: Shop) -> None:
    made, charge_id = await billed(shop, 2, 3)
    stranger = signing_key("nobody")
    sound = asked(made, charge_id, {1: {"page": 1}})
    forged = sign_correction(stranger, charge_id, {1: {"page": 1}}, key=made.vendor.new_key())
    more = replace(sound, corrections=(CallCorrection(call="1", usage={"page": "2"}),))
    cases: list[tuple[CorrectUsage, Code, str]] = [
        (forged, Code.SIGNATURE_INVALID, "signature"),
        (more, Code.SIGNATURE_INVALID, "signature"),
        (replace(sound, signature="a.b.c"), Code.SIGNATURE_INVALID, "signature"),
        (turned_round(made, charge_id), Code.USAGE_INVALID, "corrections.1.call"),
        (asked(made, charge_id, {3: {"page": 1}}), Code.USAGE_INVALID, "corrections.0.call"),
        (
            asked(made, charge_id, {1: {"page": 3}}),
            Code.USAGE_INVALID,
            "corrections.0.usage.page",
        ),
    ]
    for place, (ask, code, path) in enumerate(cases):
        key = f"case-{place}-{charge_id[-16:]}"
        refusal = await refused(made, replace(ask, idempotency_key=key))
        assert (refusal.code, refusal.path) == (code, path)
    found = await made.vendor.call(EXPLAIN_CHARGE, ExplainCharge(charge_id=charge_id))
    assert found.charge.refunded == usd("0")


@pytest.mark.parametrize(
    "corrections",
    [
        [],
        [{"call": "0", "usage": {"page": "1"}}],
        [{"call": "01", "usage": {"page": "1"}}],
        [{"call": 1, "usage": {"page": "1"}}],
        [{"call": "1", "usage": {}}],
        [{"call": "1", "usage": {"page": "0"}}],
        [{"call": "1", "usage": {"page": "-1"}}],
        [{"call": "1", "usage": {"page": 1}}],
        [{"call": "1", "usage": {"Page": "1"}}],
        [{"call": "1", "usage": {"page": "1"}, "why": "x"}],
    ],
)
async def test_what_has_not_the_form_of_a_correction_is_refused_at_the_door(
    shop: Shop, corrections: list[Any]
) -> None:
    made, charge_id = await billed(shop, 1)
    arguments = {
        "charge_id": charge_id,
        "corrections": corrections,
        "signature": "a.b.c",
        "idempotency_key": made.vendor.new_key(),
    }
    with pytest.raises(Refused) as refused:
        await made.vendor.send_raw("correct_usage", arguments, repeatable=False)
    assert refused.value.code is Code.INVALID_ARGUMENT
    assert refused.value.refusal.path.split(".")[0] == "corrections"


async def test_an_auditor_follows_a_market_with_corrections(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server, balance="10", per_day="10")
        made, charge_id = await billed(shop, 2, 3, 0)
        await shop.vendor.correct_usage(charge_id, {1: {"page": 1}})
        await made.report(made.batch(10, 1, 1))
        await shop.vendor.correct_usage(charge_id, {2: {"page": 3}})
    folder = next(each.parent for each in tmp_path.rglob("*.sqlite"))

    ran = run("audit", "verify", "--data-dir", str(folder))

    assert ran.code == 0, ran
