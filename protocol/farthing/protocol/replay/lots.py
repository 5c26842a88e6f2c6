"""Credit lots of a whole journal: what is free of each, set aside, spent and ended, counted anew.

Boundary: reads what holds, sessions and charges draw, in which order, and ends; that they are right
otherwise, and what moves with a lot, is for the others. Source: spec/ledger.md.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Final

from farthing.protocol.faults import FaultKind, rule
from farthing.protocol.ledger import AccountKind
from farthing.protocol.records import Change, Record
from farthing.protocol.replay.blocks import amount_of, asset_of, ends_us
from farthing.protocol.replay.reading import JsonObject, integer, member, units
from farthing.protocol.replay.shares import drawn_of
from farthing.protocol.shares import Part, back_of

__all__ = ["Lots"]

_KINDS: Final = {
    "bought": AccountKind.DEFERRED_REVENUE.value,
    "promotional": AccountKind.PROMOTIONAL_CREDIT.value,
}
_LIVE: Final = frozenset({"closing", "open"})
_Units = Mapping[str, int]
_Turn = tuple[int, bool, int, int, str]
_DRAWN_MAX: Final = 16
# By which member what is set aside is told: of a hold its own, of a session what was asked for.
_SETS_ASIDE: Final = {
    "call_service": "amount_units",
    "open_session": "cap",
    "place_hold": "amount_units",
    "top_up_session": "amount",
}
_lot = rule(FaultKind.LEDGER, "the credit lot")


class Lots:
    """Lots, what is drawn of them, and what was spent of them, as the records so far leave them."""

    def __init__(self) -> None:
        self._lots: dict[str, JsonObject] = {}
        self._drawn: dict[str, _Units] = {}
        self._spent: dict[str, _Units] = {}
        # Of each operator and asset, in the order in which they are spent.
        self._free: dict[tuple[str, str], list[_Turn]] = defaultdict(list)

    def follow(self, record: Record) -> None:
        """Judge the next record, and learn from it. Raises `RuleBroken`."""
        held, spent = Counter[str](), Counter[str]()
        for change in record.changed:
            match change.noun:
                case "hold" | "session":
                    held.update(self._draws(record, change))
                case "charge":
                    _replace(self._spent, change.id, _spent_of(change.after), spent)
                case _:
                    pass
        expected = {
            lot_id: self._moved(lot_id, held[lot_id], spent[lot_id])
            for lot_id in held.keys() | spent.keys()
            if held[lot_id] or spent[lot_id]
        }
        if record.operation == "grant_credit":
            lot = _granted(record)
            expected[member(lot, "lot_id")] = lot
        elif record.operation == "expire_lot":
            lot = self._expired(record)
            expected[member(lot, "lot_id")] = lot
        elif record.operation == "withdraw_credit":
            lot = self._withdrawn(record)
            expected[member(lot, "lot_id")] = lot
        found = {each.id: each.after for each in record.changed if each.noun == "lot"}
        _lot(found == expected, "it does not follow from what was drawn, spent and given back")
        self._lots |= found
        for lot in found.values():
            self._queue(lot)

    def _draws(self, record: Record, change: Change) -> Counter[str]:
        """What more a hold or session sets aside; nothing of what is another's or has ended."""
        thing = change.after
        drawn = _sums(drawn_of(thing)) if thing["status"] in _LIVE else {}
        if record.operation in _SETS_ASIDE:
            in_turn = self._in_turn(record, change)
            _lot(
                list(drawn.items()) == list(in_turn.items()), "another was to be drawn on before it"
            )
        more = Counter[str]()
        _replace(self._drawn, change.id, drawn, more)
        for each in drawn_of(thing) if drawn else ():
            lot = self._lots.get(member(each, "lot_id"), {})
            owned = (lot.get("operator_id"), lot.get("asset"), lot.get("kind"))
            same = owned == (thing["operator_id"], thing["asset"], each["kind"])
            _lot(same, "it is drawn on by a stranger")
            ended = 0 < integer(lot, "expires_at_us") <= record.at_us
            _lot(not ended or more[member(each, "lot_id")] <= 0, "it is drawn on past its end")
        return more

    def _in_turn(self, record: Record, change: Change) -> _Units:
        """What a thing has drawn of each lot after more is set aside for it, as they are spent."""
        thing = change.after
        named = _SETS_ASIDE[record.operation]
        left_units = (
            units(thing, named) if change.noun == "hold" else amount_of(record.asked, named)
        )
        drawn = dict(self._drawn.get(change.id, {}))
        room = _DRAWN_MAX - len(drawn)
        for turn in self._free[member(thing, "operator_id"), member(thing, "asset")]:
            if not left_units or not room:
                break
            lot = self._lots[turn[-1]]
            if 0 < integer(lot, "expires_at_us") <= record.at_us:
                continue
            part_units = min(units(lot, "free_units"), left_units)
            left_units -= part_units
            room -= 1
            drawn[turn[-1]] = drawn.get(turn[-1], 0) + part_units
        return drawn

    def _queue(self, lot: JsonObject) -> None:
        """Give a lot its turn while something of it is free."""
        ends_us = integer(lot, "expires_at_us")
        begun_us, lot_id = integer(lot, "created_at_us"), member(lot, "lot_id")
        turn = (integer(lot, "priority"), not ends_us, ends_us, begun_us, lot_id)
        turns = self._free[member(lot, "operator_id"), member(lot, "asset")]
        place = bisect_left(turns, turn)
        waits = turns[place : place + 1] == [turn]
        if units(lot, "free_units") and not waits:
            turns.insert(place, turn)
        elif waits and not units(lot, "free_units"):
            del turns[place]

    def _moved(self, lot_id: str, held_units: int, spent_units: int) -> JsonObject:
        lot = self._lots[lot_id]
        free_units = units(lot, "free_units") - held_units - spent_units
        held_units += units(lot, "held_units")
        _lot(min(free_units, held_units) >= 0, "more is drawn on it than it has")
        return {**lot, "free_units": str(free_units), "held_units": str(held_units)}

    def _expired(self, record: Record) -> JsonObject:
        lot = self._lots[member(record.asked, "lot_id")]
        _lot(0 < integer(lot, "expires_at_us") <= record.at_us, "it ends before its time")
        expired_units = units(lot, "expired_units") + units(lot, "free_units")
        return {**lot, "expired_units": str(expired_units), "free_units": "0"}

    def _withdrawn(self, record: Record) -> JsonObject:
        lot, more_units = (
            self._lots[member(record.asked, "lot_id")],
            amount_of(record.asked, "amount"),
        )
        free_units = units(lot, "free_units") - more_units
        same = asset_of(record.asked, "amount") == lot["asset"]
        _lot(same and free_units >= 0 < more_units, "more is withdrawn of it than is free")
        withdrawn_units = units({"withdrawn_units": "0", **lot}, "withdrawn_units") + more_units
        return {**lot, "free_units": str(free_units), "withdrawn_units": str(withdrawn_units)}


