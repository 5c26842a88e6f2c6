"""What the treasurer and the admin decide about accounts: closing, grace, partners.

Boundary: money on its way in and out is in `payments`, credit in `lots`. Source: spec/ledger.md.
"""

from farthing.protocol.errors import Code, Refusal, refuse
from farthing.protocol.ledger import AccountKind, account_name, split_account
from farthing.protocol.messages.treasury import (
    AccountState,
    CloseAccount,
    GraceView,
    PartnerView,
    SetGrace,
    SetPartner,
)
from farthing.protocol.money import INT64_MAX, PPM, format_units
from farthing.protocol.records import Record
from farthing.protocol.wire import Role, money
from farthing.settlement.engine.accounts import no_operator, unknown
from farthing.settlement.engine.drafts import Call, Draft, change
from farthing.settlement.engine.state import State
from farthing.settlement.engine.things import Closure, Grace, Partner

__all__ = [
    "close",
    "close_answer",
    "closed_view",
    "grace_answer",
    "grace_view",
    "partner_answer",
    "partner_of",
    "partner_view",
    "set_grace",
    "set_partner",
]

_WAITED_ON = "Nothing stands on the account, but something waits on it."
_OWED = "The organisation owes on this account."


def close(state: State, call: Call) -> Draft | Refusal:
    """Close an empty account: nothing new begins on it. Twice is once."""
    body = call.command.body
    assert isinstance(body, CloseAccount)
    if body.organisation_id not in state.principals:
        return refuse(Code.NOT_FOUND, path="organisation_id")
    kind, asset = AccountKind(body.account), body.asset
    name = account_name(body.organisation_id, kind, asset)
    account = state.accounts.get(name)
    if account is None:
        return unknown(state, body.organisation_id, kind, asset=asset, path="asset")
    for each in kind.closed_together:
        found = state.accounts.get(account_name(body.organisation_id, each, asset))
        if found is not None and (
            found.posted_units or found.debits_pending or found.credits_pending
        ):
            text = _OWED if found.posted_units < 0 else "" if found.posted_units else _WAITED_ON
            return refuse(
                Code.ACCOUNT_IN_USE,
                path="account",
                remaining=format_units(found.posted_units, asset),
                asset=asset,
                message=text,
            )
    return Draft(changed=(change("closure", name, Closure(account=name, seq=call.seq)),))


def set_grace(state: State, call: Call) -> Draft | Refusal:
    """Set how far a prepaid account may be below zero; its operator can only choose less."""
    body = call.command.body
    assert isinstance(body, SetGrace)
    owner = state.principals.get(body.organisation_id)
    own = call.principal_id == body.organisation_id
    by_staff = call.command.by.role is not Role.OPERATOR
    if owner is None or owner.role != Role.OPERATOR or not (own or by_staff):
        return no_operator("organisation_id")
    units, asset = body.amount.units, body.amount.asset
    name = account_name(owner.principal_id, AccountKind.PREPAID, asset)
    before = state.graces.get(name)
    granted_units = before.granted_units if before else 0
    chosen_units = before.chosen_units if before else INT64_MAX
    after = Grace(
        account=name,
        organisation_id=owner.principal_id,
        asset=asset,
        granted_units=units if by_staff else granted_units,
        chosen_units=chosen_units if by_staff else units,
    )
    if name in state.closures:
        return refuse(Code.ACCOUNT_CLOSED, path="organisation_id")
    account = state.accounts.get(name)
    used_units = max(-account.available_units, 0) if account else 0
    if after.units < used_units:
        return refuse(
            Code.INSUFFICIENT_FUNDS,
            path="amount.amount",
            required=format_units(used_units, asset),
            remaining=format_units(after.units, asset),
            asset=asset,
            message="More grace than that is in use.",
        )
    return Draft(changed=(change("grace", name, after, before),))


def set_partner(state: State, call: Call) -> Draft | Refusal:
    """Name who brought a vendor's or a listing's trade; binds the agreements made from now on."""
    body = call.command.body
    assert isinstance(body, SetPartner)
    if body.ppm + state.fee_ppm > PPM:
        most = str(PPM - state.fee_ppm)
        text = f"The platform's fee leaves {most} millionths to share."
        return refuse(Code.INVALID_ARGUMENT, path="ppm", required=most, message=text)
    vendor_id = body.subject_id
    listing = state.listings.get(body.subject_id)
    if listing is not None:
        vendor_id = listing.vendor_id
    vendor = state.principals.get(vendor_id)
    if vendor is None or vendor.role != Role.VENDOR:
        text = "There is no vendor or listing of this id."
        return refuse(Code.NOT_FOUND, path="subject_id", message=text)
    partner = state.principals.get(body.partner_id)
    if partner is None or partner.role not in {Role.OPERATOR, Role.VENDOR}:
        text = "There is no operator or vendor of this id."
        return refuse(Code.NOT_FOUND, path="partner_id", message=text)
    if body.partner_id == vendor_id:
        text = "A vendor is not its own partner."
        return refuse(Code.INVALID_ARGUMENT, path="partner_id", message=text)
    after = Partner(partner_id=body.partner_id, ppm=body.ppm)
    before = state.partners.get(body.subject_id)
    return Draft(changed=(change("partner", body.subject_id, after, before),))


def partner_of(state: State, listing_id: str, vendor_id: str) -> Partner | None:
    """The partner that an agreement made now is bound to: the listing's before the vendor's."""
    if not state.partners:
        return None
    partner = state.partners.get(listing_id) or state.partners.get(vendor_id)
    return partner if partner is not None and partner.ppm else None


def close_answer(record: Record) -> AccountState:
    """The answer of closing, from the record alone."""
    return closed_view(Closure.from_document(record.changed[0].after).account)


def closed_view(account: str) -> AccountState:
    """A closed account."""
    owner, kind, asset = split_account(account)
    return AccountState(organisation_id=owner, account=kind.value, asset=asset, status="closed")


def grace_answer(record: Record) -> GraceView:
    """The answer of setting a grace, from the record alone."""
    return grace_view(Grace.from_document(record.changed[0].after))


def grace_view(grace: Grace) -> GraceView:
    """A grace as its operator and the treasurer see it."""
    chosen = grace.chosen_units != INT64_MAX
    return GraceView(
        organisation_id=grace.organisation_id,
        granted=money(grace.granted_units, grace.asset),
        chosen=money(grace.chosen_units, grace.asset) if chosen else None,
        in_force=money(grace.units, grace.asset),
    )


def partner_answer(record: Record) -> PartnerView:
    """The answer of naming a partner, from the record alone."""
    (change_,) = record.changed
    return partner_view(change_.id, Partner.from_document(change_.after))


def partner_view(subject_id: str, partner: Partner) -> PartnerView:
    """A partner as those see it whom it concerns."""
    return PartnerView(subject_id=subject_id, partner_id=partner.partner_id, ppm=partner.ppm)
