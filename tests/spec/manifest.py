"""The requirements manifest as values, and what the tests of this repository are called."""

import ast
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

__all__ = ["REPOSITORY", "Requirement", "requirements", "suite", "unlinked"]

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One line of the manifest."""

    id: str
    source: str
    behaviour: str
    since: str
    tests: tuple[str, ...]
    chapter: str = ""
    divergence: str = ""
    deferred: str = ""


@cache
def requirements() -> tuple[Requirement, ...]:
    """The lines of the manifest; a member that is not known is a TypeError."""
    return tuple(
        Requirement(**{**each, "tests": tuple(each["tests"])}) for each in _read()["requirement"]
    )


def unlinked() -> dict[str, str]:
    """Test files that serve no promise, each with its reason."""
    return dict(_read()["unlinked"])


@cache
def suite() -> dict[str, frozenset[str]]:
    """The names of the tests in every test file, by its path from the repository's root."""
    return {
        path.relative_to(REPOSITORY).as_posix(): _names(path)
        for path in sorted((REPOSITORY / "tests").rglob("test_*.py"))
    }


def _names(path: Path) -> frozenset[str]:
    """Functions, and the names that state machines are bound to."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8"), filename=str(path)).body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.Assign(targets=[ast.Name(id=name)]):
                names.add(name)
            case _:
                pass
    return frozenset(name for name in names if name.startswith("test_"))


@cache
def _read() -> dict[str, Any]:
    return tomllib.loads((files("farthing.spec") / "requirements.toml").read_text())
