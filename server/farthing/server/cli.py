"""The server's own commands, added to `farthing`: serve, backup, restore.

Boundary: each loads what it runs when it runs; the help of `farthing` loads no server.
"""

from pathlib import Path
from typing import Annotated, Never

import typer

from farthing.protocol.errors import FarthingError
from farthing.server.settings import InvalidSetting, Settings, load_settings

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
    ready_file: Annotated[
        Path | None, typer.Option(help="Write the address here as JSON once calls are taken.")
    ] = None,
) -> None:
    """Serve the market; needs no configuration."""
    from farthing.server.serve import serve as run  # noqa: PLC0415  # loads the whole server

    settings = _settings(
        data_dir=data_dir, host=host, port=port, public_url=public_url, enrolment=enrolment
    )
    try:
        run(settings, ready_file=ready_file)
    except (FarthingError, OSError) as error:
        _stop(error)


@commands.command(rich_help_panel=PANEL, epilog="Example: farthing backup market.backup")
def backup(
    target: Annotated[Path, typer.Argument(help="The file to write; it must not exist.")],
    data_dir: DataDir = None,
) -> None:
    """Copy the database to a file, also while the server runs."""
    from farthing.settlement.journal import backup as backups  # noqa: PLC0415  # as above

    settings = _settings(data_dir=data_dir)
    try:
        backups.backup(settings.database_path, target)
    except (FarthingError, OSError) as error:
        _stop(error)
    typer.echo(f"Backed up to {target}. Keep the keys folder {settings.keys_dir} as well.")


@commands.command(rich_help_panel=PANEL, epilog="Example: farthing restore market.backup")
def restore(
    source: Annotated[Path, typer.Argument(help="A file that `farthing backup` wrote.")],
    data_dir: DataDir = None,
) -> None:
    """Put a backup in place of a stopped server's database, and say what was lost."""
    from farthing.settlement.journal import backup as backups  # noqa: PLC0415  # as above

    settings = _settings(data_dir=data_dir)
    try:
        restored = backups.restore(source, settings.database_path)
    except (FarthingError, OSError) as error:
        _stop(error)
    typer.echo(str(restored))


def _settings(**given: object) -> Settings:
    try:
        return load_settings(given)
    except (InvalidSetting, OSError) as error:
        _stop(error)


def _stop(error: Exception) -> Never:
    typer.echo(f"farthing: {error}", err=True)
    raise typer.Exit(1)
