"""Keys: made here, registered, shown, replaced, revoked. A private key never leaves its file.

Boundary: the file of one key and what the platform is told about it.
"""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from farthing.clients.cli.operate import PANEL
from farthing.clients.cli.render import table
from farthing.clients.cli.session import IdempotencyOption, Session, TrustOption, command
from farthing.protocol.errors import Code, FarthingError, Refused, Unreachable
from farthing.protocol.messages.agents import (
    LIST_KEYS,
    REVOKE_KEY,
    Keys,
    KeyState,
    ListKeys,
    RevokeKey,
)

if TYPE_CHECKING:
    from farthing.clients.home import Profile
    from farthing.clients.transport import Connection
    from farthing.protocol.keys import PrivateKey
    from farthing.protocol.platform_keys import PlatformKeys

__all__ = ["commands"]

commands = typer.Typer()
keys = typer.Typer(no_args_is_help=True, help="Make, register, show, replace and revoke keys.")
commands.add_typer(keys, name="keys", rich_help_panel=PANEL)


@command(keys, "new", example="farthing keys new agent.jwk", offline=True)
def new(
    session: Session,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="Where; else the home's key.", show_default=False),
    ] = None,
) -> None:
    """Make an Ed25519 key in a new file that its owner alone can read; replaces none."""
    from farthing.clients.keys import new_key, save_key  # noqa: PLC0415 - loads cryptography

    path = file or session.key_path or session.home.key_path
    key = new_key()
    try:
        save_key(path, key)
    except FileExistsError:
        session.misuse(f"{path} is there already, and no key is ever replaced.")
    session.show_facts({"thumbprint": key.thumbprint, "key_file": str(path)})


@command(keys, "show", example="farthing keys show", offline=True)
def show(session: Session) -> None:
    """Show the public half of the key and whose it is; nothing secret is printed."""
    key = _key(session)
    profile = session.profile()
    shown = {
        "thumbprint": key.thumbprint,
        **key.public.jwk(),
        "key_file": str(session.key_path or session.home.key_path),
    }
    if profile is not None:
        shown |= {
            "principal_id": profile.principal_id,
            "organisation_id": profile.organisation_id,
            "role": profile.role,
            "url": profile.url,
        }
    session.show_facts(shown)


@command(keys, "list", example="farthing keys list")
def list_(
    session: Session,
    *,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many at most.")] = 50,
) -> None:
    """List the principal's keys at the platform, those in force first, with what each is for."""
    session.show(session.call(LIST_KEYS, ListKeys(limit=limit)), _listed)


@command(keys, "add-metering", example="farthing keys add-metering machine-1.jwk")
def add_metering(
    session: Session,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The key's file.", show_default=False)
    ],
) -> None:
    """Register a metering key (vendor): it reports, captures and releases, and does no more.

    The key is made where the file is not there. In the home of the machine that sells it is
    metering.jwk, beside profile.json and listings; the main key stays here. Run again after a lost
    reply.
    """
    from farthing.clients.keys import keep_key  # noqa: PLC0415 - loads cryptography
    from farthing.clients.vendors import Vendor  # noqa: PLC0415 - loads the transport

    new = keep_key(file)
    session.show(session.run(lambda connection: Vendor(connection).add_metering_key(new)))


@command(keys, "platform", example="farthing keys platform")
def platform(session: Session) -> None:
    """List the keys that the platform publishes: what for, and whether they are believed here.

    Pinned in the home, named by one that is, or neither.
    """
    pinned = session.pinned_keys()
    session.show_facts(session.run(lambda connection: _published(connection, pinned), signed=False))


@command(keys, "pin", example="farthing keys pin --trust THUMBPRINT")
def pin(session: Session, *, trust: TrustOption = "") -> None:
    """Pin the platform's keys in the home, and note whose key lies there; enrol does so too.

    For who is registered already, as the staff: a directory with their key as key.jwk becomes the
    home in which what the platform proves is verified.
    """
    profile = asyncio.run(_pinned(session, trust))
    pinned = profile.pinned()
    session.show_facts({
        "url": profile.url,
        **_standing(pinned, pinned, pinned),
        "principal_id": profile.principal_id,
        "role": profile.role,
    })  # fmt: skip


