"""Generated from the operations: a foreign id and an absent one get the same answer, `not_found`.

Two whole tenants, every operation, every id field; nothing moves whatever is asked.
"""

import re
import typing
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from farthing.clients.documents import sign_delivery
from farthing.clients.transport import Connection
from farthing.protocol import wire
from farthing.protocol.contracts import DeliveryRecord
from farthing.protocol.errors import Code, Refused
from farthing.protocol.gateways import GATEWAY_SCHEMA
from farthing.protocol.messages import allowances, payments, treasury
from farthing.protocol.messages.agreements import Agreement
from farthing.protocol.messages.metering import LIST_REJECTED_USAGE, ListRejectedUsage
from farthing.protocol.messages.operations import OPERATIONS, AnyOperation
from farthing.protocol.messages.sessions import OPEN_SESSION, REPORT_USAGE, OpenSession
from farthing.protocol.wire import Money, Role, Usage
from farthing.settlement.engine.questions import AllAccounts, FiguresNow
from tests.papers import signing_key
from tests.patience import patiently
from tests.serving import Serving, Shop, serving

# Which prefix a reference type takes; found in the annotations of the asks.
REFERENCES = {
    wire.AgentRef: "agt",
    wire.OrganisationRef: "org",
    wire.PrincipalRef: "agt",
    wire.ListingRef: "lst",
    wire.AgreementRef: "agr",
    wire.HoldRef: "hld",
    wire.ChargeRef: "chg",
    wire.DisputeRef: "dsp",
    wire.SessionRef: "ses",
    allowances.AllowanceRef: "alw",
    payments.TopUpRef: "top",
    payments.PayoutRef: "pay",
    treasury.LotRef: "lot",
}
ABSENT = "00000000000000000000000000"
# Listings are public: everybody may see a foreign one, so only absence is tested there.
PUBLIC = {"lst"}
# Usage that is nobody's is counted, so its refusal is one that is remembered.
REMEMBERED = {"report_usage"}
# What was never taken is listed by the id that its sender gave it, whosever that is.
FILTERED = {"list_rejected_usage"}
# A reference that can be left empty is known by its pattern alone.
EMPTY = re.compile(r"pattern='\^\(([a-z]{3})_")


class Target(NamedTuple):
    operation: AnyOperation
    field: str
    prefix: str


def targets() -> Iterator[Target]:
    for operation in OPERATIONS.values():
        # A newcomer names the operator it wants to belong to: any operator, that then approves.
        if Role.NEWCOMER in operation.roles or operation.name in REMEMBERED | FILTERED:
            continue
        hints = typing.get_type_hints(operation.ask, include_extras=True)
        for field in fields(operation.ask):
            # Lists of ids (allow and deny) name whom they like; naming gives access to nothing.
            hint = hints[field.name]
            optional = () if typing.get_origin(hint) is tuple else typing.get_args(hint)
            for reference in (hint, *optional):
                prefix = next((REFERENCES[k] for k in REFERENCES if k == reference), "")
                if found := EMPTY.search(repr(reference)):
                    prefix = found[1]
                if prefix:
                    yield Target(operation, field.name, prefix)


class Tenant(NamedTuple):
    shop: Shop
    ids: dict[str, str]


async def tenants(server: Serving) -> tuple[Tenant, Tenant]:
    """Two houses that have one of everything, each."""
    one, two = [await Shop.opened(server, suffix=suffix) for suffix in ("One", "Two")]
    agreements = [await sold(shop) for shop in (one, two)]
    # The window of what was sold closes.
    server.clock.ahead_us += 86_400 * 10**6
    return await tenant(one, agreements[0]), await tenant(two, agreements[1])


async def sold(shop: Shop) -> Agreement:
    agreement = await shop.buyer.accept(await shop.buyer.quote(shop.listing_id, {"page": 2}))
    hold = await shop.buyer.hold(agreement.agreement_id, {"page": 2}, {"call": "sold"})
    await shop.captured(agreement, hold.answer.hold_id, {"page": 2}, "b" * 64)
    return agreement


