"""Answers to questions about the state, given when memory equals disk."""

from collections.abc import Mapping
from dataclasses import replace as copy

from farthing.protocol.authority.standing import Standing
from farthing.protocol.ledger import Account, AccountKind, account_name
from farthing.protocol.money import ASSETS
from farthing.protocol.times import utc_day
from farthing.protocol.wire import Role
from farthing.settlement.engine.accounts import to_spend
from farthing.settlement.engine.commands import Question
from farthing.settlement.engine.disputes import preview
from farthing.settlement.engine.principals import is_frozen
from farthing.settlement.engine.questions import (
    AccountsOf,
    ActiveKeys,
    AllAccounts,
    Books,
    Figures,
    FiguresNow,
    KeyFacts,
    KeyOf,
    KeysOf,
    Lookup,
    Members,
    MembersOf,
    ObjectionTo,
    OutcomeOf,
    PlaceInMembers,
    PreviewOf,
    StandingOf,
    Things,
)
from farthing.settlement.engine.services import objection
from farthing.settlement.engine.state import State, scope_of
from farthing.settlement.engine.things import Principal

__all__ = ["answer"]


def answer(state: State, question: Question[object], now_us: int) -> object:
    """The answer to a question about the state; nothing in it changes when the state does."""
    match question:
        case StandingOf(principal_id=principal_id, with_positions=with_positions):
            standing = _standing_of(state, principal_id, now_us)
            if not with_positions:
                return standing
            return copy(standing, positions=_positions(state, principal_id))
        case KeyOf(thumbprint=thumbprint):
            return _key_facts(state, thumbprint)
        case ActiveKeys(principal_ids=principal_ids):
            return {each: _active_key(state, each) for each in principal_ids}
        case KeysOf(principal_id=principal_id):
            thumbprints = state.by_party.get(("key", principal_id), ())
            return tuple(state.keys[thumbprint] for thumbprint in thumbprints)
        case AccountsOf(owner=owner):
            return _books_of(state, owner)
        case AllAccounts():
            accounts = {name: copy(account) for name, account in state.accounts.items()}
            return Books(accounts=accounts, seq=state.seq)
        case Lookup(noun=noun, id=thing_id):
            return _tables(state)[noun].get(thing_id)
        case Things(noun=noun, ids=ids):
            found = map(_tables(state)[noun].get, ids)
            return tuple(each for each in found if each is not None)
        case MembersOf(organisation_id=organisation_id, begin=begin, limit=limit):
            return _members(state, organisation_id, begin, limit)
        case OutcomeOf(scope=scope, operation=operation, key=key):
            return state.outcomes.get(scope_of(scope, operation, key))
        case PreviewOf(principal_id=principal_id, charge_id=charge_id, reason=reason):
            return preview(state, principal_id, charge_id, reason, max(now_us, state.at_us))
        case ObjectionTo(answer=given):
            return objection(state, given, max(now_us, state.at_us))
        case FiguresNow():
            return Figures(fee_ppm=state.fee_ppm, seq=state.seq, at_us=max(now_us, state.at_us))
        case _:
            text = f"not a question about the state: {question}"
            raise TypeError(text)


def _members(state: State, organisation_id: str, begin: PlaceInMembers, limit: int) -> Members:
    """A page; it reads no more than that, and passes over who asked and is a member by now."""
    found: list[Principal] = []
    after = begin.after
    for asking in (False, True)[begin.asking :]:
        noun = "principal" if asking else "member"
        ids = state.by_party.get((noun, organisation_id), ())
        for place in range(after, len(ids)):
            each = state.principals[ids[place]]
            if asking and each.status != "pending":
                continue
            if len(found) == limit:
                more = PlaceInMembers(asking=asking, after=place)
                return Members(agents=tuple(found), more=more)
            found.append(each)
        after = 0
    return Members(agents=tuple(found), more=None)


def _standing_of(state: State, principal_id: str, now_us: int) -> Standing:
    """What a principal may spend now."""
    principal = state.principals.get(principal_id)
    if principal is None:
        return Standing(principal_id=principal_id, as_of_seq=state.seq)
    day = utc_day(max(now_us, state.at_us))
    held = ((asset, state.grants.get((principal_id, asset))) for asset in ASSETS)
    grants = {asset: grant for asset, grant in held if grant is not None}
    available, pending = _balances(state, principal.organisation_id, principal.role)
    return Standing(
        principal_id=principal_id,
        frozen=is_frozen(state, principal_id),
        available_units=available,
        pending_units=pending,
        grants=grants,
        spent_units={a: state.counters.get((g.grant_id, day), 0) for a, g in grants.items()},
        as_of_seq=state.seq,
    )


