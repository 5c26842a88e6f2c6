"""The server's own commands, added to `farthing`: serve, backup, restore, retire-key, audit.

Boundary: each loads what it runs when it runs; the help of `farthing` loads no server.
Source: spec/cli.md.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from json import dumps
from pathlib import Path
from typing import Annotated, Never

import typer

from farthing.protocol.base64url import is_sha256
from farthing.protocol.errors import FarthingError
from farthing.server.settings import InvalidSetting, Settings, load_settings, passed_over

__all__ = ["commands"]

PANEL = "Server"

commands = typer.Typer(no_args_is_help=True)
audit = typer.Typer(no_args_is_help=True, help="Verify a journal, and take its books out.")
commands.add_typer(audit, name="audit", rich_help_panel=PANEL)


def _new_file(path: Path) -> Path:
    if path.exists():
        raise typer.BadParameter(f"{path} is there already; name a new file")
    return path


def _journal_file(path: Path | None) -> Path | None:
    if path is not None and path.is_dir():
        raise typer.BadParameter(f"{path} is a folder; a server's folder is named by --data-dir")
    return path


def _thumbprints(texts: list[str] | None) -> list[str]:
    for text in texts or ():
        if not is_sha256(text):
            raise typer.BadParameter(f"{text} is not the thumbprint of a key")
    return texts or []


DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", metavar="DIR", help="Where the database and the keys lie; else farthing-data."
    ),
]
KeysOption = Annotated[
    Path | None,
    typer.Option(
        metavar="JWKS", help="The platform's key set as it publishes it; else the keys folder's."
    ),
]


@commands.command(rich_help_panel=PANEL, epilog="Example: farthing serve")
def serve(  # noqa: PLR0917  # options, each given by name
    data_dir: DataDir = None,
    host: Annotated[
        str | None, typer.Option(metavar="HOST", help="The address to listen on; else 127.0.0.1.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(metavar="PORT", help="The port, else 8321; 0 takes a free one.")
    ] = None,
    public_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The https URL by which callers reach the server."),
    ] = None,
    enrolment: Annotated[
        str | None,
        typer.Option(
            metavar="HOW",
            help="'approved' (by the admin, else so) or 'open'; fixed at the first start.",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Front ends, each a process; one unless told.")
    ] = None,
    ready_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the address here as JSON once calls are taken."),
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
        for name in passed_over():
            typer.echo(f"farthing: {name} is no setting and is passed over", err=True)
        run(settings, ready_file=ready_file)


@commands.command(rich_help_panel=PANEL, epilog="Example: farthing backup market.backup")
def backup(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="TARGET",
            help="The file to write; it must not exist.",
            callback=_new_file,
            show_default=False,
        ),
    ],
    data_dir: DataDir = None,
) -> None:
    """Copy the database to a file, also while the server runs."""
    with _stopping():
        from farthing.settlement.audit.log import check_log  # noqa: PLC0415  # as above
        from farthing.settlement.audit.media import readable  # noqa: PLC0415  # as above
        from farthing.settlement.journal import backup as backups  # noqa: PLC0415  # as above

        settings = load_settings({"data_dir": data_dir})
        database = _own_database(settings)
        # A copy holds what SQLite reads, and would pass for all that there was.
        check_log(database)
        with readable(database) as read:
            made = backups.backup(read, target)
        typer.echo(f"Backed up {made.last_seq} records to {made.path}.")
        typer.echo(f"Keep the keys folder {settings.keys_dir} as well: a restore needs it.")


@commands.command(rich_help_panel=PANEL, epilog="Example: farthing restore market.backup")
def restore(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="A file that `farthing backup` wrote.",
            exists=True,
            show_default=False,
        ),
    ],
    data_dir: DataDir = None,
) -> None:
    """Put a backup in place of a stopped server's database, and say what was lost."""
    with _stopping():
        from farthing.server.custody import restored  # noqa: PLC0415  # as above

        settings = load_settings({"data_dir": data_dir})
        for line in restored(settings, source):
            typer.echo(line)


@commands.command(
    "retire-key", rich_help_panel=PANEL, epilog="Example: farthing retire-key platform"
)
def retire_key(
    purpose: Annotated[
        str,
        typer.Argument(
            metavar="PURPOSE",
            help="platform (quotes, entitlements) or journal (tree heads).",
            show_default=False,
        ),
    ],
    data_dir: DataDir = None,
) -> None:
    """Put a new key in the place of one that a stopped server signs with.

    The old one's last signature names the new one, so that who pinned it goes on.
    """
    with _stopping():
        from farthing.server.custody import key_retired  # noqa: PLC0415  # as above

        for line in key_retired(load_settings({"data_dir": data_dir}), purpose):
            typer.echo(line)


