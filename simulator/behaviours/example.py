"""Makes a value that fits a JSON schema, out of the user's own words where the schema leaves room."""

from __future__ import annotations

from typing import Any

from simulator.conversation import gist

Json = dict[str, Any]

MAX_DEPTH = 6
MAX_CHARS = 200
FORMATS = {
    "date": "2026-01-01",
    "time": "12:00:00Z",
    "date-time": "2026-01-01T12:00:00Z",
    "duration": "PT1H",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "hostname": "example.com",
}


def example_of(schema: Json, text: str) -> Any:
    """A value for the schema: its first choice or example if it has one, else `text` for strings and 1 for numbers.

    Objects hold their required properties alone, arrays as few items as allowed. What asks whether all is `ok` is told
    that it is.
    """
    definitions = {"#": schema}
    for section in ("$defs", "definitions"):
        for name, definition in (schema.get(section) or {}).items():
            definitions[f"#/{section}/{name}"] = definition
    return _value(schema, text, definitions, 0)


def _value(schema: Any, text: str, definitions: Json, depth: int) -> Any:
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return None
    if "$ref" in schema:
        return _value(definitions.get(schema["$ref"]), text, definitions, depth + 1)
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    for key in ("enum", "examples"):
        if schema.get(key):
            return schema[key][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return _value(schema[key][0], text, definitions, depth + 1)
    return _of_type(schema, text, definitions, depth)


def _of_type(schema: Json, text: str, definitions: Json, depth: int) -> Any:
    type_ = schema.get("type", "object" if "properties" in schema else "string")
    match type_[0] if isinstance(type_, list) else type_:
        case "string":
            return _string(schema, text)
        case "integer" | "number" as number:
            return _number(schema, whole=number == "integer")
        case "boolean":
            return False
        case "array":
            item = schema.get("items", {})
            return [_value(item, text, definitions, depth + 1) for _ in range(int(schema.get("minItems", 0)))]
        case "object":
            wanted = schema.get("properties") or {}
            found = {
                name: _value(wanted.get(name, {}), text, definitions, depth + 1) for name in schema.get("required", [])
            }
            return {**found, "ok": True} if found.get("ok") is False else found
        case _:
            return None


def _string(schema: Json, text: str) -> str:
    if schema.get("format") in FORMATS:
        return FORMATS[schema["format"]]
    value = gist(text, min(MAX_CHARS, int(schema.get("maxLength", MAX_CHARS)) or 1))
    return value.ljust(int(schema.get("minLength", 0)), ".")


def _number(schema: Json, *, whole: bool) -> int | float:
    value: float = 1
    value = max(value, schema.get("minimum", value), schema.get("exclusiveMinimum", value - 1) + 1)
    value = min(value, schema.get("maximum", value), schema.get("exclusiveMaximum", value + 1) - 1)
    return int(value) if whole else value
