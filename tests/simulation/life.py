"""One life of an engine: commands, faults and crashes drawn from a seed, all of it judged.

Boundary: drives the real stepper; what it says is held against the auditor, who reads the stored
bytes alone. The same seed is the same life, to the byte.
"""

import hashlib
import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from farthing.protocol.audit import verify_journal
from farthing.protocol.errors import Code, FarthingError, Refused
from farthing.protocol.records import read_record, record_bytes
from farthing.protocol.replay.rulebook import Rulebook
from farthing.protocol.times import DAY_US, SECOND_US
from farthing.settlement.engine.commands import PLATFORM, Command, Outcome
from farthing.settlement.engine.questions import AllAccounts, Books
from farthing.settlement.engine.state import State, evolve
from farthing.settlement.journal.recovery import recover
from farthing.settlement.journal.stepper import Limits, Stepper, no_rows
from farthing.settlement.journal.store import CommitRefused, Unreadable
from farthing.settlement.machine import MACHINE
from tests.construction import EPOCH_US
from tests.papers import signing_key
from tests.simulation.asking import ask_a_few
from tests.simulation.auditor import NEWCOMERS, Auditor, Finding, leaf, need, root_of
from tests.simulation.market import Market
from tests.simulation.memories import journal_until, memory_of, proof_of, scope_of
from tests.simulation.rules import judge
from tests.simulation.weather import Place, PowerCut

__all__ = ["Told", "live"]

ORIGIN: Final = "simulated/journal"
SIGNER: Final = signing_key("simulated journal")
STEPS: Final = 32
# Batches that a handful of commands may take.
TRIES: Final = 200
# Refusals of who speaks, given before anything else is looked at.
SPEAKERS: Final = frozenset(
    {
        Code.PROOF_EXPIRED,
        Code.PROOF_REPLAYED,
        Code.KEY_REVOKED,
        Code.NOT_PERMITTED,
        Code.REGISTRATION_PENDING,
    }
)
# What a defect raises, in the engine or in the simulation itself.
_DEFECTS: Final = (
    FarthingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)


@dataclass(slots=True)
class Told:
    """What a life came to."""

    seed: int
    commands: int = 0
    crashes: int = 0
    faults: int = 0
    records: int = 0
    finding: str = ""
    step: int = 0
    journal_sha256: str = ""
    operations: set[str] = field(default_factory=set)
    codes: set[str] = field(default_factory=set)


def live(
    seed: int,
    place: Place,
    *,
    steps: int = STEPS,
    skip: Collection[int] = (),
    say: Callable[[str], None] = lambda _: None,
) -> Told:
    """Live one life; what is wrong is in `finding`.

    Args:
        seed: what everything is drawn from, each step for itself.
        place: an empty place for the journal.
        steps: how many.
        skip: steps that are left out; the others are as they were.
        say: told of every step.
    """
    life = _Life(seed, place, say)
    try:
        life.begin()
        for step in range(1, steps + 1):
            if step not in skip:
                life.step(step)
        life.end()
    except Finding as error:
        life.told.finding = str(error)
    except _DEFECTS as error:
        (*_, last) = traceback.extract_tb(error.__traceback__)
        life.told.finding = f"{error!r} at {Path(last.filename).name}:{last.lineno}"
    finally:
        life.close()
    told = life.told
    told.records = life.books.seq
    told.journal_sha256 = hashlib.sha256(b"\n".join(life.books.lines)).hexdigest()
    told.operations = {record["operation"] for record in life.books.records}
    told.codes |= {
        f"{record['operation']}:{record['refused']['code']}"
        for record in life.books.records
        if "refused" in record
    }
    told.codes |= {
        f"report_usage:{reason}"
        for record in life.books.records
        for _, reason, _ in record.get("decided", {}).get("rejected", ())
    }
    return told


