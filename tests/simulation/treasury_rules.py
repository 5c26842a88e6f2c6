"""What may become of top-ups, payouts and accounts, said a second time for the auditor of a life.

Boundary: imports nothing from farthing.
"""

from collections.abc import Callable
from typing import Final

from tests.simulation.auditor import Auditor, Json, answered, need, one_of, total
from tests.simulation.prices import units_of

__all__ = ["RULES", "open_for_business"]

_SENT: Final = frozenset({"requested", "sent"})
_DONE: Final = {"payout": "paid", "top_up": "posted"}


def open_for_business(books: Auditor, record: Json) -> None:
    """Nothing begins on a closed account, neither money in, but for a debt, nor what is paid."""
    if "refused" in record or record["operation"] not in _BEGINNINGS:
        return
    for moved in record.get("moved", ()):
        for side in ("debit", "credit"):
            is_paid = record["operation"] != "place_hold" and books.posted(
                moved[side].replace(":prepaid:", ":receivable:")
            )
            is_closed = moved[side] in books.things["closure"] and not is_paid
            need(not is_closed, f"{moved[side]} was closed")


def _fund(books: Auditor, record: Json) -> None:
    if "refused" not in record:
        units, owner = _asked_units(record), record["asked"]["organisation_id"]
        came = total(record, "post") - _repaid(books, record, owner, units)
        need(came == units, "another amount is funded than was paid in")


def _withdraw_funds(books: Auditor, record: Json) -> None:
    units, asked = _asked_units(record), record["asked"]
    owner, asset = asked["organisation_id"], asked["amount"]["asset"]
    need(record["by"].get("role") == "treasurer", "not the treasurer's word")
    has = _has(books, owner, asset)
    answered(record, "insufficient_funds" if units > has and not asked.get("may_owe") else "")
    if "refused" not in record:
        _went(books, record, (owner, asset), units)


def _withdraw_credit(books: Auditor, record: Json) -> None:
    lot = _known(books, record, "lot")
    if lot is None:
        return
    units = _asked_units(record)
    need(record["asked"]["amount"]["asset"] == lot["asset"], "credit of another asset is taken")
    free = int(lot["free_units"])
    answered(record, "insufficient_funds" if units > free else "")
    if "refused" in record:
        return
    after = one_of(record, "lot")
    withdrawn = int(lot.get("withdrawn_units", 0)) + units
    found = int(after["free_units"]), int(after["withdrawn_units"])
    need(found == (free - units, withdrawn), f"{found} is left of a lot that was withdrawn from")
    origin = {"deferred_revenue": "external_clearing", "promotional_credit": "promotion"}
    account = f"{lot['operator_id']}:{lot['kind']}:{lot['asset']}"
    back = _between(record, account, f"platform:{origin[lot['kind']]}:{lot['asset']}")
    need(back == total(record, "post") == units, "credit goes back to another account")


def _create_top_up(books: Auditor, record: Json) -> None:
    del books
    if "refused" not in record:
        units, top_up = _asked_units(record), one_of(record, "top_up")
        need(top_up["organisation_id"] == record["by"]["organisation_id"], "another's top-up")
        need(total(record, "pending") == int(top_up["amount_units"]) == units, "another amount")
        need(total(record, "post") == 0, "money is there before it has come")


def _confirm_top_up(books: Auditor, record: Json) -> None:
    top_up = _known(books, record, "top_up")
    if top_up is not None:
        answered(record, "payment_resolved" if top_up["status"] == "posted" else "")
        _moved(books, record, "top_up", top_up)


def _fail_top_up(books: Auditor, record: Json) -> None:
    top_up = _known(books, record, "top_up")
    if top_up is not None:
        answered(record, "" if top_up["status"] == "pending" else "payment_resolved")
        _given_up(record, top_up)


def _expire_top_up(books: Auditor, record: Json) -> None:
    top_up = books.things["top_up"][record["asked"]["top_up_id"]]
    need(top_up["expires_at_us"] <= record["at_us"], "a top-up expired before its time")
    _given_up(record, top_up)


