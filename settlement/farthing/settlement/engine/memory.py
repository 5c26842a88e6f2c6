"""What of the state need not stay in memory, under which keys the journal is asked for it again.

Boundary: pure. The index of keys and the reading of records are the journal's.
Source: spec/journal.md.
"""

from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import Final, TypeVar, cast

from farthing.protocol.errors import Broken
from farthing.protocol.records import Record
from farthing.settlement.engine.shelf import Shelf
from farthing.settlement.engine.state import State, scope_of, settles, who_of
from farthing.settlement.engine.things import Charge, Dispute, Hold, Payout, Session, Thing, TopUp

__all__ = ["connect", "entries", "forget", "settled"]

AnyThing = TypeVar("AnyThing", bound=Thing)
SeqOf = Callable[[bytes], int | None]
RecordAt = Callable[[int], Record]

_NOUNS: Final[Mapping[str, type[Thing]]] = {
    "charge": Charge,
    "dispute": Dispute,
    "hold": Hold,
    "payout": Payout,
    "session": Session,
    "top_up": TopUp,
}


def connect(state: State, seq_of: SeqOf, record_at: RecordAt) -> None:
    """Let the state recall what it has forgotten.

    Args:
        state: whose shelves are connected.
        seq_of: the record that a key of 16 bytes last stood in, if it is known.
        record_at: the record at a position.
    """
    state.outcomes.recall = seq_of
    for noun, kind in _NOUNS.items():
        _shelf(state, noun).recall = _recaller(noun, kind, seq_of, record_at)


def settled(state: State) -> list[tuple[bytes, int]]:
    """The keys of all that can be forgotten, each with the record that says it."""
    found = list(state.outcomes.settled.items())
    for noun in _NOUNS:
        found += [(_key(each), seq) for each, seq in _shelf(state, noun).settled.items()]
    return found


def forget(state: State) -> None:
    """Let go of what is settled."""
    state.outcomes.forget()
    for noun in _NOUNS:
        _shelf(state, noun).forget()


def entries(record: Record) -> Iterable[tuple[bytes, int]]:
    """What `settled` would have said after this record, from the record alone."""
    if record.request is not None:
        who = who_of(record.operation, record.by.principal_id, record.by.key_thumbprint)
        yield scope_of(who, record.operation, record.request.key), record.seq
    for change in record.changed:
        if change.noun in _NOUNS and settles(change.noun, str(change.after["status"])):
            yield _key(change.id), record.seq


def _shelf(state: State, noun: str) -> Shelf[str, Thing]:
    return cast("Shelf[str, Thing]", getattr(state, f"{noun}s"))


def _key(thing_id: str) -> bytes:
    return sha256(thing_id.encode()).digest()[:16]


def _recaller(
    noun: str, kind: type[AnyThing], seq_of: SeqOf, record_at: RecordAt
) -> Callable[[str], AnyThing | None]:
    def recall(thing_id: str) -> AnyThing | None:
        seq = seq_of(_key(thing_id))
        if seq is None:
            return None
        for change in record_at(seq).changed:
            if change.id == thing_id:
                # What a processor names may be a payout where a top-up is looked for.
                return kind.from_document(change.after) if change.noun == noun else None
        text = f"record {seq} does not hold the {noun} {thing_id}"
        raise Broken(text)

    return recall
