"""Search keeps every limit, prices for this caller, says why, and helps when nothing fits."""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from farthing.catalog.cards import CardShelf
from farthing.catalog.queries import CANDIDATES_MAX
from farthing.catalog.search import NEAREST_MAX, FrozenAmong, search
from farthing.catalog.vocabulary import load
from farthing.protocol.authority.grant import Grant
from farthing.protocol.authority.standing import NOBODY, Standing
from farthing.protocol.canonical import canonical_bytes
from farthing.protocol.errors import Code, Refusal, Refused, refuse
from farthing.protocol.messages.catalog import Result, SearchAnswer
from farthing.protocol.money import parse_units
from farthing.protocol.rating import parse_card, rate
from farthing.protocol.records import Record
from farthing.protocol.wire import Money, Usage, document_of
from tests.catalog.asking import ask_of
from tests.catalog.corpus import (
    CORPUS,
    KEYS,
    LISTING_IDS,
    build,
    corpus_records,
    none_frozen,
    publication,
    published,
    reading,
    vendor_id,
    withdrawn,
)

BY_KEY = {row["key"]: row for row in CORPUS}
PAGES = {"page": "30"}


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("market") / "catalog.db"
    build(file, corpus_records())
    return file


def small(folder: Path, records: Iterable[Record]) -> Path:
    file = folder / "catalog.db"
    build(file, records)
    return file


async def answered(
    market: Path,
    standing: Standing = NOBODY,
    *,
    frozen_among: FrozenAmong = none_frozen,
    barred: Refusal | None = None,
    **short: Any,
) -> SearchAnswer:
    async with reading(market) as conn:
        return await search(
            conn,
            ask_of(**short),
            standing=standing,
            cards=CardShelf(),
            vocabulary=load(),
            now_us=1_000,
            frozen_among=frozen_among,
            barred=barred,
        )


async def refused(market: Path, **short: Any) -> tuple[Code, str]:
    with pytest.raises(Refused) as caught:
        await answered(market, **short)
    return caught.value.code, caught.value.refusal.path


def keys(answer: SearchAnswer) -> list[str]:
    return [KEYS[result.listing_id] for result in answer.results]


def buyer(**members: Any) -> Standing:
    grant = Grant(
        grant_id="gnt",
        agent_id="agt",
        operator_id="org",
        asset="USD",
        per_call_units_max=parse_units("0.05", "USD"),
        per_day_units_max=parse_units("1", "USD"),
        **members.pop("grant", {}),
    )
    available = {"USD": parse_units(members.pop("balance", "1"), "USD")}
    return Standing(principal_id="agt", available_units=available, grants={"USD": grant}, **members)


def reasons(result: Result) -> list[str]:
    return [reason.code for reason in result.purchasable.reasons]


def margin(result: Result, constraint: str) -> tuple[str, str, str, str]:
    [found] = [each for each in result.why.margins if each.constraint == constraint]
    return found.limit, found.actual, found.margin, found.unit


# Limits.


async def test_a_branch_finds_every_leaf_below_it_and_nothing_else(market: Path) -> None:
    answer = await answered(market, tags=["documents.text"], limit=20)
    expected = {
        row["key"] for row in CORPUS if any(t.startswith("documents.text.") for t in row["tags"])
    }
    assert set(keys(answer)) == expected
    assert answer.left_out == 0


@pytest.mark.parametrize("tag", ["OCR", "documents.ocr", "documents.text.ocr"])
async def test_an_everyday_or_former_name_finds_the_present_leaf(market: Path, tag: str) -> None:
    answer = await answered(market, tags=[tag])
    assert set(keys(answer)) == {"scandia-ocr", "handscript-ocr"}
    assert [(a.constraint, a.value) for a in answer.applied_constraints] == [
        ("tags", "documents.text.ocr")
    ]


async def test_a_latency_limit_is_kept_and_its_margin_said(market: Path) -> None:
    answer = await answered(market, tags=["documents.text"], latency_ms_p95_max=1200)
    assert set(keys(answer)) == {"pagewell-text", "quickpages-text"}
    [pagewell] = [r for r in answer.results if KEYS[r.listing_id] == "pagewell-text"]
    assert margin(pagewell, "latency_ms_p95_max") == ("1200", "1200", "0", "ms")


async def test_an_availability_limit_is_kept(market: Path) -> None:
    answer = await answered(market, tags=["documents.text.extract"], availability_ppm_min=999_000)
    assert set(keys(answer)) == {"pagewell-text", "inkline-text"}


