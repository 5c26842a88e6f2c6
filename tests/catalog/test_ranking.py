"""The order is a sum anybody can recompute, and depends on nothing but the figures."""

from hypothesis import given
from hypothesis import strategies as st

from farthing.catalog.ranking import POLICY, Candidate, components, rank
from farthing.protocol.money import PPM
from farthing.protocol.rating import Rating


def candidate(
    key: str, *, text: int = PPM, total: int | None = None, latency: int = 100, peers: str = "a"
) -> Candidate:
    return Candidate(
        row_id=1,
        listing_id=key,
        peers=peers,
        latency_ms_p95=latency,
        relevance_ppm=text,
        rating=None if total is None else Rating((), total, {}),
    )


CANDIDATES = st.lists(
    st.builds(
        candidate,
        st.uuids().map(str),
        text=st.integers(0, PPM),
        total=st.one_of(st.none(), st.integers(0, 10**12)),
        latency=st.integers(1, 10**6),
        peers=st.sampled_from(["a", "b"]),
    ),
    max_size=12,
    unique_by=lambda each: each.listing_id,
)


def order(candidates: list[Candidate]) -> list[str]:
    return [ranked.candidate.listing_id for ranked in rank(candidates)]


def test_the_weights_add_up_to_one() -> None:
    weights = (
        POLICY.text_weight_ppm,
        POLICY.price_weight_ppm,
        POLICY.latency_weight_ppm,
        POLICY.outcome_weight_ppm,
    )
    assert sum(weights) == PPM


@given(CANDIDATES.flatmap(lambda each: st.tuples(st.just(each), st.permutations(each))))
def test_the_order_does_not_depend_on_the_order_of_reading(
    both: tuple[list[Candidate], list[Candidate]],
) -> None:
    one, other = both
    assert order(one) == order(other)


@given(CANDIDATES)
def test_every_score_is_the_weighted_sum_of_its_components(candidates: list[Candidate]) -> None:
    for ranked in rank(candidates):
        parts = components(ranked)
        assert all(0 <= each.value_ppm <= PPM for each in parts)
        assert ranked.score_ppm == sum(each.value_ppm * each.weight_ppm for each in parts) // PPM


def test_of_equals_the_cheaper_comes_first() -> None:
    assert order([candidate("dear", total=9), candidate("cheap", total=3)]) == ["cheap", "dear"]


def test_of_equals_the_faster_comes_first() -> None:
    assert order([candidate("slow", latency=9), candidate("fast", latency=3)]) == ["fast", "slow"]


def test_what_is_free_has_the_whole_price_component() -> None:
    values = {
        ranked.candidate.listing_id: ranked.values_ppm[1]
        for ranked in rank([candidate("free", total=0), candidate("dear", total=5)])
    }
    assert values == {"free": PPM, "dear": 0}


def test_nobody_gains_by_being_cheaper_than_another_kind_of_service() -> None:
    alone = candidate("alone", total=1, latency=1, peers="b")
    pair = [candidate("one", total=500, latency=50), candidate("two", total=500, latency=50)]
    values = {each.candidate.listing_id: each.values_ppm for each in rank([alone, *pair])}
    assert values["alone"][1:3] == (PPM // 2, PPM // 2)
    assert values["one"][1:3] == (PPM, PPM)


def test_ties_are_broken_by_id() -> None:
    assert order([candidate("b"), candidate("a"), candidate("c")]) == ["a", "b", "c"]
