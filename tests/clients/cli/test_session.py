"""Whom a command connects to, as whom, and how it ends; all without a server."""

import json
import re
import stat
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from farthing.clients.home import Home, Profile
from farthing.clients.keys import load_key
from farthing.protocol.errors import Code, refuse
from farthing.protocol.keys import PrivateKey
from farthing.protocol.platform_keys import PlatformPurpose, jwk_for
from farthing.protocol.signatures import read_header
from tests.clients.cli.running import run

ORG = "org_0" + "0" * 25


@dataclass(frozen=True, slots=True)
class Platform:
    """Answers each call with the next result it was given, and keeps what was asked."""

    results: list[dict[str, Any]] = field(default_factory=list)
    requests: list[httpx2.Request] = field(default_factory=list)
    keys: list[dict[str, str]] = field(default_factory=list)

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/.well-known/jwks.json":
            return httpx2.Response(200, json={"keys": self.keys})
        self.requests.append(request)
        result = self.results.pop(0)
        return httpx2.Response(200, json={"jsonrpc": "2.0", "id": 1, "result": result})

    @property
    def kids(self) -> list[str]:
        tokens = (each.headers["authorization"] for each in self.requests)
        return [read_header(each.removeprefix("Bearer ")).kid for each in tokens]

    @property
    def sent(self) -> list[Any]:
        return [json.loads(each.content)["params"]["arguments"] for each in self.requests]


def journal_jwk(key: PrivateKey) -> dict[str, str]:
    """A key as a platform publishes it that signs its journal with it."""
    return jwk_for(PlatformPurpose.JOURNAL, key.public)


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> Platform:
    platform = Platform()

    class Client(httpx2.AsyncClient):
        def __init__(self) -> None:
            super().__init__(transport=httpx2.MockTransport(platform))

    monkeypatch.setattr(httpx2, "AsyncClient", Client)
    return platform


def funding() -> dict[str, Any]:
    answer = {
        "funding_id": "fnd_1",
        "organisation_id": ORG,
        "amount": {"amount": "5", "asset": "USD"},
        "reference": "r",
    }
    return {"structuredContent": answer, "content": []}


def booked_alone() -> dict[str, Any]:
    """What is booked under a reference that nothing else has: nothing worth a word."""
    answer = {"organisation_id": "platform", "by": "recorded", "accounts": [], "lines": []}
    return {"structuredContent": {**answer, "as_of_seq": 1}, "content": []}


def refused(code: Code, **members: Any) -> dict[str, Any]:
    shape = refuse(code, **members).document()
    return {"structuredContent": shape, "content": [], "isError": True}


def key_in(tmp_path: Path, name: str = "staff.jwk") -> str:
    assert run("keys", "new", str(tmp_path / name)).code == 0
    return str(tmp_path / name)


def fund(key: str, *more: str, **environment: str) -> Any:
    return run("fund", ORG, "5.00", "USD", "--reference", "r", "--key", key, *more, **environment)


def test_a_call_is_signed_with_the_named_key_and_money_is_text(
    tmp_path: Path, platform: Platform
) -> None:
    key = key_in(tmp_path)
    platform.results.extend([funding(), booked_alone()])

    ran = fund(key)

    assert ran.code == 0
    assert "5 USD" in ran.out
    assert platform.kids == [load_key(Path(key)).thumbprint] * 2
    assert platform.sent[0]["amount"] == {"amount": "5", "asset": "USD"}


def test_a_refusal_ends_with_1_and_says_what_remains(tmp_path: Path, platform: Platform) -> None:
    key = key_in(tmp_path)
    refusal = refused(Code.INSUFFICIENT_FUNDS, required="5", remaining="1", asset="USD")
    platform.results.extend([refusal, refusal])

    person, program = fund(key), fund(key, "--json")

    assert (person.code, program.code) == (1, 1)
    assert person.out == program.err == ""
    assert "insufficient_funds" in person.err
    assert "remaining: 1 USD" in person.err
    assert json.loads(program.out)["remaining"] == "1"


def test_a_write_that_is_to_be_run_again_tells_its_key(tmp_path: Path, platform: Platform) -> None:
    platform.results.append(refused(Code.PROCESSOR_FAILED))
    words = ("treasury", "send-payout", f"pay_{'0' * 26}", "--key", key_in(tmp_path))

    ran = run(*words)

    (asked,) = platform.sent
    assert ran.code == 1
    assert f"the same command with --idempotency-key {asked['idempotency_key']}" in ran.err