async def test_regions_are_all_the_places_where_content_may_go(market: Path) -> None:
    assert keys(await answered(market, tags=["text.moderate"], regions=["us"])) == []
    both = await answered(market, tags=["text.moderate"], regions=["us", "ie"])
    assert keys(both) == ["gatekeep-moderate"]
    union = await answered(market, tags=["language.translate"], regions=["eu"])
    assert keys(union) == ["linguamill-translate"]


async def test_only_allowed_vendors_are_found(market: Path) -> None:
    answer = await answered(
        market, query="text of a pdf", vendors=[vendor_id("inkline"), vendor_id("scandia")]
    )
    assert set(keys(answer)) == {"inkline-text", "scandia-ocr", "handscript-ocr"}


async def test_only_accepted_terms_are_found(tmp_path: Path) -> None:
    sound, other = publication(BY_KEY["pagewell-text"]), publication(BY_KEY["inkline-text"])
    other.terms["version"] = 2
    market = small(tmp_path, [published(1, sound), published(2, other.sealed())])
    accepted = sound.listing["terms_sha256"]
    assert keys(await answered(market, terms_sha256=[accepted])) == ["pagewell-text"]


async def test_only_the_asset_asked_for_is_found(tmp_path: Path) -> None:
    euro = publication({**BY_KEY["inkline-text"], "asset": "EUR"})
    market = small(
        tmp_path, [published(1, publication(BY_KEY["pagewell-text"])), published(2, euro)]
    )
    assert keys(await answered(market, asset="EUR")) == ["inkline-text"]
    budget = Money(amount="1", asset="EUR")
    within = await answered(market, workload=PAGES, max_total=budget)
    assert keys(within) == ["inkline-text"]


async def test_what_is_withdrawn_or_replaced_is_not_found(tmp_path: Path) -> None:
    gone, kept = BY_KEY["pagewell-text"], BY_KEY["inkline-text"]
    renewed = {**kept, "name": "Inkline renewed"}
    market = small(
        tmp_path,
        [
            published(1, publication(gone)),
            published(2, publication(kept)),
            withdrawn(3, LISTING_IDS["pagewell-text"], 1),
            published(4, publication(renewed, version=2)),
        ],
    )
    for short in ({"query": "text of a document"}, {"tags": ["documents"]}, {}):
        answer = await answered(market, **short)
        assert [result.version for result in answer.results] == [2]
        assert answer.results[0].vendor_text.name == "Inkline renewed"


# Prices.


async def test_the_total_is_what_the_rating_engine_says(market: Path) -> None:
    answer = await answered(market, tags=["documents"], workload=PAGES, limit=20)
    for result in answer.results:
        card = parse_card(publication(BY_KEY[KEYS[result.listing_id]]).rate_card)
        assert result.total is not None
        assert result.total.units == rate(card, {}, {"page": 30}).total_units
        assert sum(line.amount.units for line in result.lines) == result.total.units
        assert result.rate_card_sha256 == card.card_sha256


async def test_the_total_starts_from_the_callers_own_position(market: Path) -> None:
    used = buyer(positions={LISTING_IDS["pagewell-text"]: {"page": 1_000}})
    fresh = await answered(market, buyer(), tags=["documents.text.extract"], workload=PAGES)
    later = await answered(market, used, tags=["documents.text.extract"], workload=PAGES)
    totals = [
        {KEYS[r.listing_id]: r.total.amount for r in answer.results if r.total is not None}
        for answer in (fresh, later)
    ]
    assert [total["pagewell-text"] for total in totals] == ["0.024", "0.015"]
    assert totals[0]["quickpages-text"] == totals[1]["quickpages-text"] == "0.012"


async def test_a_budget_is_kept_to_the_last_unit(market: Path) -> None:
    short: dict[str, Any] = {"tags": ["documents.text.extract"], "workload": PAGES}
    exact = await answered(market, max_total="0.024", **short)
    assert set(keys(exact)) == {"quickpages-text", "pagewell-text"}
    below = await answered(market, max_total="0.023999999", **short)
    assert keys(below) == ["quickpages-text"]
    assert margin(below.results[0], "max_total") == ("0.023999999", "0.012", "0.011999999", "USD")


async def test_who_charges_by_a_meter_that_is_not_in_the_workload_is_left_out(
    market: Path,
) -> None:
    answer = await answered(market, tags=["images.resize"], workload={"image": "10", "page": "1"})
    assert keys(answer) == ["framesmith-resize"]
    assert answer.unpriced == 1
    assert answer.results[0].unused_meters == ("page",)


async def test_every_meter_of_a_card_counts(market: Path) -> None:
    workload = {"gibibyte-hour": "720", "request": "1000"}
    [larder] = (await answered(market, tags=["infra.storage"], workload=workload)).results
    assert larder.total is not None
    assert larder.total.amount == "0.0266"
    assert [(line.meter, line.amount.amount) for line in larder.lines] == [
        ("gibibyte-hour", "0.0216"),
        ("request", "0.005"),
    ]