async def _pinned(session: Session, trust: str) -> "Profile":
    """The home's profile, of whom the platform knows its key as."""
    from farthing.clients.operators import Member  # noqa: PLC0415 - loads the transport
    from farthing.clients.transport import Connection  # noqa: PLC0415 - as above

    home = session.home
    profile = await home.meet(session.platform_url(), trust)
    signer = session.key()
    async with Connection(profile.url, signer=signer) as connection:
        await home.recognise(profile, connection)
        if signer is None or session.key_path is not None:
            return profile
        try:
            profile = profile.of(await Member(connection).registration())
        except Refused as refused:
            if refused.code is not Code.UNKNOWN_KEY:
                raise
    home.save_profile(profile)
    return profile


async def _published(connection: "Connection", pinned: "PlatformKeys | None") -> dict[str, str]:
    """What the platform publishes, and how each key stands to those that are pinned."""
    from farthing.protocol.platform_keys import PlatformKeys  # noqa: PLC0415 - loads cryptography
    from farthing.protocol.succession import followed, successions_in  # noqa: PLC0415 - as above

    key_set, pinned = await connection.key_set(), pinned or PlatformKeys()
    believed = followed(pinned, successions_in(key_set))
    return _standing(PlatformKeys.read(key_set["keys"]), pinned, believed)


def _standing(
    keys: "PlatformKeys", pinned: "PlatformKeys", believed: "PlatformKeys"
) -> dict[str, str]:
    """By thumbprint what a key is for, and why it is believed for that, if it is."""
    told = {}
    for purpose, published, first, led_to in (
        ("platform", keys.platform, pinned.platform, believed.platform),
        ("journal", keys.journal, pinned.journal, believed.journal),
    ):
        for each in sorted(published):
            why = "named by one that is pinned" if each in led_to else "not pinned"
            told[each] = f"{purpose}, {'pinned' if each in first else why}"
    return told


@command(keys, "rotate", example="farthing keys rotate")
def rotate(session: Session) -> None:
    """Replace the key by a new one, in the same file; the old one signs nothing more.

    Run again after a lost reply, it finds out which of the two keys the platform knows.
    """
    old = _key(session)
    path = session.key_path or session.home.key_path
    waiting = path.with_name(f"{path.name}.next")
    state = asyncio.run(_rotated(session, old, waiting))
    waiting.replace(path)
    session.show(state)


@command(keys, "revoke", example="farthing keys revoke agt_… THUMBPRINT", dashes=True)
def revoke(
    session: Session,
    principal: Annotated[
        str, typer.Argument(metavar="ID", help="Whose key it is.", show_default=False)
    ],
    thumbprint: Annotated[
        str, typer.Argument(metavar="THUMBPRINT", help="Which key.", show_default=False)
    ],
    *,
    idempotency_key: IdempotencyOption = "",
) -> None:
    """Revoke a key at once (its holder, the agent's operator, the admin); there is no way back."""
    ask = RevokeKey(
        principal_id=principal,
        key_thumbprint=thumbprint,
        idempotency_key=idempotency_key or session.new_key(),
    )
    session.show(session.call(REVOKE_KEY, ask))


def _listed(console: Console, answer: Keys) -> None:
    table(
        console,
        ("key", "for", "status", "since", "until"),
        (
            (each.key_thumbprint, each.purpose or "everything", each.status, each.since, each.until)
            for each in answer.keys
        ),
    )


def _key(session: Session) -> "PrivateKey":
    key = session.key()
    if key is None:
        session.misuse(f"There is no key {session.home.key_path}: farthing keys new makes one.")
    return key


async def _rotated(session: Session, old: "PrivateKey", waiting: Path) -> KeyState:
    """Tell the platform of the key in `waiting`, made on the first attempt."""
    from farthing.clients.keys import keep_key  # noqa: PLC0415 - loads cryptography
    from farthing.clients.operators import Member  # noqa: PLC0415 - loads the transport
    from farthing.clients.transport import Connection  # noqa: PLC0415 - as above

    replacement = keep_key(waiting)
    url = session.platform_url()
    key = f"rotate-{replacement.thumbprint}"
    async with Connection(url, signer=old) as connection:
        try:
            me = await Member(connection).registration()
            async with Connection(url, signer=old, principal=me.principal_id) as mine:
                return await Member(mine).rotate_key(replacement, key=key)
        except (Refused, Unreachable) as error:
            failed: FarthingError = error
            if isinstance(error, Refused) and error.code is not Code.KEY_REVOKED:
                raise
    # The old key may have been replaced by an attempt whose answer was lost.
    async with Connection(url, signer=replacement) as connection:
        try:
            me = await Member(connection).registration()
        except (Refused, Unreachable):
            raise failed from None
        return KeyState(
            principal_id=me.principal_id, key_thumbprint=replacement.thumbprint, status="active"
        )
