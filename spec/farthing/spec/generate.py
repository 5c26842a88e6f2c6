"""Writes the schemas that are made from the code: per operation, of a refusal, OpenAPI of it all.

Boundary: reads `farthing.protocol` alone and writes below `schemas/`. The schemas of documents that
vendors write (listing, rate card, terms) are written by hand and are never touched.

    python -m farthing.spec.generate            write what differs, remove what is no more
    python -m farthing.spec.generate --check    write nothing; exit 1 and name what differs
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from farthing.protocol.messages.openapi import openapi
from farthing.protocol.messages.operations import OPERATIONS, AnyOperation
from farthing.protocol.messages.shapes import DIALECT, WireSchemas, error_schema

__all__ = ["SCHEMAS", "differing", "generated", "main"]

SCHEMAS: Final = Path(__file__).parent / "schemas"

_MESSAGES: Final = "messages"
_ERRORS: Final = "errors.schema.json"
_OPENAPI: Final = "openapi.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the generated schemas; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m farthing.spec.generate", description="Generate the JSON Schemas."
    )
    parser.add_argument("--check", action="store_true", help="only compare, byte for byte")
    check: bool = parser.parse_args(arguments).check
    texts = generated()
    names = differing(SCHEMAS, texts)
    if not check:
        _write(SCHEMAS, names, texts)
    for name in names:
        print(f"{'differs' if check else 'wrote'}: {SCHEMAS.name}/{name}")
    return 1 if check and names else 0


def generated() -> dict[str, bytes]:
    """Every generated file, by its path below `schemas/`."""
    files = {
        f"{_MESSAGES}/{name}.schema.json": _exchange(operation)
        for name, operation in OPERATIONS.items()
    }
    files[_ERRORS] = error_schema()
    files[_OPENAPI] = openapi()
    return {name: _text(files[name]) for name in sorted(files)}


def differing(schemas: Path, texts: Mapping[str, bytes]) -> list[str]:
    """Which files are missing, say something else, or belong to no operation any more."""
    there = {
        path.relative_to(schemas).as_posix(): path.read_bytes()
        for path in [*(schemas / _MESSAGES).glob("*"), schemas / _ERRORS, schemas / _OPENAPI]
        if path.is_file()
    }
    return sorted(
        name for name in there.keys() | texts.keys() if there.get(name) != texts.get(name)
    )


def _write(schemas: Path, names: Sequence[str], texts: Mapping[str, bytes]) -> None:
    (schemas / _MESSAGES).mkdir(parents=True, exist_ok=True)
    for name in names:
        if name in texts:
            (schemas / name).write_bytes(texts[name])
        else:
            (schemas / name).unlink()


def _text(schema: Mapping[str, object]) -> bytes:
    return (json.dumps(schema, indent=2, ensure_ascii=False) + "\n").encode()


def _exchange(operation: AnyOperation) -> dict[str, object]:
    """One operation: what is asked, what is answered, and what both are made of."""
    sides: list[tuple[str, Any, TypeAdapter[Any]]] = [
        ("ask", "validation", TypeAdapter(operation.ask)),
        ("answer", "validation", TypeAdapter(operation.answer)),
    ]
    references, shared = TypeAdapter.json_schemas(sides, schema_generator=WireSchemas)
    return {
        "$schema": DIALECT,
        "$id": f"urn:farthing:schema:{operation.name}:1",
        "title": operation.name,
        "description": operation.says,
        "x-operation": {
            "title": operation.title,
            "effect": operation.effect.value,
            "roles": sorted(role.value for role in operation.roles),
            "codes": [code.value for code in operation.codes],
        },
        "type": "object",
        "additionalProperties": False,
        "required": ["ask", "answer"],
        "properties": {side: references[side, "validation"] for side in ("ask", "answer")},
        **shared,
    }


if __name__ == "__main__":
    sys.exit(main())
