"""What every command shares: whom it connects to and as whom, and how an error leaves.

Boundary: one command, one session. What an answer looks like is `render`'s affair; the transport
is loaded only when a command calls a platform, so that help is instant.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from enum import IntEnum
from errno import ENOSPC
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, Final, NoReturn, ParamSpec, TypeVar
from urllib.parse import urlsplit

import typer
from rich.console import Console

from farthing.clients.cli.arguments import thumbprint_of
from farthing.clients.cli.render import (
    as_json,
    facts,
    notice,
    page,
    rows,
    screen,
    shown_refusal,
)
from farthing.clients.clock import random_bytes
from farthing.protocol import base64url
from farthing.protocol.base64url import is_sha256
from farthing.protocol.errors import (
    Code,
    FarthingError,
    NextAction,
    Refused,
    Unreachable,
    Unverified,
    refuse,
)
from farthing.protocol.wire import Effect, Operation, Role, document_of

if TYPE_CHECKING:
    from farthing.clients.home import Home, Profile
    from farthing.clients.pins import Pinning
    from farthing.clients.transport import Connection
    from farthing.protocol.keys import PrivateKey
    from farthing.protocol.platform_keys import PlatformKeys

__all__ = [
    "DEFAULT_URL",
    "Exit",
    "HomeOption",
    "IdempotencyOption",
    "JsonOption",
    "KeyOption",
    "Session",
    "TrustOption",
    "UrlOption",
    "command",
    "misused",
    "paragraphs",
]

DEFAULT_URL: Final = "http://127.0.0.1:8321"
_KEY_BYTES: Final = 16
_PANEL: Final = "Connection and output"

P = ParamSpec("P")
T = TypeVar("T")
Ask = TypeVar("Ask")
Answer = TypeVar("Answer")
Believer = TypeVar("Believer", bound="Pinning")

UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help=f"The platform; FARTHING_URL, else the one first met, else {DEFAULT_URL}.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
KeyOption = Annotated[
    Path | None,
    typer.Option(
        "--key",
        metavar="FILE",
        help="Sign with this private key (a JWK) and not with the home's; FARTHING_KEY.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home",
        metavar="DIR",
        help="Where the key and profile lie; FARTHING_HOME, else ~/.config/farthing.",
        show_default=False,
        rich_help_panel=_PANEL,
    ),
]
JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Print the answer as JSON, refusals too.", rich_help_panel=_PANEL),
]
IdempotencyOption = Annotated[
    str,
    typer.Option(
        "--idempotency-key",
        metavar="KEY",
        help="Names the call, in 16 to 128 letters, digits, - or _: run again under the same key, "
        "nothing is done twice.",
        show_default=False,
    ),
]
TrustOption = Annotated[
    str,
    typer.Option(
        metavar="THUMBPRINT",
        parser=thumbprint_of,
        help="The journal's key as you learnt it elsewhere; without it keys are pinned as found.",
        show_default=False,
    ),
]
_SHARED: Final[dict[str, tuple[object, object]]] = {
    "url": (UrlOption, None),
    "key": (KeyOption, None),
    "home": (HomeOption, None),
    "json": (JsonOption, False),
}
_OFFLINE: Final = ("home", "key", "json")


class Exit(IntEnum):
    """How the command ends (spec/cli.md)."""

    OK = 0
    REFUSED = 1
    """The platform said no, or something does not verify."""
    USAGE = 2
    UNREACHABLE = 3
    """No answer: whether the call happened is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One run of one command.

    Args:
        url, key_path, home_path: As given, on the command line or in the environment; None where
            they are not.
        as_json: Whether a program reads the output.
    """

    url: str | None = None
    key_path: Path | None = None
    home_path: Path | None = None
    as_json: bool = False

    @property
    def home(self) -> "Home":
        """The directory of the principal that the command acts as."""
        from farthing.clients.home import Home, default_home  # noqa: PLC0415 - loads the transport

        return default_home() if self.home_path is None else Home(self.home_path)

    def profile(self) -> "Profile | None":
        """The home's profile, where the home's own key is the one that signs."""
        return None if self.key_path is not None else self.home.profile()

    def platform_url(self) -> str:
        """The platform's URL: given, else the one that the home belongs to, else the default."""
        profile = self.home.profile() if self.url is None else None
        url = self.url or (profile.url if profile else DEFAULT_URL)
        return self.checked_url(url)

    def checked_url(self, url: str) -> str:
        """A URL as given, where it is one."""
        from httpx2 import URL, InvalidURL  # noqa: PLC0415 - loads the transport

        try:
            URL(url)
            parts = urlsplit(url)
            fits = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        except (ValueError, InvalidURL):
            fits = False
        if not fits:
            self.misuse(f"{url} is not the URL of a platform: http://HOST:PORT or https://HOST.")
        return url

    def key(self) -> "PrivateKey | None":
        """The key that signs, None where there is none yet."""
        from farthing.clients.keys import load_key  # noqa: PLC0415 - loads cryptography

        path = self.key_path or self.home.key_path
        try:
            return load_key(path)
        except FileNotFoundError:
            if self.key_path is not None:
                self.misuse(f"There is no key file {path}.")
            return None

    def pinned_keys(self) -> "PlatformKeys | None":
        """The platform's keys as pinned in the home's profile, by purpose; None without one.

        Whoever signs: the keys are the platform's that the home belongs to.
        """
        from farthing.clients.transport import platform_url  # noqa: PLC0415 - as `home`

        profile = self.home.profile()
        if profile is None or platform_url(self.platform_url()) != profile.url:
            return None
        return profile.pinned()

    def new_key(self) -> str:
        """A fresh idempotency key, which no shell and no parser takes for an option."""
        return f"cli-{base64url.encode(random_bytes(_KEY_BYTES))}"

    def call(self, operation: Operation[Ask, Answer], ask: Ask) -> Answer:
        """Carry out one operation of the platform.

        Raises:
            Refused, Unverified: As `Connection.call`.
            Unreachable: No answer; for a write the text says how to find out what became of it.
        """
        with self.naming(operation, getattr(ask, "idempotency_key", "")):
            reply = self.run(
                lambda connection: connection.send(operation, ask), signed=not operation.public
            )
        if reply.replayed:
            self.note("It was done before, under this key: nothing was done again.")
        return reply.answer

    @contextmanager
    def naming(self, operation: Operation[Any, Any], key: str) -> Iterator[None]:
        """Where a write under a key is not done now, say by which key it goes on, or was done."""
        if operation.effect is Effect.READS or not key:
            yield
            return
        try:
            yield
        except Refused as error:
            # Under another key a top-up would be another, and a payout that was sent is not asked
            # for again.
            if error.refusal.next_action is NextAction.RETRY:
                self.note(f"To run it again: the same command with --idempotency-key {key}")
            raise
        except Unreachable as error:
            raise Unreachable(
                f"{error}. Whether it happened is not known: repeat the command with "
                f"--idempotency-key {key}, or ask: farthing outcome {operation.name} {key}"
            ) from error

    def run(self, work: "Callable[[Connection], Awaitable[T]]", *, signed: bool = True) -> T:
        """Do something over a connection to the platform, and close it.

        Args:
            work: What to do.
            signed: Whether it needs a key; without the need a key that is there is used.
        """
        from farthing.clients.transport import Connection, platform_url  # noqa: PLC0415 - as `home`

        profile, signer = self.profile(), self.key()
        if signer is None and signed:
            self.misuse(
                f"This needs a key, and {self.home.key_path} is not there. Enrol first (farthing "
                "enrol --help), or name a key file with --key."
            )
        url = self.platform_url()
        if profile is not None and platform_url(url) != profile.url:
            self.misuse(
                f"{self.home.path} belongs to {profile.url}, not to {url}: name another directory "
                "with --home."
            )

        async def work_once() -> T:
            async with Connection(
                url, signer=signer, principal=profile.principal_id if profile else ""
            ) as connection:
                try:
                    return await work(connection)
                except Refused as refused:
                    if profile is not None and refused.code is Code.UNKNOWN_KEY:
                        with suppress(Unreachable):
                            await self.home.recognise(profile, connection)
                    raise

        return asyncio.run(work_once())

    def prove(self, role: "type[Believer]", work: "Callable[[Believer], Awaitable[T]]") -> T:
        """Do something whose answer is held against the pinned keys; says so where none are.

        Raises:
            Unverified: It does not hold.
        """
        pinned = self.pinned_keys()
        answer = self.run(lambda connection: work(role(connection, platform_keys=pinned)))
        if pinned is None:
            self.note(
                "No key of this platform is pinned here: verified with those it publishes itself. "
                "farthing keys pin --trust THUMBPRINT pins them."
            )
        return answer

    def show(self, answer: T, view: Callable[[Console, T], None] = facts) -> None:
        """Print an answer: as JSON, or as `view` shows it to a person."""
        if self.as_json:
            self.print_json(document_of(answer))
        else:
            view(screen(), answer)

    def show_page(self, answer: T, view: Callable[[Console, T], None] = page) -> None:
        """Print a page, and how the next one is had."""
        self.show(answer, view)
        if cursor := getattr(answer, "cursor", ""):
            self.note(f"There are more: the same command with --cursor {cursor}")

    def show_facts(self, document: Mapping[str, str]) -> None:
        """Print an answer that was made here."""
        if self.as_json:
            self.print_json(dict(document))
        else:
            # A thumbprint is told as it is.
            rows(
                screen(),
                (
                    (label if is_sha256(label) else label.replace("_", " "), text)
                    for label, text in document.items()
                    if text
                ),
            )

    def print_json(self, document: object) -> None:
        """Print a document for a program."""
        typer.echo(as_json(document))

    def note(self, text: str) -> None:
        """Say something to a person that is not the answer."""
        notice(screen(to_stderr=True), text)

    def misuse(self, text: str) -> NoReturn:
        """End the command: it cannot be carried out as it was called."""
        self._end(Exit.USAGE, misused(text), text)

    def unwritten(self, error: OSError) -> NoReturn:
        """End the command: its answer has no room, so that nobody knows what became of it."""
        notice(screen(to_stderr=True), f"No room for the answer: {error.strerror}.", style="red")
        raise typer.Exit(Exit.UNREACHABLE)

    def failed(self, error: FarthingError) -> NoReturn:
        """End the command with what went wrong, in the shape of spec/errors.md where it has one."""
        match error:
            case Refused():
                shape = error.refusal.document()
                if error.request_id:
                    shape["request_id"] = error.request_id
                self._end(Exit.REFUSED, shape, shown_refusal(error, agent=self._agent()))
            case Unreachable():
                way_on = "see that it runs, and that --url names the one meant"
                text = f"No answer: {error}.\n  next: {way_on}"
                shape = {"code": "unreachable", "message": str(error), "retryable": True}
                self._end(Exit.UNREACHABLE, shape, text)
            case Unverified():
                shape = {"code": "unverified", "message": str(error), "retryable": False}
                self._end(Exit.REFUSED, shape, f"Does not verify: {error}.")
            case _:
                raise error

    def _agent(self) -> str:
        """The id of the agent that calls, for a command that its operator can copy."""
        profile = self.profile()
        return profile.principal_id if profile and profile.role == Role.BUYER else "agt_…"

    def _end(self, code: Exit, shape: dict[str, object], text: str) -> NoReturn:
        if self.as_json:
            self.print_json(shape)
        else:
            notice(screen(to_stderr=True), text, style="red")
        raise typer.Exit(code)


