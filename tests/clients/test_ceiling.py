"""The local ceiling: counted before it is spent, once per purchase, closed when damaged."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.clients.ceiling import Ceiling
from farthing.protocol.errors import Code, Refused, Unverified
from farthing.protocol.money import ASSETS, format_units
from farthing.protocol.times import DAY_US
from farthing.protocol.wire import Money

NOW_US = 1_795_176_000_000_000


def usd(amount: str) -> Money:
    return Money(amount=amount, asset="USD")


def left(ceiling: Ceiling, now_us: int = NOW_US) -> str:
    return next(each.today.amount for each in ceiling.left(now_us) if each.today.asset == "USD")


def refusal(ceiling: Ceiling, key: str, amount: Money) -> tuple[Code, str]:
    with pytest.raises(Refused) as refused:
        ceiling.reserve(key, amount, NOW_US)
    return refused.value.code, refused.value.refusal.remaining


def test_a_purchase_is_counted_once_under_its_key(tmp_path: Path) -> None:
    ceiling = Ceiling(tmp_path / "ceiling.json")

    for _ in range(3):
        ceiling.reserve("one", usd("0.6"), NOW_US)
    ceiling.reserve("two", usd("0.4"), NOW_US)

    assert left(ceiling) == "9"
    assert left(Ceiling(tmp_path / "ceiling.json")) == "9"


def test_what_is_too_much_for_one_purchase_or_for_the_day_counts_nothing(tmp_path: Path) -> None:
    ceiling = Ceiling(tmp_path / "ceiling.json")

    assert refusal(ceiling, "big", usd("1.000000001")) == (Code.LOCAL_LIMIT_EXCEEDED, "1")
    for number in range(9):
        ceiling.reserve(str(number), usd("1"), NOW_US)
    ceiling.reserve("last", usd("0.5"), NOW_US)
    assert refusal(ceiling, "more", usd("0.500000001")) == (Code.LOCAL_LIMIT_EXCEEDED, "0.5")
    assert left(ceiling) == "0.5"


def test_what_came_out_cheaper_or_not_at_all_is_given_back(tmp_path: Path) -> None:
    ceiling = Ceiling(tmp_path / "ceiling.json")
    ceiling.reserve("one", usd("1"), NOW_US)
    ceiling.reserve("two", usd("1"), NOW_US)

    ceiling.settle("one", usd("0.25"), NOW_US)
    ceiling.settle("two", usd("0"), NOW_US)

    assert left(ceiling) == "9.75"


def test_a_new_day_starts_anew(tmp_path: Path) -> None:
    ceiling = Ceiling(tmp_path / "ceiling.json")
    ceiling.reserve("one", usd("1"), NOW_US)

    assert left(ceiling, NOW_US + DAY_US) == "10"


def test_a_clock_that_was_ahead_for_a_while_forgets_nothing_of_today(tmp_path: Path) -> None:
    ceiling = Ceiling(tmp_path / "ceiling.json")
    ceiling.reserve("one", usd("1"), NOW_US)
    ceiling.reserve("two", usd("1"), NOW_US + 400 * DAY_US)

    assert left(ceiling) == "9"


def test_under_the_same_key_no_less_is_counted_than_before(tmp_path: Path) -> None:
    ceiling = Ceiling(tmp_path / "ceiling.json")
    ceiling.reserve("one", usd("1"), NOW_US)

    before = ceiling.reserve("one", usd("0.01"), NOW_US)

    assert (before, left(ceiling)) == (usd("1"), "9")


def test_every_asset_that_the_platform_knows_has_a_ceiling_from_the_start(tmp_path: Path) -> None:
    left_over = Ceiling(tmp_path / "ceiling.json").left(NOW_US)

    assert {each.today.asset for each in left_over} == set(ASSETS)


def test_an_asset_without_a_ceiling_is_not_spent(tmp_path: Path) -> None:
    path = tmp_path / "ceiling.json"
    path.write_bytes(b'{"limits":{"USD":{"per_day":"2","per_purchase":"0.5"}}}')
    ceiling = Ceiling(path)

    ceiling.reserve("one", usd("0.5"), NOW_US)

    assert left(ceiling) == "1.5"
    assert refusal(ceiling, "two", Money(amount="1", asset="EUR")) == (
        Code.LOCAL_LIMIT_EXCEEDED,
        "0",
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"limits":{"USD":{"per_day":"2"}}}',
        b'{"limits":{"USD":{"per_day":"-2","per_purchase":"1"}}}',
        b'{"limits":{"USD":{"per_day":"2.0","per_purchase":"1"}}}',
    ],
)
def test_a_damaged_file_spends_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ceiling.json"
    path.write_bytes(content)

    with pytest.raises(Unverified):
        Ceiling(path)


def test_damaged_counts_spend_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ceiling.json"
    Ceiling(path).reserve("one", usd("1"), NOW_US)
    path.write_bytes(path.read_bytes().replace(b'"1000000000"', b'"much"'))

    with pytest.raises(Unverified):
        Ceiling(path).reserve("two", usd("1"), NOW_US)


@settings(max_examples=10)
@given(st.lists(st.integers(0, 1_500_000_000), max_size=15))
def test_the_day_never_passes_its_ceiling(
    tmp_path_factory: pytest.TempPathFactory, purchases: list[int]
) -> None:
    ceiling = Ceiling(tmp_path_factory.mktemp("home") / "ceiling.json")
    spent = 0
    for number, units in enumerate(purchases):
        try:
            ceiling.reserve(str(number), usd(format_units(units, "USD")), NOW_US)
        except Refused:
            assert units > 1_000_000_000 or spent + units > 10_000_000_000
        else:
            spent += units

    assert left(ceiling) == format_units(10_000_000_000 - spent, "USD")