async def test_without_a_workload_there_is_no_total_and_price_counts_for_nothing(
    market: Path,
) -> None:
    answer = await answered(market, tags=["documents.text.extract"])
    for result in answer.results:
        assert result.total is None
        assert [each.value_ppm for each in result.why.components if each.name == "price"] == [0]


# Purchasable.


async def test_nobody_can_look_but_not_buy(market: Path) -> None:
    answer = await answered(market, tags=["documents.text.extract"], workload=PAGES)
    assert all(not result.purchasable.ok for result in answer.results)
    assert Code.AUTHORITY_MISSING.value in reasons(answer.results[0])


async def test_a_funded_agent_within_its_limits_can_buy(market: Path) -> None:
    answer = await answered(market, buyer(), tags=["documents.text.extract"], workload=PAGES)
    assert all(result.purchasable.ok for result in answer.results)


async def test_every_reason_against_a_purchase_is_given_with_what_would_help(market: Path) -> None:
    standing = buyer(
        balance="0.01",
        grant={"vendors_deny": (vendor_id("ledgerlens"),), "capabilities_allow": ("images",)},
    )
    answer = await answered(market, standing, tags=["documents.invoices"], workload={"page": "3"})
    assert reasons(answer.results[0]) == [
        Code.VENDOR_NOT_ALLOWED.value,
        Code.CAPABILITY_NOT_ALLOWED.value,
        Code.PER_CALL_LIMIT_EXCEEDED.value,
        Code.INSUFFICIENT_FUNDS.value,
    ]
    short = answer.results[0].purchasable.reasons[-1]
    assert (short.required, short.remaining, short.asset) == ("0.06", "0.01", "USD")


# Why.


async def test_a_result_names_the_words_that_matched_and_where(market: Path) -> None:
    [result] = (await answered(market, query="scanned letter", tags=["ocr"], limit=1)).results
    matched = {match.field: match.words for match in result.why.matched}
    assert matched["example_requests"] == ("scanned", "letter")
    assert matched["summary"] == ("scanned",)
    assert "name" not in matched
    assert result.why.tags == ("documents.text.ocr",)


async def test_vendor_prose_is_labelled_and_stands_nowhere_else(market: Path) -> None:
    answer = await answered(market, query="text of a pdf", limit=1)
    document: Any = document_of(answer)
    prose = document["results"][0].pop("vendor_text")
    assert prose["untrusted"] is True
    assert prose["name"].encode() not in canonical_bytes(document)


async def test_an_answer_says_what_was_applied_and_how_it_was_ranked(market: Path) -> None:
    answer = await answered(
        market,
        query="text of a pdf",
        workload=PAGES,
        max_total="0.05",
        latency_ms_p95_max=2_000,
        regions=["de", "us"],
    )
    assert {each.constraint: each.value for each in answer.applied_constraints} == {
        "max_total": "0.05 USD",
        "asset": "USD",
        "latency_ms_p95_max": "2000",
        "regions": "de us",
    }
    assert answer.paid_placement is False
    assert answer.ranking_policy.policy_id == "farthing-linear"
    assert [result.rank for result in answer.results] == [1, 2, 3]
    scores = [result.score_ppm for result in answer.results]
    assert scores == sorted(scores, reverse=True)


async def test_the_same_ask_has_the_same_answer(market: Path) -> None:
    short: dict[str, Any] = {"query": "text from documents", "workload": PAGES, "limit": 20}
    assert await answered(market, **short) == await answered(market, **short)


async def test_numbers_in_the_words_of_an_ask_limit_nothing(market: Path) -> None:
    words = "text of a pdf under 0.00000001 dollars in 1 ms in the us"
    answer = await answered(market, query=words, workload=PAGES)
    assert answer.results
    assert answer.applied_constraints == ()


# Where nothing fits.


async def test_where_no_price_fits_the_nearest_says_by_how_much(market: Path) -> None:
    answer = await answered(market, query="text of a pdf report", workload=PAGES, max_total="0.001")
    assert answer.results == ()
    assert 1 <= len(answer.nearest_infeasible) <= NEAREST_MAX
    nearest = answer.nearest_infeasible[0]
    [fail] = nearest.fails
    assert fail.constraint == "max_total"
    assert fail.margin.startswith("-")
    assert nearest.total is not None
    assert nearest.total.amount == fail.actual


