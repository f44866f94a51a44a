"""Which JSON schemas an answer may be held to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema

MOST_BYTES = 32_768
MOST_DEPTH = 24
UNSAFE = {
    "pattern": "a regular expression of a caller's may take for ever",
    "patternProperties": "a regular expression of a caller's may take for ever",
    "$dynamicRef": "references must be plain",
}


def check_schema(schema: object) -> None:
    """Raises ValueError when it is no JSON schema of an object that may be given to a model and checked safely.

    References reach inside the schema alone, and there is no regular expression in it.
    """
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise ValueError('expected a JSON schema with "type": "object"')
    if len(json.dumps(schema)) > MOST_BYTES:
        raise ValueError(f"the schema has more than {MOST_BYTES:,} bytes")
    for key, value, depth in _walk(schema, 1):
        if depth > MOST_DEPTH:
            raise ValueError(f"the schema is nested more than {MOST_DEPTH} levels deep")
        if key in UNSAFE and isinstance(value, str | dict):
            raise ValueError(f"{key} is not accepted: {UNSAFE[key]}")
        if key == "$ref" and not (isinstance(value, str) and value.startswith("#")):
            raise ValueError("$ref may point into the schema itself alone, as #/$defs/name")
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as exc:
        place = ".".join(map(str, exc.absolute_path)) or "the whole"
        raise ValueError(f"{place}: {exc.message[:200]}") from exc


def _walk(node: Any, depth: int) -> Iterator[tuple[str, Any, int]]:
    pairs = node.items() if isinstance(node, dict) else (("", item) for item in node) if isinstance(node, list) else ()
    for key, value in pairs:
        yield key, value, depth
        if depth <= MOST_DEPTH:
            yield from _walk(value, depth + 1)
