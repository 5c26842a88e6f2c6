"""What may be taken back of billed usage, said a second time for the auditor of a life.

Boundary: imports nothing from farthing. That a correction is signed is not judged here, nor of one
that was refused what it was for: of that its record has a digest alone.
"""

import json
from collections.abc import Callable
from typing import Final

from tests.simulation.auditor import Auditor, Json, answered, need, one_of, total
from tests.simulation.prices import price
from tests.simulation.purchases import counted, counts
from tests.simulation.sessions_rules import part_of

__all__ = ["RULES"]


def _correct(books: Auditor, record: Json) -> None:
    charge = books.things["charge"][record["asked"]["charge_id"]]
    need(charge["vendor_id"] == record["by"]["principal_id"], "not the vendor's correction")
    left_units = int(charge["amount_units"]) - int(charge["refunded_units"])
    is_open = left_units > 0 and charge["status"] != "disputed"
    if "refused" in record:
        code = record["refused"]["code"]
        known = {"signature_invalid", "usage_invalid"}
        if charge.get("session_id"):
            known |= {"refund_exceeds_charge"} | ({"insufficient_funds"} if is_open else set())
        need(code in known, f"{code} of a correction")
        return
    answered(record, "")
    need(bool(charge.get("session_id")), "a hold's charge is corrected")
    need(is_open, "what is given back, or disputed, is corrected")
    asked = record["facts"]["correction"]
    need(asked["charge_id"] == charge["charge_id"], "another charge's correction")
    signed_by = books.things["key"][part_of(record["facts"]["correction_signature"], 0)["kid"]]
    in_force = signed_by["principal_id"], signed_by["status"]
    need(in_force == (charge["vendor_id"], "active"), "signed by a key that is not in force")
    used = _used(books, charge)
    told = {int(each["call"]): counts(each["usage"]) for each in record["facts"]["billed"]}
    need(told == used, "the calls had used something else")
    before = charge.get("corrected", [])
    totals: dict[str, int] = {}
    for each in asked["corrections"]:
        call = int(each["call"])
        need(call in used and call not in before, "a call that is not there, or no more")
        for meter, n in counts(each["usage"]).items():
            need(0 < n <= used[call].get(meter, 0), "more is taken back than was used")
            totals[meter] = totals.get(meter, 0) + n
    _given_back(books, record, charge, totals, left_units)
    calls = sorted([*before, *(int(each["call"]) for each in asked["corrections"])])
    need(len(set(calls)) == len(calls), "a call is corrected twice")
    need(one_of(record, "charge")["corrected"] == calls, "other calls are remembered")


def _given_back(
    books: Auditor, record: Json, charge: Json, totals: dict[str, int], left_units: int
) -> None:
    """The price of the totals goes back, with the fee and the position."""
    agreement_id = charge["agreement_id"]
    at = counts(books.things["position"][agreement_id])
    after = {meter: n - totals.get(meter, 0) for meter, n in at.items()}
    need(min(after.values()) >= 0, "a position below nothing")
    need(counts(one_of(record, "position")) == after, "the position goes elsewhere")
    units = price(books.documents[charge["rate_card_sha256"]], after, totals)
    need(units <= left_units, "more is given back than is left")
    need(int(record["decided"]["units"]) == units, f"{record['decided']['units']}, not {units}")
    now = one_of(record, "charge")
    back = int(now["refunded_units"]) - int(charge["refunded_units"])
    kept = int(charge["fee_units"]) * (left_units - units) // int(charge["amount_units"])
    fee = int(charge["fee_units"]) - int(now["fee_returned_units"])
    need((back, fee) == (units, kept), "another part of the charge is given back")
    need(total(record, "post") == units, "another amount is moved than given back")
    need(total(record, "void") == total(record, "pending") == 0, "it sets aside")
    need(counted(record) == 0, "it counts")


def _used(books: Auditor, charge: Json) -> dict[int, dict[str, int]]:
    """What each call that a charge bills used, by the record that made it."""
    made = books.records[charge["seq"] - 1]
    rejected = {place for place, *_ in made["decided"]["rejected"]}
    return {
        int(event["id"]): {m: n for m, n in counts(event["data"]["usage"]).items() if n}
        for place, event in enumerate(json.loads(made["facts"]["usage"]))
        if place not in rejected and event["data"]["outcome"] == "succeeded"
    }


RULES: Final[dict[str, Callable[[Auditor, Json], None]]] = {"correct_usage": _correct}
