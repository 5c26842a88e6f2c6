"""Who may spend how much under what, counted anew from the records.

Boundary: grants, counters, freezes and agreements; judges with the very function that decides
(`authority.decide`). What is bought is `spending` and `sessions`. Source: spec/authority.md.
"""

from collections import defaultdict
from typing import Final, NamedTuple

from farthing.protocol.authority.decide import Purchase, decide
from farthing.protocol.authority.grant import Grant
from farthing.protocol.faults import FaultKind, RuleBroken
from farthing.protocol.ids import derive_id
from farthing.protocol.records import Record
from farthing.protocol.replay.reading import JsonObject, integer, member, texts
from farthing.protocol.times import utc_day

__all__ = ["Allowed", "Budgets"]

# What is judged by, and by what alone it changes.
_CHANGED_BY: Final = {
    "agreement": {"accept_terms", "terminate_agreement"},
    "closure": {"close_account"},
    "dispute": {"close_evidence", "initiate_dispute", "submit_evidence"},
    "grace": {"set_grace"},
    "grant": {"revoke_authority", "set_authority"},
    "listing": {"publish_listing", "withdraw_listing"},
    "partner": {"set_partner"},
    "payout": {
        "cancel_payout",
        "confirm_payout",
        "fail_payout",
        "process_event",
        "request_payout",
        "reverse_payout",
        "send_payout",
    },
    "platform": {"genesis"},
    "position": {"accept_answer", "capture_hold", "correct_usage", "report_usage"},
    "principal": {
        "approve_registration",
        "enrol_organisation",
        "freeze",
        "genesis",
        "register_agent",
        "unfreeze",
    },
    "top_up": {
        "confirm_top_up",
        "create_top_up",
        "expire_top_up",
        "fail_top_up",
        "process_event",
        "reverse_top_up",
    },
}
# How these change is judged where they are.
_ELSEWHERE: Final = frozenset({"allowance", "charge", "hold", "key", "lot", "session"})


class Allowed(NamedTuple):
    """The counter that a purchase counts against."""

    grant_id: str
    day: str


