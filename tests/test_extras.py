"""What an extra installs is enough for what it is for: nothing leans on another's packages."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NAME = re.compile(r"[A-Za-z0-9_.-]+")
OWN = re.compile(r"farthing\[(\w+)\]")
# The first that fits; what is named by none is for the base install.
EXTRAS = {
    "clients/farthing/clients/demo/": "demo",
    "server/farthing/server/adapters/stripe.py": "stripe",
    "server/": "server",
    "settlement/": "server",
    "catalog/": "server",
    "identity/": "server",
}
# Parts of what is declared that are packages of their own.
PARTS = {"mcp_types": "mcp", "pydantic_core": "pydantic"}


def spelt(distribution: str) -> str:
    """A distribution's name in its one spelling (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def declared(extra: str) -> set[str]:
    """The distributions that an extra installs beside the base, by their own declaration."""
    lines = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"].get(extra, ())]
    found: set[str] = set()
    for line in lines:
        own = OWN.match(line)
        named = NAME.match(line)
        assert named is not None
        found |= declared(own[1]) if own else {spelt(named[0])}
    return found


def imported(path: Path) -> Iterator[str]:
    """The top-level names that a module imports and that come from elsewhere."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        else:
            continue
        tops = {name.partition(".")[0] for name in names}
        yield from tops - sys.stdlib_module_names - {"farthing"}


@pytest.mark.parametrize("extra", ["", "server", "stripe", "demo"])
def test_what_an_extra_is_for_imports_only_what_it_installs(extra: str) -> None:
    distributions = packages_distributions()
    installed = declared(extra)
    lacking: set[str] = set()
    for path in REPOSITORY.glob("*/farthing/**/*.py"):
        name = path.relative_to(REPOSITORY).as_posix()
        of = next((each for start, each in EXTRAS.items() if name.startswith(start)), "")
        if of != extra:
            continue
        for top in imported(path):
            owners = [PARTS[top]] if top in PARTS else distributions.get(top, [top])
            if installed.isdisjoint(map(spelt, owners)):
                lacking.add(f"{name}: {top}")

    assert lacking == set()


def test_the_extra_that_writes_parquet_brings_the_command_that_asks_for_it() -> None:
    assert declared("server") <= declared("export")
