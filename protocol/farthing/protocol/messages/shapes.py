"""JSON Schemas of messages, as the wire has them: for tools, for the spec, for clients.

Boundary: shapes made from the declarations; nothing is written by hand twice.
"""

from typing import Any, Final

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from farthing.protocol.errors import Code, NextAction, Severity

__all__ = ["DIALECT", "REFUSAL", "WireSchemas", "ask_schema", "error_schema", "result_schema"]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

# Enough to tell a refusal from an answer; the whole shape is in spec/errors.md. Forty tools that
# each list every code would cost an agent more to read than they tell it.
REFUSAL: Final[dict[str, Any]] = {
    "type": "object",
    "description": "A refusal (spec/errors.md); `code` is what to branch on.",
    "required": ["code", "message", "retryable", "next_action"],
    "properties": {
        "code": {"type": "string"},
        "message": {"type": "string"},
        "retryable": {"type": "boolean"},
        "next_action": {"type": "string"},
    },
}


class WireSchemas(GenerateJsonSchema):
    """JSON Schema as the wire has it: there is no null, and what is empty is left out."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        """The schema of what is there, since null never is."""
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """The schema without a default that is never sent: what is empty, and a 0 for nothing."""
        found = super().default_schema(schema)
        default = found.get("default", 0)
        if default in (None, "", []) or (default == 0 and found.get("minimum", 0) > 0):
            found.pop("default", None)
        return found

    def field_title_should_be_set(self, schema: object) -> bool:
        """No titles: the member's name says it."""
        del schema
        return False


def ask_schema(ask: type) -> dict[str, Any]:
    """What a tool takes."""
    return TypeAdapter(ask).json_schema(schema_generator=WireSchemas)


def result_schema(answer: type) -> dict[str, Any]:
    """What a tool gives: its answer, or a refusal.

    Both travel as `structuredContent`, and clients check either against the one output schema.
    """
    answered = TypeAdapter(answer).json_schema(schema_generator=WireSchemas)
    shared = answered.pop("$defs", {})
    schema: dict[str, Any] = {"type": "object", "anyOf": [answered, REFUSAL]}
    return schema | {"$defs": shared} if shared else schema


def error_schema() -> dict[str, Any]:
    """The one shape of every refusal."""
    text = {"type": "string"}
    codes = [code.value for code in Code]
    return {
        "$schema": DIALECT,
        "$id": "urn:farthing:schema:errors:1",
        "title": "Error",
        "description": "The one shape of every refusal. Codes stand in order of precedence.",
        "type": "object",
        "additionalProperties": False,
        "required": ["code", "message", "severity", "retryable", "next_action", "docs"],
        "properties": {
            "code": {"$ref": "#/$defs/code", "description": "The only member to branch on."},
            "message": text | {"description": "One sentence for a person; never an interface."},
            "severity": {"enum": [severity.value for severity in Severity]},
            "retryable": {
                "type": "boolean",
                "description": "Whether the same call, same key, can succeed later as it is.",
            },
            "next_action": {
                "enum": [action.value for action in NextAction],
                "description": "What the caller can do about it.",
            },
            "docs": text | {"description": "Where the code is explained."},
            "path": text | {"description": "The argument at fault, in dotted form."},
            "required": text | {"description": "What the call needed."},
            "remaining": text | {"description": "What was left of it."},
            "asset": text | {"description": "The asset of `required` and `remaining`."},
            "retry_after": {
                "type": "integer",
                "minimum": 1,
                "description": "Seconds to wait before the next try.",
            },
            "reasons": {
                "type": "array",
                "items": {"$ref": "#/$defs/code"},
                "description": "Every code that applied, where more than one did.",
            },
            "request_id": text | {"description": "What the server's log knows the call by."},
        },
        "$defs": {"code": {"enum": codes}},
    }
