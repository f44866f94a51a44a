"""Schemas of callers: what is refused, and that no value can keep a worker busy for ever."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent_core.outputs import Output
from agent_core.schemas import MOST_BYTES, MOST_DEPTH, check_schema, problems
from agent_core.types import Json


def of(**keywords: Any) -> Json:
    return {"type": "object", **keywords}


def nested(depth: int) -> Json:
    return of() if depth == 1 else of(properties={"a": nested(depth - 1)})


TREE = of(
    properties={"left": {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "null"}]}},
    **{"$defs": {"tree": of(properties={"left": {"$ref": "#/$defs/tree"}}, required=["left"])}},
)
LAUGHS = of(
    properties={"a": {"$ref": "#/$defs/n0"}},
    **{"$defs": {f"n{n}": {"allOf": [{"$ref": f"#/$defs/n{n + 1}"}] * 2} for n in range(40)} | {"n40": {}}},
)


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (None, 'expected a JSON schema with "type": "object"'),
        ({"type": "string"}, 'expected a JSON schema with "type": "object"'),
        (of(properties={"a": {"type": "text"}}), "properties.a.type"),
        (of(description="x" * MOST_BYTES), "more than 32,768 bytes"),
        (nested(MOST_DEPTH + 1), "nested more than 24 levels"),
        (of(default=object()), "not plain JSON"),
        (of(properties={"a": {"pattern": "(a+)+$"}}), "pattern is not accepted"),
        (of(propertyNames={"pattern": "(a+)+$"}), "pattern is not accepted"),
        (of(patternProperties={"a": {}}), "patternProperties is not accepted"),
        (of(unevaluatedProperties=False), "unevaluatedProperties is not accepted"),
        (of(properties={"a": {"$dynamicRef": "#a"}}), r"\$dynamicRef is not accepted"),
        (of(properties={"a": {"$ref": "https://example.com/s.json"}}), "into the schema itself alone"),
        (of(properties={"a": {"$ref": "file:///etc/passwd"}}), "into the schema itself alone"),
        (of(properties={"a": {"$ref": "#/enum/0"}}, enum=[{"pattern": "(a+)+$"}]), "into the schema itself alone"),
        (of(properties={"a": {"$ref": "#/$defs/none"}}), "points to nothing"),
        (of(properties={"a": {"$id": "https://example.com/"}}), r"\$id is accepted at the top"),
        (of(properties={"a": {"$schema": "https://example.com/"}}), r"\$schema is accepted at the top"),
    ],
)
def test_what_may_not_be_given_to_a_model_or_checked_safely_is_refused(schema: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check_schema(schema)


@pytest.mark.parametrize(
    "schema",
    [
        of(),
        nested(MOST_DEPTH // 2),
        TREE,
        LAUGHS,
        of(properties={"pattern": {"type": "string"}, "$ref": {"type": "string"}}),
        of(properties={"a": {"const": {"pattern": "a"}}}),
        of(**{"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://example.com/mine"}),
        of(properties={"a": {"$ref": "#/properties/b"}, "b": {"type": "string"}}),
    ],
)
def test_these_are_taken(schema: Json) -> None:
    check_schema(schema)


def test_references_are_followed() -> None:
    assert problems(TREE, {"left": {"left": {"left": 3}}})
    assert not problems(TREE, {"left": None})


def test_references_that_multiply_are_given_up() -> None:
    assert problems(LAUGHS, {"a": 1}) == ["it is too deeply nested, or too long, to be checked"]


def test_a_schema_that_is_its_own_part_is_given_up() -> None:
    endless = of(**{"$ref": "#"})
    check_schema(endless)
    assert problems(endless, {}) == ["it is too deeply nested, or too long, to be checked"]


def test_a_value_that_is_too_deep_is_given_up() -> None:
    deep = json.loads('{"left": ' * 400 + "{}" + "}" * 400)
    assert problems(TREE, deep) == ["it is too deeply nested, or too long, to be checked"]


def test_the_name_of_the_schemas_language_changes_nothing() -> None:
    named = {**LAUGHS, "$schema": "http://json-schema.org/draft-07/schema#", "$id": "https://example.com/mine"}
    with pytest.raises(ValueError, match="too deeply nested"):
        Output.of(named).parse('{"a": 1}')
