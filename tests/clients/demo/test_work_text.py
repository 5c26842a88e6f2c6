"""The text vendor: figures that can be checked by hand, in whole thousandths."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.clients.demo import sample
from farthing.clients.demo.outcomes import Reason, Unworkable
from farthing.clients.demo.work_text import STOPWORDS, Counts, Keyword, analyse

TEXT = """The penny. Farthings

A farthing is a coin. Four farthings make a penny, and the penny is a coin too.
Coins are counted; ledgers count coins. Mr. Pym kept a ledger for 12.5 years!

"Is it right?" asked Mr. Pym. It was."""


def test_a_text_is_counted() -> None:
    assert analyse("One two. Three!\n\nFour?").counts == Counts(
        characters=22, words=4, sentences=3, paragraphs=2, syllables=4
    )


def test_keywords_come_by_frequency_and_then_by_name() -> None:
    assert analyse(TEXT, keywords_max=5).keywords == (
        Keyword(word="coin", count=4),
        Keyword(word="farthing", count=3),
        Keyword(word="penny", count=3),
        Keyword(word="ledger", count=2),
        Keyword(word="pym", count=2),
    )


def test_no_stopword_is_a_keyword() -> None:
    text = f"{' '.join(sorted(STOPWORDS))} ledger"

    assert analyse(text).keywords == (Keyword(word="ledger", count=1),)


@pytest.mark.parametrize(
    ("text", "keyword"),
    [
        ("penny pennies", Keyword(word="penny", count=2)),
        ("tax taxes tax's", Keyword(word="tax", count=3)),
        ("pies pie", Keyword(word="pie", count=2)),
        ("glass glass", Keyword(word="glass", count=2)),
        ("taxes taxes", Keyword(word="taxes", count=2)),
        ("Ledger LEDGER ledger\u2019s", Keyword(word="ledger", count=3)),
    ],
)
def test_singular_and_plural_are_one_word_if_both_are_there(text: str, keyword: Keyword) -> None:
    assert analyse(text).keywords == (keyword,)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("It costs 3.5 pence. It is right.", ["It costs 3.5 pence.", "It is right."]),
        ("Dr. Smith and J. Pym met. They agreed.", ["Dr. Smith and J. Pym met.", "They agreed."]),
        ("See no. 12. There is no. It is.", ["See no. 12.", "There is no.", "It is."]),
        ("Coins, tokens etc. and cash.", ["Coins, tokens etc. and cash."]),
        ('He said "No!" She left...', ['He said "No!"', "She left..."]),
        ("Was it I. The rest?! Yes", ["Was it I.", "The rest?!", "Yes"]),
        ("One line\nand more.  Then\tthis.", ["One line and more.", "Then this."]),
        ("... !!! One. ?", ["One."]),
    ],
)
def test_sentences_end_where_a_reader_ends_them(text: str, sentences: list[str]) -> None:
    analysis = analyse(text, sentences_max=99)

    assert analysis.counts.sentences == len(sentences)
    ended = [sentence for sentence in sentences if sentence[-1] in '.!?"']
    assert list(analysis.summary) == ended


@pytest.mark.parametrize(
    ("word", "syllables"),
    [
        ("farthing", 2),
        ("coin", 1),
        ("the", 1),
        ("little", 2),
        ("whale", 1),
        ("made", 1),
        ("makes", 1),
        ("walked", 1),
        ("counted", 2),
        ("pieces", 2),
        ("churches", 2),
        ("settlement", 3),
        ("don't", 1),
        ("by-and-by", 3),
        ("1834", 1),
        ("sky", 1),
    ],
)
def test_syllables_are_counted_by_groups_of_vowels(word: str, syllables: int) -> None:
    assert analyse(word).counts.syllables == syllables


def test_readability_is_what_the_formulas_say() -> None:
    # 6 words, 2 sentences, 6 syllables: 206.835 - 1.015 x 3 - 84.6 and 0.39 x 3 + 11.8 - 15.59.
    easy = analyse("The cat sat. The dog ran.").readability

    assert (easy.reading_ease_milli, easy.grade_milli) == (119_190, -2_620)


@given(st.text(alphabet="abe. !\n", min_size=1, max_size=300).filter(str.strip))
def test_readability_equals_the_formulas_in_fractions(text: str) -> None:
    try:
        analysis = analyse(text)
    except Unworkable:
        return
    counts = analysis.counts
    length = Fraction(counts.words, counts.sentences)
    weight = Fraction(counts.syllables, counts.words)

    ease = Fraction("206.835") - Fraction("1.015") * length - Fraction("84.6") * weight
    grade = Fraction("0.39") * length + Fraction("11.8") * weight - Fraction("15.59")

    assert analysis.readability.reading_ease_milli == round(ease * 1000)
    assert analysis.readability.grade_milli == round(grade * 1000)


def test_a_summary_is_the_weightiest_sentences_in_the_order_of_the_text() -> None:
    assert analyse(TEXT, sentences_max=2).summary == (
        "Four farthings make a penny, and the penny is a coin too.",
        "Coins are counted; ledgers count coins.",
    )


def test_a_heading_is_no_sentence_of_a_summary() -> None:
    assert analyse("Coins coins coins\n\nA coin is round.").summary == ("A coin is round.",)
    assert analyse("Coins\n\nand ledgers").summary == ("Coins", "and ledgers")


def test_a_summary_quotes_the_sample_and_nothing_else() -> None:
    pages = sample.sample_pages()
    text = "\n\n".join(paragraph for page in pages for paragraph in page.paragraphs)

    analysis = analyse(text, sentences_max=5)

    assert [keyword.word for keyword in analysis.keywords[:2]] == ["farthing", "coin"]
    assert len(analysis.summary) == 5
    places = [text.index(sentence) for sentence in analysis.summary]
    assert places == sorted(places)


@pytest.mark.parametrize("text", ["", " \n", "... !", "\u2014"])
def test_a_text_without_words_has_nothing_to_analyse(text: str) -> None:
    with pytest.raises(Unworkable) as caught:
        analyse(text)

    assert caught.value.reason is Reason.NO_TEXT


def test_a_text_that_is_too_long_is_refused() -> None:
    with pytest.raises(Unworkable) as caught:
        analyse("word " * 20, characters_max=99)

    assert caught.value.reason is Reason.TOO_LARGE


@pytest.mark.parametrize(
    "piece", [".", "'", "a.", "A. ", "a'", "\n", "\n ", "e", ". ' ", "\u2026)", "1-"]
)
def test_no_text_takes_more_than_linear_time(piece: str) -> None:
    # Quadratic time on 400,000 characters would be minutes, and the test would be noticed.
    text = (piece * 400_000)[:400_000] + "word"

    assert analyse(text).counts.words >= 1


@given(st.text(max_size=400))
def test_any_text_ends_in_an_analysis_or_in_a_reason(text: str) -> None:
    try:
        counts = analyse(text).counts
    except Unworkable:
        assert not any(character.isalnum() for character in text)
    else:
        assert min(counts.words, counts.sentences, counts.paragraphs, counts.syllables) >= 1
