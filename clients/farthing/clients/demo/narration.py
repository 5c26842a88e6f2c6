"""How the story is told: numbered acts, facts, tables, and promises that hold or do not.

Boundary: shows and counts; what happens is decided by the acts. All that came over the wire is made
harmless before it reaches the terminal.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from farthing.clients.cli.render import clean, rows, table
from farthing.protocol.wire import Money, money

__all__ = ["Narrator", "cents", "counted", "shown"]

_WIDTH_MAX: Final = 110
_PIPE_WIDTH: Final = 160
_CENTS: Final = 100


class Narrator:
    """Tells one story.

    Args:
        quiet: Print nothing; the promises are counted all the same.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(markup=False, emoji=False, highlight=False, quiet=quiet)
        is_terminal = self._console.is_terminal
        self._console.width = min(self._console.width, _WIDTH_MAX) if is_terminal else _PIPE_WIDTH
        self._act = 0
        self.failures: list[str] = []

    def title(self, text: str) -> None:
        """What the story is."""
        self._console.print(Text(clean(text), style="bold"))

    def act(self, text: str) -> None:
        """The next act begins."""
        self._act += 1
        self._console.print()
        self._console.print(Text(f"{self._act:2}  {clean(text)}", style="bold cyan"))

    def say(self, text: str) -> None:
        """A sentence of the story."""
        width = min(self._console.width, _WIDTH_MAX)
        self._console.print(Padding(Text(clean(text)), (0, 0, 0, 4), expand=False), width=width)

    def command(self, text: str) -> None:
        """A line to copy; it is not broken, however long it is."""
        self._console.print(Text(f"    $ {clean(text)}"), soft_wrap=True)

    def facts(self, *pairs: tuple[str, str]) -> None:
        """Labels and what they stand for; ids and digests whole, so that they can be copied."""
        rows(self._console, [(f"    {label}", text) for label, text in pairs])

    def table(self, titles: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
        """Things beside each other."""
        table(self._console, titles, lines)

    def end(self, outcome: str, elapsed_ms: int) -> None:
        """How it all ended."""
        self._console.print()
        seconds = f"{elapsed_ms // 1000}.{elapsed_ms // 100 % 10} s"
        held = "something did not hold" if self.failures else "everything that was promised held"
        self._console.print(Text(f"Outcome: {outcome}; {held}; {seconds}.", style="bold"))

    def promise(self, text: str, *, holds: bool, seen: object = "") -> None:
        """Say whether something that was promised holds; what does not is remembered.

        Args:
            text: The promise, in words that are true when it holds.
            holds: Whether it does.
            seen: What was seen instead, where it does not.
        """
        if holds:
            self._console.print(Text(f"    ✓ {clean(text)}", style="green"))
            return
        failure = f"{text} (seen: {seen})"
        self.failures.append(failure)
        self._console.print(Text(f"    ✗ NOT SO: {clean(failure)}", style="bold red"))


def shown(amount: Money) -> str:
    """Money with its asset."""
    return f"{amount.amount} {amount.asset}"


def cents(amount: Money) -> str:
    """Money as people speak of it, exact to the last digit."""
    return f"{money(amount.units * _CENTS, amount.asset).amount} cents"


def counted(count: int, one: str) -> str:
    """A number of things."""
    return f"{count:,} {one}" if count == 1 else f"{count:,} {one}s"
