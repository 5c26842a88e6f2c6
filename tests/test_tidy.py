"""The house's own bans, which no general linter knows.

Each rule keeps its exceptions here, so that one is added in the open, and a planted offence proves
that the rule can fail.
"""

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
ROOMS = ("protocol", "identity", "catalog", "settlement", "server", "clients", "spec")

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
KEPT_BYTES_MAX = 2 * 2**20

# Money is integers. The scores of a search are no money, and the strict parser reads the floats of
# others' JSON where its caller allows them.
INTEGER_ROOMS = ("protocol/", "settlement/", "catalog/")
FLOATS_ALLOWED = {
    "catalog/farthing/catalog/search.py",
    "protocol/farthing/protocol/canonical.py",
}

# Where no file is ever opened, a `/` joins no paths: it can only leave the integers.
PURE_ROOMS = ("protocol/", "settlement/farthing/settlement/engine/")

# The composition root hands out the clock, the writer reads it for its records, and a client has
# one of its own.
CLOCK_READS = {
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("datetime", "today"),
    ("date", "today"),
    ("time", "time"),
    ("time", "time_ns"),
}
CLOCKS = {
    "clients/farthing/clients/clock.py",
    "server/farthing/server/engine.py",
    "settlement/farthing/settlement/journal/writer.py",
}

# SQL lives where tables are declared, in the stores of the journal, in the text match of search and
# in what a vendor and a buyer keep.
SQL = re.compile(
    r"\s*(SELECT\s|INSERT\s+(INTO|OR)\s|UPDATE\s+\w+\s+SET\s|DELETE\s+FROM\s|REPLACE\s+INTO\s"
    r"|(CREATE|DROP|ALTER)\s+(TABLE|INDEX|UNIQUE|VIRTUAL|TRIGGER|VIEW)\b"
    r"|PRAGMA\s|BEGIN\s+IMMEDIATE)"
)
SQL_MODULES = re.compile(
    r"settlement/farthing/settlement/journal/(sqlite|postgres|upserts|index|runs|folding)\.py"
    r"|\w+/farthing/\w+/(\w+/)*tables\.py"
    r"|catalog/farthing/catalog/text\.py"
    r"|clients/farthing/clients/(callbooks|spool|spooled|sqlite_file|usage_spool)\.py"
)

# The outermost doors, where whatever else goes wrong is logged and answered.
CATCH_ALLS = {
    "server/farthing/server/dispatch.py",
    "server/farthing/server/doors/admission.py",
    "server/farthing/server/supervise.py",
}

# What is left to do belongs into the tracker. The brackets keep this line from offending.
UNFINISHED = re.compile(r"\b(TO[D]O|FIX[M]E|X[X]X|HAC[K])\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One Python file: its path from the repository's root, its text and its syntax tree."""

    path: str
    text: str
    tree: ast.Module

    @property
    def in_a_room(self) -> bool:
        return not self.path.startswith("tests/")


Rule = Callable[[Source], Iterator[int]]


def read(path: str, text: str) -> Source:
    return Source(path=path, text=text, tree=ast.parse(text, filename=path))


@cache
def sources() -> tuple[Source, ...]:
    files = sorted(file for top in (*ROOMS, "tests") for file in (REPOSITORY / top).rglob("*.py"))
    return tuple(
        read(file.relative_to(REPOSITORY).as_posix(), file.read_text(encoding="utf-8"))
        for file in files
    )


def floats_near_money(source: Source) -> Iterator[int]:
    if not source.path.startswith(INTEGER_ROOMS) or source.path in FLOATS_ALLOWED:
        return
    for node in ast.walk(source.tree):
        match node:
            case ast.Constant(value=float()):
                yield node.lineno
            case ast.Call(func=ast.Name(id="float")):
                yield node.lineno
            case (
                ast.arg(annotation=ast.Name(id="float"))
                | ast.AnnAssign(annotation=ast.Name(id="float"))
            ):
                yield node.lineno
            case ast.BinOp(op=ast.Div()) | ast.AugAssign(op=ast.Div()):
                if source.path.startswith(PURE_ROOMS):
                    yield node.lineno
            case _:
                pass


def clocks_read_elsewhere(source: Source) -> Iterator[int]:
    if not source.in_a_room or source.path in CLOCKS:
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute):
            owner = node.value
            name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
            if (name, node.attr) in CLOCK_READS:
                yield node.lineno
        elif isinstance(node, ast.ImportFrom):
            yield from (
                node.lineno for name in node.names if (node.module, name.name) in CLOCK_READS
            )


