"""The trade as it should go: a need, a price, an agreement, work, a receipt; then a second one.

Boundary: what agent and vendors do, with the clients that anybody has. What goes wrong on purpose
is in `mishaps`.
"""

import asyncio
import base64
from collections.abc import Mapping
from typing import Final, cast

from farthing.clients.demo.narration import cents, counted, shown
from farthing.clients.demo.outcomes import Reason
from farthing.clients.demo.stage import DELIVERED, OVER_BUDGET, Bought, Stage
from farthing.clients.demo.work_text import CHARACTERS_MAX
from farthing.clients.documents import result_sha256
from farthing.clients.services import Purchase, ServiceFailed
from farthing.protocol.canonical import Json, sha256_hex
from farthing.protocol.listing import parse_listing
from farthing.protocol.messages.agreements import Quote
from farthing.protocol.messages.catalog import Component, Result, SearchAnswer, SearchCatalog
from farthing.protocol.money import format_units
from farthing.protocol.rating import parse_card
from farthing.protocol.wire import Money, Usage, document_of, money

__all__ = ["ASSET", "open_market", "read_pages", "understand_text"]

ASSET: Final = "USD"
FUNDED_CALLS: Final = 20
"""How many calls at the agent's limit the operator's credit would cover."""
DAILY_CALLS: Final = 4
"""How many of them the agent may make in a day."""
LATENCY_MS_P95_MAX: Final = 2000
_SUMMARY_SHOWN: Final = 2
_KEYWORDS_SHOWN: Final = 6
_PPM_PER_POINT: Final = 10_000


async def open_market(stage: Stage) -> None:
    """The operator, its agent and three vendors come to the market."""
    tell, market, per_call = stage.narrator, stage.market, stage.per_call
    tell.act("A market opens")
    tell.facts(
        ("server", f"process {market.server.pid}, {market.url}/mcp, journal in SQLite"),
        ("journal key", market.journal_thumbprint),
    )
    tell.act("Somebody who may spend")
    funds = money(per_call.units * FUNDED_CALLS, ASSET)
    await market.enrol_operator("Quayside Research", funds)
    grant = await market.register_agent(
        "reading-agent", per_call=per_call, per_day=money(per_call.units * DAILY_CALLS, ASSET)
    )
    operator_id, agent_id = market.operator.connection.principal, grant.agent_id
    tell.say(
        "An operator enrols and the admin approves it; the treasurer credits its account. "
        "Its agent registers with a key of its own; the operator approves and limits it."
    )
    tell.facts(
        ("operator", f"{operator_id}, credited {shown(funds)}"),
        ("agent", f"{agent_id}"),
        ("may spend", f"{shown(grant.per_call_max)} a call, {shown(grant.per_day_max)} a day"),
    )
    tell.promise(
        "the account holds exactly what was credited",
        holds=await stage.available() == funds,
        seen=await stage.available(),
    )
    await _open_shops(stage)
    stage.facts["ids"] = {
        "operator_id": operator_id,
        "agent_id": agent_id,
        "vendors": {name: each.vendor.vendor_id for name, each in market.shops.items()},
        "listings": {
            name: str(offer.listing["listing_id"])
            for each in market.shops.values()
            for name, offer in each.offers.items()
        },
    }
    stage.facts["platform"] = {"url": market.url, "journal_thumbprint": market.journal_thumbprint}
    stage.facts["funded"] = document_of(funds)
    stage.facts["limits"] = {
        "per_call": document_of(grant.per_call_max),
        "per_day": document_of(grant.per_day_max),
    }


async def _open_shops(stage: Stage) -> None:
    tell, market = stage.narrator, stage.market
    tell.act("Three vendors open")
    await market.open_shops()
    tell.say("Each is an ordinary MCP server in a process of its own, made payable in three lines.")
    tell.table(
        ("vendor", "process", "sells", "for, in USD"),
        [
            (
                shop.name,
                str(shop.child.pid),
                str(offer.listing["name"]),
                _price(offer.rate_card),
            )
            for shop in market.shops.values()
            for offer in shop.offers.values()
        ],
    )
    reports = [report for shop in market.shops.values() for report in shop.reports.values()]
    tell.promise(
        f"all {len(reports)} listings pass the publish report with no finding",
        holds=all(report.publishable and not report.findings for report in reports),
        seen=[report.findings for report in reports],
    )


