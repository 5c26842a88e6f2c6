"""The end: the books balance, every charge has a pack, and the packs verify with nobody there.

Boundary: asks for what is recorded, switches everything off, and verifies in other processes.
"""

import asyncio
import os
import sys
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from typing import Final, cast

import orjson

from farthing.clients.demo.narration import counted, shown
from farthing.clients.demo.stage import Bought, Stage
from farthing.protocol.messages.accounts import TrialBalance
from farthing.protocol.money import parse_units
from farthing.protocol.wire import document_of, money

__all__ = ["PACK_LABELS", "balance_books", "save_packs", "verify_offline"]

PACK_LABELS: Final = ("pages", "analysis", "counts", "picture", "translation")
_VERIFY_S_MAX: Final = 30.0


async def balance_books(stage: Stage) -> None:
    """What everybody has in the end, and that it comes from somebody."""
    tell, market = stage.narrator, stage.market
    tell.act("The books")
    charges = [(each, (await market.agent.explain(each.charge_id)).charge) for each in stage.bought]
    lines = [
        (each.charge_id, each.label, shown(charge.amount), shown(charge.refunded))
        for each, charge in charges
    ]
    if lines:
        tell.table(("charge", "for", "captured", "given back"), lines)
    asset = stage.budget.asset
    captured = sum(charge.amount.units for _, charge in charges)
    returned = sum(charge.refunded.units for _, charge in charges)
    funded = cast("dict[str, str]", stage.facts["funded"])["amount"]
    left = await stage.available()
    tell.promise(
        f"what was credited is what is left and what was spent: {funded} = "
        f"{left.amount} + {money(captured - returned, asset).amount}",
        holds=parse_units(funded, asset) == left.units + captured - returned,
        seen=left,
    )
    stage.facts["charges"] = [
        {
            "label": each.label,
            "listing_id": each.listing_id,
            **document_of(charge),
        }
        for each, charge in charges
    ]
    stage.facts["captured"] = document_of(money(captured, asset))
    stage.facts["given_back"] = document_of(money(returned, asset))
    stage.facts["left"] = document_of(left)
    await _try_balance(stage)


async def _try_balance(stage: Stage) -> None:
    tell, market = stage.narrator, stage.market
    trial = await market.treasurer.trial_balance()
    names = {market.operator.connection.principal: "operator"}
    names |= {shop.vendor.vendor_id: shop.name for shop in market.shops.values()}
    tell.say(f"Trial balance as of record {trial.as_of_seq}, in {stage.budget.asset}:")
    named = sorted(((_named(row.account, names), row) for row in trial.rows), key=itemgetter(0))
    tell.table(
        ("account", "debits", "credits"),
        [(name, row.debits_posted, row.credits_posted) for name, row in named],
    )
    tell.say("What a vendor earned stays in its pending account until disputes are closed.")
    tell.promise(
        "nothing is on hold any more",
        holds=all(row.debits_pending == row.credits_pending == "0" for row in trial.rows),
        seen=trial.rows,
    )
    debits, credits_ = _sums(trial)
    tell.promise(
        f"debits equal credits, by our own sum too: {debits}",
        holds=trial.balanced and debits == credits_,
        seen=(debits, credits_),
    )
    stage.facts["trial_balance"] = document_of(trial)


async def save_packs(stage: Stage) -> None:
    """One evidence pack for every charge: its records, their proofs and the keys."""
    tell = stage.narrator
    tell.act("Evidence for every charge")
    for label in PACK_LABELS:
        await asyncio.to_thread(_forget, stage, label)
    for each in stage.bought:
        await stage.market.agent.save_evidence(each.charge_id, _pack(stage, each.label))
    tell.facts(*((each.label, f"{_pack(stage, each.label)}") for each in stage.bought))
    if not stage.bought:
        tell.say("Nothing was charged; there is nothing to prove.")
    stage.facts["packs"] = [f"{_pack(stage, each.label)}" for each in stage.bought]