class Budgets:
    """Grants, counters and agreements, as the records so far leave them."""

    def __init__(self) -> None:
        """Before the first record nobody may spend."""
        self.agreements: dict[str, JsonObject] = {}
        self._grants: dict[tuple[str, str], Grant] = {}
        self._counters: dict[tuple[str, str], int] = defaultdict(int)
        self._houses: dict[str, str] = {}
        self._frozen_since_us: dict[str, int] = {}
        self._partners: dict[str, JsonObject] = {}
        self._fee_ppm = 0

    def agreement_of(
        self, buyer_id: str, agreement_id: str, *, asset: str, kind: FaultKind
    ) -> JsonObject:
        """The agreement in force that a buyer buys under. Raises `RuleBroken` of the kind."""
        agreement = self.agreements.get(agreement_id)
        if agreement is None or agreement["buyer_id"] != buyer_id:
            raise RuleBroken(kind, "it is under no agreement of the buyer")
        if agreement["status"] != "in_force":
            raise RuleBroken(kind, "the agreement has ended")
        if agreement["asset"] != asset:
            raise RuleBroken(kind, "it is of another asset than the agreement")
        return agreement

    def allow(
        self, record: Record, agreement: JsonObject, units: int, per_call_units: int | None = None
    ) -> Allowed:
        """Require that who asked may buy this now.

        Args:
            record: What was bought, and when.
            agreement: Under which agreement.
            units: What counts against the day.
            per_call_units: What one call may cost, where that is less.

        Raises:
            RuleBroken: With every reason why not.
        """
        buyer_id, asset = record.by.principal_id, member(agreement, "asset")
        day = utc_day(record.at_us)
        grant = self._grants.get((buyer_id, asset))
        reasons = decide(
            grant,
            Purchase(
                vendor_id=member(agreement, "vendor_id"),
                tags=tuple(texts(agreement, "tags")),
                asset=asset,
                units=units,
                vendor_frozen=self.is_frozen(member(agreement, "vendor_id")),
                per_call_units=per_call_units,
            ),
            frozen=self.is_frozen(buyer_id),
            spent_units=self._counters[grant.grant_id, day] if grant else 0,
            now_us=record.at_us,
        )
        if reasons or grant is None:
            codes = ", ".join(reason.code.value for reason in reasons)
            raise RuleBroken(FaultKind.AUTHORITY, f"it was not allowed: {codes}")
        return Allowed(grant.grant_id, day)

    def count(self, record: Record, *expected: tuple[Allowed, int]) -> None:
        """Require that a record counts exactly this, and count it."""
        found = [(count.grant_id, count.day, count.units) for count in record.counted]
        if found != [(*allowed, units) for allowed, units in expected if units]:
            raise RuleBroken(FaultKind.AUTHORITY, "the grant is charged otherwise")
        for allowed, units in expected:
            self._counters[allowed] += units
            if self._counters[allowed] < 0:
                raise RuleBroken(FaultKind.AUTHORITY, "the grant's counter falls below zero")

    def frozen_since_us(self, principal_id: str) -> int | None:
        """Since when a principal or its organisation is frozen; None where neither is."""
        both = (principal_id, self._houses.get(principal_id, ""))
        found = [self._frozen_since_us[each] for each in both if each in self._frozen_since_us]
        return min(found, default=None)

    def learn(self, record: Record) -> None:
        """What a record says of grants, agreements and freezes. Raises `RuleBroken`."""
        for change in record.changed:
            by = {record.operation} if change.noun in _ELSEWHERE else ()
            if record.operation not in _CHANGED_BY.get(change.noun, by):
                why = f"{record.operation} changes a thing of the noun {change.noun}"
                raise RuleBroken(FaultKind.AUTHORITY, why)
            own_id = change.after.get(f"{change.noun}_id", change.id)
            if change.noun != "partner" and own_id != change.id:
                raise RuleBroken(FaultKind.RECORD, f"a thing of the noun {change.noun} is another")
            match change.noun:
                case "platform":
                    asked = {name: record.asked[name] for name in ("fee_ppm", "open_enrolment")}
                    if change.after != asked:
                        raise RuleBroken(FaultKind.AUTHORITY, "it begins with other figures")
                    self._fee_ppm = integer(change.after, "fee_ppm")
                case "partner":
                    self._partners[change.id] = change.after
                case "principal":
                    house = member(change.after, "organisation_id")
                    if self._houses.setdefault(change.id, house) != house:
                        raise RuleBroken(FaultKind.AUTHORITY, "a principal changes its house")
                    if change.after.get("frozen_by"):
                        self._frozen_since_us.setdefault(change.id, record.at_us)
                    else:
                        self._frozen_since_us.pop(change.id, None)
                case "agreement":
                    self._learn_agreement(record, change.id, change.after)
                case "grant":
                    self._learn_grant(record, Grant.from_document(change.after))
                case _:
                    pass

    def _learn_agreement(self, record: Record, agreement_id: str, after: JsonObject) -> None:
        before = self.agreements.get(agreement_id)
        expected: JsonObject = {**(before or after), "status": "terminated"}
        if before is None:
            partners = self._partners
            named = partners.get(member(after, "listing_id")) or partners.get(
                member(after, "vendor_id")
            )
            expected = {
                **{name: each for name, each in after.items() if name != "partner"},
                "status": "in_force",
                "fee_ppm": self._fee_ppm,
                **({"partner": named} if named and named["ppm"] else {}),
            }
        if after != expected or (before is None) != (record.operation == "accept_terms"):
            raise RuleBroken(FaultKind.AUTHORITY, "the agreement does not follow")
        self.agreements[agreement_id] = after

    def _learn_grant(self, record: Record, grant: Grant) -> None:
        house = self._houses.get(grant.agent_id)
        if not grant.operator_id == house == record.by.organisation_id:
            raise RuleBroken(FaultKind.AUTHORITY, "a grant is set by another than its operator")
        if grant.grant_id != derive_id("gnt", grant.agent_id, grant.asset):
            raise RuleBroken(FaultKind.AUTHORITY, "the grant has another id")
        self._grants[grant.agent_id, grant.asset] = grant

    def is_frozen(self, principal_id: str) -> bool:
        """Whether a principal or its organisation is frozen."""
        return self.frozen_since_us(principal_id) is not None
