"""Both sides of a session count alike, and neither can be made to lose more than it agreed to."""

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from farthing.protocol.documents import DocumentError
from farthing.protocol.errors import Code, NextAction, Refusal
from farthing.protocol.ids import AgreementId, SessionId
from farthing.protocol.proofs import Entitlement, ProofError, ProofFault, Voucher
from farthing.protocol.sequences import WINDOW, Window
from farthing.protocol.vouchers import (
    MAC_KEY_BYTES,
    SpendBook,
    Unsigned,
    VoucherDesk,
    ack_after,
    check_mac,
    mac_token,
)
from tests.protocol.test_proofs import ENTITLEMENTS
from tests.protocol.vectors import cases, vectors

VECTORS = vectors("vouchers")
PER_CALL, CAP = 10, 200
DIGEST = "0" * 64
KEY = bytes(range(MAC_KEY_BYTES))
ENTITLEMENT: Entitlement = replace(ENTITLEMENTS[2], unsigned_units=30_000)
AGREEMENT = AgreementId("agr_01h455vb4pex5vsknk084sn02q")
SESSION = SessionId("ses_01h455vb4pex5vsknk084sn02q")

amounts = st.integers(0, PER_CALL)


def new_book(cap_units: int = CAP, per_call_units: int = PER_CALL) -> SpendBook:
    return SpendBook(AGREEMENT, SESSION, cap_units, per_call_units)


def new_desk(cap_units: int = CAP, unsigned_units: int = 0) -> VoucherDesk:
    return VoucherDesk(cap_units=cap_units, per_call_units=PER_CALL, unsigned_units=unsigned_units)


def voucher(seq: int, max_cum_units: int) -> Voucher:
    return Voucher(
        agreement_id=AGREEMENT,
        session_id=SESSION,
        args_sha256=DIGEST,
        seq=seq,
        max_cum_units=max_cum_units,
        ack="",
    )


def drawn(book: SpendBook) -> Voucher:
    given_out = book.next(DIGEST)
    assert isinstance(given_out, Voucher)
    return given_out


class Trade(RuleBasedStateMachine):
    """An honest buyer and an honest vendor over a line that delays, reorders and loses."""

    unsigned_units = 0

    def __init__(self) -> None:
        super().__init__()
        self.book = new_book()
        self.desk = new_desk(unsigned_units=self.unsigned_units)
        self.lane = Unsigned()
        self.signed: tuple[int, int] | None = None
        self.on_the_way: list[tuple[Voucher, bool]] = []
        self.running: list[int] = []
        self.answers: list[tuple[int, int]] = []
        # What settlement will have seen: calls that were billed, under the best signed voucher.
        self.billed: dict[int, int] = {}
        self.best = (0, 0)

    def is_signed(self, given_out: Voucher) -> bool:
        """The buyer's lane: by MAC as far as the vendor is sure to trust it."""
        if self.signed is None or not self.unsigned_units:
            return True
        over = given_out.max_cum_units > self.signed[1] + self.unsigned_units
        return over or self.lane.units + PER_CALL > self.unsigned_units

    @rule()
    def ask(self) -> None:
        given_out = self.book.next(DIGEST)
        if isinstance(given_out, Refusal):
            assert given_out.code is Code.LOCAL_LIMIT_EXCEEDED
            assert given_out.next_action is NextAction.TOP_UP
            assert self.book.owed_units + PER_CALL > CAP
            return
        is_signed = self.is_signed(given_out)
        if not is_signed:
            self.lane.add(given_out.seq, PER_CALL)
        self.on_the_way.append((given_out, is_signed))

    @precondition(lambda self: self.on_the_way)
    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self.on_the_way) - 1))
        arrived, is_signed = self.on_the_way.pop(place)
        assert self.desk.admit(arrived, signed=is_signed) is None
        self.running.append(arrived.seq)
        if is_signed:
            self.best = max(self.best, (arrived.seq, arrived.max_cum_units))
            self.signed = (arrived.seq, max(arrived.max_cum_units, (self.signed or (0, 0))[1]))
            self.lane.signed(arrived.seq)

    @precondition(lambda self: self.on_the_way)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        self.on_the_way.pop(data.draw(st.integers(0, len(self.on_the_way) - 1)))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), units=amounts)
    def work(self, data: st.DataObject, units: int) -> None:
        seq = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.desk.settle(seq, units)
        self.billed[seq] = units
        self.answers.append((seq, units))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        seq = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.desk.drop(seq)
        self.book.failed(seq)

    @precondition(lambda self: self.answers)
    @rule(data=st.data(), is_lost=st.booleans())
    def answer(self, data: st.DataObject, is_lost: bool) -> None:  # noqa: FBT001 - drawn by name
        seq, units = self.answers.pop(data.draw(st.integers(0, len(self.answers) - 1)))
        if not is_lost:
            self.book.answered(seq, units, DIGEST)

    @rule()
    def restart(self) -> None:
        self.book = SpendBook.from_document(self.book.document())
        self.desk = VoucherDesk.from_document(self.desk.document())

    @invariant()
    def the_buyer_signs_for_no_more_than_the_cap(self) -> None:
        assert self.book.owed_units <= self.book.max_cum_units <= CAP

    @invariant()
    def the_vendor_is_owed_nothing_that_was_not_authorised(self) -> None:
        assert self.desk.spent_units == sum(self.billed.values())
        assert self.desk.owed_units <= self.book.max_cum_units

    @invariant()
    def no_more_than_agreed_is_unsigned(self) -> None:
        seq, units = self.best
        later = sum(each for number, each in self.billed.items() if number > seq)
        beyond = max(self.desk.spent_units - units, later)
        assert beyond <= self.desk.exposed_units <= self.unsigned_units