def _granted(record: Record) -> JsonObject:
    asked, amount_units = record.asked, str(amount_of(record.asked, "amount"))
    return {
        "lot_id": record.new_id("lot"),
        "operator_id": asked["organisation_id"],
        "kind": _KINDS[member(asked, "kind")],
        "asset": asset_of(asked, "amount"),
        "amount_units": amount_units,
        "free_units": amount_units,
        "held_units": "0",
        "expired_units": "0",
        "priority": asked.get("priority", 100),
        "expires_at_us": ends_us(asked),
        "created_at_us": record.at_us,
        "seq": record.seq,
    }


def _spent_of(charge: JsonObject) -> _Units:
    """What of each lot a charge has consumed and not given back: money comes back first."""
    drawn = [Part(member(e, "lot_id"), units(e, "amount_units")) for e in drawn_of(charge)]
    if not drawn:
        return {}
    rest_units = units(charge, "amount_units") - sum(part.units for part in drawn)
    back = back_of([*drawn, Part("", rest_units)], 0, units(charge, "refunded_units"))
    spent = Counter(dict(drawn))
    spent.subtract(dict(back[1:]))
    return spent


def _replace(known: dict[str, _Units], name: str, now: _Units, more: Counter[str]) -> None:
    """Note what a thing takes now, and count by how much that is more."""
    more.update(now)
    more.subtract(known.pop(name, {}))
    if any(now.values()):
        known[name] = now


def _sums(drawn: list[JsonObject]) -> _Units:
    sums = Counter[str]()
    for each in drawn:
        sums[member(each, "lot_id")] += units(each, "amount_units")
    return sums