def test_who_books_what_has_gone_already_is_told_how(tmp_path: Path, platform: Platform) -> None:
    platform.results.append(refused(Code.INSUFFICIENT_FUNDS))
    back = ("treasury", "reverse-top-up", f"top_{'0' * 26}", "5", "USD")

    ran = run(*back, "--key", key_in(tmp_path))

    assert ran.code == 1
    assert "the same command with --may-owe, under another key" in ran.err


def test_an_agent_at_its_limit_is_told_the_command_that_its_operator_runs(
    tmp_path: Path, platform: Platform
) -> None:
    home = Home(tmp_path)
    agent = "agt_0" + "0" * 25
    home.save_profile(
        Profile(
            url="http://mine:1",
            platform_keys=(journal_jwk(home.key()),),
            principal_id=agent,
            role="buyer",
        )
    )
    platform.results.append(refused(Code.BUDGET_EXCEEDED, required="5", asset="USD"))

    ran = run("grants", "show", "--home", str(tmp_path))

    assert f"farthing grants set {agent} --per-call … --per-day …" in ran.err


def test_a_file_that_is_no_pack_is_called_that(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("notes")

    ran = run("verify", str(file))

    assert ran.code == 1
    assert ran.out.startswith("REJECTED: neither an evidence pack nor a bundle")


def test_a_server_that_is_not_there_ends_with_3_and_tells_the_key_of_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farthing.clients.transport._BACKOFF_S", 0)
    key = key_in(tmp_path)

    ran = fund(key, "--url", "http://127.0.0.1:1", "--json")

    shape = json.loads(ran.out)
    assert (ran.code, shape["code"]) == (3, "unreachable")
    assert re.search(r"farthing outcome fund_account cli-[A-Za-z0-9_-]{22}$", shape["message"])


@pytest.mark.parametrize(
    ("words", "operation"),
    [
        (("call-service", "agr_x", '{"pdf": "x"}', "-w", "page=1"), "call_service"),
        (("correct", "chg_x", "1:page=1"), "correct_usage"),
    ],
)
def test_every_write_that_is_not_answered_tells_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], operation: str
) -> None:
    monkeypatch.setattr("farthing.clients.transport._BACKOFF_S", 0)
    at = ("--key", key_in(tmp_path), "--url", "http://127.0.0.1:1")

    ran = run(*words, *at, "--idempotency-key", "the-key-of-this-call")

    said = " ".join(ran.err.split())
    assert ran.code == 3
    assert f"farthing outcome {operation} the-key-of-this-call" in said


def test_a_repeated_call_carries_the_key_it_is_given(tmp_path: Path, platform: Platform) -> None:
    key = key_in(tmp_path)
    platform.results.extend([funding(), booked_alone()] * 3)

    for more in (["--idempotency-key", "again-0123456789"], [], []):
        fund(key, *more)

    keys = [each["idempotency_key"] for each in platform.sent[::2]]
    assert keys[0] == "again-0123456789"
    assert len(set(keys)) == 3


def test_an_answer_of_another_form_does_not_verify(tmp_path: Path, platform: Platform) -> None:
    key = key_in(tmp_path)
    platform.results.append({"structuredContent": {"amount": 5.0}, "content": []})

    ran = fund(key, "--json")

    assert (ran.code, json.loads(ran.out)["code"]) == (1, "unverified")


@pytest.mark.parametrize(
    "words",
    [
        ["--url", "http://here:1", "balance"],
        ["balance", "--url", "http://here:1"],
        ["--url", "http://there:1", "balance", "--url", "http://here:1"],
    ],
)
def test_the_platform_is_named_before_or_after_the_command(
    tmp_path: Path, platform: Platform, words: list[str]
) -> None:
    key = key_in(tmp_path)
    platform.results.append({"structuredContent": {}, "content": []})

    run(*words, "--key", key, FARTHING_URL="http://elsewhere:1")

    assert str(platform.requests[0].url) == "http://here:1/mcp"


def test_the_environment_names_platform_key_and_home(tmp_path: Path, platform: Platform) -> None:
    home = Home(tmp_path / "home")
    thumbprint = home.key().thumbprint
    platform.results.extend([{"structuredContent": {}}, {"structuredContent": {}}])

    run("balance", FARTHING_HOME=str(home.path), FARTHING_URL="http://here:1")
    run("balance", FARTHING_KEY=key_in(tmp_path), FARTHING_URL="http://here:1")

    assert {str(each.url) for each in platform.requests} == {"http://here:1/mcp"}
    assert [each == thumbprint for each in platform.kids] == [True, False]


