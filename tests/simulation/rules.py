"""Who may do what and what comes of it, said a second time for the auditor of a life.

Boundary: imports nothing from farthing. Operations that have no rule here are held to the ledger's
rules alone.
"""

from collections.abc import Callable, Iterator
from typing import Final

from tests.simulation.allowances_rules import RULES as ALLOWANCE_RULES
from tests.simulation.allowances_rules import forbidden
from tests.simulation.auditor import (
    PLATFORM,
    Auditor,
    Json,
    answered,
    day,
    need,
    net_of,
    one_of,
    total,
)
from tests.simulation.corrections_rules import RULES as CORRECTION_RULES
from tests.simulation.prices import price, share, units_of
from tests.simulation.purchases import SECOND_US, counted, counts, forbids
from tests.simulation.sessions_rules import RULES as SESSION_RULES
from tests.simulation.sessions_rules import part_of, reported_until_us
from tests.simulation.treasury_rules import RULES as TREASURY_RULES
from tests.simulation.treasury_rules import open_for_business

__all__ = ["judge"]

_LATER: Final = {
    "hold": "expires_at_us",
    "charge": "window_closes_at_us",
    "dispute": "evidence_due_at_us",
    "top_up": "expires_at_us",
}
_METERING: Final = frozenset({"report_usage", "capture_hold", "release_hold"})
_MACHINES_MAX: Final = 16
# When these are said is not modelled here: what a life must never do on a closed account is.
_UNMODELLED: Final = frozenset({"account_closed", "amount_overflow"})


def judge(books: Auditor, record: Json) -> None:
    """Hold the next record against the rules; `books` is as it was before."""
    _speaker(books, record)
    _nothing_is_overdue(books, record)
    _steps(books, record)
    open_for_business(books, record)
    rule = _RULES.get(record["operation"])
    if rule is None or record.get("refused", {}).get("code") in _UNMODELLED:
        return
    rule(books, record)


def _speaker(books: Auditor, record: Json) -> None:
    by = record["by"]
    principal_id = by.get("principal_id", "")
    if principal_id in {"", PLATFORM}:
        return
    key = books.things["key"].get(by["key_thumbprint"])
    need(key is not None and key["principal_id"] == principal_id, "the key is not the caller's")
    need(key is not None and key["status"] == "active", "the key was not in force")
    asks_for_all = key is not None and "purpose" not in key
    need(asks_for_all or record["operation"] in _METERING, "a metering key did more than metering")
    principal = books.things["principal"][principal_id]
    organisation = books.things["principal"].get(principal["organisation_id"], principal)
    need(principal["status"] == organisation["status"] == "active", "it was not approved")


def _nothing_is_overdue(books: Auditor, record: Json) -> None:
    """What time brings about comes before what anybody asks at that time.

    But not before the rest of a batch: what its records let become due waits for the next one.
    """
    if record["by"].get("principal_id") == PLATFORM:
        return
    for noun, when in _LATER.items():
        for thing_id, thing in books.waiting[noun].items():
            in_time = thing.get(when, 0) > record["at_us"]
            fresh = books.changed_at_us[thing_id] == record["at_us"]
            need(in_time or fresh, f"{thing_id} was due before")
    for thing_id, session in books.waiting["session"].items():
        fresh = books.changed_at_us[thing_id] == record["at_us"]
        in_time = reported_until_us(session) > record["at_us"]
        need(in_time or fresh, f"{thing_id} was due before")


