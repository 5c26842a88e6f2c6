"""What is answered in parts adds up to what one answer would have said."""

from hypothesis import given
from hypothesis import strategies as st

from farthing.protocol.reconciliation import Compared, Counted
from farthing.protocol.tallies import counted_of, tally_of

PARTS = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), max_size=5)


def summed(parts: list[tuple[int, int]]) -> Compared:
    return sum((Compared.of(*each) for each in parts), Compared())


@given(PARTS, st.integers(0, 10**6), PARTS)
def test_a_count_is_read_from_its_answer_as_it_was(
    buyer: list[tuple[int, int]], rejected: int, gateway: list[tuple[int, int]]
) -> None:
    acknowledged = summed(buyer)
    billed = Compared.of(acknowledged.one + rejected, acknowledged.one)
    count = Counted(buyer=acknowledged, platform=billed, gateway=summed(gateway))

    assert counted_of(tally_of(count)) == count