def _request_payout(books: Auditor, record: Json) -> None:
    owner, asked = record["by"]["organisation_id"], record["asked"]
    asset, units = asked["amount"]["asset"], _asked_units(record)
    account = asked.get("account", "vendor_payable")
    name = f"{owner}:{account}:{asset}"
    waiting = f"{owner}:{account.replace('payable', 'pending')}:{asset}"
    if _frozen(books, owner):
        expected = "frozen"
    elif name not in books.accounts and not books.posted(waiting):
        expected = "account_unknown"
    else:
        owed = -books.posted(f"{owner}:receivable:{asset}")
        expected = "insufficient_funds" if units > books.available(name) - owed else ""
    answered(record, expected)
    if not expected:
        payout = one_of(record, "payout")
        need(payout["organisation_id"] == owner, "another's payout")
        need(total(record, "pending") == int(payout["amount_units"]) == units, "another amount")


def _send_payout(books: Auditor, record: Json) -> None:
    payout = _known(books, record, "payout")
    if payout is None:
        return
    if _frozen(books, payout["organisation_id"]):
        answered(record, "frozen")
    else:
        answered(record, "" if payout["status"] == "requested" else "payment_resolved")
    need(not record.get("moved"), "money moves before the processor has said so")


def _confirm_payout(books: Auditor, record: Json) -> None:
    payout = _known(books, record, "payout")
    if payout is not None:
        if payout["status"] in {"cancelled", "failed"}:
            _left_by_hand(books, record, payout)
            return
        answered(record, "" if payout["status"] in _SENT else "payment_resolved")
        _moved(books, record, "payout", payout)


def _left_by_hand(books: Auditor, record: Json, payout: Json) -> None:
    if "refused" in record:
        answered(record, "insufficient_funds")
    _left_after_all(books, record, payout)


def _cancel_payout(books: Auditor, record: Json) -> None:
    payout = books.things["payout"].get(record["asked"]["payout_id"])
    if payout is None or payout["organisation_id"] != record["by"]["organisation_id"]:
        answered(record, "not_found")
        return
    answered(record, "" if payout["status"] == "requested" else "payment_resolved")
    _given_up(record, payout)


def _fail_payout(books: Auditor, record: Json) -> None:
    payout = _known(books, record, "payout")
    if payout is not None:
        answered(record, "" if payout["status"] in _SENT else "payment_resolved")
        _given_up(record, payout)


def _reverse_top_up(books: Auditor, record: Json) -> None:
    top_up = _known(books, record, "top_up")
    if top_up is None:
        return
    total_units, back = _back(record, top_up)
    has = _has(books, top_up["organisation_id"], top_up["asset"])
    expected = ""
    if top_up["status"] != "posted" or back <= 0:
        expected = "payment_resolved"
    elif back > has and not record["asked"].get("may_owe"):
        expected = "insufficient_funds"
    answered(record, expected)
    if not expected:
        _gone(books, record, top_up, total_units)


def _reverse_payout(books: Auditor, record: Json) -> None:
    payout = _known(books, record, "payout")
    if payout is None:
        return
    total_units, back = _back(record, payout)
    answered(record, "" if payout["status"] == "paid" and back > 0 else "payment_resolved")
    if "refused" not in record:
        _gone(books, record, payout, total_units)


def _process_event(books: Auditor, record: Json) -> None:
    said = record["asked"]
    answered(record, "")
    payment_id, outcome = said["payment_id"], said["outcome"]
    top_up = books.things["top_up"].get(payment_id)
    payout = books.things["payout"].get(payment_id)
    payment = top_up or payout
    if payment is not None and outcome == "reversed":
        _reversed_by_event(books, record, payment)
    elif payment is None or (payment["asset"], payment["amount_units"]) != (
        said["asset"],
        said["units"],
    ):
        need(not record.get("changed"), "an event of something else is taken for this")
    elif top_up is not None and outcome == "paid" and top_up["status"] != "posted":
        _moved(books, record, "top_up", top_up)
    elif top_up is not None and outcome == "paid" and record.get("changed"):
        again = one_of(record, "top_up")
        need(again["reference"] == said["reference"] != top_up["reference"], "paid once, had twice")
        need(again["status"] == "pending", "what nobody has judged is decided")
        need(total(record, "pending") == int(top_up["amount_units"]), "another amount")
        need(total(record, "post") == total(record, "void") == 0, "what is decided moves again")
    elif payout is not None and outcome == "paid" and payout["status"] in _SENT:
        _moved(books, record, "payout", payout)
    elif payout is not None and outcome == "paid" and payout["status"] != "paid":
        _left_after_all(books, record, payout)
    elif outcome == "failed" and payment["status"] in {"pending", *_SENT}:
        _given_up(record, payment)
    else:
        need(not record.get("changed"), "what was decided is decided again")