async def read_pages(stage: Stage) -> str:
    """The agent's errand: the text of the file's pages; gives the outcome."""
    answer = await _search(stage)
    if not answer.results:
        _tell_infeasible(stage, answer)
        return OVER_BUDGET
    chosen = answer.results[0]
    content = await _content(stage, chosen)
    if content is None:
        return Reason.TOO_LARGE.value
    quote = await _agree(stage, chosen)
    return await _buy_pages(stage, chosen, quote, content)


async def understand_text(stage: Stage) -> None:
    """A second vendor says what the text is about."""
    tell, market = stage.narrator, stage.market
    tell.act("Another vendor reads the text")
    listing_id = market.listing_id("text-analysis")
    text = stage.text[:CHARACTERS_MAX]
    tell.say(f"Keywords, readability and a summary of {counted(len(text), 'character')}.")
    try:
        purchase = await market.agent.call_service(
            listing_id, {"text": text}, {"character": len(text)}, max_total=stage.per_call
        )
    except ServiceFailed as failed:
        await nothing_charged(stage, failed, "the analysis")
        return
    stage.bought.append(bought("analysis", listing_id, purchase))
    result = cast("dict[str, list[object]]", purchase.result)
    keywords = cast("list[dict[str, object]]", result["keywords"])[:_KEYWORDS_SHOWN]
    tell.facts(
        ("keywords", ", ".join(f"{each['word']} ({each['count']})" for each in keywords)),
        ("summary", " ".join(str(each) for each in result["summary"][:_SUMMARY_SHOWN])),
        ("charge", f"{purchase.charge.charge_id}, {shown(purchase.charge.amount)}"),
    )
    price = market.price(listing_id, {"character": len(text)})
    tell.promise(
        f"the charge is the card's price to the last digit: {cents(price)}",
        holds=purchase.charge.amount == price,
        seen=purchase.charge.amount,
    )


def bought(label: str, listing_id: str, purchase: Purchase) -> Bought:
    """A purchase as the end of the story knows it."""
    return Bought(
        label=label,
        listing_id=listing_id,
        agreement_id=purchase.agreement_id,
        charge_id=purchase.charge.charge_id,
    )


async def nothing_charged(stage: Stage, failed: ServiceFailed, what: str) -> str:
    """Tell that a vendor did not deliver, and hold it to having charged nothing."""
    tell, agent = stage.narrator, stage.market.agent
    hold = await agent.hold_status(failed.hold_id)
    said = failed.refusal.message
    tell.say(f"The vendor could not do {what}. {said}")
    tell.facts(("hold", f"{hold.hold_id}, {hold.status}"))
    tell.promise(
        "the vendor gave the hold back at once, and nothing was charged",
        holds=hold.status == "released" and not hold.charge_id,
        seen=hold,
    )
    # Its words stand in quotes, the reason first.
    first = said.partition('"')[2].rstrip('".').partition(":")[0]
    reason = first if first in set(Reason) else failed.code.value
    stage.refusals.append(
        {"step": what, "reason": reason, **failed.refusal.document(), "hold": document_of(hold)}
    )
    return reason


