"""Countings of the same usage laid side by side: of a session, or of what an agreement had."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from farthing.identity.callers import Caller
from farthing.protocol.calls import ReportedCall, reported_calls
from farthing.protocol.canonical import InvalidJson, Json
from farthing.protocol.documents import DocumentError
from farthing.protocol.errors import Code, Refused, refuse
from farthing.protocol.gateways import GatewayReport
from farthing.protocol.keys import PublicKey
from farthing.protocol.messages.reconciliation import (
    ACKNOWLEDGED_MAX,
    BEGUN_MAX,
    REPORTED_MAX,
    AcknowledgedSession,
    ReconcileUsage,
)
from farthing.protocol.money import INT64_MAX
from farthing.protocol.proofs import ProofError, read_voucher
from farthing.protocol.purposes import may_sign
from farthing.protocol.reconciliation import (
    Acknowledged,
    GatewayCount,
    TakenBack,
    ack_of,
    reconcile,
    taken_back_by,
)
from farthing.protocol.signatures import InvalidSignature, Typ, read_header, verify_detached
from farthing.protocol.terms import Terms
from farthing.protocol.times import parse_time
from farthing.server.market import Market
from farthing.server.operations.replies import (
    Reply,
    known,
    not_yet,
    own,
    public_key,
    record_at,
    unverified,
)
from farthing.server.operations.tallies import Passed, Tallied, reconciliation_view
from farthing.settlement.engine.questions import Lookup
from farthing.settlement.engine.things import Agreement, Charge, Hold, Key, Session
from farthing.settlement.reports.metered import (
    Span,
    begun_of,
    corrections_within,
    events_of,
    reports_within,
)
from farthing.settlement.reports.reads import View
from farthing.settlement.reports.usage import Begun, Report

__all__ = ["reconcile_usage"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listed:
    """A buyer's list, read; `acks` of the voucher that was given with it."""

    session: Session
    calls: Sequence[Acknowledged] = ()
    acks: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    """What one answer is of: sessions that are compared, with their reports, and the rest."""

    begun: Sequence[Begun]
    reports: Mapping[str, Sequence[Report]]
    corrections: Mapping[str, Sequence[int]]
    too_long: frozenset[str]
    cursor: str
    as_of_seq: int


async def reconcile_usage(market: Market, caller: Caller, ask: ReconcileUsage) -> Reply:
    """The vendor's events, the buyer's acknowledgements, a gateway's and the platform's counts."""
    session, agreement = await _subject(market, caller, ask)
    span = await _span(market, caller, ask, agreement)
    listed = await _lists(market, caller, ask, span)
    gateway = await _gateway(market, agreement, ask)
    async with market.reports.view(caller.organisation_id) as view:
        if view.behind:
            raise not_yet(view)
        page = await (_whole(view, session) if session else _page(view, span))
    # Up to twenty thousand events are read: many at it at once would hold every other call up.
    async with market.comparing.of(caller.organisation_id):
        tallied, passed = await _tallied(market, page, listed, gateway)
    terms = await known(market, Terms, agreement.terms_sha256)
    answer = reconciliation_view(agreement, terms, tallied, passed, as_of_seq=page.as_of_seq)
    return Reply(answer=replace(answer, session_id=ask.session_id, cursor=page.cursor))


async def _subject(
    market: Market, caller: Caller, ask: ReconcileUsage
) -> tuple[Session | None, Agreement]:
    if bool(ask.session_id) == bool(ask.agreement_id):
        text = "Name either a session or an agreement."
        raise Refused(refuse(Code.INVALID_ARGUMENT, path="session_id", message=text))
    if not ask.session_id:
        return None, await own(market, caller, Agreement, "agreement_id", ask.agreement_id)
    for name in ("since", "until", "through", "cursor"):
        if getattr(ask, name):
            text = "A session is compared whole; a period is of an agreement."
            raise Refused(refuse(Code.INVALID_ARGUMENT, path=name, message=text))
    session = await own(market, caller, Session, "session_id", ask.session_id)
    return session, await own(market, caller, Agreement, "session_id", session.agreement_id)