def test_a_home_signs_for_its_own_platform_alone(tmp_path: Path, platform: Platform) -> None:
    home = Home(tmp_path)
    pinned = (journal_jwk(home.key()),)
    home.save_profile(Profile(url="http://mine:1", platform_keys=pinned, principal_id=ORG))
    platform.results.append({"structuredContent": {}})

    mine = run("balance", "--home", str(tmp_path))
    other = run("balance", "--home", str(tmp_path), "--url", "http://other:1")

    assert [str(each.url) for each in platform.requests] == ["http://mine:1/mcp"]
    assert mine.code == 1
    assert other.code == 2


def test_what_needs_no_key_is_called_without_one(tmp_path: Path, platform: Platform) -> None:
    platform.results.append({"structuredContent": {}})

    run("search", "text", "--home", str(tmp_path))

    assert "authorization" not in platform.requests[0].headers


def test_what_needs_a_key_says_how_to_get_one(tmp_path: Path) -> None:
    ran = run("balance", "--home", str(tmp_path))

    assert ran.code == 2
    assert "farthing enrol" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    key = key_in(tmp_path)
    Path(key).chmod(0o644)

    ran = fund(key)

    assert ran.code == 2
    assert "chmod 600" in ran.err


def test_a_key_is_never_replaced_and_never_printed(tmp_path: Path) -> None:
    key = key_in(tmp_path)
    secret = json.loads(Path(key).read_text(encoding="ascii"))["d"]

    again = run("keys", "new", key)
    shown = run("keys", "show", "--key", key), run("keys", "show", "--key", key, "--json")

    assert again.code == 2
    assert json.loads(Path(key).read_text(encoding="ascii"))["d"] == secret
    assert all(each.code == 0 and secret not in each.out for each in shown)
    assert stat.S_IMODE(Path(key).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "words",
    [
        ["fund", ORG, "1e3", "USD", "--reference", "r"],
        ["fund", ORG, "1", "USD"],
        ["search", "--workload", "page"],
        ["search", "--max-total", "0.05", "--asset", "GBP"],
        ["quote", "lst_1"],
        ["enrol", "--kind", "bank", "--name", "x"],
        ["disputes", "file", "chg_1", "dislike"],
        ["call", "no_such_operation"],
        ["call", "get_balance", "[]"],
        ["verify", "/nonexistent"],
        ["verify", "/dev/null", "--trust", "A" * 42],
        ["enrol", "--kind", "vendor", "--name", "x", "--trust", "not a thumbprint"],
        ["connect", "http://here:1", "--trust", "A" * 42 + "B"],
        ["listings", "lint", "/nonexistent"],
        ["operations", "no_such_operation"],
        ["no-such-command"],
        ["search", "x", "--url", "ftp://here"],
        ["search", "x", "--url", "http://[here"],
        ["search", "x", "--url", "http://\u2764"],
        ["search", "x", "--url", "http://here/\x01"],
        ["search", "x", "--url", "here:8321"],
        ["connect", "here"],
        ["keys", "new", "/dev/null/key.jwk"],
        ["enrol", "--kind", "vendor", "--name", "x", "--home", "/dev/null/home"],
    ],
)
def test_a_mistake_in_the_words_ends_with_2_before_anything_is_sent(
    words: list[str], platform: Platform
) -> None:
    assert run(*words).code == 2
    assert platform.requests == []


def test_a_thumbprint_that_begins_with_a_dash_is_an_argument(
    tmp_path: Path, platform: Platform
) -> None:
    key = key_in(tmp_path)
    state = {"principal_id": ORG, "key_thumbprint": "-w" + "a" * 41, "status": "revoked"}
    platform.results.append({"structuredContent": state})

    ran = run("keys", "revoke", ORG, state["key_thumbprint"], "--key", key)

    assert ran.code == 0
    assert platform.sent[0]["key_thumbprint"] == state["key_thumbprint"]


def test_any_operation_can_be_called_by_name(tmp_path: Path, platform: Platform) -> None:
    key = key_in(tmp_path)
    platform.results.extend([{"structuredContent": {"anything": 1}}, {"structuredContent": {}}])

    read = run("call", "list_agreements", '{"limit": 5}', "--key", key)
    write = run("call", "freeze", "-", "--key", key, stdin='{"principal_id": "x"}')

    assert json.loads(read.out) == {"anything": 1}
    assert platform.sent[0] == {"limit": 5}
    assert platform.sent[1]["idempotency_key"] in write.err


