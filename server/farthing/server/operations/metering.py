"""What became of reported usage: a call's receipt, what was rejected, two countings compared."""

from collections import Counter
from typing import Final

from farthing.identity.callers import Caller
from farthing.protocol.calls import ReportedCall, find_call, reported_calls
from farthing.protocol.canonical import INTEGER_MAX
from farthing.protocol.errors import Code, Refusal, Refused, refuse
from farthing.protocol.messages.metering import (
    REPORTED_MAX,
    CallDifference,
    CallReceipt,
    GetCallReceipt,
    ListRejectedUsage,
    MeterTotal,
    ReasonCount,
    ReconcileUsage,
    RejectedUsage,
    RejectedUsages,
    UsageReconciliation,
)
from farthing.protocol.messages.sessions import UsageReport
from farthing.protocol.money import INT64_MAX
from farthing.protocol.proofs import ProofError, Voucher, read_voucher
from farthing.protocol.reconciliation import Acknowledged, Reconciliation, reconcile
from farthing.protocol.times import format_time
from farthing.protocol.wire import money
from farthing.server.market import Market
from farthing.server.metrics import Metrics
from farthing.server.operations.charges import call_cost
from farthing.server.operations.listings import public_key
from farthing.server.operations.replies import Reply, own, receipt_at, record_at
from farthing.settlement.engine.things import Session
from farthing.settlement.reports.metered import Rejected, reasons_of, rejected_of, reports_of
from farthing.settlement.reports.reads import View
from farthing.settlement.reports.usage import REASONS, Rejection, batch_reason

__all__ = [
    "count_refused",
    "count_reported",
    "get_call_receipt",
    "list_rejected_usage",
    "reconcile_usage",
]

_RETRY_AFTER_S: Final = 1
_DIFFERENCES_MAX: Final = 200
_COUNT_FOR_NOTHING: Final = frozenset(
    {Code.SIGNATURE_INVALID, Code.USAGE_INVALID, Code.SESSION_CLOSED}
)


async def get_call_receipt(market: Market, caller: Caller, ask: GetCallReceipt) -> Reply:
    """The record that took a call or, where none did, the last that rejected it."""
    session = await own(market, caller, Session, "session_id", ask.session_id)
    wanted = Rejected(
        principal_id=caller.principal_id, session_id=session.session_id, call=ask.call
    )
    async with market.reports.view() as view:
        taken = [each.seq for each in await reports_of(view, session.session_id, ask.call)]
        rejected = await rejected_of(view, wanted, (INTEGER_MAX, 0), 1)
        behind = view.behind
    for seq in (*taken, *(each.seq for each in rejected)):
        record = await record_at(market, seq)
        call = find_call(record, session.session_id, ask.call)
        if call is not None and (call.is_taken or seq not in taken):
            break
    else:
        raise _unavailable() if behind else Refused(refuse(Code.NOT_FOUND, path="call"))
    charges = [each.id for each in record.changed if each.noun == "charge"]
    return Reply(
        answer=CallReceipt(
            session_id=session.session_id,
            charge_id=charges[0] if charges else "",
            place=call.place,
            cost=call_cost(call, session.asset),
            receipt=await receipt_at(market, record.seq, "call"),
        )
    )


async def list_rejected_usage(market: Market, caller: Caller, ask: ListRejectedUsage) -> Reply:
    """Usage of the caller's sessions that was not taken, and batches it sent that counted not."""
    if ask.reason and ask.reason not in REASONS:
        text = f"There are these reasons: {', '.join(REASONS)}."
        raise Refused(refuse(Code.INVALID_ARGUMENT, path="reason", message=text))
    async with market.reports.view() as view:
        seq, place, seq_max = INTEGER_MAX, 0, view.as_of_seq
        if ask.cursor:
            seq, place, seq_max = map(int, ask.cursor.split("-"))
        if seq_max > view.as_of_seq:
            raise _unavailable()
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


