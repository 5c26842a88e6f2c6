"""The manifest and the tests, held to one another in both directions."""

import re
from collections import Counter

import pytest

from tests.spec.manifest import REPOSITORY, Requirement, requirements, suite, unlinked

# What the first release does in a first true form.
FIRST_RELEASE = {
    "A1", "A2", "B1", "B2", "B3", "C1", "D1", "E1", "E2", "F1", "G1", "H1", "K1",
}  # fmt: skip
ID = re.compile(r"([A-K][1-6])\.[a-z0-9]+(-[a-z0-9]+)*")
VERSION = re.compile(r"\d+\.\d+\.\d+")

each_requirement = pytest.mark.parametrize("requirement", requirements(), ids=lambda each: each.id)


def linked_files() -> set[str]:
    return {node.partition("::")[0] for each in requirements() for node in each.tests}


@each_requirement
def test_a_requirement_says_what_holds_and_where_that_comes_from(requirement: Requirement) -> None:
    named = ID.fullmatch(requirement.id)

    assert named is not None
    assert named[1] in re.split(r"[,;] ", requirement.source)
    assert re.fullmatch(r"[A-Z].+\.", requirement.behaviour)
    assert VERSION.fullmatch(requirement.since)


@each_requirement
def test_a_requirement_is_tested_or_says_why_not(requirement: Requirement) -> None:
    assert bool(requirement.tests) != bool(requirement.deferred)


@each_requirement
def test_every_test_that_a_requirement_names_exists(requirement: Requirement) -> None:
    tests = suite()
    missing = [
        node
        for node in requirement.tests
        if node.partition("::")[2] not in tests.get(node.partition("::")[0], ())
    ]

    assert missing == []
    assert len(set(requirement.tests)) == len(requirement.tests)


@each_requirement
def test_the_chapter_of_a_requirement_exists(requirement: Requirement) -> None:
    assert not requirement.chapter or (REPOSITORY / "spec" / requirement.chapter).is_file()


@pytest.mark.parametrize("path", suite())
def test_every_test_file_serves_a_requirement_or_says_why_not(path: str) -> None:
    assert (path in linked_files()) != (path in unlinked())


def test_no_file_is_excused_that_is_not_there() -> None:
    assert unlinked().keys() - suite().keys() == set()
    assert all(unlinked().values())


def test_no_id_is_given_twice() -> None:
    counts = Counter(each.id for each in requirements())

    assert [each for each, count in counts.items() if count > 1] == []


def test_requirements_stand_in_the_order_of_their_letters() -> None:
    letters = [each.id.partition(".")[0] for each in requirements()]

    assert letters == sorted(letters)


def test_every_requirement_of_the_first_release_is_there() -> None:
    assert {each.id.partition(".")[0] for each in requirements()} >= FIRST_RELEASE
