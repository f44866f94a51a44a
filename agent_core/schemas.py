"""Which JSON schemas an answer may be held to, and the check of a value that nobody can make go on for ever."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from agent_core.types import Json

if TYPE_CHECKING:
    from jsonschema import ValidationError
    from jsonschema.protocols import Validator

MOST_BYTES = 32_768
MOST_DEPTH = 24
MOST_PROBLEMS = 10
MOST_REFERENCES = 10_000
"""That the check of one value may follow: references of references can multiply without end."""
BY_NAME = frozenset({"properties", "$defs", "definitions", "dependentSchemas"})
DATA = frozenset({"enum", "const", "default", "examples"})
REFERENCE = re.compile(r"#(/(\$defs|definitions|properties)/[^/]+|/items|/additionalProperties)*")
UNSAFE = {
    "pattern": "a regular expression of a caller's may take for ever",
    "patternProperties": "a regular expression of a caller's may take for ever",
    "unevaluatedItems": "its check may take for ever",
    "unevaluatedProperties": "its check may take for ever",
    "$dynamicRef": "references must be plain",
}
ROOT_ALONE = frozenset({"$schema", "$id"})


def check_schema(schema: object) -> None:
    """Raises ValueError when it is no JSON schema of an object that may be given to a model and checked safely.

    References reach inside the schema alone, and there is no regular expression in it.
    """
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise ValueError('expected a JSON schema with "type": "object"')
    for key, value, depth in _walk(schema, 1):
        if key in UNSAFE:
            raise ValueError(f"{key} is not accepted: {UNSAFE[key]}")
        if key in ROOT_ALONE and depth > 1:
            raise ValueError(f"{key} is accepted at the top of the schema alone")
        if key == "$ref":
            _check_reference(schema, value)
    try:
        size = len(json.dumps(schema))
    except (TypeError, ValueError, RecursionError) as exc:
        raise ValueError(f"the schema is not plain JSON data: {exc}") from exc
    if size > MOST_BYTES:
        raise ValueError(f"the schema has more than {MOST_BYTES:,} bytes")
    import jsonschema  # its import costs every process that sees no schema a tenth of its start

    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as exc:
        raise ValueError(f"{place(exc.absolute_path)}: {exc.message[:200]}") from exc


def problems(schema: Json, value: Any) -> list[str]:
    """Where and why a value does not fit a schema that `check_schema` let pass; the first few."""
    plain = {key: part for key, part in schema.items() if key not in ROOT_ALONE}
    try:
        faults = list(islice(_validator(plain).iter_errors(value), MOST_PROBLEMS))
    except RecursionError:
        return ["it is too deeply nested, or too long, to be checked"]
    return [f"{place(fault.absolute_path)}: {fault.message[:300]}" for fault in faults]


def place(path: Iterable[Any]) -> str:
    """Where in a value something is."""
    return ".".join(map(str, path)) or "the whole"


def _validator(schema: Json) -> Validator:
    import jsonschema

    followed = iter(range(MOST_REFERENCES))

    def follow(validator: Any, reference: str, instance: Any, within: Json) -> Iterator[ValidationError]:
        if next(followed, None) is None:
            raise RecursionError
        yield from jsonschema.Draft202012Validator.VALIDATORS["$ref"](validator, reference, instance, within)

    kind = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"$ref": follow})  # type: ignore[no-untyped-call]
    made: Validator = kind(schema)
    return made


def _check_reference(schema: Json, reference: object) -> None:
    if not isinstance(reference, str) or not REFERENCE.fullmatch(reference):
        raise ValueError("$ref may point into the schema itself alone, as #/$defs/name")
    found: Any = schema
    for name in unquote(reference).split("/")[1:]:
        found = found.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    if not isinstance(found, dict | bool):
        raise ValueError(f"$ref {reference[:100]} points to nothing")


def _walk(schema: Json, depth: int) -> Iterator[tuple[str, Any, int]]:
    """Every keyword of a schema and of those in it, with its value and how deep it is."""
    if depth > MOST_DEPTH:
        raise ValueError(f"the schema is nested more than {MOST_DEPTH} levels deep")
    for key, value in schema.items():
        yield key, value, depth
        if key not in DATA:
            inner = value.values() if key in BY_NAME and isinstance(value, dict) else [value]
            for part in (part for item in inner for part in (item if isinstance(item, list) else [item])):
                if isinstance(part, dict):
                    yield from _walk(part, depth + 1)
