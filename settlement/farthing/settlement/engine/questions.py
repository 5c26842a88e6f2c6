"""The questions the engine answers besides doing commands. Pure values.

`engine.standing.answer` answers those about state; the writer itself answers `RecordAt`,
`ProofOf`, `ConsistencyOf`, `TileAt` and `TreeHeadNow`, which need the journal.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from farthing.protocol.authority.standing import Standing
from farthing.protocol.disputes.case import Reason, Ruling
from farthing.protocol.errors import Refusal
from farthing.protocol.ledger import Account
from farthing.settlement.engine.commands import Question
from farthing.settlement.engine.services import AcceptAnswer
from farthing.settlement.engine.things import Grace, Key, Principal

__all__ = [
    "AccountsOf",
    "ActiveKeys",
    "AllAccounts",
    "Books",
    "Consistency",
    "ConsistencyOf",
    "Figures",
    "FiguresNow",
    "KeyFacts",
    "KeyOf",
    "KeysOf",
    "Lookup",
    "Members",
    "MembersOf",
    "ObjectionTo",
    "OutcomeOf",
    "PlaceInMembers",
    "PreviewOf",
    "Proof",
    "ProofOf",
    "RecordAt",
    "StandingOf",
    "Things",
    "TileAt",
    "TreeHeadNow",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class StandingOf(Question[Standing]):
    """What a principal may spend now; with its rating positions where a price depends on them."""

    principal_id: str
    with_positions: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFacts:
    """What is known of a key. `principal_id`, role, key and purpose never change."""

    thumbprint: str
    principal_id: str
    organisation_id: str
    role: str
    jwk: Mapping[str, str]
    status: str
    purpose: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyOf(Question[KeyFacts | None]):
    """The facts of a key by its thumbprint."""

    thumbprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveKeys(Question[Mapping[str, str]]):
    """The thumbprint of the key in force that does everything, by principal."""

    principal_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysOf(Question[tuple[Key, ...]]):
    """Every key a principal ever had, with its history, oldest first."""

    principal_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """Copies of accounts by name, as of journal position `seq`.

    Of one owner also what it may be below zero by, and which of them are closed.
    """

    accounts: Mapping[str, Account]
    seq: int
    graces: tuple[Grace, ...] = ()
    closed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountsOf(Question[Books]):
    """The accounts of an owner."""

    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AllAccounts(Question[Books]):
    """All accounts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup(Question[object | None]):
    """One thing of state by noun and id (principal, listing, agreement, hold, ...)."""

    noun: str
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Things(Question[tuple[object, ...]]):
    """Things of a noun by their ids; what is not there is left out."""

    noun: str
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceInMembers:
    """Behind so many of an organisation's own agents, or of those that asked to be."""

    asking: bool = False
    after: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """A page of an organisation's agents; where the next one begins, if there is one."""

    agents: tuple[Principal, ...]
    more: PlaceInMembers | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MembersOf(Question[Members]):
    """The agents of an organisation, oldest first, and after them those that only ask to be."""

    organisation_id: str
    begin: PlaceInMembers
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeOf(Question[int | None]):
    """The journal position of the record that a caller's idempotency key made, if it made one."""

    scope: str
    operation: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewOf(Question[Ruling | Refusal]):
    """What a dispute would come to now, or why it could not be filed."""

    principal_id: str
    charge_id: str
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectionTo(Question[Refusal | None]):
    """Why the answer to a call that the platform makes could not be paid for now."""

    answer: AcceptAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The platform's share of a charge in millionths, the journal's length, the writer's time."""

    fee_ppm: int
    seq: int
    at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FiguresNow(Question[Figures]):
    """The platform's figures now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordAt(Question[bytes | None]):
    """The bytes of the record at a journal position."""

    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A record's bytes, its audit path (raw hashes) and the signed head it is proven under."""

    record: bytes
    tree_size: int
    path: tuple[bytes, ...]
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofOf(Question[Proof | None]):
    """The inclusion proof of the record at a journal position."""

    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeHeadNow(Question[str]):
    """The newest signed tree head, as a note."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Consistency:
    """That the tree of `second` records only adds to that of `first`, and the newest head."""

    first: int
    second: int
    path: tuple[bytes, ...]
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsistencyOf(Question[Consistency | None]):
    """The consistency proof between two sizes of the tree; `second` 0 is the newest head's."""

    first: int
    second: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TileAt(Question[bytes | None]):
    """The first `width` hashes of a tile (C2SP tlog-tiles), one after another.

    A tile of level L and number N holds the hashes of the complete subtrees of 256**L leaves from
    number 256 N on. None where the tree does not reach that far yet.
    """

    level: int
    index: int
    width: int
