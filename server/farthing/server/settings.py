"""Configuration: one frozen object, built once from the environment and an optional file.

Boundary: reads, checks, explains. Every setting is in spec/configuration.md.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

__all__ = ["InvalidSetting", "Settings", "load_settings", "passed_over"]

_PREFIX: Final = "FARTHING_"
_CLIENTS: Final = ("FARTHING_HOME", "FARTHING_KEY", "FARTHING_URL")
_FILE: Final = f"{_PREFIX}CONFIG"
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_SQLITE: Final = "sqlite:///"
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,11}")
_WHOLE_PPM: Final = 1_000_000
_PORT_MAX: Final = 65_535
_WORKERS_MAX: Final = 32
_BYTES_MIN: Final = 65_536
# An agent has half, and of that at least one.
_SHARED_MIN: Final = 2
_PORTS: Final = {"http": 80, "https": 443}
_ORIGIN: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:]+\])"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?/?"
)


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
        anonymous_per_minute: calls a minute that one address may make without a proof that holds.
        calls_per_second: calls a second that an organisation's agents may make at each front end,
            and each key of its own; one agent half as many. Two seconds' worth may come at once.
        refusals_per_second: remembered refusals a second, shared alike. Beyond 200 seconds' worth
            their caller's writes wait.
        queue_max: commands that may wait for the engine before `overloaded` is answered.
        workers: front ends, each a process; the engine is one more.
        log_level: `debug`, `info`, `warning` or `error`.
        stripe_key_file: the file of Stripe's secret key; empty is without Stripe.
        stripe_webhook_secret_file: the file of the secret that Stripe signs its events with.
        stripe_return_url: where Checkout sends a payer afterwards; empty means the public URL.
        stripe_api_url: another place of Stripe's API, such as a fake's; empty means Stripe's own.
        vendor_timeout_s: how long one attempt to call a vendor's tool may take.
        vendor_answer_bytes_max: the most that a vendor may answer to the platform.
        service_wait_s: how long one `call_service` waits before it says to ask again.
        service_calls_max: vendors' tools that one front end calls at once.
        results_kept_s: how long the result of a `call_service` can be asked for again.
        results_bytes_max: how large the file of results may become before no call is begun.
        results_share_bytes_max: how much of it one organisation's calls may take; one that is on
            its way counts for the most that it may come to.
        results_share_calls_max: how many of one organisation's calls it remembers at once.
    """

    data_dir: Path = Path("farthing-data")
    database_url: str = ""
    host: str = "127.0.0.1"
    port: int = 8321
    public_url: str = ""
    fee_ppm: int = 25_000
    enrolment: str = "approved"
    anonymous_per_minute: int = 600
    calls_per_second: int = 8_000
    refusals_per_second: int = 10
    queue_max: int = 10_000
    workers: int = 1
    log_level: str = "info"
    stripe_key_file: str = ""
    stripe_webhook_secret_file: str = ""
    stripe_return_url: str = ""
    stripe_api_url: str = ""
    vendor_timeout_s: int = 120
    vendor_answer_bytes_max: int = 4_194_304
    service_wait_s: int = 25
    service_calls_max: int = 256
    results_kept_s: int = 86_400
    results_bytes_max: int = 1_073_741_824
    results_share_bytes_max: int = 134_217_728
    results_share_calls_max: int = 10_000

    def __post_init__(self) -> None:
        if self.enrolment not in {"approved", "open"}:
            raise InvalidSetting("enrolment: 'approved' or 'open'")
        if not 0 <= self.fee_ppm <= _WHOLE_PPM:
            raise InvalidSetting(f"fee_ppm: 0 to {_WHOLE_PPM}")
        if not 0 <= self.port <= _PORT_MAX:
            raise InvalidSetting(f"port: 0 to {_PORT_MAX}")
        if min(self.queue_max, self.anonymous_per_minute) < 1:
            raise InvalidSetting("queue_max and anonymous_per_minute: at least 1")
        if min(self.calls_per_second, self.refusals_per_second) < _SHARED_MIN:
            raise InvalidSetting("calls_per_second and refusals_per_second: at least 2")
        self._check_services()
        if not 1 <= self.workers <= _WORKERS_MAX:
            raise InvalidSetting(f"workers: 1 to {_WORKERS_MAX}")
        if self.log_level not in {"debug", "info", "warning", "error"}:
            raise InvalidSetting("log_level: 'debug', 'info', 'warning' or 'error'")
        self._check_database()
        self._check_reach()

    @property
    def database_path(self) -> Path:
        """The file of the journal and its tables."""
        if self.database_url:
            return Path(self.database_url.removeprefix(_SQLITE)).expanduser()
        return self.data_dir / "journal.sqlite"

    @property
    def reports_path(self) -> Path:
        """The file of what is followed: statement lines. It can be deleted while nobody serves."""
        if self.database_url:
            return self.database_path.with_suffix(".reports.sqlite")
        return self.data_dir / "reports.sqlite"

    @property
    def results_path(self) -> Path:
        """The file of the calls that the platform makes; its front ends share it."""
        if self.database_url:
            return self.database_path.with_suffix(".results.sqlite")
        return self.data_dir / "results.sqlite"

    @property
    def keys_dir(self) -> Path:
        """The folder of the platform's keys."""
        return self.data_dir / "keys"

    def issuer(self, port: int) -> str:
        """The public URL, given the port that was really taken."""
        if self.public_url:
            return self.public_url.rstrip("/")
        return f"http://{_bracketed(self.host)}:{port}"

    def is_local(self, port: int) -> bool:
        """Whether the server is reached by loopback alone."""
        return urlsplit(self.issuer(port)).hostname in _LOOPBACK

    def hosts(self, port: int) -> frozenset[str]:
        """The `Host` values that reach this server, against DNS rebinding."""
        url = urlsplit(self.issuer(port))
        hosts = {url.netloc.lower()}
        if url.hostname and url.port in {None, _PORTS[url.scheme]}:
            name = _bracketed(url.hostname)
            hosts |= {name, f"{name}:{_PORTS[url.scheme]}"}
        # What a proxy passes on without its name would look like what comes from this machine.
        if self.host in _LOOPBACK and self.is_local(port):
            hosts |= {f"{_bracketed(name)}:{port}" for name in _LOOPBACK}
        return frozenset(hosts)

    def _check_services(self) -> None:
        names = (
            "vendor_timeout_s",
            "service_wait_s",
            "service_calls_max",
            "results_kept_s",
            "results_share_calls_max",
        )
        if min(getattr(self, name) for name in names) < 1:
            raise InvalidSetting(f"{', '.join(names)}: at least 1")
        if min(self.vendor_answer_bytes_max, self.results_bytes_max) < _BYTES_MIN:
            text = f"vendor_answer_bytes_max, results_bytes_max: at least {_BYTES_MIN}"
            raise InvalidSetting(text)
        if self.results_share_bytes_max < self.vendor_answer_bytes_max:
            raise InvalidSetting("results_share_bytes_max: at least vendor_answer_bytes_max")

    def _check_database(self) -> None:
        if not self.database_url:
            return
        if self.database_url.startswith(("postgres:", "postgresql:", "postgresql+")):
            raise InvalidSetting("database_url: PostgreSQL is not served yet; use sqlite:///PATH")
        path = self.database_url.removeprefix(_SQLITE)
        if path in {"", ":memory:", self.database_url}:
            raise InvalidSetting("database_url: the journal is a file, sqlite:///PATH")

    def _check_reach(self) -> None:
        """Signed requests are bound to a URL; one that others reach must be stated, and https."""
        if self.public_url:
            _check_public(self.public_url)
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
        InvalidSetting: a setting is unknown, not understood or out of range.
        OSError: the file cannot be read.
    """
    environment = os.environ if environment is None else environment
    known = [field.name for field in fields(Settings)]
    values: dict[str, object] = {}
    if file := environment.get(_FILE):
        values |= _from_file(Path(file).expanduser(), known)
    for name in known:
        if (text := environment.get(f"{_PREFIX}{name.upper()}")) is not None:
            values[name] = text
    values |= {name: value for name, value in (given or {}).items() if value is not None}
    read = {name: _read(name, value) for name, value in values.items()}
    return Settings(**cast("dict[str, Any]", read))


def passed_over(environment: Mapping[str, str] | None = None) -> list[str]:
    """The names of the environment that look like settings and are none of the program's."""
    environment = os.environ if environment is None else environment
    known = {_FILE, *_CLIENTS, *(f"{_PREFIX}{field.name.upper()}" for field in fields(Settings))}
    return sorted(name for name in environment if name.startswith(_PREFIX) and name not in known)


def _from_file(path: Path, known: list[str]) -> dict[str, object]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSetting(f"{path}: {error}") from None
    if unknown := sorted(values.keys() - set(known)):
        raise InvalidSetting(f"{path}: there is no setting {', '.join(unknown)}")
    return values


def _read(name: str, value: object) -> object:
    """A value in the setting's own type; a number may be written as text, nothing else is bent."""
    default = getattr(_DEFAULTS, name)
    if isinstance(default, Path) and isinstance(value, str | Path):
        return Path(value).expanduser()
    if isinstance(default, int):
        if type(value) is int:
            return value
        if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
            return int(value)
    elif isinstance(default, str) and isinstance(value, str):
        return value
    raise InvalidSetting(f"{name}: {value!r} is not understood")


def _check_public(text: str) -> None:
    """An origin and nothing more: a path or a user would stand in what every proof is bound to."""
    parts = _ORIGIN.fullmatch(text)
    if parts is None or int(parts["port"] or 0) > _PORT_MAX:
        raise InvalidSetting("public_url: https://NAME or https://NAME:PORT, in lower case")
    if parts["scheme"] != "https" and parts["host"].strip("[]") not in _LOOPBACK:
        raise InvalidSetting("public_url: https, as callers come from elsewhere than loopback")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