async def paid_out(shop: Shop) -> str:
    """A payout that the vendor has asked for."""
    async with patiently():
        while True:
            try:
                payout = await shop.vendor.request_payout(Money(amount="0.001", asset="USD"))
            except Refused as refused:
                # The writer settles by itself, as soon as its clock says so.
                if refused.code not in {Code.ACCOUNT_UNKNOWN, Code.INSUFFICIENT_FUNDS}:
                    raise
            else:
                return payout.payout_id


async def tenant(shop: Shop, agreement: Agreement) -> Tenant:
    ids = {
        "pay": await paid_out(shop),
        "agt": shop.buyer.connection.principal,
        "org": shop.operator.connection.principal,
        "lst": shop.listing_id,
        "agr": agreement.agreement_id,
    }
    for name in ("captured", "open"):
        hold = await shop.buyer.hold(agreement.agreement_id, {"page": 2}, {"call": name})
        ids["hld"] = hold.answer.hold_id
        if name == "captured":
            ids["chg"] = await shop.captured(agreement, hold.answer.hold_id, {"page": 2}, "b" * 64)
    session = await shop.buyer.connection.call(
        OPEN_SESSION,
        OpenSession(
            agreement_id=agreement.agreement_id,
            cap=Money(amount="0.1", asset="USD"),
            per_call=Money(amount="0.01", asset="USD"),
            idempotency_key=shop.buyer.connection.new_key(),
        ),
    )
    ids["ses"] = session.session_id
    proposal = await shop.operator.connection.call(
        allowances.PROPOSE_ALLOWANCE,
        allowances.ProposeAllowance(
            agreement_id=agreement.agreement_id,
            per_day=(Usage(meter="page", quantity="9"),),
            idempotency_key=shop.operator.connection.new_key(),
        ),
    )
    assert proposal.proposed is not None
    ids["alw"] = proposal.proposed.allowance_id
    dispute = await shop.buyer.dispute(ids["chg"], "not_delivered")
    ids["dsp"] = dispute.dispute_id
    return Tenant(shop, ids)


def arguments(target: Target, mine: Tenant, value: str) -> dict[str, Any]:
    """Valid arguments of the caller's own, but for the one field."""
    vendor = mine.shop.vendor
    hold_id = value if target.prefix == "hld" else mine.ids["hld"]
    delivery = sign_delivery(
        vendor.signer,
        DeliveryRecord(
            hold_id=hold_id,  # type: ignore[arg-type]
            agreement_id=mine.ids["agr"],  # type: ignore[arg-type]
            vendor_id=vendor.vendor_id,  # type: ignore[arg-type]
            listing_id=mine.ids["lst"],  # type: ignore[arg-type]
            args_sha256="a" * 64,
            result_sha256="b" * 64,
            output_schema_sha256="c" * 64,
            usage={"page": 1},
            delivered_at_us=mine.shop.serving.clock(),
        ),
    )
    own = {
        "agreement_id": mine.ids["agr"],
        "hold_id": mine.ids["hld"],
        "charge_id": mine.ids["chg"],
        "dispute_id": mine.ids["dsp"],
        "listing_id": mine.ids["lst"],
        "agent_id": mine.ids["agt"],
        "operator_id": mine.ids["org"],
        "organisation_id": mine.ids["org"],
        "principal_id": mine.ids["agt"],
        "arguments": {},
        "call": 1,
        "session_id": mine.ids["ses"],
        "allowance_id": mine.ids["alw"],
        "batch": "[]",
        "batch_signature": "e30..e30",
        "voucher": "e30.e30.e30",
        "corrections": [{"call": "1", "usage": {"page": "1"}}],
        "signature": "e30..e30",
        "cap": {"amount": "0.002", "asset": "USD"},
        "total": {"amount": "0.002", "asset": "USD"},
        "per_call": {"amount": "0.001", "asset": "USD"},
        "amount": {"amount": "0.001", "asset": "USD"},
        "per_call_max": {"amount": "0.1", "asset": "USD"},
        "per_day_max": {"amount": "0.1", "asset": "USD"},
        "asset": "USD",
        "account": "prepaid",
        "kind": "bought",
        "workload": [{"meter": "page", "quantity": "1"}],
        "args_sha256": "a" * 64,
        "reason": "not_delivered",
        "reference": "test",
        "body": "e30=",
        "delivery": dict(delivery.document),
        "delivery_signature": delivery.signature,
        "key_thumbprint": signing_key("Agent One").thumbprint,
        "idempotency_key": mine.shop.buyer.connection.new_key(),
    }
    if target.operation.name == "reconcile_usage":
        own = {"agreement_id": mine.ids["agr"]} if target.field == "through" else {}
    names = {field.name for field in fields(target.operation.ask)}
    given = {name: own[name] for name in names & own.keys()}
    return {**given, target.field: value}


