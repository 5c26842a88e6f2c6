"""What became of reported usage: a call's receipt, what was rejected."""

from collections import Counter
from typing import Final

from farthing.identity.callers import Caller
from farthing.protocol.calls import find_call, proof_of
from farthing.protocol.canonical import INTEGER_MAX
from farthing.protocol.errors import Code, Refusal, Refused, refuse
from farthing.protocol.messages.metering import (
    CallReceipt,
    GetCallReceipt,
    ListRejectedUsage,
    ReasonCount,
    RejectedUsage,
    RejectedUsages,
)
from farthing.protocol.messages.sessions import UsageReport
from farthing.protocol.times import format_time
from farthing.server.market import Market
from farthing.server.metrics import Metrics
from farthing.server.operations.charges import call_cost
from farthing.server.operations.replies import Reply, not_yet, own, receipt_at, record_at
from farthing.settlement.engine.things import Session
from farthing.settlement.reports.metered import (
    Rejected,
    last_rejected_of,
    reasons_of,
    rejected_of,
    reports_of,
)
from farthing.settlement.reports.usage import REASONS, Rejection, batch_reason

__all__ = [
    "count_refused",
    "count_reported",
    "get_call_receipt",
    "list_rejected_usage",
]

_COUNT_FOR_NOTHING: Final = frozenset(
    {Code.SIGNATURE_INVALID, Code.USAGE_INVALID, Code.SESSION_CLOSED}
)


async def get_call_receipt(market: Market, caller: Caller, ask: GetCallReceipt) -> Reply:
    """The record that took a call or, where none did, the last that rejected it."""
    session = await own(market, caller, Session, "session_id", ask.session_id)
    async with market.reports.view(caller.organisation_id) as view:
        taken = [each.seq for each in await reports_of(view, session.session_id, ask.call)]
        rejected = await last_rejected_of(view, session.session_id, ask.call)
        absent = not_yet(view) if view.behind else None
    for seq in [*taken, *([rejected.seq] if rejected else [])]:
        record = await record_at(market, seq)
        call = find_call(record, session.session_id, ask.call)
        if call is not None and (call.is_taken or seq not in taken):
            break
    else:
        raise absent or Refused(refuse(Code.NOT_FOUND, path="call"))
    charges = [each.id for each in record.changed if each.noun == "charge"]
    event, path = proof_of(record, call.place)
    return Reply(
        answer=CallReceipt(
            session_id=session.session_id,
            charge_id=charges[0] if charges else "",
            place=call.place,
            event=event,
            path=path,
            cost=call_cost(call, session.asset),
            receipt=await receipt_at(market, record.seq, "call", in_brief=True),
        )
    )


async def list_rejected_usage(market: Market, caller: Caller, ask: ListRejectedUsage) -> Reply:
    """Usage of the caller's sessions that was not taken, and batches it sent that counted not."""
    if ask.reason and ask.reason not in REASONS:
        text = f"There are these reasons: {', '.join(REASONS)}."
        raise Refused(refuse(Code.INVALID_ARGUMENT, path="reason", message=text))
    async with market.reports.view(caller.organisation_id) as view:
        seq, place, seq_max = INTEGER_MAX, 0, view.as_of_seq
        if ask.cursor:
            seq, place, seq_max = map(int, ask.cursor.split("-"))
        if seq_max > view.as_of_seq:
            raise not_yet(view, seq_max, "cursor")
        wanted = Rejected(
            principal_id=caller.principal_id,
            session_id=ask.session_id,
            agreement_id=ask.agreement_id,
            reason=ask.reason,
            seq_max=seq_max,
        )
        found = await rejected_of(view, wanted, (seq, place), ask.limit + 1)
        reasons = await reasons_of(view, wanted)
    shown = found[: ask.limit]
    cursor = f"{shown[-1].seq}-{shown[-1].place}-{seq_max}" if len(found) > ask.limit else ""
    return Reply(
        answer=RejectedUsages(
            rejected=tuple(map(_rejected, shown)),
            reasons=tuple(
                ReasonCount(reason=reason, events=events) for reason, events in reasons.items()
            ),
            as_of_seq=seq_max,
            cursor=cursor,
        )
    )


def count_reported(metrics: Metrics, report: UsageReport) -> None:
    """Count the events of an accepted report by what became of each."""
    metrics.usage("billed", report.billed)
    metrics.usage("unbilled", report.accepted - report.billed)
    for reason, events in Counter(each.reason for each in report.rejected).items():
        metrics.usage(reason, events)


def count_refused(metrics: Metrics, refusal: Refusal, events: int) -> None:
    """Count the events of a batch that was refused for good; others will be reported again."""
    if refusal.code in _COUNT_FOR_NOTHING:
        metrics.usage(batch_reason(refusal.code, refusal.path), events)


def _rejected(each: Rejection) -> RejectedUsage:
    return RejectedUsage(
        seq=each.seq,
        session_id=each.session_id,
        agreement_id=each.agreement_id,
        call=each.call,
        reason=each.reason,
        code=each.code,
        events=each.events,
        reported_at=format_time(each.at_us),
    )
