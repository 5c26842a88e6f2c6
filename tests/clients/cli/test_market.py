"""The command against a real `farthing serve`: from enrolment to a verified pack."""

import asyncio
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from farthing.clients.buyers import Buyer
from farthing.clients.documents import arguments_sha256, result_bytes, result_sha256
from farthing.clients.home import Home
from farthing.clients.keys import load_key
from farthing.clients.vendors import Vendor
from farthing.protocol.canonical import document_sha256
from farthing.protocol.contracts import DeliveryRecord
from farthing.protocol.ids import AgreementId, HoldId, ListingId, OrganisationId, PrincipalId
from tests.clients.cli.running import Ran, Server, answer, run, serving

WORK = {"pages": ["One page.", "Another."]}
ARGUMENTS = {"pdf": "JVBERi0="}


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """A served market with an operator, its agent and a vendor, each with a home."""

    server: Server
    root: Path
    operator_id: str
    agent_id: str
    vendor_id: str
    listing_id: str
    funding: dict[str, Any]

    def at(self, who: str, *words: str) -> Ran:
        """Run a command as somebody."""
        return run(*words, *self.identity(who), FARTHING_URL=self.server.url)

    def answer(self, who: str, *words: str) -> Any:
        """The answer of a command that somebody runs."""
        return answer(*words, *self.identity(who), FARTHING_URL=self.server.url)

    def identity(self, who: str) -> tuple[str, str]:
        keys = {"admin": self.server.admin_key, "treasurer": self.server.treasurer_key}
        return ("--key", keys[who]) if who in keys else ("--home", str(self.home(who).path))

    def home(self, who: str) -> Home:
        return Home(self.root / {"agent": "operator/agents/reader-1"}.get(who, who))

    def charge(self) -> str:
        """Let the agent buy two pages; gives the charge's id."""
        return asyncio.run(self._charge())

    async def _charge(self) -> str:
        agent, vendor = (self.home(who) for who in ("agent", "vendor"))
        buyer_profile, vendor_profile = agent.profile(), vendor.profile()
        assert buyer_profile is not None
        assert vendor_profile is not None
        async with (
            agent.connection(buyer_profile) as buying,
            vendor.connection(vendor_profile) as selling,
        ):
            buyer = Buyer(buying)
            agreement = await buyer.accept(await buyer.quote(self.listing_id, {"page": 2}))
            held = await buyer.hold(agreement.agreement_id, {"page": 2}, ARGUMENTS)
            delivery = DeliveryRecord(
                hold_id=HoldId(held.answer.hold_id),
                agreement_id=AgreementId(agreement.agreement_id),
                vendor_id=OrganisationId(PrincipalId(self.vendor_id)),
                listing_id=ListingId(self.listing_id),
                args_sha256=arguments_sha256(ARGUMENTS),
                result_sha256=result_sha256(WORK),
                output_schema_sha256=document_sha256(
                    vendor.offer("offer").listing["output_schema"]
                ),
                usage={"page": 2},
                delivered_at_us=selling.clock(),
            )
            return (await Vendor(selling).capture(delivery)).answer.charge_id


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    root = tmp_path_factory.mktemp("market")
    with serving(root / "data") as server:
        at = {"FARTHING_URL": server.url}
        homes = {who: ("--home", str(root / who)) for who in ("operator", "vendor")}
        ids = {
            who: answer("enrol", "--kind", who, "--name", f"The {who}", *home, **at)["principal_id"]
            for who, home in homes.items()
        }
        for each in ids.values():
            answer("approve", each, "--key", server.admin_key, **at)
        funding = answer(
            *("fund", ids["operator"], "1.50", "USD", "--reference", "wire 42"),
            *("--key", server.treasurer_key, "--idempotency-key", "first-funding-0001"),
            **at,
        )
        registered = answer(
            *("agents", "register", "Reader 1", "--trust", server.journal_thumbprint),
            *homes["operator"],
            **at,
        )
        agent_id = registered["principal_id"]
        answer("approve", agent_id, *homes["operator"], **at)
        limits = ("--per-call", "0.05", "--per-day", "1.00")
        answer("grants", "set", agent_id, *limits, *homes["operator"], **at)
        offer = root / "offer.json"
        offer.write_text(run("listings", "example").out, encoding="utf-8")
        published = answer("listings", "publish", str(offer), *homes["vendor"], **at)
        yield Market(
            server=server,
            root=root,
            operator_id=ids["operator"],
            agent_id=agent_id,
            vendor_id=ids["vendor"],
            listing_id=published["listing_id"],
            funding=funding,
        )