def callers(target: Target, mine: Tenant, server: Serving) -> Iterator[Connection]:
    by_role = {
        Role.BUYER: mine.shop.buyer.connection,
        Role.OPERATOR: mine.shop.operator.connection,
        Role.VENDOR: mine.shop.vendor.connection,
        Role.TREASURER: server.staff(Role.TREASURER),
    }
    for role, connection in by_role.items():
        if role in target.operation.roles or target.operation.public:
            yield connection


async def snapshot(server: Serving) -> tuple[int, dict[str, str]]:
    market = server.service.market
    figures = await market.ask(FiguresNow())
    accounts = (await market.ask(AllAccounts())).accounts
    return figures.seq, {name: repr(account) for name, account in accounts.items()}


async def test_a_foreign_id_and_an_absent_one_are_the_same_not_found(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        mine, theirs = await tenants(server)
        before = await snapshot(server)
        tried = 0
        for target in targets():
            for connection in callers(target, mine, server):
                absent = f"{target.prefix}_{ABSENT}"
                values = [absent]
                # Staff and listings have no foreigners: all organisations, all the public.
                if target.prefix not in PUBLIC and not connection.principal.startswith("stf_"):
                    values.append(theirs.ids[target.prefix])
                answers = {await answer(target, connection, mine, value) for value in values}
                assert len(answers) == 1, (target, answers)
                tried += len(values)
        assert await snapshot(server) == before
        assert tried > 60


async def answer(target: Target, connection: Connection, mine: Tenant, value: str) -> object:
    """The refusal of one call, all of it that a caller can see."""
    with pytest.raises(Refused) as refused:
        await connection.send_raw(
            target.operation.name, arguments(target, mine, value), repeatable=False
        )
    refusal = refused.value.refusal
    assert refusal.code is Code.NOT_FOUND, (target, connection.principal, refusal)
    return refusal


async def test_usage_of_a_foreign_session_and_of_none_is_the_same_nobodys(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        mine, theirs = await tenants(server)
        target = Target(REPORT_USAGE, "session_id", "ses")
        _, before = await snapshot(server)
        refusals = []
        for value in (f"ses_{ABSENT}", theirs.ids["ses"]):
            with pytest.raises(Refused) as refused:
                await mine.shop.vendor.connection.send_raw(
                    "report_usage", arguments(target, mine, value), repeatable=False
                )
            refusals.append(refused.value.refusal)

        assert refusals[0] == refusals[1]
        assert (refusals[0].code, refusals[0].path) == (Code.USAGE_INVALID, "session_id")
        assert (await snapshot(server))[1] == before


class Spoilt(NamedTuple):
    """A call in which something comes before the id, or stands beside it, that is wrong too."""

    operation: str
    by: Callable[[Shop], Connection]
    ids: Callable[[Tenant], str]
    absent: str
    arguments: Callable[[Tenant, str], dict[str, Any]]


def vendor_of(shop: Shop) -> Connection:
    return shop.vendor.connection


def buyer_of(shop: Shop) -> Connection:
    return shop.buyer.connection


def capture(mine: Tenant, value: str) -> dict[str, Any]:
    target = Target(OPERATIONS["capture_hold"], "hold_id", "hld")
    return {**arguments(target, mine, value), "delivery_signature": "e30..e30"}


def rotate(mine: Tenant, value: str) -> dict[str, Any]:
    key = {"kty": "OKP", "crv": "Ed25519", "x": signing_key("New").public.jwk()["x"]}
    new_key = mine.shop.vendor.connection.new_key()
    return {"key": key, "possession": "e30..e30", "replaces": value, "idempotency_key": new_key}


def revoke(mine: Tenant, value: str) -> dict[str, Any]:
    vendor = mine.shop.vendor.connection
    named = {"principal_id": vendor.principal, "idempotency_key": vendor.new_key()}
    return {**named, "key_thumbprint": value}


def acknowledged(mine: Tenant, value: str) -> dict[str, Any]:
    forged = {"session_id": mine.ids["ses"], "voucher": "e30.e30.e30"}
    return {"agreement_id": mine.ids["agr"], "acknowledged": [forged, {"session_id": value}]}


def gateway(mine: Tenant, value: str) -> dict[str, Any]:
    counted = {"session_id": mine.ids["ses"], "calls": "1", "usage": []}
    report = {"schema": GATEWAY_SCHEMA, "agreement_id": value, "sessions": [counted]}
    named = {"agreement_id": mine.ids["agr"], "gateway": report}
    return {**named, "gateway_signature": "e30..e30"}


def quote(mine: Tenant, value: str) -> dict[str, Any]:
    workload = [{"meter": "minute", "quantity": "1"}]
    return {"listing_id": mine.ids["lst"], "workload": workload, "agreement_id": value}


SPOILT = (
    Spoilt("capture_hold", vendor_of, lambda of: of.ids["hld"], f"hld_{ABSENT}", capture),
    Spoilt("rotate_key", vendor_of, lambda of: of.shop.vendor.signer.thumbprint, "A" * 43, rotate),
    Spoilt("revoke_key", vendor_of, lambda of: of.shop.vendor.signer.thumbprint, "A" * 43, revoke),
    Spoilt("reconcile_usage", buyer_of, lambda of: of.ids["ses"], f"ses_{ABSENT}", acknowledged),
    Spoilt("reconcile_usage", vendor_of, lambda of: of.ids["agr"], f"agr_{ABSENT}", gateway),
    Spoilt("get_quote", buyer_of, lambda of: of.ids["agr"], f"agr_{ABSENT}", quote),
)


async def test_nothing_else_that_is_wrong_tells_a_foreign_id_from_an_absent_one(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as server:
        mine, theirs = await tenants(server)
        await mine.shop.vendor.withdraw(mine.shop.listing_id, "over")
        before = await snapshot(server)
        for each in SPOILT:
            answers = []
            for value in (each.absent, each.ids(theirs)):
                with pytest.raises(Refused) as refused:
                    await each.by(mine.shop).send_raw(
                        each.operation, each.arguments(mine, value), repeatable=False
                    )
                answers.append(refused.value.refusal)
            assert answers[0] == answers[1], each.operation
            assert answers[0].code is Code.NOT_FOUND, (each.operation, answers[0])
        assert await snapshot(server) == before


async def test_what_was_never_taken_is_as_little_under_a_foreign_id_as_under_an_absent_one(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as server:
        mine, theirs = await tenants(server)
        target = Target(REPORT_USAGE, "session_id", "ses")
        with pytest.raises(Refused):
            await theirs.shop.vendor.connection.send_raw(
                "report_usage", arguments(target, theirs, theirs.ids["ses"]), repeatable=False
            )
        absent = (f"ses_{ABSENT}", f"agr_{ABSENT}")
        for session_id, agreement_id in (absent, (theirs.ids["ses"], theirs.ids["agr"])):
            for ask in (
                ListRejectedUsage(session_id=session_id),
                ListRejectedUsage(agreement_id=agreement_id),
            ):
                found = await mine.shop.vendor.connection.call(LIST_REJECTED_USAGE, ask)
                assert (found.rejected, found.reasons) == ((), ())
