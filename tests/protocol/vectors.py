"""The protocol's vectors, as the tests read them."""

import json
from importlib.resources import files
from typing import Any

import pytest
from _pytest.mark import ParameterSet


def vectors(name: str) -> Any:
    return json.loads((files("farthing.spec") / "vectors" / f"{name}.json").read_bytes())


def cases(listed: list[dict[str, Any]]) -> list[ParameterSet]:
    """Give each case its own sentence as the name of its test."""
    return [pytest.param(case, id=case["says"]) for case in listed]
