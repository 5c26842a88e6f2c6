"""Asks written short, as tests and `asks.json` have them."""

from typing import Any

from farthing.protocol.messages.catalog import SearchCatalog
from farthing.protocol.wire import Money, Usage


def ask_of(**short: Any) -> SearchCatalog:
    """An ask whose workload is a mapping and whose `max_total` is an amount of US dollars."""
    members: dict[str, Any] = dict(short)
    if "workload" in short:
        members["workload"] = tuple(
            Usage(meter=meter, quantity=quantity) for meter, quantity in short["workload"].items()
        )
    if isinstance(short.get("max_total"), str):
        members["max_total"] = Money(amount=short["max_total"], asset="USD")
    for name in ("tags", "regions", "vendors", "terms_sha256"):
        if name in short:
            members[name] = tuple(short[name])
    return SearchCatalog(**members)
