"""The treasury's commands against a real `farthing serve`."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients.cli.running import Ran, Server, answer, run, serving


class Market:
    """A served market with one operator, and the treasurer's key."""

    def __init__(self, server: Server, home: str) -> None:
        self.server = server
        self.own = ("--home", home)
        self.treasurer = ("--key", server.treasurer_key)

    def run(self, *words: str) -> Ran:
        return run("treasury", *words, FARTHING_URL=self.server.url)

    def answer(self, *words: str) -> Any:
        return answer("treasury", *words, FARTHING_URL=self.server.url)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    root = tmp_path_factory.mktemp("treasury")
    with serving(root / "data") as server:
        market = Market(server, str(root / "operator"))
        at = {"FARTHING_URL": server.url}
        enrol = ("enrol", "--kind", "operator", "--name", "Acme", *market.own)
        operator = answer(*enrol, "--trust", server.journal_thumbprint, **at)
        answer("approve", operator["principal_id"], "--key", server.admin_key, **at)
        yield market


@pytest.fixture
def operator_id(market: Market) -> str:
    whoami = answer("whoami", *market.own, FARTHING_URL=market.server.url)
    return str(whoami["organisation_id"])


def test_a_top_up_is_announced_by_the_operator_and_confirmed_by_the_treasurer(
    market: Market,
) -> None:
    announced = market.answer("create-top-up", "20", "USD", *market.own)
    confirm = ("confirm-top-up", announced["top_up_id"], "--reference", "wire-42")
    confirmed = market.answer(*confirm, *market.treasurer)
    (listed,) = market.answer("top-ups", *market.own)["top_ups"]

    assert (announced["status"], confirmed["status"]) == ("pending", "posted")
    assert (listed["top_up_id"], listed["reference"]) == (announced["top_up_id"], "wire-42")


def test_what_goes_back_is_said_in_all_and_seen_by_the_operator(market: Market) -> None:
    announced = market.answer("create-top-up", "7", "EUR", *market.own)
    market.answer("confirm-top-up", announced["top_up_id"], *market.treasurer)
    back = ("reverse-top-up", announced["top_up_id"], "3", "EUR", "--reference", "wire-45")
    reversed_ = market.answer(*back, *market.treasurer)
    again = market.run(*back, "--may-owe", *market.treasurer)
    more = market.run("reverse-top-up", announced["top_up_id"], "8", "EUR", *market.treasurer)
    nobodys = market.run("reverse-payout", f"pay_{'0' * 26}", "1", "EUR", *market.treasurer)
    listed = market.answer("top-ups", *market.own)["top_ups"][0]

    assert (reversed_["status"], reversed_["reversed"]["amount"]) == ("posted", "3")
    assert listed == reversed_
    assert [each.code for each in (again, more, nobodys)] == [1, 1, 1]
    assert "payment_resolved" in again.err
    assert "invalid_amount" in more.err
    assert "not_found" in nobodys.err


def test_a_reference_that_is_booked_twice_is_told_to_who_books(
    market: Market, operator_id: str
) -> None:
    fund = ("fund", operator_id, "1", "USD", "--reference", "wire 7", *market.treasurer)
    key = ("--idempotency-key", "0f6d9e0c6f4e4a7c8b1d")
    runs = [market.run(*fund, *key), market.run(*fund, *key), market.run(*fund)]
    out = market.run("withdraw", *fund[1:])
    listed = ("statement", "--account", "external_clearing", "--reference", "wire 7")
    at = {"FARTHING_URL": market.server.url}
    lines = answer(*listed, *market.treasurer, **at)["lines"]
    mine = run("statement", "--organisation", operator_id, *market.treasurer, **at).out

    assert [each.code for each in (*runs, out)] == [0] * 4
    assert not any("booked under" in each.err for each in runs[:2])
    assert ["nothing was done again" in each.err for each in runs] == [False, True, False]
    assert "2 records are booked under wire 7" in runs[2].err
    assert "--reference 'wire 7'" in runs[2].err
    assert "3 records" in out.err
    assert [line["side"] for line in lines] == ["debit", "debit", "credit"]
    assert "reference wire 7" in " ".join(mine.split())


def test_a_list_with_nothing_in_it_says_so(market: Market) -> None:
    assert market.run("payouts", *market.treasurer).out == "No payouts.\n"


def test_a_credit_lot_ends_at_a_time_as_people_write_it(market: Market, operator_id: str) -> None:
    grant = ("grant-credit", operator_id, "10", "CRD", "--kind", "promotional")
    lot = market.answer(*grant, "--expires", "2099-01-31", *market.treasurer)
    (listed,) = market.answer("credit-lots", *market.own)["lots"]

    assert lot["expires_at"] == "2099-01-31T00:00:00.000000Z"
    assert listed["lot_id"] == lot["lot_id"]
    assert market.run(*grant, "--expires", "soon", *market.treasurer).code == 2


