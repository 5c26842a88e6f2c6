"""What crosses the engine's socket: typed messages in bounded frames.

Boundary: values and bytes; no socket and no loop. Both sides are started from the same code, and
each says which `PROTOCOL` it speaks before anything else. Source: spec/design/09-engine-process.md.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any, Final, Optional, TypeVar, cast, get_args

import msgspec
from msgspec import Raw, Struct

from farthing.identity.callers import Caller
from farthing.protocol.authority.standing import Standing
from farthing.protocol.disputes.case import Ruling
from farthing.protocol.errors import FarthingError, Refusal
from farthing.protocol.messages.agents import EnrolOrganisation, RegisterAgent
from farthing.protocol.messages.operations import OPERATIONS
from farthing.protocol.rating import RateCard
from farthing.protocol.terms import Terms
from farthing.protocol.wire import Effect
from farthing.settlement.engine import questions, things
from farthing.settlement.engine.agreements import Acceptance
from farthing.settlement.engine.charges import SettleCharge
from farthing.settlement.engine.commands import Command, Kept, Question
from farthing.settlement.engine.corrections import Corrected
from farthing.settlement.engine.disputes import CloseEvidence, Examined
from farthing.settlement.engine.genesis import GENESIS, Genesis
from farthing.settlement.engine.holds import Capture, ExpireHold
from farthing.settlement.engine.listings import Publishing
from farthing.settlement.engine.lots import ExpireLot
from farthing.settlement.engine.payments import ExpireTopUp, Processed
from farthing.settlement.engine.principals import Named
from farthing.settlement.engine.services import AbandonHold, AcceptAnswer, ServiceCall
from farthing.settlement.engine.sessions import ExpireSession
from farthing.settlement.engine.usage import Reported

__all__ = [
    "BODIES",
    "FRAME_BYTES_MAX",
    "MESSAGE_BYTES_MAX",
    "NOUNS",
    "PROTOCOL",
    "QUESTIONS",
    "Answer",
    "Ask",
    "BadFrame",
    "Done",
    "Follow",
    "Hello",
    "Page",
    "Refuse",
    "Reply",
    "Splitter",
    "Submit",
    "answer_type",
    "ask_of",
    "asks_in",
    "bytes_of",
    "command_in",
    "frames",
    "question_in",
    "read_answer",
    "replies_in",
    "submit_of",
    "write_answer",
]

T = TypeVar("T")

# Raised with every change of what is below.
PROTOCOL: Final = 4
# The largest body that the door takes is 1 MiB, and it may come twice, as body and as facts. The
# books of half a million accounts fit too.
FRAME_BYTES_MAX: Final = 64 * 1024 * 1024
_LENGTH_BYTES: Final = 4
# Above the array's length in MessagePack: one, three or five bytes.
_HEAD_BYTES_MAX: Final = 5
MESSAGE_BYTES_MAX: Final = FRAME_BYTES_MAX - _HEAD_BYTES_MAX


class BadFrame(FarthingError):
    """Bytes on the socket that are no frame, or one that is too large."""


class _Message(Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A message is an array: its tag, then its members in order."""


class Hello(_Message, frozen=True, tag=0):
    """The first message of either side; the engine adds what a front end must know at once."""

    protocol: int
    restored_at_us: int = 0


class Row(_Message, frozen=True):
    """A side row; MessagePack tells text, bytes and integers apart."""

    table: str
    row: dict[str, Any]


class Submit(_Message, frozen=True, tag=1):
    """A command. The body is read by the operation's type once that is known."""

    id: int
    operation: str
    by: Caller
    idempotency_key: str
    request_sha256: str
    args_sha256: dict[str, str]
    body: Raw
    asked: dict[str, Any]
    facts: dict[str, Any] | None
    kept: tuple[Row, ...]


class Ask(_Message, frozen=True, tag=2):
    """A question, by the name of its type."""

    id: int
    question: str
    body: Raw


class Follow(_Message, frozen=True, tag=3):
    """Asks for the next records after one, as soon as there are any: one page, once."""

    id: int
    after_seq: int


class Done(_Message, frozen=True, tag=1):
    """An outcome, with the line of its record."""

    id: int
    record: bytes
    replayed: bool
    standing: Standing | None


class Refuse(_Message, frozen=True, tag=2):
    """A refusal that is not remembered, of a command, a question or a page."""

    id: int
    refusal: Refusal


class Answer(_Message, frozen=True, tag=3):
    """The answer to a question, as MessagePack, or as JSON where an integer needs over 64 bits."""

    id: int
    answer: Raw
    wide: bytes = b""


class Page(_Message, frozen=True, tag=4):
    """The lines of records that follow the one that was named, in order, never none."""

    id: int
    records: tuple[bytes, ...]


