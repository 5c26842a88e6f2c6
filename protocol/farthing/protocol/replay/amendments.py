"""What is asked for and set down: each thing is what it was before, but for what was asked.

Boundary: principals, grants, grace, partners, agreements and listings, whose past stands in the
record that changes them; what they let anybody do is `budgets`. Source: spec/audit.md.
"""

from typing import Final

from farthing.protocol.authority.grant import Grant
from farthing.protocol.canonical import Json
from farthing.protocol.faults import FaultKind, rule
from farthing.protocol.ids import derive_id
from farthing.protocol.ledger import AccountKind, account_name
from farthing.protocol.money import INT64_MAX
from farthing.protocol.records import Change, Record
from farthing.protocol.replay.blocks import amount_of, asset_of, ends_us
from farthing.protocol.replay.reading import JsonObject, half_digest, integer, member, texts
from farthing.protocol.wire import Role

__all__ = ["Amendments"]

_NOUNS: Final = frozenset({"agreement", "grace", "grant", "listing", "partner", "principal"})
_LISTS: Final = ("vendors_allow", "vendors_deny", "capabilities_allow", "capabilities_deny")
_amends = rule(FaultKind.AUTHORITY)


class Amendments:
    """Half a digest of each such thing, as the records so far leave it."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], bytes] = {}

    def follow(self, record: Record) -> None:
        """Judge the next record, and learn from it. Raises `RuleBroken`."""
        for change in record.changed:
            if change.noun not in _NOUNS:
                continue
            named = (change.noun, change.id)
            before = half_digest(change.before) if change.before is not None else None
            _amends(self._known.get(named) == before, f"the {change.noun} was another before")
            expected = _expected(record, change)
            _amends(change.after == expected, f"the {change.noun} does not follow")
            self._known[named] = half_digest(change.after)


def _expected(record: Record, change: Change) -> JsonObject:
    """What a change must leave; itself, where another part of the rules says what."""
    asked, before = record.asked, change.before or {}
    match record.operation:
        case "enrol_organisation":
            _amends(change.after["organisation_id"] == change.id, "it enrols for another")
            return _newcomer(record, change, member(asked, "kind"))
        case "register_agent":
            same = change.after["organisation_id"] == asked["operator_id"]
            _amends(same, "it registers with another than was asked")
            return _newcomer(record, change, Role.BUYER.value)
        case "approve_registration":
            _amends(change.id == asked["principal_id"], "another is approved than was asked for")
            return {**before, "status": "active"}
        case "freeze" | "unfreeze":
            return _frozen(record, change, before)
        case "set_authority":
            return _grant(record)
        case "revoke_authority":
            named = derive_id("gnt", member(asked, "agent_id"), member(asked, "asset"))
            _amends(change.id == named, "another grant ends than was asked for")
            return {**before, "revoked": True}
        case "set_grace":
            return _grace(record, change, before)
        case "set_partner":
            _amends(change.id == asked["subject_id"], "another's partner is named")
            return {name: asked[name] for name in ("partner_id", "ppm")}
        case "terminate_agreement":
            _amends(change.id == asked["agreement_id"], "another ends than was asked for")
            parties = [before[name] for name in ("buyer_id", "operator_id", "vendor_id")]
            _amends(record.by.principal_id in parties, "a stranger ends an agreement")
            return {**before, "status": "terminated"}
        case "withdraw_listing":
            _amends(change.id == asked["listing_id"], "another is withdrawn than was asked for")
            _amends(before["vendor_id"] == record.by.organisation_id, "a stranger withdraws it")
            return {**before, "state": "withdrawn"}
        case _:
            return change.after


def _newcomer(record: Record, change: Change, role: str) -> JsonObject:
    named = record.asked["name_sha256"]
    return {**change.after, "frozen_by": [], "name_sha256": named, "role": role}


def _frozen(record: Record, change: Change, before: JsonObject) -> JsonObject:
    """Whoever froze somebody keeps it frozen, until it lifts its own."""
    house, setters = record.by.organisation_id, set(texts(before, "frozen_by"))
    _amends(change.id == record.asked["principal_id"], "another is frozen than was asked for")
    answers = record.by.role == Role.ADMIN or before["organisation_id"] == house
    _amends(answers, "a stranger freezes it")
    since_us = integer({"frozen_at_us": 0, **before}, "frozen_at_us") if setters else record.at_us
    if record.operation == "freeze":
        setters.add(house)
    else:
        _amends(not setters or house in setters, "another lifts a freeze")
        setters.discard(house)
    rest = {name: each for name, each in before.items() if name != "frozen_at_us"}
    since: JsonObject = {"frozen_at_us": since_us} if setters else {}
    return {**rest, "frozen_by": list[Json](sorted(setters)), **since}


def _grant(record: Record) -> JsonObject:
    asked, asset = record.asked, asset_of(record.asked, "per_call_max")
    _amends(asset_of(asked, "per_day_max") == asset, "its limits are of two assets")
    agent_id = member(asked, "agent_id")
    lists = {name: tuple(texts(asked, name)) for name in _LISTS}
    return Grant(
        grant_id=derive_id("gnt", agent_id, asset),
        agent_id=agent_id,
        operator_id=record.by.organisation_id,
        asset=asset,
        per_call_units_max=amount_of(asked, "per_call_max"),
        per_day_units_max=amount_of(asked, "per_day_max"),
        vendors_allow=lists["vendors_allow"],
        vendors_deny=lists["vendors_deny"],
        capabilities_allow=lists["capabilities_allow"],
        capabilities_deny=lists["capabilities_deny"],
        expires_at_us=ends_us(asked),
    ).document()


def _grace(record: Record, change: Change, before: JsonObject) -> JsonObject:
    """The platform grants; the operator can choose less for itself."""
    asked, owner = record.asked, member(record.asked, "organisation_id")
    asset, amount_units = asset_of(asked, "amount"), str(amount_of(asked, "amount"))
    name = account_name(owner, AccountKind.PREPAID, asset)
    own = record.by.role == Role.OPERATOR
    _amends(not own or record.by.principal_id == owner, "a stranger sets a grace")
    _amends(change.id == name, "another grace is set than was asked for")
    return {
        "account": name,
        "organisation_id": owner,
        "asset": asset,
        "granted_units": before.get("granted_units", "0") if own else amount_units,
        "chosen_units": amount_units if own else before.get("chosen_units", str(INT64_MAX)),
    }