async def _span(market: Market, caller: Caller, ask: ReconcileUsage, agreement: Agreement) -> Span:
    span = Span(agreement_id=agreement.agreement_id)
    if ask.since:
        span = replace(span, since_us=parse_time(ask.since))
    if ask.until:
        span = replace(span, until_us=parse_time(ask.until))
    if ask.cursor:
        at_us, _, before = ask.cursor.partition("-")
        span = replace(span, after=(int(at_us), before))
    if ask.through:
        session = await own(market, caller, Session, "through", ask.through)
        last = (session.opened_at_us, session.session_id)
        span = replace(span, last=last)
        if session.agreement_id != span.agreement_id or last <= span.after:
            raise Refused(refuse(Code.INVALID_ARGUMENT, path="through"))
    return span


async def _whole(view: View, session: Session) -> _Page:
    """One session, however long ago."""
    begun = Begun(
        seq=session.seq,
        at_us=session.opened_at_us,
        agreement_id=session.agreement_id,
        noun="session",
        id=session.session_id,
    )
    events = await events_of(view, [begun.id])
    if events[begun.id] > REPORTED_MAX:
        text = f"The session has more than {REPORTED_MAX} reported events."
        raise Refused(refuse(Code.INVALID_ARGUMENT, path="session_id", message=text))
    return await _read(view, [begun], frozenset(), "")


async def _page(view: View, span: Span) -> _Page:
    """As many sessions and calls, from the first on, as one answer may read."""
    found = await begun_of(view, span, BEGUN_MAX + 1)
    events = await events_of(view, [each.id for each in found if each.noun == "session"])
    too_long = frozenset(each for each, count in events.items() if count > REPORTED_MAX)
    begun: list[Begun] = []
    left = REPORTED_MAX
    for each in found[:BEGUN_MAX]:
        left -= 0 if each.id in too_long else events[each.id]
        if left < 0:
            break
        begun.append(each)
    last = span.last if len(begun) == len(found) else begun[-1].key
    return await _read(view, begun, too_long, "{}-{}".format(*last) if last else "")


async def _read(view: View, begun: Sequence[Begun], too_long: frozenset[str], cursor: str) -> _Page:
    ids = [each.id for each in begun if each.noun == "session" and each.id not in too_long]
    return _Page(
        begun=begun,
        reports=await reports_within(view, ids),
        corrections=await corrections_within(view, ids),
        too_long=too_long,
        cursor=cursor,
        as_of_seq=view.as_of_seq,
    )


async def _tallied(
    market: Market,
    page: _Page,
    listed: Mapping[str, _Listed],
    gateway: Mapping[str, GatewayCount],
) -> tuple[list[Tallied], Passed]:
    tallied: list[Tallied] = []
    passed = Passed()
    for each in page.begun:
        if each.noun == "hold":
            passed.add(*await _passed(market, each.id))
            continue
        one = listed.get(each.id) or _Listed(session=await known(market, Session, each.id))
        seen = gateway.get(each.id)
        if each.id in page.too_long:
            tallied.append(Tallied(session=one.session))
        else:
            tallied.append(await _compared(market, one, page, seen))
    return tallied, passed


async def _compared(
    market: Market, listed: _Listed, page: _Page, gateway: GatewayCount | None
) -> Tallied:
    session_id = listed.session.session_id
    calls: list[ReportedCall] = []
    acks = set(listed.acks)
    for report in page.reports[session_id]:
        record = await record_at(market, report.seq)
        calls += reported_calls(record)
        acks.add(ack_of(record))
    taken_back: dict[int, Mapping[str, int]] = {}
    back_units = 0
    # One record at a time: each holds what every call of its charge had used.
    for seq in page.corrections[session_id]:
        back = taken_back_by([await record_at(market, seq)])
        taken_back |= back.calls
        back_units += back.units
    # Twenty thousand calls take a while, in which others shall be answered.
    found = await asyncio.to_thread(
        reconcile,
        calls,
        listed.calls,
        acks,
        gateway,
        taken_back=TakenBack(calls=taken_back, units=back_units),
        session_id=session_id,
    )
    return Tallied(session=listed.session, found=found, gateway=gateway)


async def _passed(market: Market, hold_id: str) -> tuple[Hold, Charge | None]:
    hold = await known(market, Hold, hold_id)
    return hold, await known(market, Charge, hold.charge_id) if hold.charge_id else None