def test_an_operator_chooses_less_grace_than_the_treasurer_granted(
    market: Market, operator_id: str
) -> None:
    granted = market.answer("set-grace", operator_id, "5", "USD", *market.treasurer)
    chosen = market.answer("set-grace", operator_id, "2", "USD", *market.own)

    assert granted["in_force"]["amount"] == "5"
    assert chosen["in_force"]["amount"] == "2"

    at = {"FARTHING_URL": market.server.url}
    assert answer("balance", *market.own, **at)["graces"] == [chosen]
    shown = run("balance", *market.own, **at).out
    assert "2 USD" in shown
    assert "5 USD" in shown


def test_the_admin_names_the_partner_of_a_vendor(market: Market, operator_id: str) -> None:
    vendor = ("--home", f"{market.own[1]}-vendor")
    at = {"FARTHING_URL": market.server.url}
    trust = ("--trust", market.server.journal_thumbprint)
    vendor_id = answer("enrol", "--kind", "vendor", "--name", "Shop", *vendor, *trust, **at)[
        "principal_id"
    ]
    admin = ("--key", market.server.admin_key)
    answer("approve", vendor_id, *admin, **at)

    named = market.answer("set-partner", vendor_id, operator_id, "50000", *admin)
    refused = market.run("set-partner", vendor_id, operator_id, "50000", *market.treasurer)
    above = market.run("set-partner", vendor_id, operator_id, "1000001", *admin)

    assert (named["subject_id"], named["partner_id"]) == (vendor_id, operator_id)
    assert named["ppm"] == 50_000
    assert (refused.code, above.code) == (1, 2)
    assert "Refused: not_permitted" in refused.err


def test_what_was_not_earned_is_not_paid_out(market: Market) -> None:
    asked = market.run("request-payout", "1", "USD", *market.own, "--account", "partner_payable")

    assert asked.code == 1
    assert "Refused: account_unknown" in asked.err


def test_an_account_with_money_in_it_is_not_closed(market: Market, operator_id: str) -> None:
    answer(
        *("fund", operator_id, "1", "EUR", "--reference", "wire", *market.treasurer),
        FARTHING_URL=market.server.url,
    )

    closed = market.run("close-account", operator_id, "prepaid", "EUR", *market.treasurer)

    assert closed.code == 1
    assert "Refused: account_in_use" in closed.err


def test_what_was_funded_by_mistake_is_taken_out_and_what_is_gone_is_owed(
    market: Market, operator_id: str
) -> None:
    at = {"FARTHING_URL": market.server.url}
    reference = ("--reference", "wire 42")
    fund = ("fund", operator_id, "5", "JPY", *reference, *market.treasurer)
    answer(*fund, **at)
    withdraw = ("withdraw", operator_id, "7", "JPY", *reference, *market.treasurer)
    short = market.run(*withdraw)
    taken = market.answer(*withdraw, "--may-owe")

    assert short.code == 1
    assert "insufficient_funds" in short.err
    assert "--may-owe" in short.err
    assert (taken["amount"]["amount"], taken["owed"]["amount"]) == ("7", "2")
    answer("fund", operator_id, "2", "JPY", *reference, *market.treasurer, **at)
    market.answer("close-account", operator_id, "prepaid", "JPY", *market.treasurer)
    assert "prepaid JPY is closed." in run("balance", *market.own, **at).out


@pytest.mark.parametrize("text", ["", "  "])
def test_what_is_booked_has_a_name_outside(market: Market, operator_id: str, text: str) -> None:
    for command in ("fund", "withdraw"):
        ran = market.run(command, operator_id, "5", "JPY", "--reference", text, *market.treasurer)
        assert ran.code == 2
        assert "say what it is" in ran.err


def test_of_a_lot_that_was_given_by_mistake_what_is_free_is_taken_back(
    market: Market, operator_id: str
) -> None:
    grant = ("grant-credit", operator_id, "10", "EUR", "--kind", "promotional")
    lot = market.answer(*grant, *market.treasurer)
    back = ("withdraw-credit", lot["lot_id"], "10", "EUR", *market.treasurer)
    taken, again = market.answer(*back), market.run(*back)

    assert (taken["free"]["amount"], taken["withdrawn"]["amount"]) == ("0", "10")
    assert "Less than that of the lot is free" in again.err


def test_nobody_cancels_a_payout_that_is_not_its_own(market: Market) -> None:
    nobodys = market.run("cancel-payout", f"pay_{'0' * 26}", *market.own)

    assert nobodys.code == 1
    assert "not_found" in nobodys.err