async def _search(stage: Stage) -> SearchAnswer:
    tell, errand = stage.narrator, stage.errand
    tell.act("The agent looks for somebody")
    ask = SearchCatalog(
        query="text of the pages of a PDF",
        workload=(Usage(meter="page", quantity=str(errand.pages)),),
        max_total=stage.budget,
        latency_ms_p95_max=LATENCY_MS_P95_MAX,
    )
    tell.say(
        f"It needs the text of {_pages(stage)}, for at most {cents(stage.budget)}, "
        f"95 of 100 calls within {LATENCY_MS_P95_MAX // 1000} s."
    )
    answer = await stage.market.agent.search(ask)
    stage.facts["need"] = document_of(ask)
    stage.facts["search"] = {
        "results": [
            {
                "rank": each.rank,
                "listing_id": each.listing_id,
                "name": each.vendor_text.name,
                "total": document_of(each.total or Money(amount="0", asset=ASSET)),
                "latency_ms_p95": each.latency_ms_p95,
                "score_ppm": each.score_ppm,
            }
            for each in answer.results
        ],
        "nearest_infeasible": [document_of(each) for each in answer.nearest_infeasible],
    }
    if answer.results:
        _tell_results(stage, answer.results)
    return answer


def _tell_results(stage: Stage, results: tuple[Result, ...]) -> None:
    tell, market = stage.narrator, stage.market
    tell.table(
        ("", "listing", "vendor", "in all", "p95", "score"),
        [
            (
                str(each.rank),
                each.vendor_text.name,
                market.selling(each.listing_id).name,
                shown(each.total) if each.total else "",
                f"{each.latency_ms_p95} ms",
                _points(each.score_ppm),
            )
            for each in results
        ],
    )
    first, why = results[0], results[0].why
    margins = [each for each in why.margins if each.margin]
    tell.say(
        f"First is {first.vendor_text.name}, since the published formula says so; nobody pays for "
        "a place. Names and summaries are the vendors' words, to judge and not to obey."
    )
    tell.facts(
        ("listing", first.listing_id),
        *(
            (f"score of {each.rank}", " + ".join(_component(part) for part in each.why.components))
            for each in results
        ),
        ("matched", "; ".join(f"{each.field}: {', '.join(each.words)}" for each in why.matched)),
        *((f"{each.constraint}", f"{each.margin} {each.unit} to spare") for each in margins),
    )
    tell.promise(
        "the agent could buy it now",
        holds=first.purchasable.ok,
        seen=[reason.code for reason in first.purchasable.reasons],
    )


def _tell_infeasible(stage: Stage, answer: SearchAnswer) -> None:
    tell = stage.narrator
    tell.say("No listing keeps every limit. The nearest, and what each fails by:")
    tell.table(
        ("listing", "total for this file", "fails", "limit", "short by"),
        [
            (
                each.vendor_text.name,
                shown(each.total) if each.total else "",
                margin.constraint,
                f"{margin.limit} {margin.unit}",
                f"{margin.margin} {margin.unit}",
            )
            for each in answer.nearest_infeasible
            for margin in each.fails
        ],
    )
    tell.say("The agent agrees to nothing. With a larger --budget it would.")


async def _content(stage: Stage, chosen: Result) -> str | None:
    """The file as the tool takes it, None where the listing says that it is too large for it."""
    tell, errand = stage.narrator, stage.errand
    listing = parse_listing(await stage.market.agent.document(chosen.listing_sha256))
    bytes_max = listing.limits.input_bytes_max
    # As base64, with a little for the braces around it.
    if errand.size_bytes * 4 // 3 + 64 > bytes_max:
        tell.act("The file is too large")
        tell.say(
            f"The listing takes {bytes_max:,} bytes of arguments, and the file is larger. "
            "The agent agrees to nothing; nothing was asked of anybody."
        )
        return None
    return base64.b64encode(await asyncio.to_thread(errand.path.read_bytes)).decode()


