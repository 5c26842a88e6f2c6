"""A few questions to an engine: what memory says is what the journal says."""

from random import Random
from typing import Final

from farthing.protocol.errors import Code, Refused
from farthing.protocol.merkle import verify_inclusion
from farthing.settlement.engine.questions import Lookup, OutcomeOf, Proof, ProofOf
from farthing.settlement.engine.state import State
from farthing.settlement.journal.stepper import Stepper
from tests.simulation.auditor import Auditor, leaf, need, root_of

__all__ = ["ask_a_few"]

_NOUNS: Final = (
    *("agreement", "charge", "dispute", "hold", "listing", "lot", "payout", "session", "top_up"),
)


def ask_a_few(stepper: Stepper[State], books: Auditor, chance: Random, *, excused: bool) -> None:
    """Ask what chance says and compare the answers with the books; `excused` while it storms."""
    if chance.random() < 0.5:
        _things(stepper, books, chance, excused=excused)
    if chance.random() < 0.3 and books.outcomes:
        scope, operation, key = chance.choice(list(books.outcomes))
        told = stepper.answer(OutcomeOf(scope=scope, operation=operation, key=key))
        if _answered(told, excused=excused):
            need(told == books.outcomes[scope, operation, key], f"{key} is told of record {told}")
    if chance.random() < 0.2:
        _proof(stepper, books, chance.randint(1, books.seq), excused=excused)


def _things(stepper: Stepper[State], books: Auditor, chance: Random, *, excused: bool) -> None:
    noun = chance.choice(_NOUNS)
    things = books.things[noun]
    if not things:
        return
    thing_id = chance.choice(list(things))
    answer = stepper.answer(Lookup(noun=noun, id=thing_id))
    if _answered(answer, excused=excused):
        need(answer is not None, f"{thing_id} is not known any more")
        document = answer.document()  # type: ignore[attr-defined]
        need(document == things[thing_id], f"{thing_id} is told otherwise")
    other = chance.choice([each for each in _NOUNS if each != noun])
    answer = stepper.answer(Lookup(noun=other, id=thing_id))
    if _answered(answer, excused=excused):
        need(answer is None, f"{thing_id} is taken for a {other}")


def _proof(stepper: Stepper[State], books: Auditor, seq: int, *, excused: bool) -> None:
    proof = stepper.answer(ProofOf(seq=seq))
    if _answered(proof, excused=excused):
        assert isinstance(proof, Proof)
        need(proof.record == books.lines[seq - 1], f"record {seq} is proven otherwise")
        root = root_of([leaf(data) for data in books.lines])
        proven = verify_inclusion(leaf(proof.record), seq - 1, books.seq, proof.path, root)
        need(proven and proof.tree_size == books.seq, f"record {seq} is not proven")


def _answered(answer: object, *, excused: bool) -> bool:
    if isinstance(answer, Refused):
        need(answer.code is Code.UNAVAILABLE and excused, f"a question: {answer.code}")
        return False
    return True
