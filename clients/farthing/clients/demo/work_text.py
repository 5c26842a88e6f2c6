"""The text vendor's work: keywords, readability and a summary. The meter `character` counts input.

Boundary: text in, values out; English. All arithmetic is on integers, scores in thousandths, so
that a disputed answer can be computed again anywhere to the same digits.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from farthing.clients.demo.outcomes import Reason, Unworkable
from farthing.protocol.money import Rounding, divide

__all__ = [
    "CHARACTERS_MAX",
    "SHORT_CHARACTERS_MAX",
    "STOPWORDS",
    "Analysis",
    "Counts",
    "Keyword",
    "Readability",
    "analyse",
]

CHARACTERS_MAX: Final = 1_000_000
SHORT_CHARACTERS_MAX: Final = 2000
"""A text that is worked on at once, beside others."""
KEYWORD_LENGTH_MIN: Final = 3
# Added to the length of a sentence before its score is divided by it: a sentence of three words
# with one keyword should not beat a sentence of twenty with five.
LENGTH_DAMPING: Final = 8

STOPWORDS: Final = frozenset(
    """
    a about above across after again against all almost along already also although always am among
    an and another any anybody anyone anything are around as at away back be became because become
    been before behind being below between both but by came can cannot come could did do does doing
    done down during each either else enough even ever every everything far few first for from get
    give go goes had has have having he her here hers herself him himself his how however i if in
    indeed instead into is it its itself just keep kept last later least less let like little long
    made make makes many may me might mine more most much must my myself near nearly neither never
    next no nobody none nor not nothing now of off often on once one only onto or other others our
    ours ourselves out over own per perhaps put quite rather really said same say second seem seemed
    several shall she should since so some somebody someone something soon still such take than that
    the their theirs them themselves then there therefore these they thing things third this those
    though three through thus till to together too took toward towards two under until up upon us
    use used very was way we well went were what whatever when where whether which while who whole
    whom whose why will with within without would yes yet you your yours yourself
    aren't can't couldn't didn't doesn't don't hadn't hasn't haven't he'd he'll he's i'd i'll i'm
    i've isn't it's let's mustn't shan't she'd she'll she's shouldn't that's there's they'd they'll
    they're they've wasn't we'd we'll we're we've weren't what's who's won't wouldn't you'd you'll
    you're you've
    """.split()  # noqa: SIM905 - two hundred quoted words are no list that anybody would read
)

_WORD: Final = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
_PARAGRAPH: Final = re.compile(r"\n[^\S\n]*\n\s*")
# A sentence ends at a mark, after which closing quotes or brackets may follow, and then space. The
# look-behind and the possessive counts keep the time linear in a megabyte of full stops.
_END: Final = re.compile(r"(?<![.!?\u2026])[.!?\u2026]++[\"'\u201d\u2019)\]]*+(?!\S)")
_OPENING: Final = "\"'([\u2018\u201c"
_BEFORE_NAMES: Final = frozenset({"dr", "messrs", "mr", "mrs", "ms", "mt", "prof", "rev", "st"})
_BEFORE_NUMBERS: Final = frozenset({
    "approx", "apr", "aug", "ca", "ch", "dec", "feb", "fig", "figs", "jan", "jul", "jun", "mar",
    "no", "nos", "nov", "oct", "pp", "sep", "sept", "vol",
})  # fmt: skip
_VOWELS: Final = re.compile(r"[aeiouyàâäáãåæèéêëìíîïòóôöõøœùúûüýÿ]+")
_SILENT_ENDING: Final = re.compile(
    r"(?:[^aeiouylr]|[aeiouy][lr])e$|[^aeiouytd]ed$|[^aeiouycghsxz]es$"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What there is; `characters` are Unicode code points, white space included."""

    characters: int
    words: int
    sentences: int
    paragraphs: int
    syllables: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyword:
    """A word that is no stopword and how often it occurs, singular and plural taken together."""

    word: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Readability:
    """The two formulas of Flesch and of Kincaid, in thousandths of a point."""

    reading_ease_milli: int
    """About 100,000 for very easy, below 30,000 for very hard; not bounded."""
    grade_milli: int
    """About the years of school a reader needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """Everything the vendor says about a text."""

    counts: Counts
    keywords: tuple[Keyword, ...]
    readability: Readability
    summary: tuple[str, ...]
    """Sentences of the text itself, in its order."""


def analyse(
    text: str,
    *,
    keywords_max: int = 10,
    sentences_max: int = 3,
    characters_max: int = CHARACTERS_MAX,
) -> Analysis:
    """Analyse an English text.

    Args:
        text: Plain text; an empty line ends a paragraph.
        keywords_max: How many keywords to give.
        sentences_max: How many sentences the summary may have.
        characters_max: How long the text may be.

    Raises:
        Unworkable: `too_large`, or `no_text` when there is not one word.
    """
    if len(text) > characters_max:
        raise Unworkable(Reason.TOO_LARGE, f"{len(text)} of at most {characters_max} characters")
    words = _words(text)
    if not words:
        raise Unworkable(Reason.NO_TEXT)
    paragraphs = [part for part in _PARAGRAPH.split(text) if _WORD.search(part)]
    sentences = [sentence for part in paragraphs for sentence in _sentences(part)]
    counts = Counts(
        characters=len(text),
        words=len(words),
        sentences=len(sentences),
        paragraphs=len(paragraphs),
        syllables=sum(_syllables(word) for word in words),
    )
    terms = _terms(words)
    frequencies = Counter(terms[word] for word in words if word in terms)
    return Analysis(
        counts=counts,
        keywords=_keywords(frequencies, keywords_max),
        readability=_readability(counts),
        summary=_summary(sentences, terms, frequencies, sentences_max),
    )


def _words(text: str) -> list[str]:
    return [word.lower().replace("\u2019", "'") for word in _WORD.findall(text)]


def _sentences(paragraph: str) -> list[str]:
    sentences = []
    start = 0
    for end in _END.finditer(paragraph):
        before = paragraph[max(start, end.start() - 40) : end.start()]
        after = paragraph[end.end() : end.end() + 40]
        if end[0] == "." and _goes_on(before.split(), after.split()):
            continue
        sentences.append(paragraph[start : end.end()])
        start = end.end()
    sentences.append(paragraph[start:])
    plain = (" ".join(sentence.split()) for sentence in sentences)
    return [sentence for sentence in plain if _WORD.search(sentence)]


def _goes_on(before: Sequence[str], after: Sequence[str]) -> bool:
    """Whether a full stop only shortens a word: "Mr. Pym", "J. Smith", "no. 12", "etc. and"."""
    if not before or not after:
        return False
    word = before[-1].lstrip(_OPENING).lower()
    following = after[0].lstrip(_OPENING)[:1]
    if word in _BEFORE_NUMBERS:
        return following.isdigit()
    initial = len(word) == 1 and word.isalpha() and word != "i"
    return initial or word in _BEFORE_NAMES or following.islower()


def _syllables(word: str) -> int:
    """Groups of vowels, less a silent ending; a number counts as one."""
    total = 0
    for part in re.split(r"['-]", word):
        groups = len(_VOWELS.findall(part))
        if groups > 1 and _SILENT_ENDING.search(part):
            groups -= 1
        total += groups
    return max(1, total)


def _terms(words: Iterable[str]) -> dict[str, str]:
    """Each word worth counting, with the term it counts for: its singular, if the text has it."""
    known = {
        word: word.removesuffix("'s")
        for word in words
        if len(word) >= KEYWORD_LENGTH_MIN and word not in STOPWORDS and not word.isnumeric()
    }
    stems = set(known.values())
    return {
        word: next((stem for stem in _singulars(plain) if stem in stems), plain)
        for word, plain in known.items()
    }


def _singulars(word: str) -> tuple[str, ...]:
    if not word.endswith("s") or word.endswith("ss"):
        return ()
    if word.endswith("ies"):
        return (f"{word[:-3]}y", word[:-1])
    return (word[:-1], word[:-2]) if word.endswith("es") else (word[:-1],)


def _keywords(frequencies: Counter[str], keywords_max: int) -> tuple[Keyword, ...]:
    ranked = sorted(frequencies.items(), key=lambda item: (-item[1], item[0]))
    return tuple(Keyword(word=word, count=count) for word, count in ranked[:keywords_max])


def _readability(counts: Counts) -> Readability:
    """Flesch (1948) and Kincaid (1975), over the common denominator of both ratios.

    Reading ease: 206.835 - 1.015 words/sentences - 84.6 syllables/words.
    Grade: 0.39 words/sentences + 11.8 syllables/words - 15.59.
    """
    words, sentences, syllables = counts.words, counts.sentences, counts.syllables
    common = words * sentences
    ease = 206_835 * common - 1_015 * words * words - 84_600 * syllables * sentences
    grade = 390 * words * words + 11_800 * syllables * sentences - 15_590 * common
    return Readability(
        reading_ease_milli=divide(ease, common, Rounding.HALF_EVEN),
        grade_milli=divide(grade, common, Rounding.HALF_EVEN),
    )


def _summary(
    sentences: Sequence[str],
    terms: Mapping[str, str],
    frequencies: Mapping[str, int],
    sentences_max: int,
) -> tuple[str, ...]:
    """The sentences whose terms are the most frequent for their length, in the text's order.

    What ends in no mark is a heading or a list; it is taken only from a text without sentences.
    """

    def score(index: int) -> int:
        words = _words(sentences[index])
        found = {terms[word] for word in words if word in terms}
        return 1000 * sum(frequencies[term] for term in found) // (len(words) + LENGTH_DAMPING)

    ended = [index for index, sentence in enumerate(sentences) if _END.search(sentence[-3:])]
    best = sorted(ended or range(len(sentences)), key=lambda index: (-score(index), index))
    return tuple(sentences[index] for index in sorted(best[:sentences_max]))