class TradeWithMacs(Trade):
    """The same, where most calls are paid by MAC."""

    unsigned_units = 3 * PER_CALL


@pytest.mark.parametrize("trade", [Trade, TradeWithMacs])
def test_honest_sides_lose_nothing_in_any_interleaving(trade: type[Trade]) -> None:
    run_state_machine_as_test(trade)


class Hostile(RuleBasedStateMachine):
    """A payer that signs what it likes, in whatever order, against an honest vendor."""

    def __init__(self) -> None:
        super().__init__()
        self.desk = new_desk(unsigned_units=2 * PER_CALL)
        self.signed: list[tuple[int, int]] = []
        self.billed: dict[int, int] = {}
        self.ran: set[int] = set()
        self.settled = Window()

    @rule(
        seq=st.integers(1, 30)
        | st.integers(1, 4).flatmap(lambda each: st.integers(each * WINDOW - 3, each * WINDOW + 3)),
        max_cum_units=st.integers(0, CAP),
        is_signed=st.booleans(),
    )
    def send(self, seq: int, max_cum_units: int, *, is_signed: bool) -> None:
        refusal = self.desk.admit(voucher(seq, max_cum_units), signed=is_signed)
        if is_signed:
            self.signed.append((seq, max_cum_units))
        if refusal is None:
            assert seq not in self.ran
            self.ran.add(seq)
        else:
            assert refusal.code in {Code.PROOF_INVALID, Code.OVERLOADED}

    @precondition(lambda self: self.desk.in_flight)
    @rule(data=st.data(), units=amounts)
    def work(self, data: st.DataObject, units: int) -> None:
        seq = data.draw(st.sampled_from(sorted(self.desk.in_flight)))
        self.desk.settle(seq, units)
        self.billed[seq] = units
        # Settlement hears of the calls as they end, and takes each number.
        taken = self.settled.take(seq)
        assert taken is not None
        self.settled = taken

    @invariant()
    def one_signed_voucher_pays_for_all_but_what_may_be_unsigned(self) -> None:
        def paid(best: tuple[int, int]) -> int:
            covered = sum(units for seq, units in self.billed.items() if seq <= best[0])
            return min(covered, best[1])

        best = (self.desk.best_seq, self.desk.best_units)
        assert best in self.signed or best == (0, 0)
        spent_units = sum(self.billed.values())
        assert spent_units - paid(best) <= 2 * PER_CALL
        assert self.desk.owed_units <= CAP


def test_a_hostile_payer_costs_no_more_than_was_risked() -> None:
    run_state_machine_as_test(Hostile)


@pytest.mark.parametrize("case", cases(VECTORS["acks"]))
def test_the_chain_of_answers_is_the_vectors(case: dict[str, Any]) -> None:
    ack = ""
    for answer, expected in zip(case["answers"], case["chain"], strict=True):
        ack = ack_after(ack, answer["seq"], int(answer["units"]), answer["result_sha256"])
        assert ack == expected


