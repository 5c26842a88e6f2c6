"""Everything that the engine takes and gives crosses the socket and comes out equal."""

from collections.abc import Callable
from typing import Any, get_origin

import msgspec
import msgspec.inspect as shape
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.identity.callers import Assurance, Caller
from farthing.protocol.authority.standing import Standing
from farthing.protocol.disputes.case import Ruling
from farthing.protocol.errors import Code, refuse
from farthing.protocol.ledger import COUNTER_MAX, Account
from farthing.protocol.wire import Role
from farthing.settlement.engine import decide, standing
from farthing.settlement.engine.commands import Command, Kept, Question
from farthing.settlement.engine.questions import AllAccounts, Books, Lookup, PreviewOf, Things
from farthing.settlement.engine.state import State
from farthing.settlement.journal import frames
from farthing.settlement.journal.frames import (
    BODIES,
    FRAME_BYTES_MAX,
    NOUNS,
    PROTOCOL,
    QUESTIONS,
    Answer,
    Ask,
    BadFrame,
    Done,
    Follow,
    Hello,
    Page,
    Refuse,
    Splitter,
    Submit,
    answer_type,
    ask_of,
    asks_in,
    bytes_of,
    command_in,
    question_in,
    read_answer,
    replies_in,
    submit_of,
    write_answer,
)
from tests.construction import Room, Trade

