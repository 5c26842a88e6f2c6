"""What goes wrong, on purpose: a limit, a lost reply, a crash, a lie; and a vendor that is fair.

Boundary: each act brings something about and holds the market to what it promised for that case.
"""

import asyncio
import base64
from typing import Final

from farthing.clients.demo.narration import counted, shown
from farthing.clients.demo.sample import sample_jpeg, sample_png
from farthing.clients.demo.stage import Bought, Stage
from farthing.clients.demo.trade import bought
from farthing.clients.services import NotDelivered, ServiceLost
from farthing.protocol.canonical import canonical_bytes, sha256_hex
from farthing.protocol.errors import Code, Refused
from farthing.protocol.messages.holds import HoldView
from farthing.protocol.wire import document_of, money

__all__ = [
    "agent_hits_its_limit",
    "reply_is_lost",
    "vendor_dies",
    "vendor_gives_back",
    "vendor_lies",
]

_THUMBNAIL: Final = (320, 240)
_PHOTO: Final = (6000, 4000)
_POSTER: Final = (8000, 6000)
_TO_TRANSLATE: Final = "The farthing was the smallest coin. It was worth a quarter of a penny."
_KILLED_HOLD_S: Final = 5
_EXPIRY_S_MAX: Final = 15.0
_POLL_S: Final = 0.2
_PAGES_PRICED: Final = 1000


async def reply_is_lost(stage: Stage) -> None:
    """Two replies are lost on the way; both calls are made again, and nothing happens twice."""
    tell, market, agent = stage.narrator, stage.market, stage.market.agent
    tell.act("Two replies are lost")
    width, height = 1200, 900
    listing_id = market.listing_id("image-resize")
    arguments: dict[str, object] = {
        "image": base64.b64encode(sample_png(width, height)).decode(),
        "width": _THUMBNAIL[0],
        "height": _THUMBNAIL[1],
        "format": "png",
    }
    workload = {"pixel": width * height}
    tell.say(
        "The agent has a picture made smaller. Its network loses the reply to the hold, and "
        "then the vendor's reply with the picture in it. It asks again, with the same key."
    )
    before = await stage.available()
    key = agent.connection.new_key()
    agreement = await agent.accept(await agent.quote(listing_id, workload))
    market.network.lose_next("place_hold")
    held = await agent.hold(agreement.agreement_id, workload, arguments, key=f"{key}-hold")
    tell.promise(
        "the second answer is the first one, marked as replayed: one hold",
        holds=held.replayed and market.network.lost == ["place_hold"],
        seen=held,
    )
    market.network.lose_next("resize_image")
    purchase = await agent.buy(agreement, arguments, workload, key=key)
    stage.bought.append(bought("picture", listing_id, purchase))
    charges = [
        each
        for each in (await market.operator.charges()).charges
        if each.agreement_id == agreement.agreement_id
    ]
    after = await stage.available()
    amount = purchase.charge.amount
    tell.facts(
        ("hold", held.answer.hold_id),
        ("charge", f"{purchase.charge.charge_id}, {shown(amount)}"),
        ("lost", ", ".join(market.network.lost)),
    )
    tell.promise(
        "the vendor gave the stored picture again and captured once",
        holds=market.network.lost == ["place_hold", "resize_image"] and len(charges) == 1,
        seen=charges,
    )
    tell.promise(
        f"the account was charged once: {shown(amount)}",
        holds=after.units == before.units - amount.units,
        seen=after,
    )
    stage.facts["lost_reply"] = {
        "lost": list(market.network.lost),
        "replayed": held.replayed,
        "hold_id": held.answer.hold_id,
        "charge_id": purchase.charge.charge_id,
        "charges": len(charges),
        "charged": document_of(amount),
    }


