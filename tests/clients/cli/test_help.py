"""The command can be used from its help alone, and its chapter leaves nothing out."""

import importlib
import inspect
import pkgutil
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from farthing.clients import cli
from farthing.protocol.wire import Effect, Operation
from tests.clients.cli.running import APPLICATION, run

CHAPTER = (Path(__file__).resolve().parents[3] / "spec" / "cli.md").read_text(encoding="utf-8")
# What only serving, or a vendor's own tool, needs; and what makes help slow.
HEAVY = ("mcp", "httpx2", "cryptography", "sqlalchemy", "starlette", "uvicorn")


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


ALL = dict(commands(get_command(APPLICATION)))
PATHS = [pytest.param(path, id=" ".join(path)) for path in ALL]


def test_the_commands_of_the_server_are_among_them() -> None:
    assert {("serve",), ("backup",), ("restore",)} <= ALL.keys()


@pytest.mark.parametrize("path", PATHS)
def test_a_command_has_help_on_itself_and_on_everything_it_takes(path: tuple[str, ...]) -> None:
    command = ALL[path]

    ran = run(*path, "--help")

    first = command.help.splitlines()[0]
    assert ran.code == 0
    assert first.endswith((".", ";")), first
    assert len(first) <= 100
    assert [each.name for each in command.params if not getattr(each, "help", "")] == []


@pytest.mark.parametrize("path", PATHS)
def test_the_example_of_a_command_is_one_that_it_takes(path: tuple[str, ...]) -> None:
    command = ALL[path]
    example = command.epilog.removeprefix("Example: ").partition(" > ")[0]
    words = shlex.split(example)
    assert tuple(words[: len(path) + 1]) == ("farthing", *path)

    options = {each for param in command.params for each in getattr(param, "opts", ())}
    used = {word for word in words[len(path) + 1 :] if word.startswith("--")}

    assert used <= options


def writing() -> Iterator[tuple[str, Any]]:
    """The functions of the command that name an operation which writes."""
    names = {found.name for found in pkgutil.iter_modules(cli.__path__)} - {"__main__"}
    for place in sorted(names):
        module = importlib.import_module(f"{cli.__name__}.{place}")
        for name, work in inspect.getmembers(module, inspect.isfunction):
            named = [getattr(module, each, None) for each in work.__code__.co_names]
            operations = [each for each in named if isinstance(each, Operation)]
            if any(each.effect is not Effect.READS for each in operations):
                yield f"{place}.{name}", work


def test_a_script_can_name_every_write_by_a_key_and_so_repeat_it() -> None:
    unnamed = [
        name
        for name, work in writing()
        if "idempotency_key" not in inspect.signature(work).parameters
    ]

    assert len(dict(writing())) > 25
    assert unnamed == []


def test_help_and_version_load_neither_server_nor_transport() -> None:
    code = (
        "import sys\n"
        "from farthing.clients.cli import main\n"
        "sys.argv = ['farthing', '--help']\n"
        "try:\n    main()\n"
        "except SystemExit:\n"
        f"    print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ran.stderr.strip() == "[]"


def test_without_words_the_help_is_shown() -> None:
    ran = run()

    assert "Usage: farthing" in ran.out + ran.err
    assert ran.code == 2


def test_the_version_is_told() -> None:
    assert re.fullmatch(r"farthing \d+\.\d+\.\d+\n", run("--version").out)


def test_a_command_of_the_server_says_what_to_install_where_the_server_is_not(
    tmp_path: Path,
) -> None:
    code = (
        "import sys\n"
        "sys.modules['sqlalchemy'] = None\n"
        "from farthing.clients.cli import main\n"
        "sys.argv = ['farthing', 'serve']\n"
        "main()\n"
    )

    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )

    assert ran.returncode == 1
    assert ran.stderr == "farthing: sqlalchemy is not installed: pip install 'farthing[server]'\n"


@pytest.mark.parametrize("path", PATHS)
def test_the_chapter_names_every_command(path: tuple[str, ...]) -> None:
    assert f"`farthing {' '.join(path)}" in CHAPTER


def test_the_chapter_names_no_other_command() -> None:
    named = {tuple(words.split()) for words in re.findall(r"`farthing ([a-z][a-z -]*)", CHAPTER)}
    groups = {path[:1] for path in ALL if len(path) > 1}

    unknown = [
        words
        for words in named
        if words[:2] not in ALL and words[:1] not in ALL and words not in groups
    ]

    assert unknown == []
