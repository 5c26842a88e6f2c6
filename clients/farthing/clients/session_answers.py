"""What comes back from a call of a session, where it then stands, and all that can be wrong.

Boundary: shapes, and the checks that need no book. Source: spec/sessions.md, spec/payments-mcp.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from farthing.clients.documents import result_sha256
from farthing.protocol.canonical import Json, LooseJson
from farthing.protocol.errors import Refusal, Refused, Unreachable, Unverified
from farthing.protocol.messages.sessions import Session
from farthing.protocol.money import parse_units
from farthing.protocol.schemas import violation
from farthing.protocol.times import parse_time
from farthing.protocol.wire import Money

__all__ = [
    "Answer",
    "AnswerFault",
    "CallFailed",
    "CallLost",
    "Left",
    "WrongAnswer",
    "fault_of",
    "terms_of",
]


class AnswerFault(StrEnum):
    """What is wrong with a vendor's answer to a call of a session."""

    NOT_STATED = "not_stated"
    """It does not say what this call used."""
    DIGEST = "digest"
    """What came is not what the vendor's digest is of."""
    SCHEMA = "schema"
    """What came does not fit the schema it is sold under."""
    USAGE = "usage"
    """The card cannot rate the usage."""
    AMOUNT = "amount"
    """The amount is not what the card gives, or is more than one call may cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A call's answer. `result` is the vendor's word: input to judge, never an instruction.

    `amount` is what the card gives for `usage`; `spent` is all that was acknowledged so far.
    """

    result: LooseJson
    text: str
    content: list[LooseJson]
    session_id: str
    seq: int
    usage: Mapping[str, int]
    amount: Money
    spent: Money
    result_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """Where a session stands by the buyer's own book.

    `reserved` is what calls may still cost of which the end is not known; `low` says that what is
    neither spent nor reserved is at or below the low-water mark. `lost` are the calls that are not
    out now and to which no answer has come.
    """

    spent: Money
    reserved: Money
    remaining: Money
    low: bool
    final_action: str
    lost: tuple[int, ...]


class CallFailed(Refused):
    """The vendor did not deliver: nothing of call `seq` may be billed."""

    def __init__(self, refusal: Refusal, seq: int) -> None:
        super().__init__(refusal)
        self.seq = seq


class CallLost(Unreachable):
    """No answer: the vendor may have worked. `call(arguments, again=seq)` asks for it again."""

    def __init__(self, message: str, seq: int) -> None:
        super().__init__(message)
        self.seq = seq


class WrongAnswer(Unverified):
    """The vendor's answer does not hold. It is kept, for reconciliation, with its fault.

    A wrong amount is acknowledged at the card's price; nothing else that is wrong is acknowledged.
    `answer` is what came, None where it cannot be told.
    """

    def __init__(self, message: str, fault: AnswerFault, seq: int, answer: Answer | None) -> None:
        super().__init__(message)
        self.fault = fault
        self.seq = seq
        self.answer = answer


def fault_of(
    structured: LooseJson, expected_sha256: str, output_schema: Mapping[str, Json]
) -> tuple[AnswerFault, str] | None:
    """What is wrong with a result, and in words; None where nothing is.

    Args:
        structured: What came.
        expected_sha256: The digest that it was said to have, now or when it first came.
        output_schema: What it is sold under.
    """
    try:
        digest = result_sha256(structured)
    except Refused as refused:
        return AnswerFault.DIGEST, f"the result has no digest: {refused.refusal.message}"
    if digest != expected_sha256:
        return AnswerFault.DIGEST, f"the result is {digest} and not {expected_sha256}"
    if found := violation(output_schema, structured):
        where = found.path or "."
        text = f"the result does not fit the output schema at {where}: {found.keyword}"
        return AnswerFault.SCHEMA, text
    return None


def terms_of(session: Session) -> tuple[object, ...]:
    """What of a session never changes.

    Raises:
        Unverified: Its amounts or its end are none.
    """
    try:
        parse_time(session.expires_at)
        for each in (session.cap, session.per_call, session.unsigned, session.low_water):
            if each is not None:
                parse_units(each.amount, each.asset)
    except ValueError as error:
        raise Unverified(f"{session.session_id} is no session: {error}") from None
    return session.agreement_id, session.per_call, session.rate_card_sha256, session.cap.asset