_NEXT: Final = {
    ("hold", "open"): {"captured", "released", "expired"},
    ("charge", "pending"): {"pending", "disputed", "payable"},
    ("charge", "disputed"): {"pending"},
    ("charge", "payable"): {"payable"},
    ("dispute", "needs_evidence"): {"decided"},
    ("session", "open"): {"open", "closing", "closed", "expired"},
    ("session", "closing"): {"closing", "closed"},
    # Money that came or left after all was given up has moved.
    ("top_up", "pending"): {"posted", "failed", "expired"},
    ("top_up", "failed"): {"posted"},
    ("top_up", "expired"): {"posted"},
    ("payout", "requested"): {"cancelled", "sent", "paid", "failed"},
    ("payout", "sent"): {"paid", "failed"},
    ("payout", "cancelled"): {"paid"},
    ("payout", "failed"): {"paid"},
    # Some of it has gone back, or come back.
    ("top_up", "posted"): {"posted"},
    ("payout", "paid"): {"paid"},
}
_FIRST: Final = {
    "hold": {"open"},
    "charge": {"pending"},
    "dispute": {"needs_evidence", "decided"},
    "session": {"open"},
    "top_up": {"pending"},
    "payout": {"requested"},
}
_FIXED: Final = {
    "hold": ("agreement_id", "buyer_id", "operator_id", "vendor_id", "asset", "amount_units",
             "position", "workload", "args_sha256", "grant_id", "day", "expires_at_us", "seq",
             "on_answer"),
    "charge": ("hold_id", "session_id", "agreement_id", "buyer_id", "operator_id", "vendor_id",
               "asset", "rate_card_sha256", "amount_units", "fee_units", "released_units",
               "position", "usage", "result_sha256", "captured_at_us", "window_closes_at_us",
               "seq"),
    "dispute": ("charge_id", "filed_by", "operator_id", "buyer_id", "vendor_id", "reason", "asset",
                "held_net_units", "held_fee_units", "seq"),
    "session": ("agreement_id", "buyer_id", "operator_id", "vendor_id", "asset", "per_call_units",
                "unsigned_units", "payer_thumbprint", "rate_card_sha256", "grant_id",
                "opened_at_us", "expires_at_us", "seq"),
    "top_up": ("organisation_id", "asset", "amount_units", "processor", "expires_at_us", "seq"),
    "payout": ("organisation_id", "kind", "asset", "amount_units", "processor", "destination",
               "seq"),
}  # fmt: skip


def _steps(books: Auditor, record: Json) -> None:
    """A thing goes its way one step at a time, and what it is does not change."""
    for change in record.get("changed", ()):
        noun, after = change["noun"], change["after"]
        if noun not in _FIXED:
            continue
        before = books.things[noun].get(change["id"])
        if before is None:
            need(after["status"] in _FIRST[noun], f"a {noun} begins {after['status']}")
            continue
        need(
            after["status"] in _NEXT.get((noun, before["status"]), ()), f"a second end of a {noun}"
        )
        same = all(before.get(name) == after.get(name) for name in _FIXED[noun])
        need(same, f"a {noun} became another one")


def _place(books: Auditor, record: Json) -> None:
    asked, by = record["asked"], record["by"]["principal_id"]
    agreement = books.things["agreement"][asked["agreement_id"]]
    need(agreement["buyer_id"] == by, "a hold under another's agreement")
    workload: dict[str, int] = {}
    for each in asked["workload"]:
        workload[each["meter"]] = workload.get(each["meter"], 0) + int(each["quantity"])
    expected = ""
    units = 0
    card = books.documents[agreement["rate_card_sha256"]]
    position = counts(books.things["position"].get(agreement["agreement_id"], {}))
    if agreement["status"] != "in_force":
        expected = "agreement_ended"
    elif not workload.keys() <= {each["meter"] for each in card["dimensions"]}:
        expected = "usage_invalid"
    else:
        units = price(card, position, workload)
        expected = next(forbids(books, record, agreement, units), "")
        if expected in {"", "insufficient_funds"} and forbidden(
            books,
            agreement["agreement_id"],
            workload,
            record["at_us"],
            day=day(record["at_us"]),
        ):
            expected = "allowance_exceeded"
    answered(record, expected)
    if expected:
        return
    hold = one_of(record, "hold")
    is_called = record["operation"] == "call_service"
    need(hold.get("on_answer", False) is is_called, "it is captured otherwise than it says")
    need(int(hold["amount_units"]) == units, f"a hold of {hold['amount_units']}, not {units}")
    need(counts(hold["workload"]) == workload, "the workload is another one")
    need(counts(hold["position"]) == position, "it is rated from another position")
    need(hold["day"] == day(record["at_us"]), "it counts on another day")
    longest_us = agreement["delivery_deadline_s"] * SECOND_US
    wanted_us = asked.get("expires_in_s", 0) * SECOND_US or longest_us
    need(hold["expires_at_us"] == record["at_us"] + min(wanted_us, longest_us), "its end is wrong")
    need(total(record, "pending") == units, "another amount is set aside")
    need(counted(record) == units, "another amount is counted")