async def agent_hits_its_limit(stage: Stage) -> None:
    """The agent wants more than it may spend in one call."""
    tell, agent = stage.narrator, stage.market.agent
    tell.act("More than the agent may spend")
    assert stage.agreement is not None
    before, authority = await stage.available(), await agent.authority()
    listing_id = stage.market.listing_id("pdf-text")
    price = stage.market.price(listing_id, {"page": _PAGES_PRICED})
    pages = 2 * _PAGES_PRICED * stage.per_call.units // price.units
    tell.say(f"It tries to have {counted(pages, 'page')} read under the same agreement.")
    try:
        await agent.hold(stage.agreement.agreement_id, {"page": pages}, {"pdf": ""})
    except Refused as refused:
        refusal = refused.refusal
    else:
        tell.promise("the platform refuses", holds=False, seen="a hold")
        return
    (grant,) = authority.grants
    tell.facts(
        ("refused", f"{refusal.code.value}: {refusal.message}"),
        ("needed", f"{refusal.required} {refusal.asset}"),
        ("allowed", f"{refusal.remaining} {refusal.asset} a call"),
        ("left today", shown(grant.remaining_today)),
        ("next action", refusal.next_action.value),
    )
    tell.promise(
        "refused with what was needed, what is allowed and what to do next",
        holds=refusal.code is Code.PER_CALL_LIMIT_EXCEEDED
        and refusal.remaining == stage.per_call.amount
        and refusal.next_action.value == "request_approval",
        seen=refusal,
    )
    tell.promise(
        "the refusal used up nothing: neither money nor what the agent may spend today",
        holds=await stage.available() == before and await agent.authority() == authority,
        seen=await agent.authority(),
    )
    stage.refusals.append(
        {
            "step": "above_the_agents_limit",
            **refusal.document(),
            "remaining_today": document_of(grant.remaining_today),
        }
    )


async def vendor_dies(stage: Stage) -> None:
    """A vendor's process is killed while it works; the hold runs out by itself."""
    tell, market, agent = stage.narrator, stage.market, stage.market.agent
    tell.act("A vendor dies in mid-work")
    shop = market.shops["lightbox"]
    listing_id = market.listing_id("image-resize")
    workload = {"pixel": _PHOTO[0] * _PHOTO[1]}
    photo = await asyncio.to_thread(sample_jpeg, *_PHOTO)
    arguments: dict[str, object] = {
        "image": base64.b64encode(photo).decode(),
        "width": _POSTER[0],
        "height": _POSTER[1],
        "format": "webp",
    }
    before = await stage.available()
    agreement = await agent.accept(await agent.quote(listing_id, workload))
    shop.child.forget()
    buying = asyncio.create_task(
        agent.buy(agreement, arguments, workload, expires_in_s=_KILLED_HOLD_S)
    )
    try:
        await shop.child.hears("working")
        shop.child.kill()
        code = await shop.child.ended()
        await buying
    except ServiceLost as lost:
        hold = await agent.hold_status(lost.hold_id)
    else:
        tell.promise("the call to the killed vendor fails", holds=False, seen="a delivery")
        return
    finally:
        buying.cancel()
    tell.say(
        f"{shop.name}, process {shop.child.pid}, is killed while it makes a poster of a photo."
    )
    tell.facts(
        ("hold", f"{hold.hold_id}, {shown(hold.amount)}, {hold.status}"),
        ("until", f"{hold.expires_at[11:19]} UTC; nobody can capture it after that"),
    )
    last = await _resolved(stage, hold)
    tell.promise(
        "the hold expired by itself, and nothing was paid",
        holds=last.status == "expired" and not last.charge_id,
        seen=last,
    )
    after = await stage.available()
    tell.promise(
        f"all of the money is free again: {shown(after)}", holds=after == before, seen=after
    )
    stage.facts["killed_vendor"] = {
        "vendor": shop.name,
        "pid": shop.child.pid,
        "exit_code": code,
        "hold": document_of(last),
        "charged": document_of(money(before.units - after.units, before.asset)),
    }