def _balances(
    state: State, organisation_id: str, role: str
) -> tuple[dict[str, int], dict[str, int]]:
    """Per asset: what is at hand, and what is set aside (buyers) or not yet payable (vendors)."""
    available: dict[str, int] = {}
    pending: dict[str, int] = {}
    # Asked for after every payment, so that only the names that matter are looked up.
    for asset in ASSETS:
        if role == Role.VENDOR:
            account = _account(state, organisation_id, AccountKind.VENDOR_PAYABLE, asset)
            if account is not None:
                available[asset] = account.available_units
            account = _account(state, organisation_id, AccountKind.VENDOR_PENDING, asset)
            if account is not None:
                pending[asset] = account.posted_units
        else:
            account = _account(state, organisation_id, AccountKind.PREPAID, asset)
            if account is not None:
                available[asset] = to_spend(state, organisation_id, asset)
                pending[asset] = account.debits_pending
    if role != Role.VENDOR and (state.lots or state.grace_units):
        _count_credit(state, organisation_id, available, pending)
    return available, pending


def _count_credit(
    state: State, owner: str, available: dict[str, int], pending: dict[str, int]
) -> None:
    """Add what holds draw on besides money: credit lots, and the grace of who never had any."""
    for asset in ASSETS:
        if state.grace_units.get(account_name(owner, AccountKind.PREPAID, asset)):
            available[asset] = to_spend(state, owner, asset)
        for kind in (AccountKind.DEFERRED_REVENUE, AccountKind.PROMOTIONAL_CREDIT):
            account = _account(state, owner, kind, asset)
            if account is not None:
                available[asset] = available.get(asset, 0) + account.available_units
                pending[asset] = pending.get(asset, 0) + account.debits_pending


def _account(state: State, owner: str, kind: AccountKind, asset: str) -> Account | None:
    return state.accounts.get(account_name(owner, kind, asset))


def _books_of(state: State, owner: str) -> Books:
    names = [f"{owner}:{kind.value}:{asset}" for kind in AccountKind for asset in ASSETS]
    return Books(
        accounts={name: copy(state.accounts[name]) for name in names if name in state.accounts},
        seq=state.seq,
        graces=tuple(state.graces[name] for name in names if name in state.graces),
        closed=tuple(name for name in names if name in state.closures),
    )


def _active_key(state: State, principal_id: str) -> str:
    thumbprints = state.by_party.get(("key", principal_id), ())
    keys = [state.keys[each] for each in thumbprints]
    active = [key.thumbprint for key in keys if key.status == "active" and not key.purpose]
    return active[-1] if active else ""


def _positions(state: State, principal_id: str) -> dict[str, Mapping[str, int]]:
    positions: dict[str, Mapping[str, int]] = {}
    for agreement_id in state.by_party.get(("agreement", principal_id), ()):
        agreement = state.agreements[agreement_id]
        # A listing that has moved to another card is priced from the start of that card.
        current = state.listings[agreement.listing_id].rate_card_sha256
        if agreement.status == "in_force" and agreement.rate_card_sha256 == current:
            positions[agreement.listing_id] = dict(state.positions.get(agreement_id, {}))
    return positions


def _key_facts(state: State, thumbprint: str) -> KeyFacts | None:
    key = state.keys.get(thumbprint)
    if key is None:
        return None
    principal = state.principals[key.principal_id]
    return KeyFacts(
        thumbprint=thumbprint,
        principal_id=key.principal_id,
        organisation_id=principal.organisation_id,
        role=principal.role,
        jwk=dict(key.jwk),
        status=key.status,
        purpose=key.purpose,
    )


def _tables(state: State) -> Mapping[str, Mapping[str, object]]:
    return {
        "agreement": state.agreements,
        "allowance": state.allowances,
        "card": state.cards,
        "charge": state.charges,
        "dispute": state.disputes,
        "document_seq": state.document_seqs,
        "hold": state.holds,
        "key": state.keys,
        "listing": state.listings,
        "lot": state.lots,
        "partner": state.partners,
        "payout": state.payouts,
        "position": state.positions,
        "principal": state.principals,
        "session": state.sessions,
        "terms": state.terms,
        "top_up": state.top_ups,
    }