def _capture(books: Auditor, record: Json) -> None:
    hold = books.things["hold"][record["asked"]["hold_id"]]
    need(hold["vendor_id"] == record["by"]["principal_id"], "not the payee's capture")
    need("refused" in record or not hold.get("on_answer"), "paid before the answer is accepted")
    ended = _ended(hold)
    if "refused" in record:
        code = record["refused"]["code"]
        if code == "signature_invalid":
            return
        if ended:
            need(code == ended, f"{code} of a hold that is {hold['status']}")
        else:
            known = {"capture_exceeds_hold", "delivery_invalid", "usage_invalid"}
            need(code in known, f"{code} of an open hold")
        return
    _captured(books, record, hold)


def _accepted(books: Auditor, record: Json) -> None:
    """What the platform does for an answer that it took; done to no hold but a call's, in time."""
    if not record.get("changed"):
        need(not record.get("moved"), "a record that does nothing moves money")
        return
    hold = books.things["hold"][record["asked"]["hold_id"]]
    need(bool(hold.get("on_answer")), "the platform captures what is not its own to capture")
    signed = record["facts"]["delivery"]["result_sha256"]
    need(record["asked"]["result_sha256"] == signed, "another answer than was signed for")
    _captured(books, record, hold)


def _abandon(books: Auditor, record: Json) -> None:
    hold = books.things["hold"].get(record["asked"]["hold_id"], {"status": ""})
    if not record.get("changed"):
        in_time = hold["status"] == "open" and record["at_us"] < hold["expires_at_us"]
        need(not (in_time and hold.get("on_answer")), "an open hold is not given back")
        return
    need(bool(hold.get("on_answer")), "the platform gives back what a buyer set aside")
    need(not _ended(hold), "a hold is given back a second time")
    _given_back(record, hold)


def _captured(books: Auditor, record: Json, hold: Json) -> None:
    need(not _ended(hold), "a hold is captured a second time")
    need(record["at_us"] < hold["expires_at_us"], "a hold is captured past its end")
    signed_by = books.things["key"][part_of(record["facts"]["delivery_signature"], 0)["kid"]]
    in_force = signed_by["principal_id"], signed_by["status"]
    need(in_force == (hold["vendor_id"], "active"), "signed by a key that is not in force")
    agreement = books.things["agreement"][hold["agreement_id"]]
    charge = one_of(record, "charge")
    usage, workload = counts(charge["usage"]), counts(hold["workload"])
    need(all(n <= workload.get(meter, 0) for meter, n in usage.items()), "more used than agreed")
    card = books.documents[agreement["rate_card_sha256"]]
    units, held = price(card, counts(hold["position"]), usage), int(hold["amount_units"])
    need(
        int(charge["amount_units"]) == units <= held,
        f"charged {charge['amount_units']} not {units}",
    )
    need(int(charge["fee_units"]) == share(units, agreement["fee_ppm"]), "the fee is another one")
    window_us = agreement["dispute_window_s"] * SECOND_US
    need(charge["window_closes_at_us"] == record["at_us"] + window_us, "its window is another one")
    need(total(record, "void") == held, "the hold is not given back whole")
    need(total(record, "post") == units, "another amount is posted than charged")
    need(counted(record) == units - held, "what is left over does not return to the budget")
    before = counts(books.things["position"].get(agreement["agreement_id"], {}))
    moved = {meter: before.get(meter, 0) + usage.get(meter, 0) for meter in {*before, *usage}}
    need(counts(one_of(record, "position")) == moved, "the position did not move by the usage")


def _release(books: Auditor, record: Json) -> None:
    hold = books.things["hold"][record["asked"]["hold_id"]]
    need(hold["vendor_id"] == record["by"]["principal_id"], "not the payee's release")
    answered(record, _ended(hold))
    if not _ended(hold):
        _given_back(record, hold)


def _expire(books: Auditor, record: Json) -> None:
    hold = books.things["hold"][record["asked"]["hold_id"]]
    need(hold["expires_at_us"] <= record["at_us"], "a hold expired before its time")
    _given_back(record, hold)


def _given_back(record: Json, hold: Json) -> None:
    units = int(hold["amount_units"])
    need(total(record, "void") == units, "another amount is given back than was held")
    need(counted(record) == -units, "the budget does not get it back")