@audit.command("verify", epilog="Example: farthing audit verify market.backup")
def verify(
    ctx: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATABASE|BACKUP|BUNDLE",
            help="What holds the journal; else the data directory's database.",
            exists=True,
            callback=_journal_file,
            show_default=False,
        ),
    ] = None,
    keys: KeysOption = None,
    trust: Annotated[
        list[str] | None,
        typer.Option(
            metavar="THUMBPRINT",
            help="For a bundle: the journal's key as you learnt it elsewhere, with --keys those"
            " that it leads to as well; repeat for more.",
            callback=_thumbprints,
        ),
    ] = None,
    data_dir: DataDir = None,
    *,
    json: Annotated[
        bool, typer.Option("--json", help="Print verified and the findings as JSON.")
    ] = False,
) -> None:
    """Verify a whole journal: chain, tree, signed heads, ledger, every rule, every table.

    Exit 0: everything holds. Exit 1: something does not; the first bad record is named.
    """
    with _stopping():
        from farthing.server.auditing import audited  # noqa: PLC0415  # as above

        settings = load_settings({"data_dir": data_dir})
        holds, lines = audited(settings, file or _own_database(settings), keys, trust or ())
        if json or getattr(ctx.obj, "as_json", False):
            typer.echo(dumps({"verified": holds, "findings": lines}, indent=2))
        else:
            for line in lines:
                typer.echo(line)
    if not holds:
        raise typer.Exit(1)


@audit.command(
    "export", epilog="Example: farthing audit export --format hledger --out books.journal"
)
def export(
    database: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATABASE|BACKUP",
            help="What holds the journal; else the data directory's database.",
            exists=True,
            callback=_journal_file,
            show_default=False,
        ),
    ] = None,
    *,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="The file to write; it must not exist.", callback=_new_file
        ),
    ],
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="jsonl (unless told), csv, parquet, hledger or beancount.",
        ),
    ] = None,
    bundle: Annotated[
        bool,
        typer.Option("--bundle", help="A bundle instead: all that an auditor needs, in one file."),
    ] = False,
    keys: KeysOption = None,
    data_dir: DataDir = None,
) -> None:
    """Take the books out for another program, or for an auditor; the database is only read."""
    with _stopping():
        from farthing.server.auditing import BUNDLE, exported  # noqa: PLC0415  # as above
        from farthing.settlement.audit.exports import Form  # noqa: PLC0415  # as above

        if bundle and form is not None:
            raise typer.BadParameter("a bundle has no format", param_hint="--format")
        form = form or Form.JSONL
        if form not in set(Form):
            raise typer.BadParameter(f"one of {', '.join(Form)}", param_hint="--format")
        settings = load_settings({"data_dir": data_dir})
        written = exported(
            settings, database or _own_database(settings), BUNDLE if bundle else form, out, keys
        )
        for line in written:
            typer.echo(line)


@audit.command("verifier", epilog="Example: farthing audit verifier > farthing_verify.py")
def verifier() -> None:
    """Print the one-file verifier: it needs Python and cryptography, and nothing of Farthing."""
    with _stopping():
        from farthing.server.auditing import verifier as source  # noqa: PLC0415  # as above

        typer.echo(source(), nl=False)


def _own_database(settings: Settings) -> Path:
    """The data directory's database, for a command that reads it."""
    if not settings.database_path.exists():
        raise typer.BadParameter(
            f"there is no database at {settings.database_path}; name its folder",
            param_hint="--data-dir",
        )
    return settings.database_path


@contextmanager
def _stopping() -> Iterator[None]:
    """End the command with one line where something that can go wrong did."""
    try:
        yield
    except BrokenPipeError:
        # Whoever read the output has seen enough; typer ends the command in silence.
        raise
    except ModuleNotFoundError as error:
        # These commands are there in the base install, and what they run is an extra of it.
        if not error.name or error.name.startswith("farthing"):
            raise
        _stop(f"{error.name} is not installed: pip install 'farthing[server]'")
    except OSError as error:
        _stop(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except (FarthingError, InvalidSetting) as error:
        _stop(str(error))


def _stop(says: str) -> Never:
    # By its word: of a server's engine, a process of its own, there is the text alone.
    if says.startswith("database_in_use: "):
        says += "; stop the server that has it, or name another folder with --data-dir"
    typer.echo(f"farthing: {says}", err=True)
    raise typer.Exit(1)
