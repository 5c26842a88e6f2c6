from pathlib import Path

from farthing.protocol.messages.catalog import SearchCatalog
from tests.serving import Shop, serving


async def test_a_market_opens_and_its_listing_is_found(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        shop = await Shop.opened(server)
        found = await shop.buyer.search(SearchCatalog(query="text of pdf pages"))
        assert [each.listing_id for each in found.results] == [shop.listing_id]