async def vendor_lies(stage: Stage) -> None:
    """A vendor signs for work it did not do; the dispute finds it out."""
    tell, market, agent = stage.narrator, stage.market, stage.market.agent
    tell.act("A vendor signs for work it did not do")
    shop, listing_id = market.shops["plainword"], market.listing_id("translation")
    before = await stage.available()
    try:
        await agent.call_service(
            listing_id,
            {"text": _TO_TRANSLATE},
            {"character": len(_TO_TRANSLATE)},
            max_total=stage.per_call,
        )
    except NotDelivered as found:
        charge_id = found.charge_id
    else:
        tell.promise("the agent notices", holds=False, seen="a delivery")
        return
    charge = (await agent.explain(charge_id)).charge
    stage.bought.append(
        Bought(
            label="translation",
            listing_id=listing_id,
            agreement_id=charge.agreement_id,
            charge_id=charge_id,
        )
    )
    tell.say(
        f"{shop.name} answers that its translators are busy. It has captured all the same, "
        "with a signed record of a result that there is not. The agent looks, and disputes."
    )
    filed = await agent.dispute(charge_id, "not_delivered")
    tell.facts(
        ("charge", f"{charge_id}, {shown(charge.amount)}"),
        ("signed digest", charge.result_sha256),
        ("dispute", f"{filed.dispute_id}, {filed.status}"),
        ("kept aside", f"{shown(filed.held)} until the ruling"),
    )
    body = canonical_bytes({"translation": "Der Farthing war die kleinste Münze."})
    tell.say("Asked for the body that it signed for, the vendor makes one up.")
    ruled = await shop.vendor.submit_evidence(filed.dispute_id, body)
    tell.facts(
        ("its digest", sha256_hex(body)),
        ("ruling", f"{ruled.outcome}, by rule {ruled.rule_id}"),
        *(
            (str(step["says"]), "holds" if step["holds"] is True else "does not hold")
            for step in ruled.trace
        ),
    )
    after = await stage.available()
    tell.promise(
        "the charge was reversed by rule, with nobody judging",
        holds=(ruled.status, ruled.outcome, ruled.credit) == ("decided", "credit", charge.amount),
        seen=ruled,
    )
    tell.promise(f"the money is back: {shown(after)}", holds=after == before, seen=after)
    stage.facts["dispute"] = {
        **document_of(ruled),
        "charged": document_of(charge.amount),
        "signed_result_sha256": charge.result_sha256,
        "produced_body_sha256": sha256_hex(body),
    }


async def vendor_gives_back(stage: Stage) -> None:
    """A vendor refunds a part of a charge that nobody complained about."""
    tell, market = stage.narrator, stage.market
    tell.act("A vendor gives money back, unasked")
    sold = next(each for each in stage.bought if each.label == "picture")
    before = await stage.available()
    charge = (await market.agent.explain(sold.charge_id)).charge
    half = money(charge.amount.units // 2, charge.amount.asset)
    refund = await market.shops["lightbox"].vendor.refund(
        sold.charge_id, half, "The thumbnail is softer than we like; half of it is on us."
    )
    tell.say("Lightbox's owner finds the thumbnail too soft, and returns half of its price.")
    tell.facts(
        ("refund", f"{refund.refund_id}, {shown(refund.amount)}"),
        ("platform's part", f"{shown(refund.fee_returned)} of it"),
    )
    after = await stage.available()
    tell.promise(
        f"the operator has it: {shown(after)}",
        holds=refund.amount == half and after.units == before.units + half.units,
        seen=after,
    )
    stage.facts["refund"] = {
        "refund_id": refund.refund_id,
        "charge_id": refund.charge_id,
        "amount": document_of(refund.amount),
        "fee_returned": document_of(refund.fee_returned),
    }


async def _resolved(stage: Stage, hold: HoldView) -> HoldView:
    """What became of a hold, once something did; the last that was seen, if nothing does."""
    agent, view = stage.market.agent, hold
    try:
        async with asyncio.timeout(_EXPIRY_S_MAX):
            while view.status == "open":
                await asyncio.sleep(_POLL_S)
                view = await agent.hold_status(hold.hold_id)
    except TimeoutError:
        pass
    return view
