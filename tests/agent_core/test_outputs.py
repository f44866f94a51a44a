"""Answers that are data: what is taken for one, and what is said of one that does not fit."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest

from agent_core.outputs import Output, OutputError
from agent_core.types import Json

SCHEMA: Json = {"type": "object", "properties": {"n": {"type": ["number", "string"]}}, "required": ["n"]}


class Point(pydantic.BaseModel):
    x: int
    label: str = "none"


@pytest.mark.parametrize(
    "text",
    ['{"n": 1}', ' {"n": 1}\n', '```json\n{"n": 1}\n```', '```\n{"n": 1}```'],
)
def test_a_value_may_have_a_fence_around_it(text: str) -> None:
    assert Output.of(SCHEMA).parse(text) == {"n": 1}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("one", "it is not JSON"),
        ("", "it is not JSON"),
        ('{"n": 1} and so on', "it is not JSON"),
        ('{"n": NaN}', "it is not JSON"),
        ('{"n": 1e999}', "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("{}", "the whole: 'n' is a required property"),
        ('{"n": [1]}', "n: [1] is not of type 'number', 'string'"),
        ("3", "the whole: 3 is not of type 'object'"),
    ],
)
def test_what_does_not_fit_is_told_where_and_why(text: str, problem: str) -> None:
    with pytest.raises(OutputError) as caught:
        Output.of(SCHEMA).parse(text)
    assert caught.value.problems[0].startswith(problem)


def test_what_no_journal_can_keep_is_replaced() -> None:
    assert Output.of(SCHEMA).parse('{"n": "a\\ud800b"}') == {"n": "a?b"}


def test_problems_are_few() -> None:
    many: Json = {"type": "object", "additionalProperties": {"type": "integer"}}
    with pytest.raises(OutputError) as caught:
        Output.of(many).parse(str({f"k{n}": "x" for n in range(100)}).replace("'", '"'))
    assert len(caught.value.problems) == 10


def test_a_pydantic_model_gives_plain_data() -> None:
    output = Output.of(Point)
    assert output.parse('{"x": 3}') == {"x": 3, "label": "none"}
    assert output.schema["required"] == ["x"]
    with pytest.raises(OutputError) as caught:
        output.parse('{"x": "three"}')
    assert caught.value.problems == ["x: Input should be a valid integer, unable to parse string as an integer"]


@pytest.mark.parametrize("wanted", [{"type": "array"}, [], "object", {"type": "object", "properties": 3}])
def test_what_is_no_schema_of_an_object_is_refused(wanted: Any) -> None:
    with pytest.raises(ValueError, match=r"expected a JSON schema|properties"):
        Output.of(wanted)
