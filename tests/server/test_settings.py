"""Configuration: what is taken, what wins, and what the server does not start with."""

from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

from farthing.server.settings import InvalidSetting, Settings, load_settings, passed_over

TAKEN: dict[str, tuple[str, object]] = {
    "data_dir": ("elsewhere", Path("elsewhere")),
    "database_url": ("sqlite:///other.sqlite", "sqlite:///other.sqlite"),
    "host": ("::1", "::1"),
    "port": ("9000", 9000),
    "public_url": ("https://market.example", "https://market.example"),
    "fee_ppm": ("0", 0),
    "enrolment": ("open", "open"),
    "anonymous_per_minute": ("1", 1),
    "calls_per_second": ("2", 2),
    "refusals_per_second": ("20", 20),
    "queue_max": ("5", 5),
    "workers": ("4", 4),
    "log_level": ("debug", "debug"),
    "stripe_api_url": ("http://127.0.0.1:9", "http://127.0.0.1:9"),
    "stripe_key_file": ("/run/key", "/run/key"),
    "stripe_return_url": ("https://example.com", "https://example.com"),
    "stripe_webhook_secret_file": ("/run/secret", "/run/secret"),
    "vendor_timeout_s": ("7", 7),
    "vendor_answer_bytes_max": ("65536", 65_536),
    "service_wait_s": ("1", 1),
    "service_calls_max": ("1", 1),
    "results_kept_s": ("60", 60),
    "results_bytes_max": ("65536", 65_536),
    "results_share_bytes_max": ("5000000", 5_000_000),
    "results_share_calls_max": ("1", 1),
}


def test_without_configuration_the_market_is_on_loopback_and_in_one_folder() -> None:
    settings = load_settings(environment={})

    assert settings == Settings()
    assert settings.issuer(8321) == "http://127.0.0.1:8321"
    assert settings.database_path == Path("farthing-data/journal.sqlite")
    assert settings.keys_dir == Path("farthing-data/keys")


@pytest.mark.parametrize("name", TAKEN)
def test_every_setting_is_read_from_the_environment(name: str) -> None:
    text, value = TAKEN[name]

    settings = load_settings(environment={f"FARTHING_{name.upper()}": text})

    assert settings == replace(Settings(), **{name: value})  # type: ignore[arg-type]


def test_a_name_that_looks_like_a_setting_and_is_none_is_told() -> None:
    ours = {f"FARTHING_{name.upper()}": text for name, (text, _) in TAKEN.items()}
    known = {**ours, "FARTHING_CONFIG": "x", "FARTHING_HOME": "x", "HOME": "x"}

    assert passed_over(known) == []
    assert passed_over({**known, "FARTHING_FEE": "1"}) == ["FARTHING_FEE"]


def test_every_setting_is_tried() -> None:
    assert TAKEN.keys() == set(Settings.__dataclass_fields__)


def test_what_is_given_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "farthing.toml"
    file.write_text('port = 1\nfee_ppm = 1\nhost = "localhost"\n')
    environment = {"FARTHING_CONFIG": str(file), "FARTHING_PORT": "2", "FARTHING_FEE_PPM": "2"}

    settings = load_settings({"port": 3, "host": None}, environment)

    assert (settings.port, settings.fee_ppm, settings.host) == (3, 2, "localhost")


