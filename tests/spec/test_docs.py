"""The documentation cannot lie by omission: what there is, is written down, and no link is dead."""

import re
from dataclasses import fields
from functools import cache

import pytest

from farthing.protocol.errors import Code
from farthing.protocol.ledger import AccountKind
from farthing.protocol.messages.operations import OPERATIONS
from farthing.protocol.signatures import Typ
from farthing.protocol.wire import Role
from farthing.server.settings import Settings
from tests.spec.manifest import REPOSITORY

SPEC = REPOSITORY / "spec"
ROOMS = ("protocol", "identity", "catalog", "settlement", "server", "clients", "spec")
CHAPTERS = tuple(sorted(path.name for path in SPEC.glob("*.md") if path.name != "README.md"))
NOTES = tuple(sorted(path.name for path in (SPEC / "design").glob("*.md")))
DOCUMENTS = tuple(
    path.relative_to(REPOSITORY).as_posix()
    for path in sorted(
        [
            *REPOSITORY.glob("*.md"),
            *SPEC.rglob("*.md"),
            *(REPOSITORY / room / "README.md" for room in ROOMS if room != "spec"),
        ]
    )
)

LINK = re.compile(r"\]\(([^)\s]+)\)")
CITED = re.compile(r"\bspec/[a-z0-9/-]+\.md(?:#[\w-]+)?")
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
ENTRY = re.compile(r"^\*\*(?P<word>[^*]+)\*\*(?:, (?P<short>[^:]+))?: (?P<says>.+)$", re.MULTILINE)

NAMED_SETTING = re.compile(r"\bFARTHING_[A-Z_]*[A-Z]\b")
SETTINGS = tuple(
    sorted(
        {f"FARTHING_{each.name.upper()}" for each in fields(Settings)}
        | {
            name
            for room in ROOMS
            for source in (REPOSITORY / room).rglob("*.py")
            for name in NAMED_SETTING.findall(source.read_text(encoding="utf-8"))
        }
    )
)

# The words that the house has settled on, later ones included.
WORDS = {
    "acceptance", "agreement", "amendment", "authority decision", "authority grant", "batch",
    "capture", "charge", "credit lot", "dispute", "entitlement", "escrow", "hold", "limit setter",
    "listing", "operator", "posting", "quote", "rate card", "receipt", "release", "ruling",
    "snapshot", "spend session", "statement", "tree head", "voucher",
}  # fmt: skip


@cache
def text_of(path: str) -> str:
    return (REPOSITORY / path).read_text(encoding="utf-8")


@cache
def anchors_of(path: str) -> frozenset[str]:
    """The anchors of a document's headings, as code hosts make them."""
    prose = re.sub(r"^```.*?^```", "", text_of(path), flags=re.MULTILINE | re.DOTALL)
    return frozenset(
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in HEADING.findall(prose)
    )


def glossary() -> list[re.Match[str]]:
    return list(ENTRY.finditer(text_of("spec/glossary.md")))


def target_is_there(document: str, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (REPOSITORY / document).parent / path if path else REPOSITORY / document
    if not target.exists() or not target.resolve().is_relative_to(REPOSITORY):
        return False
    return not anchor or anchor in anchors_of(target.resolve().relative_to(REPOSITORY).as_posix())


@pytest.mark.parametrize("document", DOCUMENTS)
def test_no_link_is_dead(document: str) -> None:
    links = [link for link in LINK.findall(text_of(document)) if "://" not in link]

    assert [link for link in links if not target_is_there(document, link)] == []


@pytest.mark.parametrize("room", ROOMS)
def test_every_chapter_that_code_cites_is_there(room: str) -> None:
    cited = {
        (source.relative_to(REPOSITORY).as_posix(), chapter)
        for source in (REPOSITORY / room).rglob("*.py")
        for chapter in CITED.findall(source.read_text(encoding="utf-8"))
    }

    assert [each for each in sorted(cited) if not target_is_there("README.md", each[1])] == []


@pytest.mark.parametrize("chapter", [*CHAPTERS, *(f"design/{note}" for note in NOTES)])
def test_the_contents_name_every_chapter_and_design_note(chapter: str) -> None:
    assert f"]({chapter})" in text_of("spec/README.md")


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_is_in_a_chapter(name: str) -> None:
    assert f"`{name}`" in text_of("spec/messages.md")


@pytest.mark.parametrize("code", Code)
def test_every_error_code_has_the_heading_that_refusals_point_to(code: Code) -> None:
    assert code.value in anchors_of("spec/errors.md")


def test_the_glossary_says_each_word_once_in_alphabetical_order() -> None:
    words = [entry["word"] for entry in glossary()]

    assert words == sorted(set(words), key=str.lower)
    assert text_of("spec/glossary.md").count("\n**") == len(words)


def test_the_glossary_knows_the_words_of_the_house() -> None:
    words = {entry["word"] for entry in glossary()}

    assert WORDS - words == set()
    assert {role.value for role in Role} - words == set()
    assert {kind.value.replace("_", " ") for kind in AccountKind} - words == set()


@pytest.mark.parametrize("typ", Typ)
def test_the_glossary_knows_what_is_signed(typ: Typ) -> None:
    name = typ.value.removeprefix("farthing-").partition("+")[0]
    words = {entry["word"] for entry in glossary()}

    assert {name, f"{name} record", f"{name} JWT"} & words


def test_the_glossary_says_what_each_kind_of_id_names() -> None:
    prefixes = set(re.findall(r"\| `([a-z]{3})` \|", text_of("spec/ids.md")))

    assert len(prefixes) > 10
    assert [each for each in prefixes if f"`{each}`" not in text_of("spec/glossary.md")] == []


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_in_the_chapter(name: str) -> None:
    assert f"`{name}`" in text_of("spec/configuration.md")


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_begins_with_its_title(chapter: str) -> None:
    assert re.match(r"# \S.*\n\n\S", text_of(f"spec/{chapter}"))


def test_no_document_says_where_it_was_written() -> None:
    homes = re.compile(r"(?<![\w.])/(home|root|tmp|work|Users)/\w")

    assert [name for name in DOCUMENTS if homes.search(text_of(name))] == []


def test_a_dead_link_is_found() -> None:
    assert not target_is_there("spec/holds.md", "nowhere.md")
    assert not target_is_there("spec/holds.md", "rating.md#nowhere")
    assert not target_is_there("spec/holds.md", "../../elsewhere.md")
    assert target_is_there("spec/holds.md", "rating.md#the-line")