def test_who_was_approved_is_active_and_knows_who_it_is(market: Market) -> None:
    told = {who: market.answer(who, "whoami") for who in ("operator", "vendor", "agent", "admin")}

    assert {who: each["role"] for who, each in told.items()} == {
        "operator": "operator",
        "vendor": "vendor",
        "agent": "buyer",
        "admin": "admin",
    }
    assert {each["status"] for each in told.values()} == {"active"}
    assert told["agent"]["organisation_id"] == market.operator_id


def sent(printed: str) -> httpx2.Response:
    """What comes of the request that a printed curl command sends."""
    curl, flag, method, url, *rest = shlex.split(printed)
    *headers, data, body = rest
    assert (curl, flag, data, headers[::2]) == (
        *("curl", "--request", "--data-raw"),
        ["--header"] * (len(headers) // 2),
    )
    named = [each.partition(": ") for each in headers[1::2]]
    return httpx2.request(
        method, url, content=body, headers={name: value for name, _, value in named}
    )


def test_a_call_printed_for_curl_is_that_call_and_sent_once(market: Market) -> None:
    asked = json.dumps({"principal_id": market.agent_id, "reason": "it's 'over' \\ $HOME ü"})

    read = market.at("operator", "call", "get_balance", "--curl")
    public = run("call", "get_tree_head", "--curl", FARTHING_URL=market.server.url)
    write = market.at("operator", "call", "freeze", asked, "--curl")
    first, second = sent(write.out), sent(write.out)

    assert sent(read.out).json() == json.loads(market.at("operator", "call", "get_balance").out)
    assert sent(public.out).status_code == 200
    assert "authorization" not in public.out
    assert (first.status_code, first.json()["frozen"]) == (200, True)
    assert "idempotent-replayed" not in first.headers
    assert (second.status_code, second.json()["code"]) == (401, "proof_replayed")
    assert market.at("operator", "unfreeze", market.agent_id).code == 0


def test_a_call_printed_for_a_program_is_its_parts(market: Market) -> None:
    parts = market.answer("operator", "call", "get_statement", '{"limit": 1}', "--curl")

    response = httpx2.request(
        parts["method"], parts["url"], content=parts["body"], headers=parts["headers"]
    )

    assert len(response.json()["lines"]) == 1
    assert set(parts["headers"]) == {"accept", "authorization", "content-type"}


def test_enrolling_again_is_the_same_organisation(market: Market) -> None:
    again = market.answer("operator", "enrol", "--kind", "operator", "--name", "The operator")

    assert (again["principal_id"], again["status"]) == (market.operator_id, "active")


def test_a_home_that_is_one_kind_of_organisation_does_not_become_the_other(market: Market) -> None:
    ran = market.at("operator", "enrol", "--kind", "vendor", "--name", "Pages")

    assert (ran.code, market.operator_id in ran.err) == (2, True)


def test_a_platform_without_the_trusted_key_is_not_met(market: Market, tmp_path: Path) -> None:
    words = ("enrol", "--kind", "operator", "--name", "x", "--trust", "A" * 43)

    ran = run(*words, "--home", str(tmp_path), "--json", FARTHING_URL=market.server.url)

    assert (ran.code, json.loads(ran.out)["code"]) == (1, "unverified")


def test_a_funding_repeated_with_its_key_is_one_funding(market: Market) -> None:
    words = ("fund", market.operator_id, "1.50", "USD", "--reference", "wire 42")
    key = ("--idempotency-key", "first-funding-0001")
    before = market.answer("treasurer", "trial-balance")

    again = market.answer("treasurer", *words, *key)
    outcome = market.answer("treasurer", "outcome", "fund_account", key[1])

    assert again == market.funding == outcome["answer"]
    assert market.answer("treasurer", "trial-balance") == before


def test_only_the_treasurer_funds(market: Market) -> None:
    words = ("fund", market.operator_id, "1", "USD", "--reference", "mine", "--json")

    ran = market.at("operator", *words)

    assert (ran.code, json.loads(ran.out)["code"]) == (1, "not_permitted")


def test_the_books_balance_and_are_shown_to_the_last_digit(market: Market) -> None:
    shown = market.at("treasurer", "trial-balance")

    assert shown.code == 0
    assert "Debits equal credits" in shown.out
    assert f"{market.operator_id}:prepaid:USD" in shown.out
    assert "1.5" in shown.out


def test_an_agent_sees_its_grant_and_its_operator_lists_it(market: Market) -> None:
    [grant] = market.answer("agent", "grants", "show")["grants"]
    listed = market.answer("operator", "agents", "list")["agents"]

    assert grant["per_call_max"] == {"amount": "0.05", "asset": "USD"}
    assert [(each["agent_id"], each["name"]) for each in listed] == [(market.agent_id, "Reader 1")]
    assert market.agent_id in market.at("operator", "agents", "list").out


def test_a_frozen_agent_is_told_so_and_thaws(market: Market) -> None:
    market.answer("operator", "freeze", market.agent_id, "--reason", "odd")
    frozen = market.answer("agent", "grants", "show")["frozen"]
    market.answer("operator", "unfreeze", market.agent_id)

    assert (frozen, market.answer("agent", "grants", "show")["frozen"]) == (True, False)


def test_a_grant_can_be_revoked_and_set_anew(market: Market) -> None:
    revoked = market.answer("operator", "grants", "revoke", market.agent_id, "USD")
    limits = ("--per-call", "0.05", "--per-day", "1", "--expires", "2199-01-01")
    again = market.answer("operator", "grants", "set", market.agent_id, *limits)

    assert revoked["revoked"] is True
    assert "revoked" not in again
    assert again["expires_at"] == "2199-01-01T00:00:00.000000Z"


def test_a_search_shows_the_exact_total_and_marks_the_vendors_words(market: Market) -> None:
    words = ("search", "text of PDF pages", "--workload", "page=30", "--max-total", "0.05")

    found = market.answer("agent", *words)["results"]
    shown = market.at("agent", *words).out

    assert [(each["listing_id"], each["total"]) for each in found] == [
        (market.listing_id, {"amount": "0.05", "asset": "USD"})
    ]
    assert "0.05 USD" in shown
    assert "99.9 %" in shown
    assert "vendor's words, not checked" in shown


def test_a_search_that_nothing_fits_shows_the_nearest(market: Market) -> None:
    words = ("search", "text of PDF pages", "--workload", "page=30", "--max-total", "0.01")

    shown = market.at("agent", *words)

    assert shown.code == 0
    assert "Nothing keeps every limit." in shown.out
    assert "limit 0.01 USD, offered 0.05 USD, margin -0.04 USD" in shown.out


def test_a_search_that_matches_nothing_does_not_call_the_market_empty(market: Market) -> None:
    assert market.at("agent", "search", "zeppelin").out == "Nothing matches.\n"


def test_a_quote_is_verified_and_says_whether_it_can_be_bought(market: Market) -> None:
    quote = market.answer("agent", "quote", market.listing_id, "--workload", "page=30")

    assert quote["total"] == {"amount": "0.05", "asset": "USD"}
    assert quote["allowed"] is True


def test_an_offer_is_linted_before_it_is_published(market: Market, tmp_path: Path) -> None:
    offer = json.loads(run("listings", "example").out)
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps(offer), encoding="utf-8")
    offer["listing"]["primary_tag"] = "no.such.tag"
    bad.write_text(json.dumps(offer), encoding="utf-8")

    passed = market.at("vendor", "listings", "lint", str(good))
    failed = market.at("vendor", "listings", "lint", str(bad), "--json")
    refused = market.at("vendor", "listings", "publish", str(bad), "--json")

    assert passed.code == 0
    assert (failed.code, json.loads(failed.out)["publishable"]) == (1, False)
    assert (refused.code, json.loads(refused.out)["code"]) == (1, "listing_invalid")


