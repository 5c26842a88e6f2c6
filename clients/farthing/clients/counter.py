"""A vendor's counter: one call comes with its payment, and its result goes out, or why not.

Boundary: which payment it is, whether it holds, and which desk works for it: a hold's
(`deliveries`) or a session's (`session_desks`). How the call came and how it runs is its door's
affair (`paid`, `middleware`). Source: spec/payments-mcp.md.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple, TypeAlias, cast

from farthing.clients.deliveries import Deliveries, Produced, Work
from farthing.clients.documents import arguments_bytes
from farthing.clients.entitlements import (
    Vouched,
    check_entitled,
    check_payment,
    check_vouched,
    claimed,
    claimed_hold,
)
from farthing.clients.pins import Pins
from farthing.clients.pruning import Pruning
from farthing.clients.session_desk import CallWork, SessionDesk
from farthing.clients.session_desks import DESKS_MAX, UNSIGNED_CALLS_MAX, SessionDesks
from farthing.clients.spool import Entry, Spool
from farthing.clients.usage_spool import KeptCall, UsageSpool
from farthing.clients.vendors import Vendor
from farthing.clients.wares import Cap, Ware
from farthing.protocol.canonical import Json, document_sha256, sha256_hex
from farthing.protocol.errors import Code, Refusal, Refused, Unreachable, Unverified, refuse
from farthing.protocol.money import INT64_MAX
from farthing.protocol.platform_keys import PlatformKeys
from farthing.protocol.proofs import Entitlement
from farthing.protocol.rating import RateCard, parse_card
from farthing.protocol.shapes import Shape
from farthing.protocol.usage import UsageOutcome
from farthing.protocol.x402 import (
    Presented,
    Settlement,
    Used,
    read_payment,
    settlement,
    used,
)

__all__ = ["Counter", "Run", "Sold", "Unpaid"]

_ENTITLED_MAX: Final = 4096
_SHAPES_MAX: Final = 1024
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,15}")

Run: TypeAlias = Callable[[Shape, Cap], Awaitable[Produced]]
"""Does the work, told the shape that the result is sold under and the most that it may cost."""


class Sold(NamedTuple):
    """What was delivered: the result's bytes, what goes beside it, what is charged for it."""

    result: bytes
    content: bytes
    response: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpaid:
    """The call is not paid, or not well enough; nothing was done."""

    refusal: Refusal


