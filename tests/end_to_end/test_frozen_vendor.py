from pathlib import Path

import pytest

from farthing.protocol.errors import Refused
from farthing.protocol.messages.authority import CHECK_AUTHORITY, CheckAuthority
from farthing.protocol.messages.catalog import SearchCatalog
from farthing.protocol.wire import Money
from tests.serving import Shop, serving


async def test_what_is_said_beforehand_of_a_frozen_vendor_is_what_a_hold_says(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server)
        ask = CheckAuthority(listing_id=shop.listing_id, amount=Money(amount="0.002", asset="USD"))
        assert (await shop.buyer.connection.call(CHECK_AUTHORITY, ask)).allowed
        agreement = await shop.buyer.accept(await shop.buyer.quote(shop.listing_id, {"page": 1}))
        await server.admin.freeze(shop.vendor.vendor_id, "looked into")
        check = await shop.buyer.connection.call(CHECK_AUTHORITY, ask)
        quote = await shop.buyer.quote(shop.listing_id, {"page": 1})
        (found,) = (await shop.buyer.search(SearchCatalog(query="text of pdf pages"))).results
        (reason,) = found.purchasable.reasons
        with pytest.raises(Refused) as refused:
            await shop.buyer.hold(agreement.agreement_id, {"page": 1}, {"call": "1"})
        assert (check.allowed, check.reasons) == (False, ("frozen",))
        assert (quote.allowed, quote.reasons) == (False, ("frozen",))
        hold = refused.value.refusal
        assert reason.code == hold.code == "frozen"
        assert reason.message == hold.message
        assert reason.next_action == hold.next_action == "use_other_vendor"
