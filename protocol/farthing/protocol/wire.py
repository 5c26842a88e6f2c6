"""What every message is made of: field types, money on the wire, and the `Operation` declaration.

Boundary: shapes only. An operation is declared once, in `protocol.messages`; tools,
schemas, the bridge's tools and the ownership tests are made from the declaration.
Source: spec/messages.md.
"""

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import StrEnum
from functools import cache
from typing import Annotated, Final, Generic, TypeVar, dataclass_transform

from pydantic import AfterValidator, ConfigDict, Field

from farthing.protocol.canonical import INTEGER_MAX, Json
from farthing.protocol.documents import misread
from farthing.protocol.errors import Code
from farthing.protocol.ids import id_pattern
from farthing.protocol.money import format_units, parse_units
from farthing.protocol.times import parse_time

__all__ = [
    "EVERY_PRINCIPAL",
    "EXTENSION",
    "PARTIES",
    "REPLAYED",
    "ROOT",
    "AgentRef",
    "AgreementRef",
    "AssetCode",
    "CallNumber",
    "ChargeRef",
    "DisputeRef",
    "Effect",
    "HoldRef",
    "IdempotencyKey",
    "KeyPurpose",
    "ListingRef",
    "Money",
    "Name",
    "Operation",
    "OptionalAgreementRef",
    "OptionalSessionRef",
    "OrganisationRef",
    "PageCursor",
    "PageLimit",
    "PrincipalRef",
    "Quantity",
    "RawMember",
    "Role",
    "SessionRef",
    "Sha256",
    "Slug",
    "Text",
    "Time",
    "Token",
    "Usage",
    "Workload",
    "document_of",
    "form",
    "form_of",
    "message",
    "money",
    "quantities_of",
    "usage_of",
]

T = TypeVar("T")
Ask = TypeVar("Ask")
Answer = TypeVar("Answer")

ROOT = "org.farthing"
EXTENSION = f"{ROOT}/commerce"
REPLAYED = f"{ROOT}/replayed"
"""In `_meta`: whether an answer was given before under the same idempotency key."""
_PLAIN = frozenset({str, int, bool})
_FORMS: Final[dict[str, str]] = {}


def _existing_time(text: str) -> str:
    """Refuse what has the form of a time and is none here, such as 31 February or the year 1."""
    if not 0 < parse_time(text) <= INTEGER_MAX:
        message_text = "a time after 1970 and before 2255"
        raise ValueError(message_text)
    return text


def _named(text: str) -> str:
    """Refuse a name that people would read as another, or as none."""
    if message_text := misread(text):
        raise ValueError(message_text)
    return text


def form(
    pattern: str, says: str, *, min_length: int | None = None, max_length: int | None = None
) -> object:
    """What a text has to match, and is, in a sentence for whoever sent another (`form_of`).

    Args:
        pattern: the regular expression, anchored.
        says: the sentence.
        min_length: the fewest characters.
        max_length: the most.
    """
    _FORMS[pattern] = says
    return Field(pattern=pattern, min_length=min_length, max_length=max_length)


def form_of(pattern: str) -> str:
    """What a text is that matches a pattern; empty where nothing was said of it."""
    return _FORMS.get(pattern, "")


AgentRef = Annotated[str, Field(pattern=id_pattern("agt"))]
OrganisationRef = Annotated[str, Field(pattern=id_pattern("org"))]
PrincipalRef = Annotated[str, Field(pattern=r"^(agt|org|stf)_[0-7][0-9a-hjkmnp-tv-z]{25}$")]
ListingRef = Annotated[str, Field(pattern=id_pattern("lst"))]
AgreementRef = Annotated[str, Field(pattern=id_pattern("agr"))]
HoldRef = Annotated[str, Field(pattern=id_pattern("hld"))]
SessionRef = Annotated[str, Field(pattern=id_pattern("ses"))]
ChargeRef = Annotated[str, Field(pattern=id_pattern("chg"))]
DisputeRef = Annotated[str, Field(pattern=id_pattern("dsp"))]
# Empty where none is named.
OptionalAgreementRef = Annotated[str, Field(pattern=r"^(agr_[0-7][0-9a-hjkmnp-tv-z]{25})?$")]
OptionalSessionRef = Annotated[str, Field(pattern=r"^(ses_[0-7][0-9a-hjkmnp-tv-z]{25})?$")]
CallNumber = Annotated[int, Field(ge=1, le=INTEGER_MAX)]
IdempotencyKey = Annotated[
    str, form(r"^[A-Za-z0-9_-]{16,128}$", "It is 16 to 128 letters, digits, _ and -.")
]
Sha256 = Annotated[
    str, form(r"^[0-9a-f]{64}$", "It is a SHA-256 in 64 digits and letters from a to f.")
]
Quantity = Annotated[
    str,
    form(r"^(0|[1-9][0-9]{0,15})$", "It is a whole number in at most 16 digits, none needless."),
]
AssetCode = Annotated[
    str, form(r"^[A-Z]{3,8}$", "It is an asset's code in capital letters, such as USD.")
]
Slug = Annotated[
    str,
    form(
        r"^[a-z0-9][a-z0-9._-]{0,63}$",
        "It is up to 64 small letters, digits, ., _ and -, the first a letter or digit.",
    ),
]
Token = Annotated[str, Field(max_length=4096)]
Name = Annotated[
    str,
    form(
        r"^[^\x00-\x1f\x7f]+$",
        "It is one line without control characters.",
        min_length=1,
        max_length=80,
    ),
    AfterValidator(_named),
]
Text = Annotated[
    str,
    form(
        r"^[^\x00-\x08\x0b-\x1f\x7f]*$",
        "It is a text without control characters.",
        max_length=2000,
    ),
]
Time = Annotated[
    str,
    form(
        r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$",
        "It is a time in UTC to the microsecond, such as 2026-11-21T09:30:00.000000Z.",
    ),
    AfterValidator(_existing_time),
]


