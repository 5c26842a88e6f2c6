"""The allowance of an agreement: one side proposes, the other approves; counted as it is used.

Boundary: what is used is decided elsewhere; here it is judged before, and counted in the same
record. An agreement that never had one costs a lookup. Source: spec/metering.md#allowances.
"""

from collections.abc import Iterator, Mapping
from functools import partial

from msgspec.structs import replace

from farthing.protocol.allowances import Enforcement, Guard, without
from farthing.protocol.errors import Code, NextAction, Refusal, refuse
from farthing.protocol.messages.allowances import Allowance as AllowanceAnswer
from farthing.protocol.messages.allowances import (
    AllowanceLimits,
    AllowanceUse,
    ApproveAllowance,
    MeterUse,
    ProposeAllowance,
)
from farthing.protocol.records import Change, Record
from farthing.protocol.times import format_time, utc_day
from farthing.protocol.wire import Usage, quantities_of
from farthing.settlement.engine.drafts import Call, Draft, change, ends_at
from farthing.settlement.engine.state import State
from farthing.settlement.engine.things import Agreement, Allowance, Charge, Hold, Limits

__all__ = [
    "allowance_answer",
    "allowance_use",
    "approve",
    "freed",
    "guard_of",
    "not_allowed",
    "propose",
    "reserved",
    "taken_back",
    "used",
]


def propose(state: State, call: Call) -> Draft | Refusal:
    """Propose an allowance; an earlier proposal gives way."""
    body = call.command.body
    assert isinstance(body, ProposeAllowance)
    expires_at_us = ends_at(call, body.expires_at)
    if isinstance(expires_at_us, Refusal):
        return expires_at_us
    agreement = _partys_agreement(state, call, body.agreement_id)
    if agreement is None:
        return refuse(Code.NOT_FOUND, path="agreement_id")
    if agreement.status != "in_force":
        return refuse(Code.AGREEMENT_ENDED, path="agreement_id")
    meters = {each.meter for each in state.cards[agreement.rate_card_sha256].dimensions}
    for name, limits in (("per_day", body.per_day), ("in_all", body.in_all)):
        for place, each in enumerate(limits):
            if each.meter not in meters:
                text = f"The rate card has no price for the meter {each.meter}."
            elif each.meter in {other.meter for other in limits[:place]}:
                text = f"The meter {each.meter} is limited twice."
            else:
                continue
            return refuse(Code.USAGE_INVALID, path=f"{name}.{place}.meter", message=text)
    proposed = Limits(
        allowance_id=call.new_id("alw"),
        per_day=quantities_of(body.per_day),
        in_all=quantities_of(body.in_all),
        enforcement=body.enforcement,
        expires_at_us=expires_at_us,
        proposed_by=call.principal_id,
        proposed_at_us=call.now_us,
    )
    allowance = state.allowances.get(agreement.agreement_id) or Allowance(
        agreement_id=agreement.agreement_id,
        buyer_id=agreement.buyer_id,
        operator_id=agreement.operator_id,
        vendor_id=agreement.vendor_id,
    )
    return _changed(replace(allowance, proposed=proposed))


def approve(state: State, call: Call) -> Draft | Refusal:
    """Put a proposal in force. Whoever proposed it cannot approve it, nor can its own side."""
    body = call.command.body
    assert isinstance(body, ApproveAllowance)
    agreement = _partys_agreement(state, call, body.agreement_id)
    if agreement is None:
        return refuse(Code.NOT_FOUND, path="agreement_id")
    allowance = state.allowances.get(agreement.agreement_id)
    proposed = allowance.proposed if allowance else None
    if (
        allowance is None
        or proposed is None
        or proposed.allowance_id != body.allowance_id
        or 0 < proposed.expires_at_us <= call.now_us
    ):
        text = "No such proposal waits: it was approved, or ended, or another took its place."
        return refuse(Code.NOT_FOUND, path="allowance_id", message=text)
    by_vendor = proposed.proposed_by == agreement.vendor_id
    if call.principal_id != (agreement.operator_id if by_vendor else agreement.vendor_id):
        text = "It was proposed by this side: the other side approves it."
        return refuse(Code.NOT_PERMITTED, path="allowance_id", message=text)
    if agreement.status != "in_force":
        return refuse(Code.AGREEMENT_ENDED, path="agreement_id")
    limits = replace(proposed, approved_by=call.principal_id, approved_at_us=call.now_us)
    held = allowance.held if allowance.limits else _held(state, agreement.agreement_id)
    return _changed(replace(allowance, limits=limits, proposed=None, held=held))