def _close_account(books: Auditor, record: Json) -> None:
    asked = record["asked"]
    owner, asset = asked["organisation_id"], asked["asset"]
    name = f"{owner}:{asked['account']}:{asset}"
    kinds = {asked["account"]}
    if asked["account"] == "prepaid":
        kinds |= {"deferred_revenue", "promotional_credit", "receivable"}
    if name not in books.accounts:
        expected = "account_unknown"
    else:
        in_use = (
            books.posted(each) or books.accounts[each][0] or books.accounts[each][2]
            for each in (f"{owner}:{kind}:{asset}" for kind in kinds)
            if each in books.accounts
        )
        expected = "account_in_use" if any(in_use) else ""
    answered(record, expected)
    if not expected:
        need(one_of(record, "closure")["account"] == name, "another account is closed")


RULES: Final[dict[str, Callable[[Auditor, Json], None]]] = {
    "cancel_payout": _cancel_payout,
    "close_account": _close_account,
    "confirm_payout": _confirm_payout,
    "confirm_top_up": _confirm_top_up,
    "create_top_up": _create_top_up,
    "expire_top_up": _expire_top_up,
    "fail_payout": _fail_payout,
    "fail_top_up": _fail_top_up,
    "fund_account": _fund,
    "process_event": _process_event,
    "request_payout": _request_payout,
    "reverse_payout": _reverse_payout,
    "reverse_top_up": _reverse_top_up,
    "send_payout": _send_payout,
    "withdraw_credit": _withdraw_credit,
    "withdraw_funds": _withdraw_funds,
}
_BEGINNINGS: Final = frozenset({"create_top_up", "fund_account", "place_hold"})


def _known(books: Auditor, record: Json, noun: str) -> Json | None:
    found = books.things[noun].get(record["asked"][f"{noun}_id"])
    need(record["by"].get("role") == "treasurer", "not the treasurer's word")
    if found is None:
        answered(record, "not_found")
    return found


def _frozen(books: Auditor, organisation_id: str) -> bool:
    return bool(books.things["principal"][organisation_id].get("frozen_by"))


def _moved(books: Auditor, record: Json, noun: str, before: Json) -> None:
    """Money that has moved is posted whole, and no longer pending; a debt is paid of it."""
    if "refused" in record:
        return
    after, units = one_of(record, noun), int(before["amount_units"])
    waited = before["status"] in {"pending", *_SENT}
    need(after["status"] == _DONE[noun], f"what has moved is {after['status']}")
    repaid = _repaid(books, record, before["organisation_id"], units) if noun == "top_up" else 0
    need(total(record, "post") - repaid == units, "another amount is posted than moved")
    need(total(record, "void") == (units if waited else 0), "what was pending stays so")


def _repaid(books: Auditor, record: Json, owner: str, units: int) -> int:
    """What is paid of a debt as so many units come: all of it, as far as there is money."""
    came = next(each for each in record["moved"] if each["movement"] == "post")
    prepaid, receivable = (f"{owner}:{kind}:{came['asset']}" for kind in ("prepaid", "receivable"))
    need(came["credit"] == prepaid, "money comes to another account")
    owed, has = -books.posted(receivable), books.available(prepaid) + units
    found = _between(record, prepaid, receivable)
    need(found == min(owed, max(has, 0)), f"{found} is paid of {owed} that are owed, with {has}")
    return found


def _reversed_by_event(books: Auditor, record: Json, payment: Json) -> None:
    said = record["asked"]
    units, before = int(said["units"]), int(payment.get("reversed_units", 0))
    is_more = before < units <= int(payment["amount_units"]) and payment["asset"] == said["asset"]
    if is_more and payment["status"] in {"paid", "posted"}:
        _gone(books, record, payment, units)
    else:
        need(not record.get("changed"), "what went back before goes back again")


