"""The vocabulary is sound as data, and every word in it leads to a leaf."""

import re

import pytest

from farthing.catalog.vocabulary import Via, ancestors, load

VOCABULARY = load()
OASF = re.compile(r"oasf/\d+\.\d+\.\d+:[a-z0-9_]+(/[a-z0-9_]+)*")
PATH = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*){1,3}")


def test_there_are_enough_leaves_and_each_stands_in_a_described_branch() -> None:
    assert len(VOCABULARY.leaves) >= 60
    for path in VOCABULARY.leaves:
        assert PATH.fullmatch(path)
        assert ancestors(path)[0] in VOCABULARY.branches
        assert not set(ancestors(path)[:-1]) & VOCABULARY.leaves.keys()


def test_each_leaf_is_described_in_one_sentence() -> None:
    for leaf in VOCABULARY.leaves.values():
        assert leaf.definition.endswith(".")
        assert leaf.definition.count(". ") == 0
        assert len(leaf.definition) <= 120
        assert leaf.aliases


def test_an_everyday_name_belongs_to_one_leaf_only() -> None:
    aliases = [alias for leaf in VOCABULARY.leaves.values() for alias in leaf.aliases]
    assert len(aliases) == len(set(aliases))
    for leaf in VOCABULARY.leaves.values():
        for alias in leaf.aliases:
            assert VOCABULARY.resolve(alias).paths == (leaf.path,)


def test_cross_references_name_a_release_and_a_path() -> None:
    references = [each for leaf in VOCABULARY.leaves.values() for each in leaf.oasf]
    references += [each for domain in VOCABULARY.domains.values() for each in domain.oasf]
    assert len(references) > 50
    assert all(OASF.fullmatch(each) for each in references)


def test_former_tags_lead_to_present_leaves() -> None:
    assert VOCABULARY.deprecated
    for former in VOCABULARY.deprecated.values():
        assert former.path not in VOCABULARY.leaves
        assert bool(former.replaced_by) != bool(former.split_into)
        assert set(former.successors) <= VOCABULARY.leaves.keys()
        assert former.deprecated_since <= VOCABULARY.version


@pytest.mark.parametrize(
    ("tag", "paths", "via"),
    [
        ("documents.text.extract", ("documents.text.extract",), Via.LEAF),
        (" Documents.Text.Extract ", ("documents.text.extract",), Via.LEAF),
        ("documents.text", ("documents.text",), Via.BRANCH),
        ("OCR", ("documents.text.ocr",), Via.ALIAS),
        ("speech-to-text", ("audio.speech.transcribe",), Via.ALIAS),
        ("text.analyze.keywords", ("text.analyse.keywords",), Via.ALIAS),
        ("media.transcription", ("audio.speech.transcribe",), Via.DEPRECATED),
        (
            "documents.parse",
            ("documents.text.extract", "documents.tables.extract"),
            Via.DEPRECATED,
        ),
        ("documents.text.ext", (), Via.UNKNOWN),
        ("", (), Via.UNKNOWN),
    ],
)
def test_a_word_resolves_to_its_present_paths(tag: str, paths: tuple[str, ...], via: Via) -> None:
    resolution = VOCABULARY.resolve(tag)
    assert (resolution.paths, resolution.via) == (paths, via)


def test_a_branch_covers_its_leaves_and_a_leaf_itself() -> None:
    assert VOCABULARY.leaves_below("documents.text") == (
        "documents.text.extract",
        "documents.text.ocr",
    )
    assert VOCABULARY.leaves_below("images.resize") == ("images.resize",)
    assert VOCABULARY.leaves_below("nowhere") == ()


def test_a_version_that_is_not_there_is_said_to_be_missing() -> None:
    with pytest.raises(FileNotFoundError):
        load(999)
