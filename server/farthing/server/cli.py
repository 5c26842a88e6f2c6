"""The server's own commands, added to `farthing`: serve, backup, restore, audit.

Boundary: each loads what it runs when it runs; the help of `farthing` loads no server.
Source: spec/cli.md.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Never

import typer

from farthing.protocol.errors import FarthingError
from farthing.server.settings import InvalidSetting, load_settings

__all__ = ["commands"]

PANEL = "Server"

commands = typer.Typer(no_args_is_help=True)

DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Where the database and the keys lie.")
]


@commands.command(rich_help_panel=PANEL, epilog="Example: farthing serve")
def serve(  # noqa: PLR0917  # options, each given by name
    data_dir: DataDir = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="The port; 0 takes a free one.")] = None,
    public_url: Annotated[
        str | None, typer.Option(help="The https URL by which callers reach the server.")
    ] = None,
    enrolment: Annotated[
        str | None, typer.Option(help="'approved' or 'open'; fixed at the first start.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Front ends, each a process; one unless told.")
    ] = None,
    ready_file: Annotated[
        Path | None, typer.Option(help="Write the address here as JSON once calls are taken.")
    ] = None,
) -> None:
    """Serve the market; needs no configuration."""
    with _stopping():
        from farthing.server.serve import serve as run  # noqa: PLC0415  # loads the whole server

        settings = load_settings({
            "data_dir": data_dir,
            "host": host,
            "port": port,
            "public_url": public_url,
            "enrolment": enrolment,
            "workers": workers,
        })  # fmt: skip
        run(settings, ready_file=ready_file)


@commands.command(rich_help_panel=PANEL, epilog="Example: farthing backup market.backup")
def backup(
    target: Annotated[Path, typer.Argument(help="The file to write; it must not exist.")],
    data_dir: DataDir = None,
) -> None:
    """Copy the database to a file, also while the server runs."""
    with _stopping():
        from farthing.settlement.journal import backup as backups  # noqa: PLC0415  # as above

        settings = load_settings({"data_dir": data_dir})
        made = backups.backup(settings.database_path, target)
        typer.echo(f"Backed up {made.last_seq} records to {made.path}.")
        typer.echo(f"Keep the keys folder {settings.keys_dir} as well: a restore needs it.")


@commands.command(rich_help_panel=PANEL, epilog="Example: farthing restore market.backup")
def restore(
    source: Annotated[Path, typer.Argument(help="A file that `farthing backup` wrote.")],
    data_dir: DataDir = None,
) -> None:
    """Put a backup in place of a stopped server's database, and say what was lost."""
    with _stopping():
        from farthing.server.custody import restored  # noqa: PLC0415  # as above

        settings = load_settings({"data_dir": data_dir})
        for line in restored(settings, source):
            typer.echo(line)


@commands.command(rich_help_panel=PANEL, epilog="Example: farthing audit market.backup")
def audit(
    database: Annotated[
        Path | None,
        typer.Argument(help="A database or backup; else the data directory's.", exists=True),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(help="The platform's key set as it publishes it; else the keys folder's."),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Verify a whole journal from its database: chain, tree, signed heads, ledger.

    Exit 0: everything holds. Exit 1: something does not; the first bad record is named.
    """
    with _stopping():
        from farthing.server.custody import audited  # noqa: PLC0415  # as above

        settings = load_settings({"data_dir": data_dir})
        holds, lines = audited(settings, database or settings.database_path, keys)
        for line in lines:
            typer.echo(line)
    if not holds:
        raise typer.Exit(1)


@contextmanager
def _stopping() -> Iterator[None]:
    """End the command with one line where something that can go wrong did."""
    try:
        yield
    except (FarthingError, InvalidSetting, OSError) as error:
        _stop(error)


def _stop(error: Exception) -> Never:
    typer.echo(f"farthing: {error}", err=True)
    raise typer.Exit(1)