@pytest.mark.parametrize("case", cases(VECTORS["books"]))
def test_a_book_gives_the_vouchers_of_the_vectors(case: dict[str, Any]) -> None:
    book = new_book(int(case["cap_units"]), int(case["per_call_units"]))
    for step in case["steps"]:
        if "next" in step:
            given_out = book.next(step["args_sha256"])
            said = None if isinstance(given_out, Refusal) else given_out
            assert (said and (said.seq, str(said.max_cum_units), said.ack)) == (
                step["next"] and tuple(step["next"])
            )
        elif "answered" in step:
            seq, units, digest = step["answered"]
            book.answered(seq, int(units), digest)
        else:
            book.failed(step["failed"])


@pytest.mark.parametrize("case", cases(VECTORS["macs"]["accepted"]))
def test_a_mac_is_made_and_proven(case: dict[str, Any]) -> None:
    key, args = bytes.fromhex(VECTORS["macs"]["key_hex"]), VECTORS["macs"]["args_sha256"]
    made = mac_token(key, SESSION, case["seq"], args, int(case["max_cum_units"]))
    assert made == case["token"]
    read = check_mac(made, key=key, entitlement=ENTITLEMENT, args_sha256=args, now_us=1)
    assert (read.seq, str(read.max_cum_units)) == (case["seq"], case["max_cum_units"])
    assert (read.session_id, read.hold_id, read.args_sha256) == (SESSION, None, args)
    assert read.agreement_id == ENTITLEMENT.agreement_id


@pytest.mark.parametrize("case", cases(VECTORS["macs"]["refused"]))
def test_a_forged_mac_is_refused_for_its_reason(case: dict[str, Any]) -> None:
    with pytest.raises(ProofError) as refused:
        check_mac(
            case["token"],
            key=bytes.fromhex(case.get("key_hex", VECTORS["macs"]["key_hex"])),
            entitlement=ENTITLEMENT,
            args_sha256=case.get("args_sha256", VECTORS["macs"]["args_sha256"]),
            now_us=case.get("now_us", 1),
        )
    assert refused.value.reason == case["reason"]


def test_a_mac_under_a_hold_is_none() -> None:
    token = mac_token(KEY, SESSION, 1, DIGEST, 10)
    with pytest.raises(ProofError) as refused:
        check_mac(token, key=KEY, entitlement=ENTITLEMENTS[0], args_sha256=DIGEST, now_us=1)
    assert refused.value.reason is ProofFault.MALFORMED


@given(st.data())
def test_one_bit_turned_anywhere_voids_a_mac(data: st.DataObject) -> None:
    token = mac_token(KEY, SESSION, 17, DIGEST, 1234)
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters(codec="ascii").filter(lambda each: each != token[place]))
    with pytest.raises(ProofError):
        check_mac(
            token[:place] + other + token[place + 1 :],
            key=KEY,
            entitlement=ENTITLEMENT,
            args_sha256=DIGEST,
            now_us=1,
        )


@given(st.permutations(range(64)), st.lists(amounts, min_size=64, max_size=64))
def test_sixty_four_calls_of_one_session_run_at_once(order: list[int], costs: list[int]) -> None:
    book, desk = new_book(64 * PER_CALL), new_desk(64 * PER_CALL)
    vouchers = [drawn(book) for _ in range(64)]
    for place in order:
        early = [each for each in order[: order.index(place)] if each > place]
        assert desk.admit(vouchers[place]) is None, early
    for place in reversed(order):
        desk.settle(vouchers[place].seq, costs[place])
        book.answered(vouchers[place].seq, costs[place], DIGEST)
    assert desk.spent_units == book.spent_units == sum(costs)
    assert all(desk.covers(each.seq) for each in vouchers)


def test_what_the_buyer_signs_never_falls() -> None:
    book = new_book()
    most = max(drawn(book).max_cum_units for _ in range(8))
    for seq in range(1, 9):
        book.answered(seq, 1, DIGEST)
    after = drawn(book)
    assert (after.seq, after.max_cum_units) == (9, most)
    assert book.again(3, DIGEST).max_cum_units == most


def test_an_answer_beyond_what_a_call_may_cost_is_not_acknowledged() -> None:
    book = new_book()
    drawn(book)
    for seq, units in ((1, PER_CALL + 1), (1, -1), (2, 1)):
        with pytest.raises(ValueError, match="call"):
            book.answered(seq, units, DIGEST)
    assert (book.spent_units, book.ack, book.in_flight) == (0, "", frozenset({1}))