@pytest.mark.parametrize(
    "text",
    [
        "prot = 1",
        "port = 1.5",
        "port = true",
        'port = "1.5"',
        'port = "0x10"',
        "port = [1]",
        "host = 1",
        "fee_ppm = 2.5",
        "[server]\nport = 1",
        "port = ",
        "\xff",
    ],
)
def test_a_file_with_anything_else_in_it_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "farthing.toml"
    file.write_bytes(text.encode("latin-1"))

    with pytest.raises(InvalidSetting):
        load_settings(environment={"FARTHING_CONFIG": str(file)})


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_settings(environment={"FARTHING_CONFIG": str(tmp_path / "none.toml")})


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("port", "65536", "port"),
        ("port", "-1", "port"),
        ("port", "", "port"),
        ("fee_ppm", "1000001", "fee_ppm"),
        ("enrolment", "closed", "enrolment"),
        ("anonymous_per_minute", "0", "anonymous_per_minute"),
        ("calls_per_second", "1", "calls_per_second"),
        ("refusals_per_second", "0", "refusals_per_second"),
        ("queue_max", "0", "queue_max"),
        ("workers", "0", "workers"),
        ("workers", "33", "workers"),
        ("log_level", "loud", "log_level"),
        ("vendor_timeout_s", "0", "vendor_timeout_s"),
        ("service_wait_s", "0", "service_wait_s"),
        ("service_calls_max", "0", "service_calls_max"),
        ("results_kept_s", "0", "results_kept_s"),
        ("vendor_answer_bytes_max", "65535", "vendor_answer_bytes_max"),
        ("results_bytes_max", "65535", "results_bytes_max"),
        ("results_share_bytes_max", "65536", "results_share_bytes_max"),
        ("results_share_calls_max", "0", "results_share_calls_max"),
        ("database_url", "postgresql://market", "PostgreSQL"),
        ("database_url", "postgresql+asyncpg://market", "PostgreSQL"),
        ("database_url", "sqlite:///:memory:", "file"),
        ("database_url", "sqlite:///", "file"),
        ("database_url", "journal.sqlite", "file"),
        ("host", "0.0.0.0", "loopback"),  # noqa: S104
        ("host", "market.example", "loopback"),
        ("host", "::", "loopback"),
    ],
)
def test_a_value_that_will_not_do_is_refused_by_its_name(name: str, value: str, says: str) -> None:
    with pytest.raises(InvalidSetting) as refused:
        load_settings(environment={f"FARTHING_{name.upper()}": value})

    assert says in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://market.example",
        "market.example",
        "ftp://market.example",
        "https://",
        "https://market.example/farthing",
        "https://market.example?x=1",
        "https://market.example#x",
        "https://user@market.example",
        "https://Market.example",
        "HTTPS://market.example",
        "https://market.example:port",
        "https://market.example:99999",
        "https://market .example",
        "https://märkt.example",
        "https://market.example\n",
    ],
)
def test_a_public_url_is_an_https_origin(url: str) -> None:
    with pytest.raises(InvalidSetting):
        Settings(public_url=url)


@pytest.mark.parametrize(
    ("settings", "issuer", "hosts"),
    [
        pytest.param(
            Settings(),
            "http://127.0.0.1:80",
            {"127.0.0.1", "127.0.0.1:80", "localhost:80", "[::1]:80"},
            id="the port that http leaves out",
        ),
        pytest.param(
            Settings(host="::1"),
            "http://[::1]:80",
            {"[::1]", "[::1]:80", "127.0.0.1:80", "localhost:80"},
            id="IPv6",
        ),
        pytest.param(
            Settings(host="0.0.0.0", public_url="https://market.example/"),  # noqa: S104
            "https://market.example",
            {"market.example", "market.example:443"},
            id="everywhere, behind https",
        ),
        pytest.param(
            Settings(public_url="https://market.example:8443"),
            "https://market.example:8443",
            {"market.example:8443"},
            id="loopback, behind https",
        ),
        pytest.param(
            Settings(public_url="http://localhost:9000"),
            "http://localhost:9000",
            {"localhost:9000", "127.0.0.1:80", "localhost:80", "[::1]:80"},
            id="another port of loopback",
        ),
    ],
)
def test_the_public_url_names_the_server_and_its_hosts(
    settings: Settings, issuer: str, hosts: set[str]
) -> None:
    assert settings.issuer(80) == issuer
    assert settings.hosts(80) == hosts


def test_a_home_folder_is_found_by_its_short_name() -> None:
    environment = {"FARTHING_DATA_DIR": "~/market", "FARTHING_DATABASE_URL": "sqlite:///~/j.sqlite"}

    settings = load_settings(environment=environment)

    assert settings.data_dir == Path.home() / "market"
    assert settings.database_path == Path.home() / "j.sqlite"


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]
