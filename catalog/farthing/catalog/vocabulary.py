"""The capability vocabulary: what kinds of service there are, as versioned data.

Boundary: reads `vocabulary/<version>.json` and resolves words to paths. A tag is a name path, never
a number; old names keep resolving (`deprecated`), everyday names resolve too (`aliases`).
Source: spec/vocabulary.md.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from importlib.resources import files
from typing import Final

from pydantic import ConfigDict, TypeAdapter

__all__ = [
    "VERSION",
    "Branch",
    "Deprecation",
    "Domain",
    "Leaf",
    "Resolution",
    "StandardMeter",
    "Via",
    "Vocabulary",
    "ancestors",
    "load",
]

VERSION: Final = 1
"""The vocabulary that listings are published against now."""
_BETWEEN_WORDS: Final = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A part of the vocabulary that leaves stand in; a branch is asked for, never published."""

    path: str
    caption: str
    definition: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One kind of service. `oasf` names the paths it corresponds to, `oasf/<release>:<path>`."""

    path: str
    caption: str
    definition: str
    aliases: tuple[str, ...]
    oasf: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deprecation:
    """A former name: either replaced by one leaf or split into several."""

    path: str
    deprecated_since: int
    replaced_by: str = ""
    split_into: tuple[str, ...] = ()

    @property
    def successors(self) -> tuple[str, ...]:
        """The leaves that stand for it now."""
        return self.split_into or (self.replaced_by,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """An industry, the second facet of a listing."""

    domain: str
    caption: str
    oasf: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StandardMeter:
    """A meter whose name means the same at every vendor, so that prices can be compared."""

    meter: str
    unit: str
    definition: str


class Via(StrEnum):
    """How a word came to its paths."""

    LEAF = "leaf"
    BRANCH = "branch"
    ALIAS = "alias"
    DEPRECATED = "deprecated"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """The present paths of a word; more than one where a former tag was split, none if unknown."""

    tag: str
    paths: tuple[str, ...]
    via: Via


@dataclass(frozen=True, slots=True, kw_only=True)
class _Document:
    """The file as it stands."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    vocabulary: str
    version: int
    branches: tuple[Branch, ...]
    leaves: tuple[Leaf, ...]
    deprecated: tuple[Deprecation, ...]
    domains: tuple[Domain, ...]
    meters: tuple[StandardMeter, ...]


class Vocabulary:
    """One version, indexed. Built once by `load` and shared: nothing in it changes."""

    def __init__(self, document: _Document) -> None:
        self.version: Final = document.version
        self.branches: Final[Mapping[str, Branch]] = {b.path: b for b in document.branches}
        self.leaves: Final[Mapping[str, Leaf]] = {leaf.path: leaf for leaf in document.leaves}
        self.deprecated: Final[Mapping[str, Deprecation]] = {
            former.path: former for former in document.deprecated
        }
        self.domains: Final[Mapping[str, Domain]] = {d.domain: d for d in document.domains}
        self.meters: Final[Mapping[str, StandardMeter]] = {m.meter: m for m in document.meters}
        self._below: Final = {
            path: tuple(leaf for leaf in self.leaves if path in ancestors(leaf))
            for path in {above for leaf in self.leaves for above in ancestors(leaf)}
        }
        self._aliases: Final = {
            _words(alias): leaf.path for leaf in document.leaves for alias in leaf.aliases
        }

    def resolve(self, tag: str) -> Resolution:
        """The present paths of a leaf, a branch, a former tag or an everyday name."""
        path = tag.strip().lower()
        if path in self.leaves:
            return Resolution(tag=tag, paths=(path,), via=Via.LEAF)
        if path in self._below:
            return Resolution(tag=tag, paths=(path,), via=Via.BRANCH)
        if path in self.deprecated:
            successors = self.deprecated[path].successors
            return Resolution(tag=tag, paths=successors, via=Via.DEPRECATED)
        alias = self._aliases.get(_words(path))
        if alias is not None:
            return Resolution(tag=tag, paths=(alias,), via=Via.ALIAS)
        return Resolution(tag=tag, paths=(), via=Via.UNKNOWN)

    def leaves_below(self, path: str) -> tuple[str, ...]:
        """The leaves in a branch, in the order of the file; a leaf is below itself."""
        return self._below.get(path, ())


@lru_cache(maxsize=4)
def load(version: int = VERSION) -> Vocabulary:
    """Read a version of the vocabulary; it is read once.

    Raises:
        FileNotFoundError: There is no such version.
    """
    source = files("farthing.catalog") / "vocabulary" / f"{version}.json"
    return Vocabulary(TypeAdapter(_Document).validate_json(source.read_bytes()))


def ancestors(path: str) -> tuple[str, ...]:
    """A path and every branch above it, outermost first."""
    parts = path.split(".")
    return tuple(".".join(parts[: count + 1]) for count in range(len(parts)))


def _words(text: str) -> str:
    return _BETWEEN_WORDS.sub(" ", text.lower()).strip()