TEXT = st.text(max_size=8)
JSON = st.recursive(
    st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
DOCUMENT = st.dictionaries(TEXT, JSON, max_size=3)
WHOLE = st.integers(-(2**63), 2**63 - 1)


def values_of(kind: Any) -> "st.SearchStrategy[Any]":
    """Any value of a type, as the codec sees the type."""
    return _values(shape.type_info(kind))


def _values(kind: shape.Type) -> "st.SearchStrategy[Any]":
    match kind:
        case (
            shape.DataclassType(cls=cls, fields=fields)
            | shape.NamedTupleType(cls=cls, fields=fields)
            | shape.StructType(cls=cls, fields=fields)
        ):
            members = {field.name: _values(field.type) for field in fields}
            return st.builds(get_origin(cls) or cls, **members)
        case shape.DictType(key_type=key, value_type=value):
            return st.dictionaries(_values(key), _values(value), max_size=2)
        case shape.VarTupleType(item_type=item):
            return st.lists(_values(item), max_size=2).map(tuple)
        case shape.ListType(item_type=item):
            return st.lists(_values(item), max_size=2)
        case shape.UnionType(types=types):
            return st.one_of([_values(each) for each in types])
        case shape.EnumType(cls=cls):
            return st.sampled_from(list(cls))
        case shape.LiteralType(values=values):
            return st.sampled_from(list(values))
        case _:
            return _LEAVES[type(kind)]


_LEAVES: dict[type, "st.SearchStrategy[Any]"] = {
    shape.AnyType: JSON,
    shape.BoolType: st.booleans(),
    shape.BytesType: st.binary(max_size=8),
    shape.CustomType: JSON,
    shape.IntType: WHOLE,
    shape.NoneType: st.none(),
    shape.StrType: TEXT,
}

CALLER = st.builds(
    Caller,
    principal_id=TEXT,
    organisation_id=TEXT,
    role=st.sampled_from(list(Role)),
    assurance=st.sampled_from(list(Assurance)),
    key_thumbprint=TEXT,
    proof_jti=TEXT,
    proof_expires_at_us=WHOLE,
)
KEPT = st.builds(
    Kept,
    table=TEXT,
    row=st.dictionaries(TEXT, TEXT | WHOLE | st.binary(max_size=8), max_size=3),
)


def commands_of(operation: str) -> "st.SearchStrategy[Command]":
    return st.builds(
        Command,
        operation=st.just(operation),
        by=CALLER,
        idempotency_key=TEXT,
        request_sha256=TEXT,
        args_sha256=st.dictionaries(TEXT, TEXT, max_size=2),
        body=values_of(BODIES[operation]),
        asked=DOCUMENT,
        facts=st.none() | DOCUMENT,
        kept=st.lists(KEPT, max_size=2).map(tuple),
    )


def questions_of(name: str) -> "st.SearchStrategy[Question[Any]]":
    strategy: st.SearchStrategy[Question[Any]] = values_of(QUESTIONS[name])
    return strategy


def crossed(message: bytes, read: Callable[[bytes], list[Any]]) -> Any:
    """A message as the other side has it."""
    (frame,) = frames.frames([message])
    (body,) = Splitter().feed(frame)
    (read_back,) = read(body)
    return read_back


def answered(answer: object, question: Question[Any]) -> object:
    message = crossed(write_answer(1, answer), replies_in)
    assert isinstance(message, Answer)
    return read_answer(message, question)


def test_whatever_the_engine_decides_has_a_body_on_the_wire() -> None:
    tables = (decide._DECISIONS, decide._PLATFORMS)  # noqa: SLF001  # the tables that are meant
    operations = {name for table in tables for name in table}

    assert operations - BODIES.keys() == set()


def test_whatever_can_be_looked_up_has_a_type_on_the_wire() -> None:
    nouns = standing._tables(State()).keys()  # noqa: SLF001  # the table that is meant

    assert nouns == NOUNS.keys()


@pytest.mark.parametrize("operation", BODIES)
@settings(max_examples=5)
@given(data=st.data())
def test_a_command_comes_out_as_it_went_in(operation: str, data: st.DataObject) -> None:
    command = data.draw(commands_of(operation))

    message = crossed(submit_of(7, command), asks_in)

    assert isinstance(message, Submit)
    assert (message.id, command_in(message)) == (7, command)


def test_the_commands_of_a_real_trade_come_out_as_they_went_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submitted: list[Command] = []
    run = Room.run

    def noting(room: Room, command: Command) -> Any:
        submitted.append(command)
        return run(room, command)

    monkeypatch.setattr(Room, "run", noting)
    Trade.opened().captured(1)
    read_back = [command_in(crossed(submit_of(1, command), asks_in)) for command in submitted]

    assert read_back == submitted
    assert {"accept_terms", "capture_hold", "genesis", "publish_listing"} <= {
        command.operation for command in submitted
    }


@pytest.mark.parametrize("name", QUESTIONS)
@settings(max_examples=5)
@given(data=st.data())
def test_a_question_comes_out_as_it_went_in(name: str, data: st.DataObject) -> None:
    question = data.draw(questions_of(name))

    message = crossed(ask_of(3, question), asks_in)

    assert isinstance(message, Ask)
    assert (message.id, question_in(message)) == (3, question)


@pytest.mark.parametrize("name", sorted(QUESTIONS.keys() - {"Lookup", "Things", "PreviewOf"}))
@settings(max_examples=5)
@given(data=st.data())
def test_an_answer_comes_out_as_it_went_in(name: str, data: st.DataObject) -> None:
    question = data.draw(questions_of(name))
    answer = data.draw(values_of(answer_type(type(question))))

    assert answered(answer, question) == answer


@pytest.mark.parametrize("noun", NOUNS)
@settings(max_examples=5)
@given(data=st.data())
def test_a_thing_comes_out_as_it_went_in(noun: str, data: st.DataObject) -> None:
    thing = data.draw(values_of(NOUNS[noun]))

    assert answered(thing, Lookup(noun=noun, id="")) == thing
    assert answered(None, Lookup(noun=noun, id="")) is None
    assert answered((thing, thing), Things(noun=noun, ids=())) == (thing, thing)


@given(data=st.data())
def test_a_preview_is_a_ruling_or_a_refusal(data: st.DataObject) -> None:
    question = data.draw(values_of(PreviewOf))
    ruling = data.draw(values_of(Ruling))
    refusal = refuse(Code.DISPUTE_WINDOW_CLOSED, path="charge_id", required="2026")

    assert answered(ruling, question) == ruling
    assert answered(refusal, question) == refusal


def test_gross_counters_of_over_64_bits_cross_too() -> None:
    account = Account(debits_posted=COUNTER_MAX, credits_posted=COUNTER_MAX - 1)
    books = Books(accounts={"platform:platform_fee:USD": account}, seq=9)

    assert answered(books, AllAccounts()) == books


@given(st.builds(Standing, principal_id=TEXT, as_of_seq=WHOLE), st.binary())
def test_outcomes_refusals_and_pages_come_out_as_they_went_in(
    standing_: Standing, record: bytes
) -> None:
    messages: list[Hello | Done | Refuse | Page] = [
        Hello(protocol=PROTOCOL, restored_at_us=5),
        Done(id=1, record=record, replayed=True, standing=standing_),
        Done(id=2, record=record, replayed=False, standing=None),
        Refuse(id=3, refusal=refuse(Code.OVERLOADED, retry_after_s=1)),
        Page(id=4, records=(record, record)),
    ]

    (frame,) = frames.frames([bytes_of(message) for message in messages])
    (body,) = Splitter().feed(frame)

    assert replies_in(body) == messages


@given(st.lists(st.binary(max_size=300), max_size=70), st.integers(1, 97))
def test_frames_come_out_whole_however_the_stream_is_cut(bodies: list[bytes], cut: int) -> None:
    messages = [msgspec.msgpack.encode(body) for body in bodies]
    stream = b"".join(frames.frames(messages))
    splitter = Splitter()

    found = [
        frame
        for start in range(0, len(stream), cut)
        for frame in splitter.feed(stream[start : start + cut])
    ]

    assert [each for frame in found for each in msgspec.msgpack.decode(frame)] == bodies
    assert len(found) == (1 if bodies else 0)


@pytest.mark.parametrize("count", [15, 16, 17, 65_535, 65_536])
def test_a_frame_holds_any_number_of_messages(count: int) -> None:
    (frame,) = frames.frames([b"\x01"] * count)

    assert msgspec.msgpack.decode(frame[4:]) == [1] * count


def test_what_does_not_fit_one_frame_goes_into_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MESSAGE_BYTES_MAX", 100)
    messages = [bytes([0xC4, 38]) + bytes(38)] * 5

    made = list(frames.frames(messages))

    assert [len(msgspec.msgpack.decode(frame[4:])) for frame in made] == [2, 2, 1]
    with pytest.raises(BadFrame):
        list(frames.frames([bytes(200)]))


def test_a_frame_that_says_it_is_too_large_is_not_waited_for() -> None:
    with pytest.raises(BadFrame):
        list(Splitter().feed((FRAME_BYTES_MAX + 1).to_bytes(4, "big")))


@given(st.binary(max_size=200))
def test_garbage_is_a_bad_frame_or_none(data: bytes) -> None:
    for read in (asks_in, replies_in):
        try:
            read(data)
        except BadFrame:
            continue


def test_a_body_of_another_operation_is_refused_where_it_is_read() -> None:
    command = Command(
        operation="place_hold",
        by=Caller(),
        idempotency_key="",
        request_sha256="",
        args_sha256={},
        body={"hold_id": 7},
    )
    message = crossed(submit_of(1, command), asks_in)

    with pytest.raises(ValueError):
        command_in(message)
    with pytest.raises(LookupError):
        command_in(msgspec.structs.replace(message, operation="get_hold"))


def test_a_follower_asks_for_one_page() -> None:
    assert crossed(bytes_of(Follow(id=4, after_seq=9)), asks_in) == Follow(id=4, after_seq=9)