def misused(text: str, path: str = "") -> dict[str, object]:
    """What is wrong with the words of a command, for a program."""
    return refuse(Code.INVALID_ARGUMENT, path=path, message=text).document()


def command(
    app: typer.Typer,
    name: str,
    *,
    example: str,
    panel: str = "",
    offline: bool = False,
    dashes: bool = False,
) -> Callable[[Callable[Concatenate[Session, P], None]], Callable[Concatenate[Session, P], None]]:
    """Add a function to the application as a command, with the options that all commands share.

    Args:
        app: The application, or the group of commands.
        name: The command's name.
        example: One line that works, shown at the end of its help.
        panel: The heading under which help lists it.
        offline: Whether it never calls a platform, and so takes no URL.
        dashes: Whether an argument may begin with a dash, as a thumbprint can.
    """
    shared = {each: _SHARED[each] for each in (_OFFLINE if offline else _SHARED)}

    def register(
        work: Callable[Concatenate[Session, P], None],
    ) -> Callable[Concatenate[Session, P], None]:
        run: Callable[..., None] = work

        def invoke(ctx: typer.Context, **given: Any) -> None:  # noqa: ANN401 - typer has checked them
            session = _merged(ctx.obj, {each: given.pop(each) for each in shared})
            try:
                run(session, **given)
            except FarthingError as error:
                session.failed(error)
            except (OSError, ValueError) as error:
                if isinstance(error, OSError) and error.errno == ENOSPC and not error.filename:
                    session.unwritten(error)
                session.misuse(_local(error))

        _sign(invoke, work, shared)
        app.command(
            name,
            epilog=f"Example: {example}",
            rich_help_panel=panel or None,
            context_settings={"ignore_unknown_options": dashes},
        )(invoke)
        return work

    return register