AnyAsk = Hello | Submit | Ask | Follow
Reply = Hello | Done | Refuse | Answer | Page


class _Ruled(_Message, frozen=True, tag=1):
    ruling: Ruling


class _NotFiled(_Message, frozen=True, tag=2):
    refusal: Refusal


# What the engine is given where it is not the ask itself: what a planner made of it, and the
# platform's own commands.
_PLANNED: Final[Mapping[str, Any]] = {
    "abandon_hold": AbandonHold,
    "accept_answer": AcceptAnswer,
    "accept_terms": Acceptance,
    "call_service": ServiceCall,
    "capture_hold": Capture,
    "close_evidence": CloseEvidence,
    "correct_usage": Corrected,
    "enrol_organisation": Named[EnrolOrganisation],
    "expire_hold": ExpireHold,
    "expire_lot": ExpireLot,
    "expire_session": ExpireSession,
    "expire_top_up": ExpireTopUp,
    GENESIS: Genesis,
    "process_event": Processed,
    "publish_listing": Publishing,
    "register_agent": Named[RegisterAgent],
    "report_usage": Reported,
    "settle_charge": SettleCharge,
    "submit_evidence": Examined,
}
BODIES: Final[Mapping[str, Any]] = MappingProxyType(
    {name: each.ask for name, each in OPERATIONS.items() if each.effect is not Effect.READS}
    | dict(_PLANNED)
)
QUESTIONS: Final[Mapping[str, type[Question[Any]]]] = MappingProxyType(
    {
        name: kind
        for name in questions.__all__
        if issubclass(kind := getattr(questions, name), Question)
    }
)
# What a `Lookup` or `Things` of each noun finds.
NOUNS: Final[Mapping[str, Any]] = MappingProxyType({
    "agreement": things.Agreement,
    "allowance": things.Allowance,
    "card": RateCard,
    "charge": things.Charge,
    "dispute": things.Dispute,
    "document_seq": int,
    "hold": things.Hold,
    "key": things.Key,
    "listing": things.Listing,
    "lot": things.Lot,
    "partner": things.Partner,
    "payout": things.Payout,
    "position": dict[str, int],
    "principal": things.Principal,
    "session": things.Session,
    "terms": Terms,
    "top_up": things.TopUp,
})  # fmt: skip

_ENCODER: Final = msgspec.msgpack.Encoder()
_ASKS: Final = msgspec.msgpack.Decoder(list[AnyAsk])
_REPLIES: Final = msgspec.msgpack.Decoder(list[Reply])
_BODIES: Final = {name: msgspec.msgpack.Decoder(kind) for name, kind in BODIES.items()}
_QUESTIONS: Final = {name: msgspec.msgpack.Decoder(kind) for name, kind in QUESTIONS.items()}
_NOTHING: Final = Raw(_ENCODER.encode(None))


def submit_of(id_: int, command: Command) -> bytes:
    """The message of a command.

    Raises:
        TypeError, ValueError, OverflowError: something in it has no form on the wire.
    """
    return _ENCODER.encode(
        Submit(
            id=id_,
            operation=command.operation,
            by=command.by,
            idempotency_key=command.idempotency_key,
            request_sha256=command.request_sha256,
            args_sha256=command.args_sha256,  # type: ignore[arg-type]
            body=command.body,  # type: ignore[arg-type]
            asked=command.asked,  # type: ignore[arg-type]
            facts=command.facts,  # type: ignore[arg-type]
            kept=tuple([Row(kept.table, dict(kept.row)) for kept in command.kept]),
        )
    )


def command_in(message: Submit) -> Command:
    """The command of a message.

    Raises:
        LookupError: nobody submits an operation of this name.
        ValueError: the body is not the operation's.
    """
    return Command(
        operation=message.operation,
        by=message.by,
        idempotency_key=message.idempotency_key,
        request_sha256=message.request_sha256,
        args_sha256=message.args_sha256,
        body=_BODIES[message.operation].decode(message.body),
        asked=message.asked,
        facts=message.facts,
        kept=tuple([Kept(table=row.table, row=row.row) for row in message.kept]),
    )


def ask_of(id_: int, question: Question[Any]) -> bytes:
    """The message of a question; raises as `submit_of`."""
    name = type(question).__name__
    return _ENCODER.encode(Ask(id=id_, question=name, body=question))  # type: ignore[arg-type]


def question_in(message: Ask) -> Question[Any]:
    """The question of a message; raises as `command_in`."""
    return cast("Question[Any]", _QUESTIONS[message.question].decode(message.body))


