"""The `farthing` command: the market from a terminal.

Boundary: puts the commands together, with those that other rooms add through the entry-point group
`farthing.commands`. Source: spec/cli.md.
"""

import sys
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points, version
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup

from farthing.clients.cli import (
    audit,
    call,
    keys,
    metering,
    operate,
    reconciling,
    sell,
    spending,
    statements,
    trade,
    treasury,
)
from farthing.clients.cli.render import as_json
from farthing.clients.cli.session import DEFAULT_URL, Exit, Session, misused, paragraphs

__all__ = ["application", "main"]

_GROUP = "farthing.commands"
_EXITS = (
    "Exit codes: 0 done; 1 refused, or not verified; 2 called wrongly; 3 no answer.\n\n"
    "Examples:\n\n"
    "  farthing serve\n\n"
    '  farthing enrol --kind operator --name "Acme Ltd"\n\n'
    '  farthing search "text of PDF pages" --workload page=30 --max-total 0.05\n\n'
    "  farthing verify charge.pack --trust THUMBPRINT"
)


# The root of what is wrong with the words of a command; typer gives it no name.
_Misuse = cast("type[typer.BadParameter]", typer.BadParameter.mro()[2])


class _Application(TyperGroup):
    """The command, which tells a program in its own form what is wrong with its words."""

    def main(self, *args: Any, **given: Any) -> Any:  # noqa: ANN401 - as typer has it
        words = args[0] if args else given.get("args")
        words = sys.argv[1:] if words is None else words
        if "--json" not in takewhile(lambda word: word != "--", words):
            return super().main(*args, **given)
        try:
            sys.exit(super().main(*args, **{**given, "standalone_mode": False}))
        except _Misuse as error:
            typer.echo(as_json(misused(error.format_message(), _named(error))))
            sys.exit(Exit.USAGE)
        except typer.Abort:
            sys.exit(Exit.REFUSED)


def main() -> None:
    """Run the command."""
    # A name in a script that this terminal cannot show must not end the command.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    application(entry_points(group=_GROUP))(prog_name="farthing")


def application(added: Iterable[EntryPoint] = ()) -> typer.Typer:
    """The command with all of its own commands and those added by other rooms."""
    app = typer.Typer(
        name="farthing",
        cls=_Application,
        no_args_is_help=True,
        add_completion=False,
        # A traceback with local variables could print a private key.
        pretty_exceptions_enable=False,
        epilog=_EXITS,
    )
    app.callback(help=paragraphs(_shared.__doc__ or ""))(_shared)
    for room in (
        trade,
        call,
        spending,
        metering,
        reconciling,
        statements,
        operate,
        treasury,
        keys,
        sell,
        audit,
    ):
        app.add_typer(room.commands)
    for entry in added:
        app.add_typer(entry.load(), rich_help_panel="Server")
    return app


def _named(error: typer.BadParameter) -> str:
    """The option or argument that is wrong, where it is one that there is."""
    param = getattr(error, "param", None)
    return (param.name or "") if param is not None else ""


def _version(wanted: bool) -> None:  # noqa: FBT001 - as typer calls it
    if wanted:
        typer.echo(f"farthing {version('farthing')}")
        raise typer.Exit


def _shared(
    ctx: typer.Context,
    *,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="FARTHING_URL",
            help=f"The platform; else the one first met, else {DEFAULT_URL}.",
            show_default=False,
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar="FARTHING_KEY",
            help="Sign with this private key (a JWK) and not with the home's.",
            show_default=False,
        ),
    ] = None,
    home: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            envvar="FARTHING_HOME",
            help="Where the key and profile lie; else ~/.config/farthing.",
            show_default=False,
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the answer as JSON, refusals too.")
    ] = False,
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and end.", is_eager=True, callback=_version
        ),
    ] = False,
) -> None:
    """Find, agree, pay and settle between agents: the Farthing market from a terminal.

    Money is shown as exact text. What vendors wrote is marked, and stripped of what a terminal
    would obey. The options below may stand before or after the command.
    """
    del show_version
    ctx.obj = Session(url=url, key_path=key, home_path=home, as_json=json)