def _back(record: Json, payment: Json) -> tuple[int, int]:
    """How much is said to have gone back in all, and how much of that is new."""
    asked = record["asked"]["total"]
    total_units = int(units_of(asked["amount"], asked["asset"]))
    need(asked["asset"] == payment["asset"], "another asset goes back than came")
    need(total_units <= int(payment["amount_units"]), "more goes back than came")
    return total_units, total_units - int(payment.get("reversed_units", 0))


def _gone(books: Auditor, record: Json, payment: Json, total_units: int) -> None:
    """Money goes back out of what its operator has, the rest is owed; what left comes back."""
    owner, asset = payment["organisation_id"], payment["asset"]
    clearing = f"platform:external_clearing:{asset}"
    back = total_units - int(payment.get("reversed_units", 0))
    (change,) = record["changed"]
    need(int(change["after"]["reversed_units"]) == total_units, "another total is noted")
    if "kind" in payment:
        account = f"{owner}:{payment['kind']}:{asset}"
        need(_between(record, clearing, account) == back, "it comes back to somebody else")
        need(total(record, "post") == back, "more comes back than is said")
        return
    _went(books, record, (owner, asset), back)


def _has(books: Auditor, owner: str, asset: str) -> int:
    """What an operator can pay back: what is there and not owed."""
    owed = -books.posted(f"{owner}:receivable:{asset}")
    return max(books.available(f"{owner}:prepaid:{asset}") - owed, 0)


def _went(books: Auditor, record: Json, owner: tuple[str, str], back: int) -> None:
    """Money of an operator's went out; what it had not is owed."""
    prepaid, receivable = (f"{owner[0]}:{kind}:{owner[1]}" for kind in ("prepaid", "receivable"))
    clearing = f"platform:external_clearing:{owner[1]}"
    paid = min(max(books.available(prepaid), 0), back)
    need(_between(record, prepaid, clearing) == paid, "another part of it is paid back")
    need(_between(record, receivable, clearing) == back - paid, "another part of it is owed")
    # What is left pays what was owed before.
    repaid = min(-books.posted(receivable), max(books.available(prepaid) - paid, 0))
    need(_between(record, prepaid, receivable) == repaid, "a debt is paid otherwise")
    need(total(record, "post") == back + repaid, "more goes back than is said")


def _between(record: Json, debit: str, credit: str) -> int:
    return sum(
        int(each["units"])
        for each in record.get("moved", ())
        if (each["movement"], each["debit"], each["credit"]) == ("post", debit, credit)
    )


def _left_after_all(books: Auditor, record: Json, payout: Json) -> None:
    """What was asked for since gives way, the newest first, as far as it has to."""
    account = [payout[each] for each in ("organisation_id", "kind", "asset")]
    units, left = int(payout["amount_units"]), books.available(":".join(account))
    expected: dict[str, str] = {payout["payout_id"]: "paid"}
    waiting = [
        each
        for each in books.things["payout"].values()
        if [each[name] for name in ("organisation_id", "kind", "asset")] == account
        and each["status"] == "requested"
    ]
    waiting.sort(key=lambda each: int(each["seq"]))
    while left < units and waiting:
        last = waiting.pop()
        left += int(last["amount_units"])
        expected[last["payout_id"]] = "failed"
    if left < units:
        need(not record.get("changed"), "somebody is overdrawn by what left after all")
        return
    found = {each["id"]: each["after"]["status"] for each in record["changed"]}
    need(found == expected, f"money left after all, and {found} came of it")
    back = [int(books.things["payout"][each]["amount_units"]) for each in list(expected)[1:]]
    need(total(record, "post") == units, "another amount is posted than moved")
    need(total(record, "void") == sum(back), "another amount gives way")


def _given_up(record: Json, payment: Json) -> None:
    if "refused" not in record:
        need(total(record, "void") == int(payment["amount_units"]), "another amount is given up")
        need(total(record, "post") == 0, "money moves with what is given up")


def _asked_units(record: Json) -> int:
    amount = record["asked"]["amount"]
    return int(units_of(amount["amount"], amount["asset"]))
