"""Spend sessions: opening, topping up, closing, showing, and the usage that a vendor reports."""

from dataclasses import replace
from typing import NamedTuple, cast

from farthing.identity.callers import Caller
from farthing.protocol.batches import verify_batch
from farthing.protocol.canonical import Json, sha256_hex
from farthing.protocol.documents import DocumentError
from farthing.protocol.errors import Code, Refusal, Refused, refuse
from farthing.protocol.ids import AgreementId, ListingId, OrganisationId, PrincipalId, SessionId
from farthing.protocol.messages.sessions import (
    CLOSE_SESSION,
    OPEN_SESSION,
    REPORT_USAGE,
    TOP_UP_SESSION,
    CloseSession,
    GetSession,
    ListSessions,
    OpenSession,
    ReportUsage,
    Sessions,
    TopUpSession,
    UsageReport,
)
from farthing.protocol.messages.sessions import Session as SessionView
from farthing.protocol.proofs import (
    Entitlement,
    ProofError,
    Voucher,
    entitlement_jwt,
    read_voucher,
)
from farthing.protocol.records import Record
from farthing.protocol.signatures import InvalidSignature
from farthing.protocol.usage import read_batch
from farthing.server.market import Market
from farthing.server.operations.metering import count_refused, count_reported
from farthing.server.operations.pages import page_under_agreement
from farthing.server.operations.replies import (
    Reply,
    known,
    money_reply,
    own,
    own_key,
    public_key,
    unverified,
)
from farthing.settlement.engine.commands import Outcome
from farthing.settlement.engine.questions import Lookup
from farthing.settlement.engine.sessions import session_answer, session_view
from farthing.settlement.engine.things import Agreement, Session
from farthing.settlement.engine.usage import Reported, report_answer

__all__ = [
    "close_session",
    "get_session",
    "list_sessions",
    "open_session",
    "report_usage",
    "top_up_session",
]


async def open_session(market: Market, caller: Caller, ask: OpenSession) -> Reply:
    """Set money aside for many calls, and say so to the vendor in a signed entitlement."""
    return await _entitled(market, await market.submit(caller, OPEN_SESSION, ask))


async def top_up_session(market: Market, caller: Caller, ask: TopUpSession) -> Reply:
    """Set more aside, and say so anew."""
    return await _entitled(market, await market.submit(caller, TOP_UP_SESSION, ask))


async def close_session(market: Market, caller: Caller, ask: CloseSession) -> Reply:
    """End a session."""
    return money_reply(await market.submit(caller, CLOSE_SESSION, ask), session_answer)


async def get_session(market: Market, caller: Caller, ask: GetSession) -> Reply:
    """Where a session stands; while it is open its buyer gets the entitlement too."""
    session = await own(market, caller, Session, "session_id", ask.session_id)
    view = session_view(session)
    if caller.principal_id == session.buyer_id and session.status == "open":
        view = replace(view, entitlement=await _entitlement(market, session, market.now_us()))
    return Reply(answer=view)


async def list_sessions(market: Market, caller: Caller, ask: ListSessions) -> Reply:
    """The caller's sessions, newest first."""
    page = await page_under_agreement(market, caller, Session, ask)
    sessions = tuple(map(session_view, page.things))
    return Reply(answer=Sessions(sessions=sessions, as_of_seq=page.as_of_seq, cursor=page.cursor))


async def report_usage(market: Market, caller: Caller, ask: ReportUsage) -> Reply:
    """Bill the calls of a batch that the vendor signed, as far as the payer's voucher goes."""
    body = await _read(market, caller, ask)
    facts: dict[str, Json] | None = None
    if body.fault is None:
        facts = {
            "usage": ask.batch,
            "usage_root": body.root,
            "usage_signature": ask.batch_signature,
            "voucher": ask.voucher,
        }
    try:
        # A key is bound to the batch by its digest.
        asked = replace(ask, batch=body.batch_sha256)
        outcome = await market.submit(caller, REPORT_USAGE, asked, body=body, facts=facts)
    except Refused as refused:
        if not refused.replayed:
            count_refused(market.metrics, refused.refusal, max(body.events, 1))
        raise
    given = money_reply(outcome, report_answer)
    if not outcome.replayed:
        count_reported(market.metrics, cast("UsageReport", given.answer))
    return given