async def test_who_fails_the_fewest_limits_comes_first(market: Path) -> None:
    answer = await answered(
        market,
        tags=["documents.text.extract"],
        workload=PAGES,
        max_total="0.02",
        latency_ms_p95_max=500,
        availability_ppm_min=999_000,
    )
    assert answer.results == ()
    fails = [[fail.constraint for fail in each.fails] for each in answer.nearest_infeasible]
    assert fails[0] == ["availability_ppm_min"]
    assert [len(each) for each in fails] == sorted(len(each) for each in fails)


async def test_a_missing_meter_is_named(market: Path) -> None:
    answer = await answered(market, query="resize a photo", workload={"page": "1"})
    assert answer.results == ()
    fails = {KEYS[e.listing_id]: e.fails[0].actual for e in answer.nearest_infeasible}
    assert fails["pixelmill-resize"] == "pixel"


async def test_words_that_fit_nothing_find_nothing(market: Path) -> None:
    answer = await answered(market, query="zymurgy quokka")
    assert (answer.results, answer.nearest_infeasible) == ((), ())


async def test_chance_matches_are_not_offered_in_place_of_what_was_meant(market: Path) -> None:
    # Many listings within 200 ms hold the word "text"; none is what a search for OCR means.
    answer = await answered(market, query="ocr scanned handwriting text", latency_ms_p95_max=200)
    assert answer.results == ()
    nearest = {KEYS[each.listing_id] for each in answer.nearest_infeasible}
    assert nearest >= {"scandia-ocr", "handscript-ocr"}


async def test_who_buys_nothing_anyway_is_told_so_while_nobody_knows_who_is_frozen(
    market: Path,
) -> None:
    async def unknown(vendor_ids: Collection[str]) -> NoReturn:
        del vendor_ids
        raise Refused(refuse(Code.UNAVAILABLE))

    answer = await answered(market, frozen_among=unknown, barred=refuse(Code.UNAUTHENTICATED))

    told = {reason.code for each in answer.results for reason in each.purchasable.reasons}
    assert told == {Code.UNAUTHENTICATED}


# What cannot be asked.


async def test_a_limit_on_the_total_needs_a_workload(market: Path) -> None:
    assert await refused(market, max_total="1") == (Code.INVALID_ARGUMENT, "workload")


async def test_an_unknown_tag_is_refused_not_passed_over(market: Path) -> None:
    assert await refused(market, tags=["documents", "alchemy"]) == (
        Code.INVALID_ARGUMENT,
        "tags.1",
    )


async def test_a_meter_twice_is_refused(market: Path) -> None:
    twice = (Usage(meter="page", quantity="1"), Usage(meter="page", quantity="2"))
    ask = ask_of()
    async with reading(market) as conn:
        with pytest.raises(Refused) as caught:
            await search(
                conn,
                type(ask)(workload=twice),
                standing=NOBODY,
                cards=CardShelf(),
                vocabulary=load(),
                now_us=0,
                frozen_among=none_frozen,
            )
    assert (caught.value.code, caught.value.refusal.path) == (Code.INVALID_ARGUMENT, "workload.1")


@pytest.mark.parametrize(
    ("short", "code", "path"),
    [
        ({"asset": "XAU"}, Code.INVALID_ARGUMENT, "asset"),
        (
            {"workload": PAGES, "max_total": Money(amount="1", asset="XAU")},
            Code.INVALID_ARGUMENT,
            "max_total.asset",
        ),
        (
            {"workload": PAGES, "max_total": Money(amount="1", asset="EUR"), "asset": "USD"},
            Code.INVALID_ARGUMENT,
            "max_total.asset",
        ),
        (
            {"workload": PAGES, "max_total": Money(amount="1.50", asset="USD")},
            Code.INVALID_AMOUNT,
            "max_total.amount",
        ),
        ({"workload": {"page": "1000000000000001"}}, Code.INVALID_ARGUMENT, "workload.0"),
    ],
)
async def test_an_argument_that_cannot_be_applied_is_refused(
    market: Path, short: dict[str, Any], code: Code, path: str
) -> None:
    assert await refused(market, **short) == (code, path)


# Bounds.


async def test_what_is_cut_off_is_said(tmp_path: Path) -> None:
    row = BY_KEY["pagewell-text"]
    records = [
        published(seq, publication({**row, "key": f"copy-{seq}"}))
        for seq in range(1, CANDIDATES_MAX + 2)
    ]
    market = small(tmp_path, records)
    async with reading(market) as conn:
        shelf = CardShelf()
        for short in ({"query": "text of a pdf"}, {"tags": ["documents"]}):
            answer = await search(
                conn,
                ask_of(**short),
                standing=NOBODY,
                cards=shelf,
                vocabulary=load(),
                now_us=0,
                frozen_among=none_frozen,
            )
            assert answer.truncated
            assert len(answer.results) + answer.left_out == CANDIDATES_MAX
