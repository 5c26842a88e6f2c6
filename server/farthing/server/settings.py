"""Configuration: one frozen object, built once from the environment and an optional file.

Boundary: reads, checks, explains. Every setting is in spec/configuration.md.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

__all__ = ["InvalidSetting", "Settings", "load_settings"]

_PREFIX: Final = "FARTHING_"
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class InvalidSetting(ValueError):
    """A setting that the server cannot start with; the text says which and what would do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How this server runs. The environment wins over the file, the file over the defaults.

    Args:
        data_dir: where the database and the platform's keys lie.
        database_url: `sqlite:///PATH`; empty means `journal.sqlite` in `data_dir`.
        host: the address to listen on.
        port: the port to listen on; 0 takes a free one.
        public_url: how callers reach the server: what proofs are checked against. Empty means
            `http://HOST:PORT`; a non-loopback host needs one with https.
        fee_ppm: the platform's share of every charge, in millionths; fixed at first start.
        enrolment: `approved` (admin approves each organisation) or `open`; fixed at first start.
        anonymous_per_minute: calls a minute that one address may make without a credential.
        queue_max: commands that may wait for the engine before `overloaded` is answered.
        log_level: `debug`, `info`, `warning` or `error`.
    """

    data_dir: Path = Path("farthing-data")
    database_url: str = ""
    host: str = "127.0.0.1"
    port: int = 8321
    public_url: str = ""
    fee_ppm: int = 25_000
    enrolment: str = "approved"
    anonymous_per_minute: int = 600
    queue_max: int = 10_000
    log_level: str = "info"

    def __post_init__(self) -> None:
        if self.enrolment not in {"approved", "open"}:
            raise InvalidSetting("enrolment: 'approved' or 'open'")
        if not 0 <= self.fee_ppm <= 1_000_000:
            raise InvalidSetting("fee_ppm: 0 to 1000000")
        if not 0 <= self.port <= 65_535:
            raise InvalidSetting("port: 0 to 65535")
        if self.database_url and not self.database_url.startswith("sqlite:///"):
            raise InvalidSetting("database_url: this version keeps its journal in sqlite:///PATH")
        if min(self.queue_max, self.anonymous_per_minute) < 1:
            raise InvalidSetting("queue_max and anonymous_per_minute: at least 1")
        if self.log_level not in {"debug", "info", "warning", "error"}:
            raise InvalidSetting("log_level: 'debug', 'info', 'warning' or 'error'")
        self._check_reach()

    @property
    def database_path(self) -> Path:
        """The file of the journal and its tables."""
        if self.database_url:
            return Path(self.database_url.removeprefix("sqlite:///"))
        return self.data_dir / "journal.sqlite"

    @property
    def keys_dir(self) -> Path:
        """The folder of the platform's keys."""
        return self.data_dir / "keys"

    def issuer(self, port: int) -> str:
        """The public URL, given the port that was really taken."""
        if self.public_url:
            return self.public_url.rstrip("/")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{port}"

    def _check_reach(self) -> None:
        """Signed requests are bound to a URL; one that others reach must be stated, and https."""
        if self.public_url:
            url = urlsplit(self.public_url)
            local = url.hostname in _LOOPBACK
            if not url.hostname or url.scheme not in ({"http", "https"} if local else {"https"}):
                raise InvalidSetting("public_url: an https URL, or http on loopback")
        elif self.host not in _LOOPBACK:
            raise InvalidSetting(
                f"host {self.host} is not loopback: set public_url to an https URL"
            )


_DEFAULTS: Final = Settings()


def load_settings(
    given: Mapping[str, object] | None = None, environment: Mapping[str, str] | None = None
) -> Settings:
    """Read the settings; what is given wins over the environment, that over the file.

    Raises:
        InvalidSetting: a setting is unknown, misspelt or out of range.
    """
    environment = os.environ if environment is None else environment
    known = {field.name: field for field in fields(Settings)}
    values: dict[str, object] = {}
    if file := environment.get(f"{_PREFIX}CONFIG"):
        values |= tomllib.loads(Path(file).read_text())
    if unknown := values.keys() - known.keys():
        raise InvalidSetting(f"unknown setting in {file}: {', '.join(sorted(unknown))}")
    for name in known:
        if (text := environment.get(f"{_PREFIX}{name.upper()}")) is not None:
            values[name] = text
    values |= {name: value for name, value in (given or {}).items() if value is not None}
    return Settings(**{name: _read(name, value) for name, value in values.items()})  # type: ignore[arg-type]


def _read(name: str, value: object) -> object:
    default = getattr(_DEFAULTS, name)
    try:
        return Path(str(value)) if isinstance(default, Path) else type(default)(value)
    except (TypeError, ValueError) as error:
        text = f"{name}: {value!r} is not understood"
        raise InvalidSetting(text) from error