def test_a_published_offer_is_kept_and_the_next_one_is_the_next_version(
    market: Market, tmp_path: Path
) -> None:
    offer = json.loads(run("listings", "example").out)
    offer["listing"]["name"] = "Pages of another kind"
    file = tmp_path / "Other_Offer.json"
    file.write_text(json.dumps(offer), encoding="utf-8")

    first = market.answer("vendor", "listings", "publish", str(file))
    offer["listing"]["summary"] = "Returns the pages of another kind, one by one."
    file.write_text(json.dumps(offer), encoding="utf-8")
    second = market.answer("vendor", "listings", "publish", str(file))
    kept = market.home("vendor").offer("other-offer")
    gone = market.answer("vendor", "listings", "withdraw", first["listing_id"])
    shown = market.at("agent", "listings", "show", first["listing_id"])

    assert (first["version"], second["version"]) == (1, 2)
    assert kept.sha256 == second["listing_sha256"] == gone["listing_sha256"]
    assert "version 2, withdrawn" in shown.out


def test_a_published_offer_is_kept_though_nobody_reads_the_answer(
    market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*_: object) -> None:
        raise BrokenPipeError

    file = tmp_path / "unread.json"
    offer = json.loads(run("listings", "example").out)
    offer["listing"]["name"] = "Pages that nobody reads of"
    file.write_text(json.dumps(offer), encoding="utf-8")
    with monkeypatch.context() as patched:
        patched.setattr("farthing.clients.cli.session.Session.show", closed)
        with pytest.raises(BrokenPipeError):
            market.at("vendor", "listings", "publish", str(file))

    kept = market.home("vendor").offer("unread")
    market.answer("vendor", "listings", "withdraw", str(kept.listing["listing_id"]))


