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
from farthing.protocol.money import INT64_MAX, share_ppm
from farthing.protocol.refunds import Split, split_refund
from farthing.protocol.shares import Part, back_of, partner_share, spread
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
    refunded_units = fee_returned_units = partner_returned_units = 0
    for step in case["steps"]:
        split = split_refund(
            amount_units=amount_units,
            fee_units=fee_units,
            refunded_units=refunded_units,
            fee_returned_units=fee_returned_units,
            back_units=int(step["back"]),
            partner_units=int(case.get("partner_units", "0")),
            partner_returned_units=partner_returned_units,
        )
        assert split == (int(step["net"]), int(step["fee"]), int(step.get("partner", "0")))
        refunded_units += sum(split)
        fee_returned_units += split.fee_units
        partner_returned_units += split.partner_units


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
    st.one_of(st.integers(1, 50), st.integers(1, INT64_MAX)),
    st.integers(0, 1_000_000),
    st.integers(0, 1_000_000),
    st.lists(st.one_of(st.integers(0, 5), st.integers(0, INT64_MAX)), max_size=12),
)
def test_a_charge_given_back_whole_gives_the_whole_fee_back_in_any_parts(
    amount_units: int, fee_ppm: int, partner_ppm: int, parts: list[int]
) -> None:
    fee_units = share_ppm(amount_units, fee_ppm)
    partner_units = partner_share(amount_units, fee_units, partner_ppm)
    given = Split(0, 0, 0)
    for part in [*parts, amount_units]:
        split = split_refund(
            amount_units=amount_units,
            fee_units=fee_units,
            refunded_units=sum(given),
            fee_returned_units=given.fee_units,
            back_units=min(part, amount_units - sum(given)),
            partner_units=partner_units,
            partner_returned_units=given.partner_units,
        )
        assert min(split) >= 0
        given = Split(*(before + now for before, now in zip(given, split, strict=True)))

    assert given == (amount_units - fee_units - partner_units, fee_units, partner_units)


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=5),
    st.lists(st.integers(0, 30), min_size=1, max_size=5),
)
def test_whoever_gives_and_takes_every_unit_is_taken_once(
    gives: list[int], takes: list[int]
) -> None:
    takes = [*takes, max(sum(gives) - sum(takes), 0)]
    gives = [*gives, max(sum(takes) - sum(gives), 0)]
    givers = [Part(f"g{n}:prepaid:USD", units) for n, units in enumerate(gives)]
    takers = [Part(f"t{n}:prepaid:USD", units) for n, units in enumerate(takes)]
    transfers = spread(givers, takers, "USD")

    for part in givers:
        assert sum(each.units for each in transfers if each.debit == part.account) == part.units
    for part in takers:
        assert sum(each.units for each in transfers if each.credit == part.account) == part.units
    assert len(transfers) < len(givers) + len(takers)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=5), st.lists(st.integers(0, 20)))
def test_what_is_given_back_in_parts_unwinds_the_order_of_consumption(
    consumed: list[int], parts: list[int]
) -> None:
    paid = [Part(f"{n}", units) for n, units in enumerate(consumed)]
    before_units = 0
    unwound: list[str] = []
    for part in [*parts, sum(consumed)]:
        back_units = min(part, sum(consumed) - before_units)
        for each in back_of(paid, before_units, back_units):
            unwound += [each.account] * each.units
        before_units += back_units

    spent = [each.account for each in paid for _ in range(each.units)]
    assert unwound == spent[::-1]


@pytest.mark.parametrize("side", ["debit", "credit"])
def test_a_transfer_between_accounts_of_two_assets_is_broken(side: str) -> None:
    names = {"debit": CLEARING, "credit": OWNERS[0]}
    names[side] = names[side].replace("USD", "EUR")

    with pytest.raises(Broken):
        fold([Transfer(movement=Movement.POST, asset="USD", units=1, **names)])


def test_a_grace_lets_one_account_go_so_far_below_zero_and_no_further() -> None:
    def debit(units: int) -> Transfer:
        return Transfer(
            movement=Movement.PENDING, debit=OWNERS[0], credit=OWNERS[1], asset="USD", units=units
        )

    accounts = fold([debit(5)], {OWNERS[0]: 5})

    assert accounts[OWNERS[0]].available_units == -5
    with pytest.raises(Broken):
        fold([debit(6)], {OWNERS[0]: 5})
    with pytest.raises(Broken):
        fold([debit(5)], {OWNERS[1]: 5})


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


def test_only_what_is_elsewhere_given_away_or_owed_may_go_negative() -> None:
    negative = {kind for kind in AccountKind if kind.may_go_negative}

    assert negative == {
        AccountKind.EXTERNAL_CLEARING,
        AccountKind.PROMOTION,
        AccountKind.RECEIVABLE,
    }
