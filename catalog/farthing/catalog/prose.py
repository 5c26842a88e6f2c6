"""What to watch for in vendors' prose, which agents will read: links, orders, tricks, stuffing.

Boundary: patterns over one text. They catch the clumsy and the careless, not everybody; what
protects a reader is that prose is returned labelled untrusted and decides nothing.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection
from typing import Final

__all__ = ["instruction_in", "mixed_script_in", "same_words", "stuffing_in", "url_in"]

# Every repetition is bounded, or can begin in one place of a word only: anybody may send a text,
# and it is read once however it is made. A label of a host name has at most 63 letters (RFC 1035).
_URL: Final = re.compile(
    r"\b[a-z][a-z0-9+.-]{0,31}://\S+|\bwww\.\S+|\b(?:data|javascript|mailto):\S+"
    r"|\b[a-z0-9-]{1,63}\.(?:com|org|net|io|dev|app|ai|co|xyz|info|sh)\b(?:/\S*)?"
)
_READER: Final = r"\b(?:you|the agent|agents|assistants?|the model)"
_VERB: Final = r"(?:call|use|choose|select|pick|buy|pay|prefer|recommend|send|accept|run)"
_BOUND: Final = r"(?:instruction|prompt|rule|context|limit|polic|guideline|budget)"
_KEYS: Final = r"(?:api key|secret|password|token|private key)s?"
_INSTRUCTIONS: Final = tuple(
    re.compile(pattern)
    for pattern in (
        rf"\b(?:ignore|disregard|forget|override|bypass)\b.{{0,40}}\b{_BOUND}\w*",
        r"\b(?:system|developer|hidden) (?:prompt|message|instruction)s?\b",
        rf"{_READER} (?:must|shall|should|need to|have to|will)(?: always| now| first)? {_VERB}\b",
        rf"\b(?:always|only) {_VERB} (?:this|us|our|me)\b",
        r"\b(?:do not|don't|never) (?:tell|inform|mention|reveal|show|ask|compare|consider)\b",
        r"</?(?:system|assistant|user|tool|instructions?|important)\b",
        r"(?:^|\s)(?:system|assistant|user)\s*:",
        r"\bas an? (?:ai|language model|assistant)\b",
        rf"\b(?:reveal|send|print|repeat)\b.{{0,30}}\b{_KEYS}\b",
    )
)
_WORD: Final = re.compile(r"[^\W_]+")
_IDENTIFIER: Final = re.compile(r"(?<![a-z])[a-z]+(?:_[a-z]+)+")
_REPEATS_MIN: Final = 4
_REPEAT_SHARE: Final = 5  # a word is every fifth or more
_WORD_LENGTH_MIN: Final = 3
_COMMON: Final = frozenset({"and", "any", "are", "for", "from", "per", "the", "with", "your"})
_FRAGMENTS_MAX: Final = 12
_FRAGMENT_WORDS_MAX: Final = 2
# One character may stand for eighteen; a whole document has no more than this without.
_PLAIN_MAX: Final = 65_536
_SCRIPTS: Final = ("CYRILLIC", "GREEK", "LATIN")


def url_in(text: str) -> str:
    """The first link or host name in a text, `""` if there is none."""
    found = _URL.search(_plain(text))
    return found.group() if found else ""


def instruction_in(text: str, tool_names: Collection[str]) -> str:
    """The first words that speak to the reader's agent in place of a buyer, `""` if none do.

    The market's own tools count: a listing has no reason to name one.
    """
    plain = _plain(text)
    for pattern in _INSTRUCTIONS:
        found = pattern.search(plain)
        if found:
            return found.group().strip()
    return next((word for word in _IDENTIFIER.findall(plain) if word in tool_names), "")


def mixed_script_in(text: str) -> str:
    """The first word that mixes alphabets whose letters look alike, `""` if there is none."""
    if text.isascii():
        return ""
    for word in _words(text):
        scripts = {unicodedata.name(letter, "").partition(" ")[0] for letter in word}
        if len(scripts.intersection(_SCRIPTS)) > 1:
            return word
    return ""


def stuffing_in(text: str) -> str:
    """The word repeated, or the list of fragments, that is there for the search index alone."""
    words = [word for word in _words(_plain(text)) if len(word) >= _WORD_LENGTH_MIN]
    for word, count in Counter(words).most_common(3):
        frequent = count >= _REPEATS_MIN and count * _REPEAT_SHARE >= len(words)
        if frequent and word not in _COMMON:
            return word
    fragments = [
        part.strip()
        for part in re.split(r"[,;|/]", text)
        if 1 <= len(part.split()) <= _FRAGMENT_WORDS_MAX
    ]
    return ", ".join(fragments[:3]) if len(fragments) >= _FRAGMENTS_MAX else ""


def same_words(text: str) -> tuple[str, ...]:
    """The words of a text in order, by which two texts are the same to a reader."""
    return tuple(_words(_plain(text)))


def _words(text: str) -> list[str]:
    return [found.group() for found in _WORD.finditer(text)]


def _plain(text: str) -> str:
    # Full-width and other compatibility forms would otherwise walk past every pattern.
    return " ".join(unicodedata.normalize("NFKC", text)[:_PLAIN_MAX].casefold().split())