def test_an_offer_that_is_published_already_gets_no_new_version(
    market: Market, tmp_path: Path
) -> None:
    offer = json.loads(run("listings", "example").out)
    offer["listing"]["name"] = "Pages that stay as they are"
    file = tmp_path / "steady.json"
    file.write_text(json.dumps(offer), encoding="utf-8")
    first = market.answer("vendor", "listings", "publish", str(file))

    told = market.at("vendor", "listings", "publish", str(file), "--name", "another")
    again = market.answer("vendor", "listings", "publish", str(file))
    market.answer("vendor", "listings", "withdraw", first["listing_id"])
    returned = market.answer("vendor", "listings", "publish", str(file))
    market.answer("vendor", "listings", "withdraw", first["listing_id"])

    assert "unchanged, version 1" in told.err
    assert market.home("vendor").offer("another").sha256 == first["listing_sha256"]
    assert again["listing_sha256"] == first["listing_sha256"]
    assert (again["version"], returned["version"]) == (1, 2)


def test_a_charge_is_explained_proven_and_verified_offline(market: Market, tmp_path: Path) -> None:
    charge = market.charge()
    pack, receipt = tmp_path / "charge.pack", tmp_path / "receipt.json"
    market.answer("agent", "evidence", charge, "--out", str(pack))
    market.answer("operator", "receipts", charge, "--out", str(receipt))

    listed = market.answer("operator", "charges")["charges"]
    explained = market.at("agent", "explain", charge)
    trusting = run("verify", str(pack), "--trust", market.server.journal_thumbprint)
    unpinned = run("verify", str(pack))
    foreign = run("verify", str(pack), "--trust", "A" * 43, "--json")
    pack.write_bytes(pack.read_bytes().replace(b"page", b"pagf", 1))
    changed = run("verify", str(pack), "--json")

    assert listed[0]["charge_id"] == charge
    assert listed[0]["amount"] == {"amount": "0.004", "asset": "USD"}
    assert "0.004 USD" in explained.out
    assert json.loads(receipt.read_bytes())["seq"] == listed[0]["seq"]
    assert (trusting.code, unpinned.code) == (0, 0)
    assert charge in trusting.out
    assert "integrity only" not in trusting.out
    assert "integrity only" in unpinned.out
    assert "not provable" in trusting.out
    assert (foreign.code, json.loads(foreign.out)["verified"]) == (1, False)
    assert (changed.code, json.loads(changed.out)["verified"]) == (1, False)