class _Life:
    def __init__(self, seed: int, place: Place, say: Callable[[str], None]) -> None:
        self.seed = seed
        self.say = say
        self.told = Told(seed)
        self.chance = Random(seed)
        self.place = place
        self.now_us = EPOCH_US + self.chance.randrange(DAY_US)
        self.books = Auditor(judge)
        self.market = Market(
            self.books,
            fee_ppm=self.chance.choice((0, 25_000, 333_333, 1_000_000)),
            open_enrolment=self.chance.random() < 0.2,
        )
        self.limits = Limits(
            recent_max=self.chance.choice((1, 5, 4_096)),
            snapshot_every=self.chance.choice((1, 40, 20_000)),
            batch_bytes_max=self.chance.choice((1, 3_000, 8_000_000)),
        )
        self.stepper: Stepper[State] | None = None
        self.epoch = 0
        self.asked: set[tuple[str, str, str]] = set()
        # States as they were, by the record they were after.
        self.states: dict[int, dict[str, Any]] = {}
        # A replay that goes along, from the stored bytes alone.
        self.shadow = State()
        # Whether something may go wrong now, and whether the engine may still be resting from it.
        self.stormy = False
        self.resting = False

    def begin(self) -> None:
        """Start, and let the first parties settle in fair weather."""
        self._boot()
        self.market.at("begin", self.chance, self.now_us)
        self._give([self.market.genesis()])
        for batch in self.market.settlers():
            self._give(batch)
        need(self.books.seq > 10, "nobody settled")

    def step(self, number: int) -> None:
        """One step, drawn from a chance of its own."""
        self.told.step = number
        self.chance = chance = Random(self.seed * 1_000_003 + number)
        self.market.at(f"step{number}", chance, self.now_us)
        if chance.random() < 0.25:
            self._let_time_pass()
            self.market.at(f"step{number}", chance, self.now_us)
        choice = chance.random()
        if choice < 0.80:
            if chance.random() < 0.18:
                fault = self.place.threaten(chance)
                self.say(f"{number}: {fault}")
                self.told.faults += 1
                self.stormy = True
            self._give(self.market.commands())
        elif choice < 0.85:
            self._crash("the power is cut")
        elif choice < 0.89:
            self._restart()
        elif choice < 0.93:
            self._snapshot()
        elif choice < 0.97:
            self._check_memory()
        else:
            self._check_prefix()
        if chance.random() < 0.6:
            self._calm()
        self._ask()

    def end(self) -> None:
        """In fair weather the service goes on, and the whole journal is sound."""
        self._calm()
        self.chance = Random(self.seed)
        self.now_us += 10 * SECOND_US
        self.market.at("end", self.chance, self.now_us)
        self._give([self.market.fund(self.market.operators[0], "USD", 1)])
        self._check_memory()
        self._crash("the last crash")
        self._check_memory()
        memory, replayed = self.states[self.books.seq], self._replayed(self.books.seq)
        need(memory == replayed, "a start from the first record comes to another state")
        self._check_journal()

    def close(self) -> None:
        """Let go of everything."""
        stepper, self.stepper = self.stepper, None
        if stepper is not None:
            self.place.cut(self.chance)
            _shut(stepper)

    # What happens

    def _clock(self) -> int:
        self.now_us += 7
        return self.now_us

    def _let_time_pass(self) -> None:
        self.now_us += self.chance.choice(
            (1, 900_000, 5 * SECOND_US, 20 * SECOND_US, 61 * SECOND_US, 700 * SECOND_US, DAY_US,
             -SECOND_US, -SECOND_US, -700 * SECOND_US, -DAY_US, 40 * DAY_US)
        )  # fmt: skip
        self.say(f"the clock says {self.now_us}")

    def _boot(self) -> None:
        """Start an engine on what is there, and have the auditor read what it finds."""
        # Once all is calm nothing stands in the way: a second start succeeds.
        for is_last in (False, True):
            store, index = self.place.boot()
            stepper = Stepper(
                store,
                MACHINE,
                signer=SIGNER,
                origin=ORIGIN,
                now_us=self._clock,
                rows=no_rows,
                earlier_keys=(),
                limits=self.limits,
                index=index,
            )
            try:
                stepper.open()
            except (PowerCut, Unreadable):
                need(self.excused and not is_last, "an engine does not start in fair weather")
                self.place.cut(self.chance)
                self._calm()
                self.told.crashes += 1
                continue
            break
        self.stepper = stepper
        epoch = stepper._epoch  # noqa: SLF001
        need(epoch > self.epoch, f"epoch {epoch} after {self.epoch}")
        self.epoch = epoch
        before = self.books.seq
        batches = self.place.batches()
        lines = [data for batch in batches for data in batch.records]
        need(lines[:before] == self.books.lines, "what was acknowledged is not there any more")
        self.books.read(lines[before:])
        fresh = [batch for batch in batches if batch.last_seq > before]
        need(len(fresh) <= 1, "more than one batch was nobody told of")
        need(all(batch.first_seq == before + 1 for batch in fresh), "a batch is there in part")
        self._check_asked(before)
        self.market.heal()

    def _crash(self, why: str) -> None:
        self.say(why)
        self.told.crashes += 1
        stepper, self.stepper = self.stepper, None
        self.place.cut(self.chance)
        if stepper is not None:
            _shut(stepper)
        self._boot()

    def _restart(self) -> None:
        self.say("restarted")
        stepper, self.stepper = self.stepper, None
        assert stepper is not None
        stepper.close()
        self._boot()

    def _calm(self) -> None:
        self.place.calm()
        self.resting |= self.stormy
        self.stormy = False

    @property
    def excused(self) -> bool:
        """Whether what was asked need not be done now."""
        return self.stormy or self.resting

    def _snapshot(self) -> None:
        assert self.stepper is not None
        self.say("a snapshot")
        try:
            self.stepper.keep_snapshot()
        except CommitRefused:
            need(self.stormy, "a snapshot is refused in fair weather")
            return
        self.states[self.books.seq] = self._memory_of(self.stepper._state)  # noqa: SLF001

    def _give(self, commands: list[Command]) -> None:
        """Commands in as many batches as it takes; none of them is a step for time alone."""
        self.told.commands += len(commands)
        self.market.sent += [each for each in commands if each.by.principal_id != PLATFORM]
        self.asked |= {scope_of(command) for command in commands}
        for _ in range(TRIES):
            answered = self._batch(commands)
            # Nobody may have been told: what was due can fill a batch by itself.
            commands = commands[answered:]
            if answered is None or not commands:
                return
        need(self.stormy, "commands wait for ever")

    def _batch(self, commands: list[Command]) -> int | None:
        """One batch: what is told must be what is stored. How many were told of; None: crashed."""
        stepper, before = self.stepper, self.books.seq
        assert stepper is not None
        known = {scope for scope in map(scope_of, commands) if scope in self.books.outcomes}
        spoke = {command.by.key_thumbprint for command in commands if self._speaks(command)}
        used = {proof_of(command) for command in commands} & self.books.burnt
        replies: list[Outcome | Refused] = []
        stopped = False
        try:
            replies = stepper.step(commands)
        except (PowerCut, Unreadable):
            need(self.stormy, "an engine stopped in fair weather")
            stopped = True
        except FarthingError:
            if not self.place.is_off:
                raise
        self.say(f"{[command.operation for command in commands]} {[_word(r) for r in replies]}")
        if self.place.is_off or stopped:
            self._crash("crashed")
            return None
        fresh = self.place.batches(before)
        need(not fresh or fresh[0].first_seq == before + 1, "a batch is not where it was told")
        need(replies or fresh or not commands or self.stormy, "a step that did nothing")
        self.books.read(data for batch in fresh for data in batch.records)
        self._check_asked(before)
        for command, reply in zip(commands, replies, strict=False):
            self._check_reply(command, reply, before)
            again = isinstance(reply, Outcome) and proof_of(command) in used
            need(not again, "a proof that was used is taken again")
            if isinstance(reply, Refused) and scope_of(command) in known:
                # The same key has the same answer for ever, or names the conflict.
                last = {*SPEAKERS, Code.IDEMPOTENCY_CONFLICT, Code.UNAVAILABLE}
                need(reply.code in last, f"{scope_of(command)} is answered in a second way")
            if isinstance(reply, Refused) and reply.code is Code.KEY_REVOKED:
                in_force = command.by.key_thumbprint in spoke and self._speaks(command)
                need(not in_force, "a key that is in force is refused")
        self.market.heal()
        if not self.stormy and "unavailable" not in map(_word, replies):
            self.resting = False
        return len(replies)

    # What must hold

    def _speaks(self, command: Command) -> bool:
        key = self._key_of(command)
        mine = key.get("principal_id") == command.by.principal_id
        return mine and key["status"] == "active"

    def _key_of(self, command: Command) -> dict[str, Any]:
        return self.books.things["key"].get(command.by.key_thumbprint, {})

    def _check_reply(self, command: Command, reply: Outcome | Refused, before: int) -> None:
        books, scope = self.books, scope_of(command)
        seq = books.outcomes.get(scope)
        same = seq is not None and (
            books.records[seq - 1]["request"]["sha256"] == command.request_sha256
        )
        if isinstance(reply, Outcome):
            if command.by.principal_id != PLATFORM:
                need(
                    reply.seq == seq and same, f"{scope} was told of record {reply.seq}, not {seq}"
                )
            line = books.lines[reply.seq - 1]
            prev = books.records[reply.seq - 1]["prev"]
            need(record_bytes(reply.record, prev) == line, f"record {reply.seq} was told otherwise")
            need(reply.replayed or reply.seq > before, f"an old record {reply.seq} is told as new")
            return
        code = reply.code
        self.told.codes.add(f"{command.operation}:{code}")
        need(code is not Code.INTERNAL_ERROR, f"a defect in {command.operation}")
        need(code is not Code.UNAVAILABLE or self.excused, "unavailable in fair weather")
        by = command.by
        match code:
            case Code.UNAVAILABLE:
                return
            case Code.PROOF_EXPIRED:
                need(by.proof_expires_at_us <= max(self.now_us, books.at_us), "a proof in its time")
            case Code.PROOF_REPLAYED:
                need((by.key_thumbprint, by.proof_jti) in books.burnt, "a proof that was not used")
            case Code.IDEMPOTENCY_CONFLICT:
                need(seq is not None and not same, f"no conflict for {scope}")
            case Code.KEY_REVOKED | Code.REGISTRATION_PENDING:
                return
            # What a key is for is looked at before what was asked with its holder's others.
            case Code.NOT_PERMITTED if self._key_of(command).get("purpose"):
                return
            case _:
                # One that was told nothing for good may have its outcome later in the same batch.
                need(seq is None or seq > before, f"{scope} has an outcome and was told {code}")

    def _check_asked(self, before: int) -> None:
        for record in self.books.records[before:]:
            if record["by"].get("principal_id") == PLATFORM:
                continue
            by = record["by"]
            who = by["key_thumbprint" if record["operation"] in NEWCOMERS else "principal_id"]
            scope = (who, record["operation"], record["request"]["key"])
            need(scope in self.asked, f"nobody asked for {scope}")

    def _ask(self) -> None:
        assert self.stepper is not None
        ask_a_few(self.stepper, self.books, self.chance, excused=self.excused)

    def _check_memory(self) -> None:
        """Memory equals disk, by the auditor's books and by the engine's own replay."""
        stepper = self.stepper
        assert stepper is not None
        accounts = stepper.answer(AllAccounts())
        assert isinstance(accounts, Books)
        told = {
            name: [
                each.debits_pending,
                each.debits_posted,
                each.credits_pending,
                each.credits_posted,
            ]
            for name, each in accounts.accounts.items()
        }
        need(told == self.books.accounts, "the accounts are not what the journal comes to")
        for line in self.books.lines[self.shadow.seq :]:
            evolve(self.shadow, read_record(line)[0])
        memory = self._memory_of(stepper._state)  # noqa: SLF001
        need(memory == self._memory_of(self.shadow), "memory is not what the journal comes to")
        self.states[self.books.seq] = memory

    def _check_prefix(self) -> None:
        """From any earlier moment on: a start there finds the state that was there."""
        if self.states:
            seq = self.chance.choice(sorted(self.states))
            need(self._replayed(seq) == self.states[seq], f"the state after {seq} is another one")

    def _replayed(self, seq: int) -> dict[str, Any]:
        """The state after `seq`, from the first record on."""
        found = recover(journal_until(self.place.batches(), seq), MACHINE)
        return self._memory_of(found.state)

    def _memory_of(self, state: State) -> dict[str, Any]:
        return memory_of(state, self.books.records)

    def _check_journal(self) -> None:
        """Chain, tree, signed heads and every rule, by the protocol's own auditor too."""
        batches = self.place.batches()
        leaves = [leaf(data) for data in self.books.lines]
        last = batches[-1]
        need(last.root_sha256 == root_of(leaves).hex(), "the root is not that of the records")
        need(last.head_sha256 == self.books.prev, "the head is not that of the records")
        if self.seed % 3:
            return
        found = verify_journal(
            self.books.lines,
            notes=[last.note],
            origin=ORIGIN,
            keys=[SIGNER.public],
            follow=Rulebook().follow,
        )
        need(found.ok and found.heads == 1, f"the protocol's auditor says: {found.fault}")
        need(found.proven_records == self.books.seq, "the last head does not cover all records")


def _shut(stepper: Stepper[State]) -> None:
    """What is left of a process whose machine is off: nothing is written down any more."""
    stepper._sound = False  # noqa: SLF001
    try:
        stepper.close()
    except FarthingError:
        return


def _word(reply: Outcome | Refused) -> str:
    if isinstance(reply, Refused):
        return reply.code.value
    word = reply.record.refused["code"] if reply.record.refused else "done"
    return f"{word} again" if reply.replayed else str(word)