async def verify_offline(stage: Stage) -> None:
    """Switch everything off; then verify the packs in processes that cannot reach anybody."""
    tell, market = stage.narrator, stage.market
    tell.act("Everything is switched off; the proofs stay")
    children = [market.server, *(shop.child for shop in market.shops.values())]
    await market.close()
    tell.promise(
        f"server and vendors have ended: processes {', '.join(str(c.pid) for c in children)}",
        holds=not any(child.is_running for child in children),
        seen=[child.name for child in children if child.is_running],
    )
    stage.facts["verification"] = []
    if not stage.bought:
        return
    tell.say(
        "Each pack goes to `farthing verify`, in a new process with an empty environment, in "
        "which Python refuses every socket; pinned is the key that the server told at first."
    )
    pack = _pack(stage, stage.bought[0].label)
    async with asyncio.TaskGroup() as group:
        flipping = group.create_task(_run(stage, "flips", str(pack), market.journal_thumbprint))
        stage.facts["verification"] = [await _verify(stage, each) for each in stage.bought]
    _tell_flips(stage, pack, flipping.result())
    tell.say("To see it again, now or in ten years:")
    tell.command(f"farthing verify {pack} --trust={market.journal_thumbprint}")


async def _verify(stage: Stage, each: Bought) -> dict[str, object]:
    trust = stage.market.journal_thumbprint
    pack = _pack(stage, each.label)
    code, output = await _run(stage, "offline", "verify", str(pack), f"--trust={trust}", "--json")
    findings = _object(output)
    proved = cast("list[str]", findings.get("proved", []))
    stage.narrator.promise(
        f"{each.label}: verified with nobody there, {counted(len(proved), 'thing')} proved",
        holds=code == 0
        and findings.get("verified") is True
        and findings.get("trust") == "pinned"
        and findings.get("charge_id") == each.charge_id,
        seen=output.decode(errors="replace"),
    )
    return {"label": each.label, "pack": str(pack), "exit_code": code, **findings}


def _tell_flips(stage: Stage, pack: Path, ran: tuple[int, bytes]) -> None:
    found = _object(ran[1])
    accepted = found.get("accepted")
    which = (
        "every one of its bytes"
        if found.get("stride") == 1
        else f"every {found.get('stride')}th byte, {found.get('tried')} of them"
    )
    stage.narrator.promise(
        f"{pack.name}, {found.get('bytes')} bytes: changed in {which}, it is rejected each time",
        holds=accepted == [] and found.get("not_covered") == [],
        seen=accepted,
    )
    stage.facts["flips"] = {"pack": str(pack), **found}


async def _run(stage: Stage, module: str, *arguments: str) -> tuple[int, bytes]:
    """Run a module of the demo by itself: isolated, with an empty environment, in another folder.

    Gives its exit code and what it wrote to standard output.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-m",
        f"farthing.clients.demo.{module}",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={"PATH": os.defpath},
        cwd=stage.market.folder,
    )
    output = b""
    try:
        with suppress(TimeoutError):
            output, _ = await asyncio.wait_for(process.communicate(), _VERIFY_S_MAX)
    finally:
        if process.returncode is None:
            process.kill()
    return await process.wait(), output


def _forget(stage: Stage, label: str) -> None:
    # A session has as many charges as reports: its packs are numbered.
    for pack in (_pack(stage, label), *stage.packs.glob(f"{label}-*.pack")):
        pack.unlink(missing_ok=True)


def _pack(stage: Stage, label: str) -> Path:
    return stage.packs / f"{label}.pack"


def _object(output: bytes) -> dict[str, object]:
    try:
        found = orjson.loads(output)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _named(account: str, names: dict[str, str]) -> str:
    owner, kind, _ = account.split(":")
    return f"{names.get(owner, owner)} {kind.removeprefix('platform_').replace('_', ' ')}"


def _sums(trial: TrialBalance) -> tuple[str, str]:
    """Debits and credits over all accounts; all are of one asset here."""
    asset = trial.rows[0].asset
    debits = sum(parse_units(row.debits_posted, asset) for row in trial.rows)
    credits_ = sum(parse_units(row.credits_posted, asset) for row in trial.rows)
    return money(debits, asset).amount, money(credits_, asset).amount
