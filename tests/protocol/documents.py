"""Changing a document at a dotted path, as the vectors of `listing` and `terms` describe it."""

import copy
from typing import Any


def changed(document: dict[str, Any], case: dict[str, Any]) -> dict[str, Any]:
    """The document with what a case sets and without what it unsets."""
    result = copy.deepcopy(document)
    for path, value in case.get("set", {}).items():
        holder, name = _at(result, path)
        holder[name] = value
    for path in case.get("unset", []):
        holder, name = _at(result, path)
        del holder[name]
    return result


def _at(document: Any, path: str) -> tuple[Any, Any]:
    *steps, last = path.split(".")
    for step in steps:
        document = document[int(step) if isinstance(document, list) else step]
    return document, int(last) if isinstance(document, list) else last
