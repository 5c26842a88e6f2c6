"""How answers look to a person, and to a program.

Boundary: text only. Every string that came over the wire is made harmless before it reaches a
terminal: no markup, no control, no invisible character. Money is the text that the platform sent.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from farthing.protocol.documents import unseen
from farthing.protocol.errors import Code, NextAction, Refusal, Refused
from farthing.protocol.wire import Money, Role

__all__ = [
    "UNTRUSTED",
    "amount",
    "as_json",
    "clean",
    "facts",
    "heading",
    "notice",
    "page",
    "percent",
    "rows",
    "screen",
    "shown_refusal",
    "table",
    "things",
    "vendor_words",
]

UNTRUSTED: Final = "vendor's words, not checked"
_BLANK: Final = frozenset("\t\r\n")
_TEXT_LENGTH_MAX: Final = 2000
# A pipe has no width; ids and amounts must come through it whole.
_PIPE_WIDTH: Final = 240

_WAY_ON: Final = {
    NextAction.FIX_REQUEST: "correct the named argument and call again",
    NextAction.SIGN_AGAIN: "run the command again: it signs anew",
    NextAction.REGISTER: "register the key: farthing enrol, or farthing agents register",
    NextAction.WAIT: "wait, then run the command again",
    NextAction.RETRY: "run the command again",
    NextAction.REDUCE: "ask for less",
    NextAction.REQUEST_APPROVAL: (
        "ask the operator for a wider grant: farthing grants set {agent} --per-call … --per-day …"
    ),
    NextAction.TOP_UP: "have the treasurer credit the account: farthing fund",
    NextAction.USE_OTHER_VENDOR: "choose another listing: farthing search",
    NextAction.QUOTE_AGAIN: "ask for a new quote: farthing quote",
    NextAction.NEW_KEY: "run the command without --idempotency-key, or with a new one",
    NextAction.CONTACT_OPERATOR: "ask whoever approves, limits or freezes you",
    NextAction.CONTACT_PLATFORM: "ask the platform",
    NextAction.NONE: "",
}
# Where the code says more of the way on.
_BY_CODE: Final = {
    Code.REGISTRATION_PENDING: (
        "have it approved, an organisation by the admin, an agent by its operator: "
        "farthing approve ID, as farthing whoami shows it"
    ),
    Code.HOLD_EXPIRED: "place another hold",
    Code.SESSION_CLOSED: "open another session: farthing session open",
}
# Whose key it takes, by the role that is needed; `farthing serve` makes the staff's keys there.
_SIGNED_BY: Final = {
    Role.ADMIN: "--key farthing-data/keys/admin.jwk",
    Role.TREASURER: "--key farthing-data/keys/treasurer.jwk",
    Role.OPERATOR: "--home DIR, an operator's",
    Role.VENDOR: "--home DIR, a vendor's",
    Role.BUYER: "--home DIR, an agent's",
}


def screen(*, to_stderr: bool = False) -> Console:
    """Where a person reads: plain text, nothing in it is interpreted."""
    console = Console(stderr=to_stderr, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    return console


def as_json(document: object) -> str:
    """JSON for a program; all beyond ASCII is escaped, so that no terminal acts on it either."""
    return json.dumps(document, ensure_ascii=True, indent=2)


def clean(text: str) -> str:
    """A text that came from outside, on one line, with nothing unseen in it."""
    kept = "".join(_harmless(each) for each in text[:_TEXT_LENGTH_MAX])
    return kept + "…" if len(text) > _TEXT_LENGTH_MAX else kept


def amount(money: Money | None) -> str:
    """Money as it stands on the wire, with its asset."""
    return "" if money is None else f"{money.amount} {money.asset}"


def percent(ppm: int) -> str:
    """A share in millionths, as a person reads it."""
    whole, rest = divmod(ppm, 10_000)
    return f"{whole}.{rest:04d}".rstrip("0").rstrip(".") + " %"


def notice(console: Console, text: str, style: str = "") -> None:
    """Lines that are no answer: each is made harmless by itself."""
    for line in text.splitlines():
        console.print(Text(clean(line), style=style), soft_wrap=True)


def heading(console: Console, text: str) -> None:
    """A heading."""
    console.print(Text(clean(text), style="bold"), soft_wrap=True)


def vendor_words(text: str) -> Text:
    """Prose that a vendor wrote, to be told from ours."""
    return Text(clean(text), style="italic dim")


def table(
    console: Console,
    titles: Sequence[str],
    lines: Iterable[Sequence[str | Text]],
    *,
    title: str = "",
) -> None:
    """A table; a cell that is text is made harmless."""
    grid = Table(box=box.SIMPLE_HEAD, title=clean(title) or None, title_justify="left")
    for each in titles:
        grid.add_column(Text(each), overflow="fold")
    for line in lines:
        grid.add_row(*(_cell(each) for each in line))
    console.print(grid)


def rows(console: Console, lines: Iterable[tuple[str, str | Text]]) -> None:
    """Labels and what they stand for, one a line."""
    given = [(clean(label), text) for label, text in lines]
    width = max((len(label) for label, _ in given), default=0)
    for label, text in given:
        # Longer than the screen is wide, a line is left to the screen: an id can then be copied.
        console.print(
            Text(f"{label:{width}}  ", style="dim", end=""), _cell(text), sep="", soft_wrap=True
        )


def facts(console: Console, answer: object) -> None:
    """Any answer: one line a member, a table for each list of things in it."""
    lines: list[tuple[str, str]] = []
    lists: list[tuple[str, Sequence[object]]] = []
    for label, value in _members(answer):
        if isinstance(value, tuple) and value and not isinstance(value[0], str):
            lists.append((label, value))
        elif (text := _text(value)) != "":
            lines.append((label, text))
    if not lines and not lists:
        notice(console, "None.")
    rows(console, lines)
    for label, found in lists:
        things(console, label, found)


def page(console: Console, answer: object) -> None:
    """The things of a page as a table; where it ends is not told here."""
    for label, value in _members(answer):
        if isinstance(value, tuple):
            if value:
                things(console, label, value)
            else:
                notice(console, f"No {label}.")


def things(console: Console, label: str, found: Sequence[object]) -> None:
    """Things of one kind as a table: messages or documents, a column for each member."""
    if not all(is_dataclass(each) or isinstance(each, dict) for each in found):
        table(console, [label], [[_text(each)] for each in found])
        return
    named = [{name: _text(value) for name, value in _members(each)} for each in found]
    titles = list(dict.fromkeys(name for each in named for name in each if each[name]))
    lines = [[each.get(name, "") for name in titles] for each in named]
    table(console, [name.replace("_", " ") for name in titles], lines, title=label)


def shown_refusal(refused: Refused, *, agent: str = "agt_…") -> str:
    """A refusal for a person: code, message, what remains, what is needed, the way on.

    `agent` is the id of the agent that was refused, where it is known.
    """
    refusal = refused.refusal
    lines = [f"Refused: {refusal.code.value}: {refusal.message}"]
    asset = f" {refusal.asset}" if refusal.asset else ""
    wait = f"{refusal.retry_after_s} s" if refusal.retry_after_s else ""
    lines += [
        f"  {label}: {value}"
        for label, value in (
            ("argument", refusal.path),
            ("needed", refusal.required and f"{refusal.required}{asset}"),
            ("remaining", refusal.remaining and f"{refusal.remaining}{asset}"),
            ("also", ", ".join(each for each in refusal.reasons if each is not refusal.code)),
            ("wait", wait),
            ("next", _way_on(refusal).format(agent=agent)),
            ("request", refused.request_id),
        )
        if value
    ]
    return "\n".join(lines)


def _way_on(refusal: Refusal) -> str:
    if refusal.code is Code.NOT_PERMITTED:
        needed = refusal.required.split(", ")
        if signers := [by for role, by in _SIGNED_BY.items() if role in needed]:
            return f"sign with {'; or with '.join(signers)}"
    return _BY_CODE.get(refusal.code) or _WAY_ON[refusal.next_action]


def _harmless(character: str) -> str:
    if character in _BLANK:
        return " "
    # What no signed document may hold in a line of text either.
    return "\N{REPLACEMENT CHARACTER}" if unseen(character) else character


def _cell(value: str | Text) -> Text:
    return value if isinstance(value, Text) else Text(clean(value))


def _members(answer: object, prefix: str = "") -> Iterable[tuple[str, object]]:
    """The members of a message, with those of a message inside it in its place."""
    if isinstance(answer, dict):
        yield from answer.items()
        return
    assert is_dataclass(answer)
    for field in fields(answer):
        value = getattr(answer, field.name)
        label = f"{prefix}{field.name.replace('_', ' ')}"
        if is_dataclass(value) and not isinstance(value, Money):
            yield from _members(value, f"{label}: ")
        else:
            yield label, value


def _text(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case Money():
            return amount(value)
        case str() | int():
            return str(value)
        case tuple() | list():
            return ", ".join(_text(each) for each in value)
        case _ if is_dataclass(value):
            return ", ".join(
                text for _, member in _members(value) if (text := _text(member))
            )  # fmt: skip
        case _:
            return json.dumps(value, ensure_ascii=True, separators=(",", ":"))