def not_allowed(
    state: State, agreement_id: str, workload: Mapping[str, int], now_us: int
) -> tuple[Refusal, ...]:
    """Why a workload may not be set aside under an agreement, if it may not."""
    guard = guard_of(state, agreement_id, now_us)
    if guard is None or not guard.forbids(workload, now_us):
        return ()
    meter = guard.exceeded(workload, now_us)
    exceeded = partial(refuse, Code.ALLOWANCE_EXCEEDED, path="workload")
    if not meter:
        text = "The agreement's allowance has ended."
        return (exceeded(message=text, next_action=NextAction.CONTACT_OPERATOR),)
    left = str(guard.left(meter))
    text = f"The agreement's allowance leaves {left} of the meter {meter}."
    return (exceeded(required=str(workload[meter]), remaining=left, message=text),)


def guard_of(state: State, agreement_id: str, now_us: int) -> Guard | None:
    """What use is judged by now; None where nothing limits it."""
    allowance = state.allowances.get(agreement_id)
    if allowance is None or allowance.limits is None:
        return None
    limits = allowance.limits
    return Guard(
        per_day=limits.per_day,
        in_all=limits.in_all,
        refuses=limits.enforcement == Enforcement.REFUSE,
        expires_at_us=limits.expires_at_us,
        used_today=_used_today(allowance, now_us),
        used=state.positions.get(agreement_id, {}),
        held=allowance.held,
    )


def reserved(state: State, hold: Hold) -> tuple[Change, ...]:
    """The change that a new hold makes: its workload counts as if it were used."""
    return tuple(_counted(state, hold.agreement_id, held=hold.workload))


def freed(state: State, hold: Hold) -> tuple[Change, ...]:
    """The change that a hold makes when it is given back."""
    return tuple(_counted(state, hold.agreement_id, freed=hold.workload))


def used(
    state: State,
    agreement_id: str,
    usage: Mapping[str, int],
    now_us: int,
    freed: Mapping[str, int] | None = None,
) -> tuple[Change, ...]:
    """The change that use makes; `freed` is what was set aside for it."""
    return tuple(_counted(state, agreement_id, usage=usage, freed=freed or {}, now_us=now_us))


def taken_back(
    state: State, charge: Charge, usage: Mapping[str, int], now_us: int
) -> Iterator[Change]:
    """The change that use makes which is no use after all: it leaves the day that it counted on.

    What was billed before these limits were in force need not have counted at all, and frees none.
    """
    allowance = state.allowances.get(charge.agreement_id)
    if allowance is None or allowance.limits is None:
        return
    used_today, day = _used_today(allowance, now_us), utc_day(now_us)
    counted = charge.captured_at_us > allowance.limits.approved_at_us
    if counted and utc_day(charge.captured_at_us) == day:
        used_today = without(used_today, usage)
    after = replace(allowance, day=day, used_today=used_today)
    yield change("allowance", charge.agreement_id, after)


def allowance_answer(record: Record) -> AllowanceAnswer:
    """The answer of a proposal and of an approval, from the record alone."""
    allowance = Allowance.from_document(record.changed[0].after)
    return AllowanceAnswer(
        agreement_id=allowance.agreement_id,
        in_force=_limits(allowance.limits),
        proposed=_limits(allowance.proposed),
    )