async def _read(market: Market, caller: Caller, ask: ReportUsage) -> Reported:
    """The batch as it is found. What is wrong with it is the engine's to refuse, and remember."""
    data = ask.batch.encode(errors="surrogatepass")
    found = Reported(session_id=ask.session_id, batch_sha256=sha256_hex(data))
    try:
        columns = read_batch(data, SessionId(ask.session_id))
        found = replace(found, events=len(columns.seqs), columns=columns)
    except DocumentError as error:
        text = f"The batch cannot be read: {error}."
        found = replace(found, fault=refuse(Code.USAGE_INVALID, path=error.path, message=text))
    session = await market.ask(Lookup(noun="session", id=ask.session_id))
    if not isinstance(session, Session) or session.vendor_id != caller.principal_id:
        return replace(found, columns=None, fault=refuse(Code.USAGE_INVALID, path="session_id"))
    signed = await _signed(market, caller, session, ask, data)
    if isinstance(signed, Refusal):
        return replace(found, columns=None, fault=signed)
    return replace(
        found,
        root=signed.root,
        key_thumbprint=signed.key_thumbprint,
        voucher_seq=signed.voucher.seq,
        max_cum_units=signed.voucher.max_cum_units,
    )


class _Signed(NamedTuple):
    """What two signatures say."""

    key_thumbprint: str
    root: str
    voucher: Voucher


async def _signed(
    market: Market, caller: Caller, session: Session, ask: ReportUsage, data: bytes
) -> _Signed | Refusal:
    """By which key of the caller's the batch is signed, and the payer's voucher."""
    try:
        kid, key = await own_key(market, caller, ask.batch_signature)
        _, root = verify_batch(ask.batch_signature, session.session_id, data, {kid: key}.get)
    except InvalidSignature as error:
        return unverified("batch_signature", error)
    payer = await public_key(market, session.payer_thumbprint)
    try:
        voucher = read_voucher(ask.voucher, payer, session.agreement_id)
    except ProofError as error:
        return unverified("voucher", error)
    if voucher.session_id != session.session_id:
        return refuse(Code.SIGNATURE_INVALID, path="voucher", required=session.session_id)
    return _Signed(kid, root, voucher)


async def _entitled(market: Market, outcome: Outcome) -> Reply:
    """The reply of a write that sets money aside; signed as of its record, so ever the same."""
    record = outcome.record
    session = Session.from_document(record.changed[0].after)
    entitlement = await _entitlement(market, session, record.at_us)

    def with_entitlement(record: Record) -> SessionView:
        return replace(session_answer(record), entitlement=entitlement)

    return money_reply(outcome, with_entitlement)


async def _entitlement(market: Market, session: Session, at_us: int) -> str:
    agreement = await known(market, Agreement, session.agreement_id)
    payer = await public_key(market, session.payer_thumbprint)
    entitlement = Entitlement(
        session_id=SessionId(session.session_id),
        agreement_id=AgreementId(session.agreement_id),
        listing_id=ListingId(agreement.listing_id),
        vendor_id=OrganisationId(PrincipalId(session.vendor_id)),
        buyer_id=PrincipalId(session.buyer_id),
        payer_jwk=payer.jwk(),
        cap_units=session.cap_units,
        per_call_units=session.per_call_units,
        unsigned_units=session.unsigned_units,
        asset=session.asset,
        card_sha256=session.rate_card_sha256,
        expires_at_us=session.expires_at_us,
        issuer=market.issuer,
    )
    return entitlement_jwt(market.signer, entitlement, at_us)
