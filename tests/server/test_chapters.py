"""The chapters' tables say what the code does, entry by entry, and nothing else."""

import re
from pathlib import Path

import pytest

from farthing.protocol.errors import Code, refuse
from farthing.protocol.messages.http import BODY_BYTES_MAX
from farthing.protocol.messages.operations import OPERATIONS, AnyOperation
from farthing.server.doors.admission import BODY_S_MAX
from farthing.server.doors.render import problem
from farthing.server.settings import Settings

SPEC = Path(__file__).resolve().parents[2] / "spec"
# What the chapter says in words, where the default is empty.
IN_WORDS = {
    "database_url": "`journal.sqlite` in the data folder",
    "public_url": "`http://HOST:PORT`",
    "stripe_api_url": "Stripe's own",
    "stripe_key_file": "none",
    "stripe_return_url": "the public URL",
    "stripe_webhook_secret_file": "none",
}


def chapter(name: str) -> str:
    return (SPEC / f"{name}.md").read_text(encoding="utf-8")


def row(operation: AnyOperation) -> str:
    codes = sorted(operation.codes, key=lambda code: code.precedence)
    links = ", ".join(f"[{code.value}](errors.md#{code.value})" for code in codes)
    roles = ", ".join(sorted(operation.roles))
    cells = (f"`{operation.name}`", operation.says, operation.effect.value, roles, links)
    return f"| {' | '.join(cells)} |"


def test_every_operation_has_its_row_and_there_is_no_other() -> None:
    rows = re.findall(r"^\| `\w+` \|.*\|$", chapter("messages"), re.MULTILINE)

    assert sorted(rows) == sorted(row(operation) for operation in OPERATIONS.values())


@pytest.mark.parametrize("code", Code)
def test_a_refusal_is_described_as_it_is_given(code: Code) -> None:
    found = re.search(rf"^### {code.value}\n\n(.+)$", chapter("errors"), re.MULTILINE)

    assert found is not None
    status = problem(refuse(code), "").status_code
    facts = [
        *([f"HTTP {status}"] if status != 400 else []),
        "remembered" if code.remembered else "not remembered",
        "retryable" if code.retryable else "not retryable",
        f"next: `{refuse(code).next_action.value}`",
    ]
    assert found[1].startswith(code.says)
    assert found[1].endswith(f"({'; '.join(facts)})")


def test_the_refusals_stand_in_their_order_of_precedence() -> None:
    headings = re.findall(r"^### (\w+)$", chapter("errors"), re.MULTILINE)

    assert headings == [code.value for code in Code]


@pytest.mark.parametrize("name", Settings.__dataclass_fields__)
def test_a_setting_is_described_with_its_default(name: str) -> None:
    default = getattr(Settings(), name)
    shown = IN_WORDS.get(name, f"`{default}`")

    assert f"| `FARTHING_{name.upper()}` | {shown} |" in chapter("configuration")


def test_the_bounds_of_the_door_are_those_that_are_written_down() -> None:
    text = chapter("transport-mcp")

    assert BODY_BYTES_MAX == 1 << 20
    assert "at most 1 MiB" in text
    assert f"within {BODY_S_MAX} seconds" in text