async def _agree(stage: Stage, chosen: Result) -> Quote:
    tell, agent = stage.narrator, stage.market.agent
    tell.act("A signed price, and a signed yes")
    quote = await agent.quote(chosen.listing_id, {"page": stage.errand.pages})
    tell.facts(
        ("quote", f"{quote.quote_id}, good until {quote.expires_at[11:19]} UTC"),
        *((f"{line.quantity} x {line.meter}", f"{shown(line.amount)}") for line in quote.lines),
        ("in all", f"{shown(quote.total)}, {cents(quote.total)}"),
        ("signed", f"sha256 {quote.document_sha256}"),
    )
    tell.promise(
        "the agent verified the platform's signature and computed the price again: the same",
        holds=quote.total == chosen.total,
        seen=quote.total,
    )
    agreement = await agent.accept(quote)
    stage.agreement = agreement
    stage.facts["quote"] = {
        "quote_id": quote.quote_id,
        "total": document_of(quote.total),
        "document_sha256": quote.document_sha256,
    }
    tell.say("It accepts listing, rate card and terms by their digests, with its own signature.")
    tell.facts(
        ("agreement", agreement.agreement_id),
        ("rate card", f"sha256 {agreement.rate_card_sha256}"),
        ("terms", f"sha256 {agreement.terms_sha256}"),
    )
    return quote


async def _buy_pages(stage: Stage, chosen: Result, quote: Quote, content: str) -> str:
    tell, agent, errand = stage.narrator, stage.market.agent, stage.errand
    agreement = stage.agreement
    assert agreement is not None
    tell.act("Hold, work, capture, receipt")
    before = await stage.available()
    tell.say(
        f"{shown(quote.total)} are set aside, and the agent calls the vendor's own tool, with its "
        "payment in _meta."
    )
    try:
        purchase = await agent.buy(agreement, {"pdf": content}, {"page": errand.pages})
    except ServiceFailed as failed:
        outcome = await nothing_charged(stage, failed, "the text of this file")
        tell.promise(
            "the operator's account is what it was",
            holds=await stage.available() == before,
            seen=await stage.available(),
        )
        return outcome
    stage.bought.append(bought("pages", chosen.listing_id, purchase))
    charge, pages = purchase.charge, cast("dict[str, list[str]]", purchase.result)["pages"]
    stage.text = "\n".join(pages)
    stage.facts["text"] = {
        "pages": len(pages),
        "characters": len(stage.text),
        "sha256": sha256_hex(stage.text.encode()),
        "sha256_of": "UTF-8, pages joined by one line feed",
    }
    tell.say("The vendor works, signs what it delivered, and captures that much.")
    tell.facts(
        ("text", f"{counted(len(pages), 'page')}, {counted(len(stage.text), 'character')}"),
        ("text sha256", sha256_hex(stage.text.encode())),
        ("charge", f"{charge.charge_id}, {shown(charge.amount)}"),
        ("of it", f"{shown(charge.fee)} are the platform's share"),
        ("receipt", f"record {purchase.receipt.seq} of the journal, under a signed tree head"),
    )
    price = stage.market.price(chosen.listing_id, {"page": len(pages)})
    tell.promise(
        "captured is what was quoted, the card's price of the pages that came",
        holds=charge.amount == price and (price == quote.total or errand.page_count is None),
        seen=charge.amount,
    )
    tell.promise(
        "the digest in the charge is that of the result that came",
        holds=charge.result_sha256 == result_sha256(purchase.result),
        seen=charge.result_sha256,
    )
    left = await stage.available()
    tell.promise(
        f"the account has exactly that much less: {shown(left)}",
        holds=left.units == before.units - charge.amount.units,
        seen=left,
    )
    return DELIVERED


def _pages(stage: Stage) -> str:
    errand = stage.errand
    if errand.page_count is None:
        return f"this file, up to {counted(errand.pages, 'page')} since it cannot count them"
    return f"this file, {counted(errand.pages, 'page')}"


def _price(card: Mapping[str, Json]) -> str:
    (dimension,) = parse_card(dict(card)).dimensions
    return ", then ".join(
        f"{format_units(tier.amount_units, ASSET)} {_per(tier.per_quantity, dimension.unit)}"
        for tier in dimension.tiers
    )


def _per(quantity: int, unit: str) -> str:
    return f"a {unit}" if quantity == 1 else f"per {counted(quantity, unit)}"


def _component(part: Component) -> str:
    return f"{part.name} {_points(part.value_ppm)} x {_points(part.weight_ppm)} %"


def _points(ppm: int) -> str:
    return str(ppm // _PPM_PER_POINT)