def sql_outside_the_stores(source: Source) -> Iterator[int]:
    if not source.in_a_room or SQL_MODULES.fullmatch(source.path):
        return
    for node in ast.walk(source.tree):
        match node:
            case ast.Constant(value=str() as text) if SQL.match(text):
                yield node.lineno
            case _:
                pass


def catch_alls(source: Source) -> Iterator[int]:
    if source.path in CATCH_ALLS:
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ExceptHandler):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            for kind in caught:
                if kind is None or getattr(kind, "id", "") in {"Exception", "BaseException"}:
                    yield node.lineno


def long_files(source: Source) -> Iterator[int]:
    lines = source.text.count("\n")
    if lines > FILE_LINES_MAX:
        yield lines


def long_functions(source: Source) -> Iterator[int]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield node.lineno


RULES: dict[Rule, tuple[str, str]] = {
    floats_near_money: ("protocol/farthing/protocol/money.py", "half = 1 / 2"),
    clocks_read_elsewhere: ("settlement/farthing/settlement/due.py", "now = datetime.now(UTC)"),
    sql_outside_the_stores: (
        "server/farthing/server/market.py",
        "text = 'SELECT units FROM accounts'",
    ),
    catch_alls: (
        "clients/farthing/clients/buyers.py",
        "try:\n    buy()\nexcept Exception:\n    pass",
    ),
    long_files: ("tests/test_long.py", "\n" * (FILE_LINES_MAX + 1)),
    long_functions: ("tests/test_long.py", "def long():\n" + "    work()\n" * FUNCTION_LINES_MAX),
}


def name_of(rule: Rule) -> str:
    return rule.__name__


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_the_house_has_no(rule: Rule) -> None:
    offences = [f"{source.path}:{line}" for source in sources() for line in rule(source)]

    assert offences == []


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_a_planted_offence_is_found(rule: Rule) -> None:
    path, text = RULES[rule]

    assert list(rule(read(path, text))) != []


@pytest.mark.parametrize(
    "text",
    [
        "share: float = 0",
        "def pay(amount: float) -> None: ...",
        "half = 0.5",
        "half = float('0.5')",
    ],
)
def test_every_way_to_a_float_is_found(text: str) -> None:
    assert list(floats_near_money(read("catalog/farthing/catalog/cards.py", text))) == [1]


def test_what_is_kept_is_text_that_somebody_wrote_or_that_is_made_of_it() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"],  # noqa: S607 - wherever the machine has it
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    kept = [REPOSITORY / name for name in listed.split("\0") if name]
    assert kept
    for path in kept:
        if path.exists():
            assert path.stat().st_size < KEPT_BYTES_MAX, path
            path.read_text(encoding="utf-8")


def test_nothing_is_left_unfinished() -> None:
    texts = [
        file
        for top in (*ROOMS, "tests", ".ci")
        for file in (REPOSITORY / top).rglob("*")
        if file.suffix in {".py", ".md", ".toml", ""} and file.is_file()
    ]
    texts += [REPOSITORY / name for name in ("Makefile", "README.md", "pyproject.toml")]

    offences = [
        f"{file.relative_to(REPOSITORY)}:{number}"
        for file in texts
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
        if UNFINISHED.search(line)
    ]

    assert offences == []