def test_operations_tell_what_they_take(tmp_path: Path) -> None:
    listed = json.loads(run("operations", "--json", "--home", str(tmp_path)).out)
    one = json.loads(run("operations", "place_hold").out)

    assert {"place_hold", "search_catalog"} <= {each["name"] for each in listed}
    assert "agreement_id" in one["ask"]["properties"]
    assert "budget_exceeded" in one["refusals"]


def explanation(total: str) -> dict[str, Any]:
    money = {"amount": total, "asset": "USD"}
    nothing = {"amount": "0", "asset": "USD"}
    tier = {"denominator": "1", "from": "0", "numerator": "4000000", "per_quantity": "1"}
    line = {
        "card_sha256": "a" * 64,
        "rule_id": "page",
        "meter": "page",
        "quantity": "2",
        "from": "0",
        "to": "2",
        "tiers": [{**tier, "to": "2", "units": "2000000"}],
        "rounding": "half_even",
        "units": "4000000",
    }
    texts = ("charge_id", "hold_id", "agreement_id", "status", "captured_at", "window_closes_at")
    charge = {
        **dict.fromkeys(texts, "x"),
        "amount": money,
        "released": nothing,
        "fee": nothing,
        "refunded": nothing,
        "lines": [],
        "result_sha256": "b" * 64,
        "seq": 1,
    }
    answer = {
        "charge": charge,
        "rate_card_sha256": "a" * 64,
        "trace": [line],
        "postings": [],
    }
    return {"structuredContent": answer}


def test_lines_that_do_not_add_up_to_their_charge_are_found_out(
    tmp_path: Path, platform: Platform
) -> None:
    key = key_in(tmp_path)
    platform.results.extend([explanation("0.004"), explanation("0.005")])

    right, wrong = (run("explain", "chg_1", "--key", key, "--json") for _ in range(2))

    assert right.code == 0
    assert (wrong.code, json.loads(wrong.out)["code"]) == (1, "unverified")


def test_an_unknown_key_at_another_platform_of_the_same_url_is_explained(
    platform: Platform, tmp_path: Path
) -> None:
    home = Home(tmp_path / "home")
    key = home.key()
    home.save_profile(
        Profile(url="http://127.0.0.1:8321", platform_keys=(journal_jwk(key),), principal_id=ORG)
    )
    platform.results.extend([refused(Code.UNKNOWN_KEY)] * 2)

    elsewhere = run("whoami", "--home", str(home.path))
    platform.keys.append(journal_jwk(key))
    here = run("whoami", "--home", str(home.path), "--json")

    assert (elsewhere.code, here.code) == (1, 1)
    assert "name another directory with --home or FARTHING_HOME." in " ".join(elsewhere.err.split())
    assert json.loads(here.out)["code"] == "unknown_key"


def test_an_answer_that_a_full_disk_does_not_take_is_no_refusal(tmp_path: Path) -> None:
    words = (sys.executable, "-m", "farthing.clients.cli", "keys", "new", str(tmp_path / "key.jwk"))
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)

    assert (ran.returncode, ran.stderr) == (
        3,
        "No room for the answer: No space left on device.\n",
    )


@pytest.mark.parametrize(
    ("words", "path"),
    [
        (("search", "--bogus"), ""),
        (("nonsense",), ""),
        (("session", "open"), "agreement"),
        (("search", "text", "--limit", "0"), "limit"),
        (("session", "open", "agr_x", "--cap", "much", "--per-call", "1"), ""),
        (("session", "calls", "ses_x"), ""),
        (("call", "no_operation"), ""),
    ],
)
def test_what_is_called_wrongly_by_a_program_is_told_in_the_one_shape(
    words: tuple[str, ...], path: str
) -> None:
    for asked in (("--json", *words), (*words, "--json")):
        ran = run(*asked)

        assert (ran.code, ran.err) == (2, "")
        told = json.loads(ran.out)
        assert (told["code"], told.get("path", "")) == ("invalid_argument", path)
        assert told["message"]
    for person in (run(*words), run(*words, "--", "--json")):
        assert (person.code, person.out) == (2, "")
        assert person.err


def test_what_a_program_asks_rightly_is_answered_as_ever() -> None:
    helped = run("--help", "--json")

    assert helped.code == 0
    assert "Usage: " in helped.out
