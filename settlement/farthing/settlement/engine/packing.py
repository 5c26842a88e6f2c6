"""The state as a document, for snapshots, and back.

Boundary: pure. What is settled is not in it: the journal tells that again. Documents of the law
(rate cards, terms) are read again from the records they stand in. Source: spec/journal.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Final, cast

from farthing.protocol.authority.grant import Grant
from farthing.protocol.canonical import Json
from farthing.protocol.ledger import Account
from farthing.protocol.records import Record
from farthing.protocol.times import SECOND_US
from farthing.settlement.engine.state import State, learn
from farthing.settlement.engine.things import (
    Agreement,
    Allowance,
    Charge,
    Closure,
    Dispute,
    Grace,
    Hold,
    Key,
    Listing,
    Lot,
    Partner,
    Payout,
    Principal,
    Session,
    Thing,
    TopUp,
)

__all__ = ["pack", "unpack"]

JsonObject = dict[str, Json]

# Each field of the state, by how it is written down. `pack` asserts that none was forgotten.
_FIGURES: Final = ("seq", "at_us", "fee_ppm", "open_enrolment")
_THINGS: Final[Mapping[str, type[Thing]]] = {
    "agreements": Agreement,
    "allowances": Allowance,
    "charges": Charge,
    "closures": Closure,
    "disputes": Dispute,
    "graces": Grace,
    "holds": Hold,
    "keys": Key,
    "listings": Listing,
    "lots": Lot,
    "partners": Partner,
    "payouts": Payout,
    "principals": Principal,
    "sessions": Session,
    "top_ups": TopUp,
}
_OTHERS: Final = frozenset(
    {
        "accounts",
        "burnt",
        "burnt_until",
        "by_party",
        "cards",
        "counters",
        "document_seqs",
        "due",
        "free_lots",
        "grace_units",
        "grants",
        "outcomes",
        "positions",
        "terms",
        "windows",
    }
)


def pack(state: State) -> JsonObject:
    """The state as a document of the restricted alphabet.

    What is settled must have been forgotten before: it is not written.
    """
    assert {each.name for each in fields(State)} == {*_FIGURES, *_THINGS, *_OTHERS}
    document: dict[str, Any] = {name: getattr(state, name) for name in _FIGURES}
    for name in _THINGS:
        things = cast("Mapping[str, Thing]", getattr(state, name))
        document[name] = {thing_id: thing.document() for thing_id, thing in things.items()}
    document["accounts"] = {
        name: [
            str(account.debits_pending),
            str(account.debits_posted),
            str(account.credits_pending),
            str(account.credits_posted),
        ]
        for name, account in state.accounts.items()
    }
    document["burnt_until"] = [
        [second * SECOND_US, thumbprint, jti]
        for second, proofs in state.burnt_until.items()
        for thumbprint, jti in proofs
    ]
    document["by_party"] = [
        [noun, party, list(ids)] for (noun, party), ids in state.by_party.items()
    ]
    document["counters"] = [
        [grant_id, day, str(units)] for (grant_id, day), units in state.counters.items()
    ]
    document["document_seqs"] = dict(state.document_seqs)
    document["due"] = [list(entry) for entry in state.due]
    document["windows"] = [list(entry) for entry in state.windows]
    document["free_lots"] = [
        [operator_id, asset, list(ids)] for (operator_id, asset), ids in state.free_lots.items()
    ]
    document["grants"] = [grant.document() for grant in state.grants.values()]
    document["positions"] = {
        agreement_id: {meter: str(quantity) for meter, quantity in position.items()}
        for agreement_id, position in state.positions.items()
    }
    return document


def unpack(document: JsonObject, record_at: Callable[[int], Record]) -> State:
    """The state that `pack` wrote.

    Args:
        document: what it wrote.
        record_at: the record at a position; those that hold documents in force are read.
    """
    packed = cast("dict[str, Any]", document)
    state = State(**{name: packed[name] for name in _FIGURES})
    for name, kind in _THINGS.items():
        things = getattr(state, name)
        for thing_id, each in packed[name].items():
            things[thing_id] = kind.from_document(each)
    for name, counters in packed["accounts"].items():
        state.accounts[name] = Account(*map(int, counters))
    for until_us, thumbprint, jti in packed["burnt_until"]:
        state.burnt_until[until_us // SECOND_US].append((thumbprint, jti))
        state.burnt.add((thumbprint, jti))
    for noun, party, ids in packed["by_party"]:
        state.by_party[noun, party] = list(ids)
    for grant_id, day, units in packed["counters"]:
        state.counters[grant_id, day] = int(units)
    for seq in sorted(set(packed["document_seqs"].values())):
        facts = record_at(seq).facts
        assert facts is not None, f"record {seq} holds the documents that it was read for"
        learn(state, facts, seq)
    state.document_seqs.update(packed["document_seqs"])
    state.due = [(due_us, noun, thing_id) for due_us, noun, thing_id in packed["due"]]
    state.windows = [(end_us, charge_id) for end_us, charge_id in packed["windows"]]
    for operator_id, asset, ids in packed["free_lots"]:
        state.free_lots[operator_id, asset] = list(ids)
    state.grace_units = {name: grace.units for name, grace in state.graces.items()}
    for each in packed["grants"]:
        grant = Grant.from_document(each)
        state.grants[grant.agent_id, grant.asset] = grant
    for agreement_id, position in packed["positions"].items():
        state.positions[agreement_id] = {meter: int(n) for meter, n in position.items()}
    return state
