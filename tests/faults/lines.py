"""The list of lines to break, as values."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

__all__ = ["REPOSITORY", "BrokenLine", "broken_lines"]

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenLine:
    """One line, what it becomes, why that must not happen, and the test that must then fail."""

    file: str
    old: str
    new: str
    why: str
    test: str

    @property
    def test_file(self) -> str:
        """Where the test stands."""
        return self.test.partition("::")[0]

    @property
    def test_name(self) -> str:
        """The test's own name."""
        return self.test.rpartition("::")[2]

    def broken(self, text: str) -> str:
        """The file's text with the line broken."""
        return text.replace(self.old, self.new)


def broken_lines() -> list[BrokenLine]:
    """All lines of broken_lines.toml."""
    text = (Path(__file__).parent / "broken_lines.toml").read_text(encoding="utf-8")
    return [BrokenLine(**line) for line in tomllib.loads(text)["line"]]