def test_an_answer_is_acknowledged_once() -> None:
    book = new_book()
    drawn(book)
    book.answered(1, 1, DIGEST)
    with pytest.raises(ValueError, match="in flight"):
        book.answered(1, 1, DIGEST)
    assert book.spent_units == 1


def test_a_top_up_makes_room() -> None:
    book, desk = new_book(PER_CALL), new_desk(PER_CALL)
    assert desk.admit(drawn(book)) is None
    assert isinstance(book.next(DIGEST), Refusal)
    book.cap_units = desk.cap_units = 2 * PER_CALL
    assert desk.admit(drawn(book)) is None


REFUSED = [
    ("a number that ran before", [(1, 10)], (1, 20), True, "seq"),
    ("a number ahead of the window", [], (WINDOW + 1, 20), True, "seq"),
    ("a sum that does not cover the call", [(1, 10)], (2, 19), True, "max_cum_units"),
    ("a sum of before, presented again", [(1, 10), (2, 20)], (3, 20), True, "max_cum_units"),
    ("a MAC before any signature", [], (1, 10), False, "signature"),
    ("a higher number for a lower sum", [(1, 30)], (2, 20), True, "signature"),
]


@pytest.mark.parametrize(
    ("ran", "sent", "is_signed", "path"),
    [pytest.param(*each[1:], id=each[0]) for each in REFUSED],
)
def test_a_call_that_would_not_be_paid_does_not_run(
    ran: list[tuple[int, int]],
    sent: tuple[int, int],
    is_signed: bool,  # noqa: FBT001 - a column of the table
    path: str,
) -> None:
    desk = new_desk()
    for each in ran:
        assert desk.admit(voucher(*each)) is None
    before = desk.document()
    refusal = desk.admit(voucher(*sent), signed=is_signed)
    assert refusal is not None
    assert (refusal.code, refusal.path) == (Code.PROOF_INVALID, path)
    after = desk.document()
    for name in ("top", "seen", "in_flight", "spent_units"):
        assert after[name] == before[name]


def test_macs_run_as_far_as_agreed_and_a_signature_frees_them() -> None:
    desk = new_desk(unsigned_units=2 * PER_CALL)
    assert desk.admit(voucher(1, CAP)) is None
    for seq in (2, 3):
        assert desk.admit(voucher(seq, CAP), signed=False) is None
    refusal = desk.admit(voucher(4, CAP), signed=False)
    assert refusal is not None
    assert refusal.path == "signature"
    assert not desk.covers(3)
    assert desk.note(voucher(3, CAP))
    assert desk.covers(3)
    assert desk.admit(voucher(4, CAP), signed=False) is None


def test_a_call_waits_where_settlement_could_not_take_its_number() -> None:
    desk = new_desk()
    assert desk.admit(voucher(WINDOW, CAP)) is None
    for seq in (WINDOW + 1, 2 * WINDOW):
        refusal = desk.admit(voucher(seq, CAP))
        assert refusal is not None
        assert (refusal.code, refusal.path) == (Code.OVERLOADED, "seq")
    desk.drop(WINDOW)
    assert desk.admit(voucher(2 * WINDOW, CAP)) is None


def test_a_stale_voucher_lowers_nothing() -> None:
    desk = new_desk()
    assert desk.admit(voucher(5, 50)) is None
    assert not desk.note(voucher(4, 40))
    assert not desk.note(voucher(5, 50))
    assert not desk.note(voucher(6, 40))
    assert (desk.best_seq, desk.best_units) == (5, 50)


@pytest.mark.parametrize("kind", [SpendBook, VoucherDesk])
def test_a_document_of_something_else_opens_nothing(
    kind: type[SpendBook] | type[VoucherDesk],
) -> None:
    whole = (new_book() if kind is SpendBook else new_desk()).document()
    assert kind.from_document(whole).document() == whole
    for name in whole:
        for changed in (
            {**whole, name: None},
            {each: whole[each] for each in whole if each != name},
        ):
            with pytest.raises(DocumentError):
                kind.from_document(changed)  # type: ignore[arg-type]
    with pytest.raises(DocumentError):
        kind.from_document({**whole, "more": 1})


def test_the_key_of_a_lane_is_named_by_its_digest() -> None:
    named = VECTORS["macs"]
    assert hashlib.sha256(bytes.fromhex(named["key_hex"])).hexdigest() == named["mac_sha256"]