def _refund(books: Auditor, record: Json) -> None:
    asked = record["asked"]
    charge = books.things["charge"][asked["charge_id"]]
    need(charge["vendor_id"] == record["by"]["principal_id"], "not the vendor's refund")
    asset, amount = charge["asset"], int(charge["amount_units"])
    if asked["amount"]["asset"] != asset:
        answered(record, "asset_mismatch")
        return
    units = int(units_of(asked["amount"]["amount"], asset))
    left = amount - int(charge["refunded_units"])
    if units > left or charge["status"] == "disputed":
        answered(record, "refund_exceeds_charge")
        return
    kept = int(charge["fee_units"]) * (left - units) // amount
    fee = int(charge["fee_units"]) - int(charge["fee_returned_units"]) - kept
    kind = "vendor_payable" if charge["status"] == "payable" else "vendor_pending"
    net = units - fee
    if "tail" not in charge:
        short = net > books.available(f"{charge['vendor_id']}:{kind}:{asset}")
        answered(record, "insufficient_funds" if short else "")
    if "refused" not in record:
        after = one_of(record, "charge")
        need(
            int(after["refunded_units"]) == int(charge["refunded_units"]) + units, "another refund"
        )
        given = int(after["fee_returned_units"]) - int(charge["fee_returned_units"])
        need(given == fee, f"{given} of the fee is given back, not {fee}")
        need(total(record, "post") == units, "another amount is moved than given back")


def _dispute(books: Auditor, record: Json) -> None:
    charge = books.things["charge"][record["asked"]["charge_id"]]
    parties = (charge["buyer_id"], charge["operator_id"])
    need(record["by"]["principal_id"] in parties, "not the buyer's side disputes")
    left = int(charge["amount_units"]) - int(charge["refunded_units"])
    if charge.get("dispute_id"):
        expected = "already_disputed"
    elif charge["status"] != "pending" or charge["window_closes_at_us"] <= record["at_us"]:
        expected = "dispute_window_closed"
    else:
        expected = "" if left else "not_disputable"
    reason = record["asked"]["reason"]
    if not expected and charge.get("session_id") and reason == "not_delivered":
        # No one result proves a batch of calls.
        expected = "not_disputable"
    answered(record, expected)
    if not expected:
        dispute = one_of(record, "dispute")
        # The engine charges what the card gives, so that a recalculation finds nothing.
        status = "needs_evidence" if reason == "not_delivered" else "decided"
        need(dispute["status"] == status, f"a dispute of {reason} is {dispute['status']}")
        need(int(dispute.get("credit_units", 0)) == 0, "credited before it is decided")
        kinds = ("held_net_units", "held_fee_units", "held_partner_units")
        need(sum(int(dispute.get(kind, 0)) for kind in kinds) == left, "another amount is held")


def _evidence(books: Auditor, record: Json) -> None:
    dispute = books.things["dispute"][record["asked"]["dispute_id"]]
    need(dispute["vendor_id"] == record["by"]["principal_id"], "not the vendor's evidence")
    answered(record, "dispute_decided" if dispute["status"] == "decided" else "")
    if "refused" not in record:
        charge = books.things["charge"][dispute["charge_id"]]
        found = record["decided"]["case"]["evidence"]
        same = found["body_sha256"] == charge["result_sha256"] and found["schema_valid"]
        need(found["body_sha256"] == record["asked"]["body_sha256"], "judged on another body")
        _ruled(record, charge, credit=not same)


def _overdue(books: Auditor, record: Json) -> None:
    dispute = books.things["dispute"][record["asked"]["dispute_id"]]
    need(dispute["evidence_due_at_us"] <= record["at_us"], "evidence was not overdue yet")
    _ruled(record, books.things["charge"][dispute["charge_id"]], credit=True)


def _ruled(record: Json, charge: Json, *, credit: bool) -> None:
    left = int(charge["amount_units"]) - int(charge["refunded_units"])
    credited = left if credit else 0
    dispute, after = one_of(record, "dispute"), one_of(record, "charge")
    need(int(dispute["credit_units"]) == credited, f"{dispute['credit_units']} credited")
    refunded = int(after["refunded_units"]) - int(charge["refunded_units"])
    need(refunded == credited, "credited, but not refunded")
    need(total(record, "post") == left, "what was held does not leave the escrow whole")


