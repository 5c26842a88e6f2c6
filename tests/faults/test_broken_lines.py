"""The list of broken lines keeps up with the tree; `python -m tests.faults` breaks them."""

import ast

import pytest

from tests.faults.lines import REPOSITORY, BrokenLine, broken_lines

LINES = broken_lines()


def test_thirty_different_lines_are_listed() -> None:
    assert len({(line.file, line.old) for line in LINES}) == len(LINES) >= 30


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line.test_name}-{line.old[:20]}")
def test_a_line_to_break_stands_where_the_list_says(line: BrokenLine) -> None:
    text = (REPOSITORY / line.file).read_text(encoding="utf-8")
    assert text.count(line.old) == 1
    # Broken, it is still a program: it is the behaviour that must be found wrong.
    assert ast.dump(ast.parse(line.broken(text))) != ast.dump(ast.parse(text))


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line.test_name}-{line.old[:20]}")
def test_a_named_test_is_there(line: BrokenLine) -> None:
    tree = ast.parse((REPOSITORY / line.test_file).read_text(encoding="utf-8"))
    names = {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert line.test_name in names
