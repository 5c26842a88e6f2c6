from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.protocol.errors import Broken
from farthing.protocol.ledger import (
    COUNTER_MAX,
    Account,
    AccountKind,
    Movement,
    Transfer,
    account_name,
    apply,
    fold,
    imbalances,
    split_account,
)
from farthing.protocol.money import INT64_MAX
from farthing.protocol.refunds import split_refund
from tests.protocol.vectors import cases, vectors

VECTORS = vectors("ledger")
CLEARING = account_name("platform", AccountKind.EXTERNAL_CLEARING, "USD")
OWNERS = [account_name(owner, AccountKind.PREPAID, "USD") for owner in ("a", "b", "c")]


@pytest.mark.parametrize("case", cases(VECTORS["folds"]))
def test_transfers_fold_as_the_vectors_say(case: dict[str, Any]) -> None:
    transfers = [Transfer.from_document(each) for each in case["transfers"]]
    if "broken" in case:
        with pytest.raises(Broken):
            fold(transfers)
        return
    accounts = fold(transfers)

    assert {
        name: {counter: str(getattr(account, counter)) for counter in Account.__slots__}
        for name, account in accounts.items()
    } == case["accounts"]
    for name, units in case.get("available", {}).items():
        assert accounts[name].available_units == int(units)


@pytest.mark.parametrize("case", cases(VECTORS["refunds"]))
def test_refunds_divide_as_the_vectors_say(case: dict[str, Any]) -> None:
    amount_units, fee_units = int(case["amount_units"]), int(case["fee_units"])
    refunded_units = fee_returned_units = 0
    for step in case["steps"]:
        split = split_refund(
            amount_units=amount_units,
            fee_units=fee_units,
            refunded_units=refunded_units,
            fee_returned_units=fee_returned_units,
            back_units=int(step["back"]),
        )
        assert split == (int(step["net"]), int(step["fee"]))
        refunded_units += split.net_units + split.fee_units
        fee_returned_units += split.fee_units


@given(
    st.lists(
        st.tuples(
            st.sampled_from(Movement),
            st.sampled_from([CLEARING, *OWNERS]),
            st.sampled_from(OWNERS),
            st.integers(0, 100),
        ),
        max_size=40,
    )
)
def test_whatever_is_applied_debits_equal_credits(
    given_: list[tuple[Movement, str, str, int]],
) -> None:
    accounts: dict[str, Account] = {}
    for movement, debit, credit, units in given_:
        transfer = Transfer(movement=movement, debit=debit, credit=credit, asset="USD", units=units)
        try:
            apply(accounts, transfer)
        except Broken:
            return
        assert imbalances(accounts) == {}


@given(
    st.integers(1, INT64_MAX),
    st.integers(0, 1_000_000),
    st.lists(st.integers(0, INT64_MAX), max_size=8),
)
def test_a_charge_given_back_whole_gives_the_whole_fee_back_in_any_parts(
    amount_units: int, fee_ppm: int, parts: list[int]
) -> None:
    fee_units = amount_units * fee_ppm // 1_000_000
    net_units = returned_units = 0
    for part in [*parts, amount_units]:
        split = split_refund(
            amount_units=amount_units,
            fee_units=fee_units,
            refunded_units=net_units + returned_units,
            fee_returned_units=returned_units,
            back_units=min(part, amount_units - net_units - returned_units),
        )
        assert split.net_units >= 0
        assert split.fee_units >= 0
        net_units += split.net_units
        returned_units += split.fee_units

    assert (net_units, returned_units) == (amount_units - fee_units, fee_units)


def test_an_imbalance_is_told_per_asset() -> None:
    accounts = {
        "a:prepaid:USD": Account(credits_posted=3),
        "b:prepaid:EUR": Account(credits_pending=2),
        "c:prepaid:JPY": Account(credits_posted=1, debits_posted=1),
    }

    assert imbalances(accounts) == {"USD": 3, "EUR": 2}


def test_a_lifetime_counter_is_bounded() -> None:
    accounts = {
        "a:external_clearing:USD": Account(debits_posted=COUNTER_MAX),
        "b:prepaid:USD": Account(),
    }
    transfer = Transfer(
        movement=Movement.POST,
        debit="a:external_clearing:USD",
        credit="b:prepaid:USD",
        asset="USD",
        units=1,
    )

    with pytest.raises(Broken):
        apply(accounts, transfer)


def test_an_accounts_name_says_whose_it_is() -> None:
    name = account_name("org_x", AccountKind.VENDOR_PAYABLE, "EUR")

    assert name == "org_x:vendor_payable:EUR"
    assert split_account(name) == ("org_x", AccountKind.VENDOR_PAYABLE, "EUR")


def test_a_transfer_is_the_same_after_writing_and_reading() -> None:
    transfer = Transfer(movement=Movement.VOID, debit="a", credit="b", asset="USD", units=7)

    assert Transfer.from_document(transfer.document()) == transfer


def test_only_what_mirrors_money_elsewhere_may_go_negative() -> None:
    negative = {kind for kind in AccountKind if kind.may_go_negative}

    assert negative == {AccountKind.EXTERNAL_CLEARING}