async def _lists(
    market: Market, caller: Caller, ask: ReconcileUsage, span: Span
) -> dict[str, _Listed]:
    """The buyer's lists, by session."""
    if sum(len(each.calls) for each in ask.acknowledged) > ACKNOWLEDGED_MAX:
        text = f"More than {ACKNOWLEDGED_MAX} acknowledgements; ask in parts, with `through`."
        raise Refused(refuse(Code.INVALID_ARGUMENT, path="acknowledged", message=text))
    sessions: list[Session] = []
    for place, each in enumerate(ask.acknowledged):
        path = f"acknowledged.{place}.session_id"
        session = await own(market, caller, Session, path, each.session_id)
        is_asked = session.session_id == ask.session_id or not ask.session_id
        if session.agreement_id != span.agreement_id or not is_asked:
            raise Refused(refuse(Code.NOT_FOUND, path=path))
        sessions.append(session)
    listed: dict[str, _Listed] = {}
    for place, (session, each) in enumerate(zip(sessions, ask.acknowledged, strict=True)):
        path = f"acknowledged.{place}"
        is_within = span.since_us <= session.opened_at_us < span.until_us
        if session.session_id in listed or not is_within:
            raise Refused(refuse(Code.INVALID_ARGUMENT, path=f"{path}.session_id"))
        listed[session.session_id] = _Listed(
            session=session,
            calls=_acknowledged(each, f"{path}.calls"),
            acks=await _acks(market, session, each.voucher, f"{path}.voucher"),
        )
    return listed


def _acknowledged(listed: AcknowledgedSession, path: str) -> list[Acknowledged]:
    counts = Counter(each.call for each in listed.calls)
    found: list[Acknowledged] = []
    for place, each in enumerate(listed.calls):
        if counts[each.call] > 1:
            raise Refused(refuse(Code.INVALID_ARGUMENT, path=f"{path}.{place}.call"))
        units = int(each.units)
        if units > INT64_MAX:
            raise Refused(refuse(Code.INVALID_ARGUMENT, path=f"{path}.{place}.units"))
        usage = None
        if each.usage is not None:
            usage = {meter.meter: int(meter.quantity) for meter in each.usage}
            if len(usage) < len(each.usage):
                raise Refused(refuse(Code.INVALID_ARGUMENT, path=f"{path}.{place}.usage"))
        found.append(
            Acknowledged(seq=each.call, units=units, result_sha256=each.result_sha256, usage=usage)
        )
    if sum(each.units for each in found) > INT64_MAX:
        raise Refused(refuse(Code.INVALID_ARGUMENT, path=path))
    return found


async def _acks(market: Market, session: Session, token: str, path: str) -> frozenset[str]:
    if not token:
        return frozenset()
    payer = await public_key(market, session.payer_thumbprint)
    try:
        voucher = read_voucher(token, payer, session.agreement_id)
    except ProofError as error:
        raise Refused(unverified(path, error)) from error
    if voucher.session_id != session.session_id:
        raise Refused(refuse(Code.SIGNATURE_INVALID, path=path, required=session.session_id))
    return frozenset({voucher.ack})


async def _gateway(
    market: Market, agreement: Agreement, ask: ReconcileUsage
) -> Mapping[str, GatewayCount]:
    """What a gateway saw, by session, where a key of a party's has signed for it."""
    if ask.gateway is None:
        return {}
    try:
        report = GatewayReport.from_document(cast("dict[str, Json]", ask.gateway))
        data = report.signed_bytes()
    except (DocumentError, InvalidJson) as error:
        path = f"gateway.{error.path}" if isinstance(error, DocumentError) else "gateway"
        raise Refused(
            refuse(Code.INVALID_ARGUMENT, path=path, message=f"{path}: {error}.")
        ) from error
    if report.agreement_id != agreement.agreement_id:
        raise Refused(refuse(Code.NOT_FOUND, path="gateway.agreement_id"))
    try:
        kid = read_header(ask.gateway_signature).kid
        held = await market.ask(Lookup(noun="key", id=kid))
        parties = (agreement.buyer_id, agreement.operator_id, agreement.vendor_id)
        key = None
        if isinstance(held, Key) and held.principal_id in parties and held.status == "active":
            key = PublicKey.from_jwk(held.jwk) if may_sign(held.purpose, Typ.GATEWAY) else None
        verify_detached(ask.gateway_signature, Typ.GATEWAY, data, {kid: key}.get)
    except InvalidSignature as error:
        raise Refused(unverified("gateway_signature", error)) from error
    return report.sessions