def _local(error: OSError | ValueError) -> str:
    """What is wrong on this machine: a file that cannot be used. All else is a defect."""
    from farthing.clients.keys import UnusableKey  # noqa: PLC0415 - loads cryptography

    match error:
        case UnusableKey():
            return f"{error}."
        case OSError(filename=str() | Path() as name):
            return f"{name}: {error.strerror}."
        case _:
            raise error


def paragraphs(text: str) -> str:
    """A text with one line a paragraph: help fits them to the screen, and keeps every line end."""
    return "\n\n".join(" ".join(each.split()) for each in inspect.cleandoc(text).split("\n\n"))


def _sign(
    invoke: Callable[..., None],
    work: Callable[..., None],
    shared: dict[str, tuple[object, object]],
) -> None:
    """Give `invoke` the signature of `work`, with the shared options in the session's place."""
    own = list(inspect.signature(work).parameters.values())[1:]
    by_name = inspect.Parameter.KEYWORD_ONLY
    options = [
        inspect.Parameter(each, by_name, default=default, annotation=annotation)
        for each, (annotation, default) in shared.items()
    ]
    parameters = [
        inspect.Parameter("ctx", by_name, annotation=typer.Context),
        *(each.replace(kind=by_name) for each in own),
        *options,
    ]
    vars(invoke)["__signature__"] = inspect.Signature(parameters)
    invoke.__annotations__ = {each.name: each.annotation for each in parameters}
    invoke.__doc__ = paragraphs(work.__doc__ or "")
    invoke.__name__ = work.__name__


def _merged(before: object, given: dict[str, Any]) -> Session:
    """The session of the words before the command, changed by those after it."""
    session = before if isinstance(before, Session) else Session()
    return replace(
        session,
        url=given.get("url") or session.url,
        key_path=given.get("key") or session.key_path,
        home_path=given.get("home") or session.home_path,
        as_json=given.get("json", False) or session.as_json,
    )
