"""A charge made through the real door, proven from its file alone."""

from pathlib import Path
from typing import Any

from farthing.clients.buyers import Buyer
from farthing.clients.documents import result_bytes, result_sha256
from farthing.clients.operators import Member
from farthing.clients.verify import verify_file
from farthing.identity.keyring import Purpose
from farthing.protocol.contracts import DeliveryRecord
from farthing.protocol.evidence import Findings
from farthing.protocol.ids import AgreementId, HoldId, ListingId, OrganisationId, PrincipalId
from farthing.protocol.messages.agreements import Agreement
from farthing.protocol.messages.charges import GET_EVIDENCE, GetEvidence
from farthing.protocol.messages.holds import Charge
from farthing.protocol.wire import Money
from farthing.settlement.engine.questions import Lookup
from farthing.settlement.engine.things import Agreement as Bound
from farthing.settlement.engine.things import Hold as Placed
from tests.papers import signing_key
from tests.serving import Serving, Shop, serving

WORK: dict[str, Any] = {"pages": ["One page.", "Another."]}


async def agreed(shop: Shop) -> Agreement:
    return await shop.buyer.accept(await shop.buyer.quote(shop.listing_id, {"page": 2}))


async def sold(shop: Shop, agreement: Agreement) -> Charge:
    """Hold for three pages, deliver two."""
    market = shop.serving.service.market
    hold = (await shop.buyer.hold(agreement.agreement_id, {"page": 3}, {"pdf": "x"})).answer
    bound = await market.ask(Lookup(noun="agreement", id=hold.agreement_id))
    placed = await market.ask(Lookup(noun="hold", id=hold.hold_id))
    assert isinstance(bound, Bound)
    assert isinstance(placed, Placed)
    delivery = DeliveryRecord(
        hold_id=HoldId(hold.hold_id),
        agreement_id=AgreementId(bound.agreement_id),
        vendor_id=OrganisationId(PrincipalId(bound.vendor_id)),
        listing_id=ListingId(bound.listing_id),
        args_sha256=placed.args_sha256,
        result_sha256=result_sha256(WORK),
        output_schema_sha256=bound.output_schema_sha256,
        usage={"page": 2},
        delivered_at_us=shop.serving.clock(),
    )
    return (await shop.vendor.capture(delivery)).answer


async def proven(server: Serving, charge: Charge, buyer: Buyer, path: Path) -> Findings:
    """The buyer saves its pack; it is verified under the journal's key as the platform has it."""
    file = path / f"{charge.charge_id}.zip"
    await buyer.save_evidence(charge.charge_id, file)
    return verify_file(file, frozenset({server.service.keyring[Purpose.JOURNAL].thumbprint}))


async def test_each_charge_of_an_agreement_is_proven_offline(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server)
        agreement = await agreed(shop)
        for _ in range(2):
            charge = await sold(shop, agreement)
            findings = await proven(server, charge, shop.buyer, tmp_path)

            assert findings.bad == ""
            assert findings.charge_id == charge.charge_id


async def test_what_became_of_a_charge_is_proven_offline(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server)
        charge = await sold(shop, await agreed(shop))
        await shop.vendor.refund(charge.charge_id, Money(amount="0.001", asset="USD"))
        dispute = await shop.buyer.dispute(charge.charge_id, "not_delivered")
        waiting = await proven(server, charge, shop.buyer, tmp_path)
        await shop.vendor.submit_evidence(dispute.dispute_id, result_bytes(WORK))
        ruled = await proven(server, charge, shop.buyer, tmp_path)

        assert (waiting.bad, ruled.bad) == ("", "")
        assert len(ruled.proved) == len(waiting.proved) + 1


async def test_keys_that_began_after_a_charge_make_its_evidence_no_longer(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server)
        charge = await sold(shop, await agreed(shop))
        ask = GetEvidence(charge_id=charge.charge_id)
        before = await shop.vendor.connection.call(GET_EVIDENCE, ask)
        renewed = shop.buyer.connection
        for name in ("Agent Two", "Agent Three"):
            await Member(renewed).rotate_key(signing_key(name))
            renewed = server.connect(signing_key(name), renewed.principal)

        after = await shop.vendor.connection.call(GET_EVIDENCE, ask)
        unused = await proven(server, charge, Buyer(renewed), tmp_path)
        await Buyer(renewed).dispute(charge.charge_id, "not_delivered")
        used = await proven(server, charge, Buyer(renewed), tmp_path)

        assert [each.seq for each in after.receipts] == [each.seq for each in before.receipts]
        assert (unused.bad, used.bad) == ("", "")
        # The dispute, and both keys that the one that filed it comes from.
        later = await shop.vendor.connection.call(GET_EVIDENCE, ask)
        assert len(later.receipts) == len(before.receipts) + 3