def allowance_use(
    agreement_id: str,
    allowance: Allowance | None,
    position: Mapping[str, int],
    now_us: int,
) -> AllowanceUse:
    """An allowance as it is used now."""
    limits = allowance.limits if allowance else None
    if allowance is None or limits is None:
        proposed = allowance.proposed if allowance else None
        return AllowanceUse(
            agreement_id=agreement_id, status="none", meters=(), proposed=_limits(proposed)
        )
    today = _used_today(allowance, now_us)
    expired = bool(limits.expires_at_us) and now_us >= limits.expires_at_us

    def use(meter: str, limit: int, used: Mapping[str, int], *, of_day: bool) -> MeterUse:
        quantity, held = used.get(meter, 0), allowance.held.get(meter, 0)
        left = 0 if expired else max(limit - quantity - held, 0)
        return MeterUse(
            meter=meter,
            period="day" if of_day else "agreement",
            limit=str(limit),
            used=str(quantity),
            held=str(held),
            remaining=str(left),
        )

    return AllowanceUse(
        agreement_id=agreement_id,
        status="expired" if expired else "in_force",
        meters=(
            *(use(meter, each, today, of_day=True) for meter, each in limits.per_day.items()),
            *(use(meter, each, position, of_day=False) for meter, each in limits.in_all.items()),
        ),
        in_force=_limits(limits),
        proposed=_limits(allowance.proposed),
    )


def _partys_agreement(state: State, call: Call, agreement_id: str) -> Agreement | None:
    agreement = state.agreements.get(agreement_id)
    return agreement if agreement and call.principal_id in agreement.parties else None


def _counted(
    state: State,
    agreement_id: str,
    *,
    usage: Mapping[str, int] | None = None,
    held: Mapping[str, int] | None = None,
    freed: Mapping[str, int] | None = None,
    now_us: int = 0,
) -> Iterator[Change]:
    allowance = state.allowances.get(agreement_id)
    if allowance is None or allowance.limits is None:
        return
    if usage is not None:
        used_today = _sum(_used_today(allowance, now_us), usage)
        allowance = replace(allowance, day=utc_day(now_us), used_today=used_today)
    after = replace(allowance, held=_sum(_sum(allowance.held, held or {}), freed or {}, sign=-1))
    yield change("allowance", agreement_id, after)


def _used_today(allowance: Allowance, now_us: int) -> Mapping[str, int]:
    return allowance.used_today if allowance.day == utc_day(now_us) else {}


def _held(state: State, agreement_id: str) -> dict[str, int]:
    """What open holds set aside; counted once, when the first allowance comes in force."""
    held: dict[str, int] = {}
    for hold in state.holds.values():
        if hold.agreement_id == agreement_id and hold.status == "open":
            held = _sum(held, hold.workload)
    return held


def _sum(totals: Mapping[str, int], more: Mapping[str, int], sign: int = 1) -> dict[str, int]:
    sums = dict(totals)
    for meter, quantity in more.items():
        sums[meter] = sums.get(meter, 0) + sign * quantity
        assert sums[meter] >= 0, "no more is given back than was set aside"
    return {meter: quantity for meter, quantity in sorted(sums.items()) if quantity}


def _changed(allowance: Allowance) -> Draft:
    return Draft(changed=(change("allowance", allowance.agreement_id, allowance),))


def _limits(limits: Limits | None) -> AllowanceLimits | None:
    if limits is None:
        return None
    return AllowanceLimits(
        allowance_id=limits.allowance_id,
        per_day=_workload(limits.per_day),
        in_all=_workload(limits.in_all),
        enforcement=Enforcement(limits.enforcement).value,
        expires_at=format_time(limits.expires_at_us) if limits.expires_at_us else "",
        proposed_by=limits.proposed_by,
        proposed_at=format_time(limits.proposed_at_us),
        approved_by=limits.approved_by,
        approved_at=format_time(limits.approved_at_us) if limits.approved_at_us else "",
    )


def _workload(limits: Mapping[str, int]) -> tuple[Usage, ...]:
    return tuple(Usage(meter=meter, quantity=str(quantity)) for meter, quantity in limits.items())