def test_a_refund_and_a_dispute_go_through_the_command(market: Market, tmp_path: Path) -> None:
    charge = market.charge()
    refund = market.answer("vendor", "refund", charge, "0.001", "USD", "--reason", "half blank")
    preview = market.answer("agent", "disputes", "preview", charge, "not_delivered")
    filed = market.answer("agent", "disputes", "file", charge, "not_delivered")
    dispute = filed["dispute_id"]
    body = tmp_path / "body.json"
    body.write_bytes(result_bytes(WORK))
    answered = market.answer("vendor", "disputes", "answer", dispute, str(body))
    status = market.answer("operator", "disputes", "status", dispute)

    assert refund["amount"] == {"amount": "0.001", "asset": "USD"}
    assert preview["outcome"] == filed["status"] == "needs_evidence"
    assert (answered["status"], status["status"]) == ("decided", "decided")
    assert status["outcome"] == answered["outcome"] == "reject"


def test_a_key_is_rotated_in_its_file_even_when_the_answer_was_lost(
    market: Market, tmp_path: Path
) -> None:
    home = ("--home", str(tmp_path / "op"))
    at = {"FARTHING_URL": market.server.url}
    enrolled = answer("enrol", "--kind", "operator", "--name", "Rotating", *home, **at)
    market.answer("admin", "approve", enrolled["principal_id"])
    path = tmp_path / "op" / "key.jwk"
    old = path.read_bytes()

    first = answer("keys", "rotate", *home, **at)
    made = load_key(path)
    # As if the platform's answer had never come: the old key still in place, the new one waiting.
    path.rename(path.with_name("key.jwk.next"))
    path.write_bytes(old)
    path.chmod(0o600)
    again = answer("keys", "rotate", *home, **at)

    assert first["key_thumbprint"] == again["key_thumbprint"] == made.thumbprint
    assert load_key(path).thumbprint == made.thumbprint
    assert [each.name for each in path.parent.glob("*.next")] == []
    assert answer("whoami", *home, **at)["key_thumbprint"] == made.thumbprint


def test_a_revoked_key_does_nothing_more(market: Market) -> None:
    registered = market.answer("operator", "agents", "register", "Lost one")
    agent, thumbprint = registered["principal_id"], registered["key_thumbprint"]
    market.answer("operator", "approve", agent)
    home = ("--home", str(market.home("operator").path / "agents" / "lost-one"))
    assert run("whoami", *home, FARTHING_URL=market.server.url).code == 0

    revoked = market.answer("operator", "keys", "revoke", agent, thumbprint)
    ran = run("grants", "show", *home, "--json", FARTHING_URL=market.server.url)

    assert revoked["status"] == "revoked"
    assert (ran.code, json.loads(ran.out)["code"]) == (1, "key_revoked")


def test_the_platforms_keys_are_listed_with_those_that_are_pinned(market: Market) -> None:
    listed = market.answer("agent", "keys", "platform")

    assert listed[market.server.journal_thumbprint] == "journal, pinned"


def test_the_command_runs_as_a_program_of_its_own(market: Market) -> None:
    words = ["balance", "--json", "--home", str(market.home("operator").path)]

    ran = subprocess.run(
        [sys.executable, "-m", "farthing.clients.cli", *words],
        env={**os.environ, "FARTHING_URL": market.server.url},
        capture_output=True,
        text=True,
        check=True,
    )

    balances = json.loads(ran.stdout)
    assert balances["organisation_id"] == market.operator_id
    assert balances["accounts"][0]["account"] == "prepaid"


def test_the_bridge_serves_an_mcp_client_on_its_own_streams(tmp_path: Path) -> None:
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    }

    ran = subprocess.run(
        [
            *(sys.executable, "-m", "farthing.clients.cli"),
            *("connect", "http://127.0.0.1:1", "--home", str(tmp_path)),
        ],
        input=json.dumps(hello) + "\n",
        capture_output=True,
        text=True,
        check=True,
    )

    assert json.loads(ran.stdout)["result"]["serverInfo"]["name"] == "farthing-bridge"
