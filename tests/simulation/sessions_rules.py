"""What a spend session may cost, said a second time for the auditor of a life.

Boundary: imports nothing from farthing. That batch and voucher are signed is not judged here.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from typing import Final

from tests.simulation.allowances_rules import forbidden
from tests.simulation.auditor import (
    PLATFORM,
    Auditor,
    Json,
    answered,
    day,
    leaf,
    need,
    one_of,
    root_of,
    total,
)
from tests.simulation.prices import price, share, units_of
from tests.simulation.purchases import SECOND_US, counted, counts, forbids

__all__ = ["RULES", "part_of", "reported_until_us"]

_REPORT_US: Final = 300 * SECOND_US
_SKEW_US: Final = 5 * SECOND_US
_WINDOW: Final = 1024
# No quantity, and no sum of them, is more.
_QUANTITY_MAX: Final = 10**15
_LIVE: Final = frozenset({"open", "closing"})


def reported_until_us(session: Json) -> int:
    """When nothing more is taken of a session."""
    return _end_us(session) + _REPORT_US


def _open(books: Auditor, record: Json) -> None:
    asked, at_us = record["asked"], record["at_us"]
    agreement = books.things["agreement"][asked["agreement_id"]]
    need(agreement["buyer_id"] == record["by"]["principal_id"], "under another's agreement")
    amounts = [asked.get(name) for name in ("cap", "per_call", "low_water", "unsigned")]
    cap_units, per_call_units = (_units(asked[name]) for name in ("cap", "per_call"))
    if agreement["status"] != "in_force":
        expected = "agreement_ended"
    else:
        is_foreign = any(each and each["asset"] != agreement["asset"] for each in amounts)
        of = (cap_units, per_call_units) if not is_foreign else None
        expected = _allowed(books, record, agreement, of)
    answered(record, expected)
    if expected:
        return
    session = one_of(record, "session")
    need(0 < per_call_units <= cap_units, "a session of nothing")
    found = int(session["cap_units"]), int(session["per_call_units"])
    need(found == (cap_units, per_call_units), "another cap than was asked for")
    life_us = asked.get("expires_in_s", 3_600) * SECOND_US
    need(session["expires_at_us"] == at_us + life_us, "its end is wrong")
    need(session["opened_at_us"] == at_us, "it was opened before")
    need(session["payer_thumbprint"] == record["by"]["key_thumbprint"], "another may spend it")
    for name in ("low_water", "unsigned"):
        units = _units(asked[name]) if asked.get(name) else 0
        need(int(session[f"{name}_units"]) == units, f"another {name} than was asked for")
    need(session["final_action"] == asked.get("final_action", "refuse"), "another way on")
    nothing = [session[name] for name in ("spent_units", "calls", "top", "max_cum_units")]
    need(nothing == ["0", 0, 0, "0"], "something is spent before it begins")
    _set_aside(record, cap_units)


def _top_up(books: Auditor, record: Json) -> None:
    asked, at_us = record["asked"], record["at_us"]
    before = books.things["session"][asked["session_id"]]
    need(before["buyer_id"] == record["by"]["principal_id"], "another's session is topped up")
    agreement = books.things["agreement"][before["agreement_id"]]
    units = _units(asked["amount"])
    if agreement["status"] != "in_force":
        expected = "agreement_ended"
    elif before["status"] != "open" or before["expires_at_us"] <= at_us:
        expected = "session_closed"
    else:
        is_foreign = asked["amount"]["asset"] != before["asset"]
        of = (units, int(before["per_call_units"])) if not is_foreign else None
        expected = _allowed(books, record, agreement, of)
    answered(record, expected)
    if not expected:
        after = one_of(record, "session")
        need(int(after["cap_units"]) == int(before["cap_units"]) + units, "another cap")
        need(after["spent_units"] == before["spent_units"], "a top-up spends")
        _set_aside(record, units)


def _allowed(books: Auditor, record: Json, agreement: Json, of: tuple[int, int] | None) -> str:
    """Why so much in all, so much a call, cannot be set aside; None is of another asset."""
    if of is not None:
        return next(forbids(books, record, agreement, *of), "")
    reasons = forbids(books, record, agreement, 0, 0)
    return next((each for each in reasons if each != "insufficient_funds"), "asset_mismatch")


def _set_aside(record: Json, units: int) -> None:
    need(total(record, "pending") == units, "another amount is set aside")
    need(total(record, "post") == total(record, "void") == 0, "money moves with what is set aside")
    need(counted(record) == units, "another amount is counted")


@dataclass(slots=True)
class _Told:
    """What a batch comes to by these rules."""

    amounts: list[int] = field(default_factory=list)
    rejected: list[list[int | str]] = field(default_factory=list)
    taken: set[int] = field(default_factory=set)
    usage: dict[str, int] = field(default_factory=dict)
    billed: int = 0


def _report(books: Auditor, record: Json) -> None:
    asked, at_us = record["asked"], record["at_us"]
    session = books.things["session"].get(asked["session_id"])
    is_own = session is not None and session["vendor_id"] == record["by"]["principal_id"]
    if session is None or not is_own:
        answered(record, "usage_invalid")
        return
    is_late = session["status"] not in _LIVE or reported_until_us(session) <= at_us
    if "refused" in record:
        # Whose signature it is, an auditor of texts cannot say.
        unread = "usage_invalid" if asked["events"] == 0 else ""
        expected = "session_closed" if is_late else unread
        if record["refused"]["code"] != "signature_invalid":
            answered(record, expected)
        return
    need(not is_late, "usage is taken when its time is over")
    text = record["facts"]["usage"]
    events = json.loads(text)
    need(asked["batch_sha256"] == hashlib.sha256(text.encode()).hexdigest(), "another batch")
    need(asked["events"] == len(events), "another number of events")
    leaves = [leaf(json.dumps(e, separators=(",", ":"), sort_keys=True).encode()) for e in events]
    need(record["facts"]["usage_root"] == root_of(leaves).hex(), "another root of the batch")
    signed_by = books.things["key"][part_of(record["facts"]["usage_signature"], 0)["kid"]]
    in_force = signed_by["principal_id"], signed_by["status"]
    need(in_force == (session["vendor_id"], "active"), "signed by a key that is not in force")
    voucher = part_of(record["facts"]["voucher"], 1)
    payer = part_of(record["facts"]["voucher"], 0)["kid"]
    need(payer == session["payer_thumbprint"], "another's voucher")
    need(voucher["session_id"] == session["session_id"], "another session's voucher")
    best = {
        "voucher_seq": max(session["voucher_seq"], voucher["seq"]),
        "max_cum_units": str(max(int(session["max_cum_units"]), int(voucher["max_cum_units"]))),
    }
    told = _judged(books, {**session, **best}, events, at_us)
    units, decided = sum(told.amounts), record["decided"]
    need(decided["rejected"] == told.rejected, f"rejected {decided['rejected']}: {told.rejected}")
    need(decided["amounts"] == [*map(str, told.amounts)], f"billed otherwise than {told.amounts}")
    need(decided["billed"] == told.billed, "another number of calls is billed")
    places = {place for place, *_ in told.rejected}
    seqs = sorted(int(event["id"]) for n, event in enumerate(events) if n not in places)
    need(decided["span"] == [*seqs[:1], *seqs[-1:]], "its calls are of another span")
    after = one_of(record, "session")
    spent_units = int(session["spent_units"]) + units
    need(int(after["spent_units"]) == spent_units, "another sum is spent")
    need(spent_units == sum(books.calls[session["session_id"]].values()) + units, "a call is lost")
    need(
        spent_units <= min(int(after["cap_units"]), int(after["max_cum_units"])), "over its bounds"
    )
    need(after["cap_units"] == session["cap_units"], "a report changes the cap")
    need(after["status"] == session["status"], "a report ends a session")
    need({name: after[name] for name in best} == best, "another voucher counts")
    need(after["calls"] == session["calls"] + told.billed, "another number of calls")
    need(after["rejected"] == session["rejected"] + len(told.rejected), "another number rejected")
    _numbered(after, {*books.calls[session["session_id"]], *told.taken})
    _charged(books, record, session, told.usage, units)


def _judged(books: Auditor, session: Json, events: list[Json], at_us: int) -> _Told:
    told = _Told(taken=set(books.calls[session["session_id"]]))
    position = _position(books, session)
    card = books.documents[session["rate_card_sha256"]]
    meters = {each["meter"] for each in card["dimensions"]}
    spent_units = int(session["spent_units"])
    for place, event in enumerate(events):
        data, seq = event["data"], int(event["id"])
        used = {meter: n for meter, n in counts(data["usage"]).items() if n}
        if data["outcome"] != "succeeded":
            used = {}
        units, is_known = 0, used.keys() <= meters
        if is_known:
            units = price(card, position, used)
            if any(position.get(meter, 0) + n > _QUANTITY_MAX for meter, n in used.items()):
                units = 2**63
        faults = chain(
            _misnumbered(seq, told.taken),
            _untimely(books, session, _us(event["time"]), at_us),
            () if is_known else ("unknown_meter",),
            _over_allowance(books, session, event, told, at_us),
            _uncovered(session, seq, units, spent_units + units),
        )
        fault = next(faults, "")
        if fault:
            told.rejected.append([place, fault, seq])
            told.amounts.append(0)
            continue
        told.taken.add(seq)
        told.amounts.append(units)
        told.billed += data["outcome"] == "succeeded"
        spent_units += units
        for meter, n in used.items():
            position[meter] = position.get(meter, 0) + n
            told.usage[meter] = told.usage.get(meter, 0) + n
    whole = price(card, _position(books, session), told.usage)
    need(sum(told.amounts) == whole, "the parts of the usage cost something else than the whole")
    return told


def _misnumbered(seq: int, taken: set[int]) -> Iterator[str]:
    top = max(taken, default=0)
    if not top - _WINDOW < seq <= top + _WINDOW:
        yield "out_of_window"
    if seq in taken:
        yield "duplicate"


def _untimely(books: Auditor, session: Json, time_us: int, at_us: int) -> Iterator[str]:
    if time_us < session["opened_at_us"] - _SKEW_US:
        yield "before_session"
    if time_us > session["expires_at_us"]:
        yield "after_end"
    if time_us > at_us + _SKEW_US:
        yield "in_future"
    for who in (session["buyer_id"], session["operator_id"]):
        if time_us > books.frozen_at_us.get(who, time_us):
            yield "frozen"


def _over_allowance(
    books: Auditor, session: Json, event: Json, told: _Told, at_us: int
) -> Iterator[str]:
    data, agreement_id = event["data"], session["agreement_id"]
    used = {meter: n for meter, n in counts(data["usage"]).items() if n}
    today, time_us = day(at_us), _us(event["time"])
    if data["outcome"] == "succeeded" and forbidden(
        books, agreement_id, used, time_us, day=today, before=told.usage
    ):
        yield "over_allowance"


def _uncovered(session: Json, seq: int, units: int, spent_units: int) -> Iterator[str]:
    if units > int(session["per_call_units"]):
        yield "over_per_call"
    if spent_units > int(session["cap_units"]):
        yield "over_cap"
    if seq > session["voucher_seq"] or spent_units > int(session["max_cum_units"]):
        yield "beyond_voucher"


def _numbered(session: Json, taken: set[int]) -> None:
    top = max(taken, default=0)
    seen = sum(1 << top - seq for seq in taken if top - seq < _WINDOW)
    need((session["top"], session["seen"]) == (top, f"{seen:x}"), "other numbers are taken")


def _charged(
    books: Auditor, record: Json, session: Json, usage: dict[str, int], units: int
) -> None:
    need(total(record, "void") == total(record, "post") == units, "another amount moves")
    need(total(record, "pending") == counted(record) == 0, "a report sets aside")
    nouns = [each["noun"] for each in record["changed"]]
    need(nouns.count("charge") == (units > 0), "a charge of nothing, or none of something")
    if usage:
        before = _position(books, session)
        moved = {meter: before.get(meter, 0) + usage.get(meter, 0) for meter in {*before, *usage}}
        need(counts(one_of(record, "position")) == moved, "the position did not move by the usage")
    else:
        need("position" not in nouns, "the position moves without usage")
    if not units:
        return
    charge, agreement = one_of(record, "charge"), books.things["agreement"][session["agreement_id"]]
    need(charge["charge_id"] not in books.things["charge"], "a charge is made again")
    need(int(charge["amount_units"]) == units, f"charged {charge['amount_units']} not {units}")
    need(charge["session_id"] == session["session_id"], "another session's charge")
    need(counts(charge["usage"]) == usage, "charged for other usage")
    need(int(charge["fee_units"]) == share(units, agreement["fee_ppm"]), "the fee is another one")
    window_us = agreement["dispute_window_s"] * SECOND_US
    need(charge["window_closes_at_us"] == record["at_us"] + window_us, "its window is another one")


def _close(books: Auditor, record: Json) -> None:
    session, by = books.things["session"][record["asked"]["session_id"]], record["by"]
    if by["principal_id"] == session["vendor_id"]:
        answered(record, "" if session["status"] in _LIVE else "session_closed")
        if "refused" not in record:
            _given_back(record, session, "closed")
        return
    mine = (session["buyer_id"], session["operator_id"])
    need(by["principal_id"] in mine, "a stranger closes a session")
    is_over = session["status"] != "open" or session["expires_at_us"] <= record["at_us"]
    answered(record, "session_closed" if is_over else "")
    if not is_over:
        after = one_of(record, "session")
        ended = after["status"], after["ended_at_us"]
        need(ended == ("closing", record["at_us"]), "its end is another one")
        need(not record.get("moved"), "the buyer takes money back that may be owed")
        need(not record.get("counted"), "the budget gets back what may be owed")


def _expire(books: Auditor, record: Json) -> None:
    session = books.things["session"][record["asked"]["session_id"]]
    need(record["by"]["principal_id"] == PLATFORM, "not the platform's word")
    need(reported_until_us(session) <= record["at_us"], "a session ends before its time")
    _given_back(record, session, "closed" if session["status"] == "closing" else "expired")


def _given_back(record: Json, session: Json, status: str) -> None:
    after = one_of(record, "session")
    need(after["status"] == status, f"{after['status']}, where it is {status}")
    same = ("cap_units", "spent_units", "calls", "rejected", "top", "seen", "max_cum_units")
    need(all(after[name] == session[name] for name in same), "its end changes what was spent")
    left_units = int(session["cap_units"]) - int(session["spent_units"])
    need(total(record, "void") == left_units, "another amount is given back than is left")
    need(total(record, "pending") == total(record, "post") == 0, "money moves at its end")
    need(counted(record) == -left_units, "the budget gets back another amount")
    for each in record.get("counted", ()):
        bound = int(session["counted"][each["day"]])
        need(0 < -int(each["units"]) <= bound, "a day gets back more than it counted")
        need(each["day"] <= day(record["at_us"]), "a day that has not come gets money back")


RULES: Final[dict[str, Callable[[Auditor, Json], None]]] = {
    "close_session": _close,
    "expire_session": _expire,
    "open_session": _open,
    "report_usage": _report,
    "top_up_session": _top_up,
}


def _end_us(session: Json) -> int:
    return int(session.get("ended_at_us") or session["expires_at_us"])


def _position(books: Auditor, session: Json) -> dict[str, int]:
    return counts(books.things["position"].get(session["agreement_id"], {}))


def _units(amount: Json) -> int:
    return int(units_of(amount["amount"], amount["asset"]))


def part_of(token: str, place: int) -> Json:
    """A part of a token in compact form: 0 the header, 1 the claims."""
    part = token.split(".")[place]
    found: Json = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def _us(text: str) -> int:
    """RFC 3339 with six fractional digits in microseconds."""
    second, _, fraction = text.removesuffix("Z").partition(".")
    moment = datetime.strptime(second + "+0000", "%Y-%m-%dT%H:%M:%S%z")
    return int(moment.timestamp()) * SECOND_US + int(fraction)