def write_answer(id_: int, answer: object) -> bytes:
    """The message of an answer; raises as `submit_of`."""
    if isinstance(answer, Refusal):
        answer = _NotFiled(answer)
    elif isinstance(answer, Ruling):
        answer = _Ruled(answer)
    try:
        return _ENCODER.encode(Answer(id=id_, answer=answer))  # type: ignore[arg-type]
    except OverflowError:
        # Gross counters are 128-bit; MessagePack ends at 64.
        return _ENCODER.encode(Answer(id=id_, answer=_NOTHING, wide=msgspec.json.encode(answer)))


def read_answer(message: Answer, question: Question[Any]) -> object:
    """What was answered to a question; raises ValueError where it is no answer to it."""
    kind = _kind(type(question).__name__, getattr(question, "noun", ""))
    answer = kind.wide.decode(message.wide) if message.wide else kind.narrow.decode(message.answer)
    match answer:
        case _Ruled(ruling=ruling):
            return ruling
        case _NotFiled(refusal=refusal):
            return refusal
        case _:
            return answer


def bytes_of(message: Hello | Follow | Done | Refuse | Page) -> bytes:
    """A message that needs no more than its members."""
    return _ENCODER.encode(message)


def frames(messages: Sequence[bytes]) -> Iterator[bytes]:
    """The frames of some messages, as few as there can be.

    Raises:
        BadFrame: a message is larger than a frame may be.
    """
    first, size = 0, 0
    for place, message in enumerate(messages):
        if size + len(message) > MESSAGE_BYTES_MAX:
            if place > first:
                yield _frame(messages[first:place], size)
            first, size = place, 0
            if len(message) > MESSAGE_BYTES_MAX:
                raise BadFrame(f"a message of {len(message)} bytes")
        size += len(message)
    if len(messages) > first:
        yield _frame(messages[first:], size)


def asks_in(frame: bytes) -> list[AnyAsk]:
    """The messages of a frame from a front end.

    Raises:
        BadFrame: it is not of messages.
    """
    return _read(_ASKS, frame)


def replies_in(frame: bytes) -> list[Reply]:
    """The messages of a frame from the engine; raises as `asks_in`."""
    return _read(_REPLIES, frame)


class Splitter:
    """Frames out of a stream of bytes, however they are cut.

    Args:
        frame_bytes_max: the largest frame that is taken; it may be raised between two frames.
    """

    def __init__(self, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self.frame_bytes_max = frame_bytes_max
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The frames that are whole now, without their lengths.

        Raises:
            BadFrame: a frame says that it is too large.
        """
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= _LENGTH_BYTES:
            size = int.from_bytes(buffer[start : start + _LENGTH_BYTES], "big")
            if size > self.frame_bytes_max:
                raise BadFrame(f"a frame of {size} bytes")
            end = start + _LENGTH_BYTES + size
            if len(buffer) < end:
                break
            yield bytes(memoryview(buffer)[start + _LENGTH_BYTES : end])
            start = end
        del buffer[:start]


def _frame(messages: Sequence[bytes], size: int) -> bytes:
    head = _array_head(len(messages))
    length = (size + len(head)).to_bytes(_LENGTH_BYTES, "big")
    return b"".join((length, head, *messages))


def _array_head(count: int) -> bytes:
    """The head of an array of so many members (MessagePack, "array format family")."""
    if count < 16:
        return bytes((0x90 | count,))
    if count < 0x10000:
        return b"\xdc" + count.to_bytes(2, "big")
    return b"\xdd" + count.to_bytes(4, "big")


def _read(decoder: "msgspec.msgpack.Decoder[T]", frame: bytes) -> T:
    try:
        return decoder.decode(frame)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadFrame(str(error)) from error


def answer_type(kind: type[Question[Any]]) -> Any:  # noqa: ANN401  # a type, of whatever form
    """The parameter of `Question`: what a kind of question is answered with."""
    return get_args(kind.__orig_bases__[0])[0]  # type: ignore[attr-defined]


class _Kind:
    """How the answer to a kind of question is read."""

    def __init__(self, name: str, noun: str) -> None:
        kind = answer_type(QUESTIONS[name])
        if name == questions.Lookup.__name__:
            kind = Optional[NOUNS[noun]]  # noqa: UP045  # a type that is not known before
        elif name == questions.Things.__name__:
            kind = tuple.__class_getitem__((NOUNS[noun], ...))
        elif name == questions.PreviewOf.__name__:
            kind = _Ruled | _NotFiled
        elif name == questions.ObjectionTo.__name__:
            kind = Optional[_NotFiled]  # noqa: UP045  # as above
        self.narrow = msgspec.msgpack.Decoder(kind)
        self.wide = msgspec.json.Decoder(kind)


# Bounded by the kinds of questions and of nouns.
_kind: Final = cache(_Kind)