class Counter:
    """The counter of one vendor's process.

    Args:
        vendor: The vendor's side of the platform.
        platform_keys: The platform's keys by purpose, pinned; their successors are learnt.
        spool: Where work is remembered; `close` closes it.
        unsigned_calls_max: How many calls' worth may run in a session that nothing signed covers.
        desks_max: How many sessions may have a desk in memory at once.
    """

    def __init__(
        self,
        vendor: Vendor,
        platform_keys: PlatformKeys,
        spool: Spool,
        *,
        unsigned_calls_max: int = UNSIGNED_CALLS_MAX,
        desks_max: int = DESKS_MAX,
    ) -> None:
        self._vendor = vendor
        self._platform = vendor.connection.url
        self._platform_keys = Pins(platform_keys, vendor.connection)
        self._clock = vendor.connection.clock
        self.deliveries = Deliveries(vendor, spool)
        usage = UsageSpool(spool.file)
        self.sessions = SessionDesks(
            vendor,
            usage,
            self._card,
            unsigned_calls_max=unsigned_calls_max,
            desks_max=desks_max,
        )
        self._pruning = Pruning((spool.forget, usage.forget))
        self._cards: dict[str, RateCard] = {}
        # Whose signature was checked before: a session's calls all come with the same one.
        self._entitled: dict[str, Entitlement] = {}

    async def open(self) -> None:
        """Go on with what a crash left: capture, and report."""
        await self.deliveries.settle()
        await self.sessions.open()
        self._pruning.look(self._clock())

    async def close(self) -> None:
        """Stop, within seconds; what is not captured or reported yet waits in the spool."""
        await self._pruning.close()
        try:
            await self.sessions.close()
        finally:
            await self.deliveries.close()

    async def sell(
        self, ware: Ware, sent: Mapping[str, object], payment: object, run: Run
    ) -> Sold | Unpaid | Refusal:
        """Do a call that is paid for, once.

        Args:
            ware: What is called.
            sent: The arguments as received.
            payment: What was sent as payment, None where nothing was.
            run: Does the work.

        Returns:
            What was delivered, or `Unpaid`, or why a paid call came to nothing.
        """
        self._pruning.look(self._clock())
        try:
            presented = read_payment(payment, self._platform)
            if isinstance(presented, Refusal):
                return Unpaid(refusal=presented)
            args_sha256 = _digest(sent, ware.listing.limits.input_bytes_max)
            if self._is_of_a_session(presented):
                return await self._of_session(ware, presented, args_sha256, run)
            return await self._of_hold(ware, presented, args_sha256, run)
        except Refused as refused:
            return Unpaid(refusal=refused.refusal)

    async def _of_hold(
        self, ware: Ware, presented: Presented, args_sha256: str, run: Run
    ) -> Sold | Refusal:
        await self._platform_keys.meet(presented.entitlement)
        entry = await self.deliveries.find(claimed_hold(presented))
        paid = check_payment(
            presented,
            platform_key_of=self._platform_keys.platform.get,
            platform=self._platform,
            vendor_id=self._vendor.vendor_id,
            listing_id=ware.listing.listing_id,
            args_sha256=args_sha256,
            now_us=self._clock(),
            done_at_us=entry.done_at_us if entry and entry.args_sha256 == args_sha256 else None,
        )
        if isinstance(paid, Refusal):
            raise Refused(paid)
        agreement_id = paid.entitlement.agreement_id
        shape = ware.shape_under(agreement_id) or await self._output_shape(ware, agreement_id)
        if await self.deliveries.find(claimed_hold(presented)) is None:
            self._check_room(ware)
        outcome = await self.deliveries.obtain(
            Work(
                paid=paid,
                args_sha256=args_sha256,
                output_schema_sha256=document_sha256(shape.schema),
                repeatable=ware.repeatable,
                run=partial(run, shape, Cap(_cap_units(ware, paid.entitlement, paid.cap_units))),
            )
        )
        return outcome if isinstance(outcome, Refusal) else self._captured(outcome)

    async def _of_session(
        self, ware: Ware, presented: Presented, args_sha256: str, run: Run
    ) -> Sold | Refusal:
        entitlement, desk, vouched = await self._vouched(ware, presented, args_sha256)
        agreement_id = entitlement.agreement_id
        shape = ware.shape_under(agreement_id) or await self._output_shape(ware, agreement_id)
        cap_units = _cap_units(ware, entitlement, entitlement.per_call_units)
        call = await desk.obtain(
            CallWork(
                vouched=vouched,
                args_sha256=args_sha256,
                repeatable=ware.repeatable,
                deadline_s=ware.terms.delivery.deadline_s,
                check_room=partial(self._check_room, ware),
                run=lambda judge: run(shape, Cap(cap_units, judge)),
            )
        )
        if call.outcome is not UsageOutcome.SUCCEEDED:
            return Refusal.from_document(call.refusal)
        return self._metered(call, entitlement.buyer_id)

    def _is_of_a_session(self, presented: Presented) -> bool:
        token = presented.entitlement
        return token in self._entitled or "session_id" in claimed(token)

    async def _vouched(
        self, ware: Ware, presented: Presented, args_sha256: str
    ) -> tuple[Entitlement, SessionDesk, Vouched]:
        now_us, done_at_us = self._clock(), None
        entitlement: Entitlement | Refusal | None = self._entitled.get(presented.entitlement)
        if entitlement is None:
            await self._platform_keys.meet(presented.entitlement)
            entitlement = self._check_entitled(presented.entitlement, now_us)
        if isinstance(entitlement, Refusal) or now_us >= entitlement.expires_at_us:
            # The session is over: what was done in time can still be asked for.
            done_at_us = await self._done_at_us(presented, args_sha256)
            if done_at_us is not None:
                entitlement = self._check_entitled(presented.entitlement, done_at_us)
        if isinstance(entitlement, Refusal):
            raise Refused(entitlement)
        self._cards.setdefault(ware.card.card_sha256, ware.card)
        desk = self.sessions.find(entitlement) or await self._desk(entitlement)
        vouched = check_vouched(
            presented,
            entitlement,
            mac_key=desk.mac_key,
            listing_id=ware.listing.listing_id,
            args_sha256=args_sha256,
            now_us=now_us,
            done_at_us=done_at_us,
        )
        if isinstance(vouched, Refusal):
            raise Refused(vouched)
        return entitlement, desk, vouched

    def _check_entitled(self, token: str, now_us: int) -> Entitlement | Refusal:
        entitlement = check_entitled(
            token,
            platform_key_of=self._platform_keys.platform.get,
            platform=self._platform,
            vendor_id=self._vendor.vendor_id,
            now_us=now_us,
        )
        if isinstance(entitlement, Entitlement) and entitlement.session_id is not None:
            if len(self._entitled) >= _ENTITLED_MAX:
                del self._entitled[next(iter(self._entitled))]
            self._entitled[token] = entitlement
        return entitlement

    async def _done_at_us(self, presented: Presented, args_sha256: str) -> int | None:
        """When the call that a payment says it is for was taken, with these arguments."""
        session_id = claimed(presented.entitlement).get("session_id")
        seq = claimed(presented.voucher).get("seq") or presented.mac.partition(".")[0]
        if not isinstance(session_id, str) or _NUMBER.fullmatch(str(seq)) is None:
            return None
        call = await self.sessions.kept(session_id, int(str(seq)))
        return call.at_us if call is not None and call.args_sha256 == args_sha256 else None

    async def _desk(self, entitlement: Entitlement) -> SessionDesk:
        try:
            return await self.sessions.at(entitlement)
        except (Unreachable, Unverified) as error:
            text = "What the session is rated by cannot be asked now."
            raise Refused(refuse(Code.UNAVAILABLE, message=text)) from error

    async def _card(self, entitlement: Entitlement) -> RateCard:
        sha256 = entitlement.card_sha256
        if sha256 not in self._cards:
            document = await self._vendor.document(sha256)
            self._cards[sha256] = parse_card(cast("dict[str, Json]", document))
        return self._cards[sha256]

    def _check_room(self, ware: Ware) -> None:
        working = self.deliveries.working + self.sessions.working
        if working >= ware.listing.limits.concurrency_max:
            raise Refused(refuse(Code.OVERLOADED, retry_after_s=1))

    async def _output_shape(self, ware: Ware, agreement_id: str) -> Shape:
        try:
            agreement = await self._vendor.agreement(agreement_id)
            document = await self._vendor.document(agreement.listing_sha256)
        except (Unreachable, Unverified) as error:
            text = "Which version was agreed on cannot be asked now."
            raise Refused(refuse(Code.UNAVAILABLE, message=text)) from error
        shape = Shape(cast("dict[str, Json]", document["output_schema"]))
        if len(ware.output_shapes) >= _SHAPES_MAX:
            del ware.output_shapes[next(iter(ware.output_shapes))]
        ware.output_shapes[agreement_id] = shape
        return shape

    def _captured(self, entry: Entry) -> Sold:
        settled = Settlement(
            charge_id=entry.charge_id,
            hold_id=entry.hold_id,
            amount_units=entry.amount_units,
            delivery=entry.delivery,
            delivery_signature=entry.signature,
        )
        response = settlement(settled, payer=entry.payer, platform=self._platform)
        return Sold(result=entry.result, content=entry.content, response=response)

    def _metered(self, call: KeptCall, payer: str) -> Sold:
        said = Used(
            session_id=call.session_id,
            seq=call.seq,
            usage=call.usage,
            amount_units=call.amount_units,
            spent_units=call.spent_units,
            result_sha256=call.result_sha256,
        )
        response = used(said, payer=payer, platform=self._platform)
        return Sold(result=call.result, content=call.content, response=response)


def _digest(sent: Mapping[str, object], bytes_max: int) -> str:
    data = arguments_bytes(sent)
    if len(data) > bytes_max:
        raise Refused(refuse(Code.PAYLOAD_TOO_LARGE, path="arguments", required=str(bytes_max)))
    return sha256_hex(data)


def _cap_units(ware: Ware, entitlement: Entitlement, cap_units: int) -> int:
    # Under an older card the price is not known by this one.
    return cap_units if entitlement.card_sha256 == ware.card.card_sha256 else INT64_MAX