def _settle(books: Auditor, record: Json) -> None:
    charge = books.things["charge"][record["asked"]["charge_id"]]
    need(charge["status"] == "pending", "a disputed charge became payable")
    need(charge["window_closes_at_us"] <= record["at_us"], "payable before its window closed")
    tail = "tail" in charge or record.get("moved", [{}])[0].get("debit", "").count("partner")
    need(total(record, "post") == net_of(charge) or tail, "another amount became payable")


def _accept(books: Auditor, record: Json) -> None:
    if "refused" in record:
        return
    agreement, quote = one_of(record, "agreement"), record["facts"]["quote"]
    listing = books.things["listing"][agreement["listing_id"]]
    need(listing["state"] == "active", "what is not offered was agreed to")
    for name in ("listing_sha256", "rate_card_sha256", "terms_sha256"):
        need(agreement[name] == listing[name] == quote[name], f"agreed to another {name}")
    need(next(_forbids_at_all(books, record, agreement), None) is None, "agreed without authority")


def _forbids_at_all(books: Auditor, record: Json, agreement: Json) -> Iterator[str]:
    never = {"insufficient_funds", "per_call_limit_exceeded", "budget_exceeded", "frozen"}
    return (why for why in forbids(books, record, agreement, 0) if why not in never)


def _publish(books: Auditor, record: Json) -> None:
    if "refused" not in record:
        head = one_of(record, "listing")
        before = books.things["listing"].get(head["listing_id"], {"version": 0})
        need(head["version"] == before["version"] + 1, "a version is left out or given twice")
        need(head["vendor_id"] == record["by"]["principal_id"], "another's listing")


def _rotate(books: Auditor, record: Json) -> None:
    if "refused" in record:
        return
    by = record["by"]
    held = [each for each in record["changed"] if each["noun"] == "key"]
    ways = {each["id"]: each["after"]["status"] for each in held}
    old = record["asked"].get("replaces", by["key_thumbprint"])
    need(ways.pop(old) == "retired", "the old key speaks on")
    whose = books.things["key"][old]["principal_id"]
    need(whose == by["principal_id"], "another's key is replaced")
    need(list(ways.values()) == ["active"], "a rotation gives one new key")
    need(not ways.keys() & books.things["key"].keys(), "a key that was known is given anew")
    purposes = {each["after"].get("purpose") for each in held}
    need(len(purposes) == 1, "a key is replaced by one for something else")


def _add_key(books: Auditor, record: Json) -> None:
    if "refused" in record:
        return
    key, principal_id = one_of(record, "key"), record["by"]["principal_id"]
    wanted = (principal_id, "metering", "active")
    need((key["principal_id"], key["purpose"], key["status"]) == wanted, "another key begins")
    known = books.things["key"]
    need(key["thumbprint"] not in known, "a key that was known is given anew")
    machines = [
        each
        for each in known.values()
        if (each["principal_id"], each.get("purpose"), each["status"]) == wanted
    ]
    need(len(machines) < _MACHINES_MAX, "a vendor has more machines than there may be")


def _freeze(books: Auditor, record: Json) -> None:
    if "refused" not in record:
        after = one_of(record, "principal")
        before = set(books.things["principal"][after["principal_id"]].get("frozen_by", ()))
        who = record["by"]["organisation_id"]
        wanted = before | {who} if record["operation"] == "freeze" else before - {who}
        need(set(after.get("frozen_by", ())) == wanted, "another's freeze was touched")


_RULES: Final[dict[str, Callable[[Auditor, Json], None]]] = {
    "abandon_hold": _abandon,
    "accept_answer": _accepted,
    "accept_terms": _accept,
    "add_key": _add_key,
    "call_service": _place,
    "capture_hold": _capture,
    "close_evidence": _overdue,
    "expire_hold": _expire,
    "freeze": _freeze,
    "initiate_dispute": _dispute,
    "place_hold": _place,
    "publish_listing": _publish,
    "refund_charge": _refund,
    "release_hold": _release,
    "rotate_key": _rotate,
    "settle_charge": _settle,
    "submit_evidence": _evidence,
    "unfreeze": _freeze,
    **ALLOWANCE_RULES,
    **CORRECTION_RULES,
    **SESSION_RULES,
    **TREASURY_RULES,
}


def _ended(hold: Json) -> str:
    endings = {"open": "", "expired": "hold_expired"}
    return endings.get(hold["status"], "hold_resolved")