async def reconcile_usage(market: Market, caller: Caller, ask: ReconcileUsage) -> Reply:
    """The vendor's events, the buyer's acknowledgements and the platform's sum, side by side."""
    session = await own(market, caller, Session, "session_id", ask.session_id)
    acknowledged = _acknowledged(ask)
    async with market.reports.view() as view:
        if view.behind:
            raise _unavailable()
        calls, vouchers, as_of_seq = await _reported(market, view, session)
    acks = {each.ack for each in vouchers}
    if ask.voucher:
        acks.add((await _voucher(market, session, ask.voucher)).ack)
    found = reconcile(calls, acknowledged, acks, tolerance_ppm=ask.tolerance_ppm)
    return Reply(answer=_view(session, found, as_of_seq))


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


async def _reported(
    market: Market, view: View, session: Session
) -> tuple[list[ReportedCall], list[Voucher], int]:
    calls: list[ReportedCall] = []
    vouchers: list[Voucher] = []
    reports = await reports_of(view, session.session_id)
    if sum(each.events for each in reports) > REPORTED_MAX:
        text = f"The session has more than {REPORTED_MAX} reported events."
        raise Refused(refuse(Code.INVALID_ARGUMENT, path="session_id", message=text))
    for report in reports:
        record = await record_at(market, report.seq)
        calls += reported_calls(record)
        token = str((record.facts or {})["voucher"])
        vouchers.append(await _voucher(market, session, token))
    return calls, vouchers, view.as_of_seq


async def _voucher(market: Market, session: Session, token: str) -> Voucher:
    payer = await public_key(market, session.payer_thumbprint)
    try:
        voucher = read_voucher(token, payer, session.agreement_id)
    except ProofError as error:
        text = f"It does not verify: {error}."
        raise Refused(refuse(Code.SIGNATURE_INVALID, path="voucher", message=text)) from error
    if voucher.session_id != session.session_id:
        refusal = refuse(Code.SIGNATURE_INVALID, path="voucher", required=session.session_id)
        raise Refused(refusal)
    return voucher


def _acknowledged(ask: ReconcileUsage) -> list[Acknowledged]:
    counts = Counter(each.call for each in ask.acknowledged)
    found: list[Acknowledged] = []
    for place, each in enumerate(ask.acknowledged):
        units = int(each.units)
        if counts[each.call] > 1:
            raise Refused(refuse(Code.INVALID_ARGUMENT, path=f"acknowledged.{place}.call"))
        if units > INT64_MAX:
            raise Refused(refuse(Code.INVALID_ARGUMENT, path=f"acknowledged.{place}.units"))
        found.append(Acknowledged(seq=each.call, units=units, result_sha256=each.result_sha256))
    if sum(each.units for each in found) > INT64_MAX:
        raise Refused(refuse(Code.INVALID_ARGUMENT, path="acknowledged"))
    return found


def _view(session: Session, found: Reconciliation, as_of_seq: int) -> UsageReconciliation:
    asset = session.asset
    return UsageReconciliation(
        session_id=session.session_id,
        agreement_id=session.agreement_id,
        reported_calls=found.reported_calls,
        billed_calls=found.billed_calls,
        billed=money(found.billed_units, asset),
        acknowledged_calls=found.acknowledged_calls,
        acknowledged=money(found.acknowledged_units, asset),
        counted_calls=session.calls,
        counted=money(session.spent_units, asset),
        proven=found.proven,
        meters=tuple(
            MeterTotal(
                meter=meter,
                reported=str(count.reported),
                billed=str(count.billed),
                acknowledged=str(count.acknowledged),
            )
            for meter, count in found.meters.items()
        ),
        differences=tuple(
            CallDifference(
                call=each.seq,
                kind=each.kind.value,
                billed=money(each.billed_units, asset),
                acknowledged=money(each.acknowledged_units, asset),
                fault=each.fault,
            )
            for each in found.differences[:_DIFFERENCES_MAX]
        ),
        differences_in_all=len(found.differences),
        within=found.within,
        as_of_seq=as_of_seq,
    )


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


def _unavailable() -> Refused:
    """The read model is not there yet."""
    return Refused(refuse(Code.UNAVAILABLE, retry_after_s=_RETRY_AFTER_S))