@dataclass_transform(frozen_default=True, kw_only_default=True)
def message(cls: type[T]) -> type[T]:
    """A frozen, slotted, keyword-only dataclass that the door checks strictly.

    Unknown members are refused, and nothing is coerced.
    """
    cls.__pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[attr-defined]
    return dataclass(frozen=True, slots=True, kw_only=True)(cls)


@message
class Money:
    """An amount on the wire: canonical decimal text and its asset (spec/money.md)."""

    amount: Annotated[
        str,
        form(
            r"^-?(0|[1-9][0-9]{0,18})(\.[0-9]{1,9})?$",
            "An amount is written as 12.5: no exponent, no needless zeros.",
        ),
    ]
    asset: AssetCode

    @property
    def units(self) -> int:
        """The amount in the asset's smallest unit; raises `InvalidAmount`."""
        return parse_units(self.amount, self.asset)


@message
class Usage:
    """A quantity of one meter, in the meter's smallest unit."""

    meter: Slug
    quantity: Quantity


def usage_of(quantities: Mapping[str, int]) -> tuple[Usage, ...]:
    """Quantities by meter in the form of the wire, ordered by the meter's name."""
    return tuple(
        Usage(meter=meter, quantity=str(quantities[meter])) for meter in sorted(quantities)
    )


def quantities_of(usage: Iterable[Usage]) -> dict[str, int]:
    """Usage as quantities by meter."""
    return {each.meter: int(each.quantity) for each in usage}


PageLimit = Annotated[int, Field(ge=1, le=100)]
PageCursor = Annotated[str, Field(pattern=r"^([0-9]{1,16})?$")]
Workload = Annotated[tuple[Usage, ...], Field(max_length=20)]


class Role(StrEnum):
    """What a caller is to the market. `newcomer` has proven a key that nobody holds yet."""

    ANYONE = "anyone"
    NEWCOMER = "newcomer"
    BUYER = "buyer"
    OPERATOR = "operator"
    VENDOR = "vendor"
    TREASURER = "treasurer"
    ADMIN = "admin"


PARTIES = frozenset({Role.BUYER, Role.OPERATOR, Role.VENDOR})
"""Whoever can be a party to a trade."""
EVERY_PRINCIPAL = PARTIES | {Role.TREASURER, Role.ADMIN}


class KeyPurpose(StrEnum):
    """What a key can be for beside everything that its holder may do."""

    METERING = "metering"


class Effect(StrEnum):
    """What an operation does; tool annotations and proof rules follow from it."""

    READS = "reads"
    WRITES = "writes"
    MOVES_MONEY = "moves_money"


@dataclass(frozen=True, slots=True, kw_only=True)
class RawMember:
    """A member of an ask, long text, that over signed HTTP may stand on a line of its own.

    There several asks are one body: a line with the other members of each, and one with the text.

    Args:
        name: the member.
        path: the last step of the path where such bodies are taken.
        asks_max: how many asks a body may hold.
        characters_max: how long the text may be.
    """

    name: str
    path: str
    asks_max: int
    characters_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(Generic[Ask, Answer]):
    """One operation, declared once.

    Args:
        name: verb_noun, the tool's name and the last part of the path.
        title: short human title.
        says: one sentence, shown to agents as the tool's description.
        ask, answer: the message types.
        effect: what it does.
        roles: who may call it; `Role.ANYONE` means no credential is needed.
        codes: the refusals it can give beyond those of the door and of the engine's first checks.
        purposes: the keys of one purpose that may call it too; no other such key may.
        raw: the member that may come on a line of its own.
    """

    name: str
    title: str
    says: str
    ask: type[Ask]
    answer: type[Answer]
    effect: Effect
    roles: frozenset[Role]
    codes: tuple[Code, ...] = ()
    purposes: frozenset[KeyPurpose] = frozenset()
    raw: RawMember | None = None

    @property
    def path(self) -> str:
        """The path of the operation over signed HTTP."""
        return f"/v1/{self.name}"

    @property
    def raw_path(self) -> str:
        """The path where a body is several asks in lines; empty where there is none."""
        return f"{self.path}/{self.raw.path}" if self.raw is not None else ""

    @property
    def public(self) -> bool:
        """Whether it can be called with no credential."""
        return Role.ANYONE in self.roles


def money(units: int, asset: str) -> Money:
    """The wire form of an amount of units."""
    return Money(amount=format_units(units, asset), asset=asset)


def document_of(value: object) -> dict[str, Json]:
    """The JSON document of a message; members that hold their empty default are left out."""
    document = _plain(value)
    assert isinstance(document, dict)
    return document


def _plain(value: object) -> Json:
    kind = type(value)
    # A vendor's result may hold 100,000 values: most are these or a dict, told without a search.
    if kind in _PLAIN:
        return value  # type: ignore[return-value] # a cast would cost as much again
    if isinstance(value, dict | Mapping):
        return {str(name): _plain(member) for name, member in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(member) for member in value]
    if is_dataclass(kind):
        members: dict[str, Json] = {}
        for name, default in _members(kind):
            member = getattr(value, name)
            if default is MISSING or member != default:
                members[name] = _plain(member)
        return members
    if isinstance(value, StrEnum):
        return value.value
    message_text = f"{kind.__name__} has no JSON form"
    raise TypeError(message_text)


@cache
def _members(kind: type) -> tuple[tuple[str, object], ...]:
    return tuple((field.name, field.default) for field in fields(kind))
