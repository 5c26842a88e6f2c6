import base64
from pathlib import Path

import pytest

from farthing.protocol.canonical import canonical_bytes, sha256_hex
from farthing.protocol.errors import Code, Refused
from tests.serving import Shop, serving

WORK = canonical_bytes({"pages": ["All of the text."]})


async def test_a_body_that_came_too_late_does_not_replace_the_one_that_won(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server)
        agreement = await shop.buyer.accept(await shop.buyer.quote(shop.listing_id, {"page": 1}))
        hold = await shop.buyer.hold(agreement.agreement_id, {"page": 1}, {})
        charge_id = await shop.captured(
            agreement, hold.answer.hold_id, {"page": 1}, sha256_hex(WORK)
        )
        dispute = await shop.buyer.dispute(charge_id, "not_delivered")
        won = await shop.vendor.submit_evidence(dispute.dispute_id, WORK)
        assert won.outcome == "reject"
        with pytest.raises(Refused) as refused:
            await shop.vendor.submit_evidence(dispute.dispute_id, b'{"pages":[]}')
        assert refused.value.code is Code.DISPUTE_DECIDED
        status = await shop.buyer.dispute_status(dispute.dispute_id)
        assert base64.b64decode(status.redelivery) == WORK
