"""Answers that are data: the schema that the model is asked for, and the check of what it gave."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pydantic

from agent_core.claude import schema_of
from agent_core.schemas import MOST_PROBLEMS, check_schema, place, problems
from agent_core.types import Json


class OutputError(ValueError):
    """An answer that does not fit. `problems` says where and why, for the model to mend it."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Output:
    """What an answer has to be: a value of a JSON schema, and of a Pydantic model where the schema came from one."""

    schema: Json
    model: type[pydantic.BaseModel] | None = field(default=None, compare=False)

    @classmethod
    def of(cls, wanted: Json | type[pydantic.BaseModel]) -> Output:
        """Raises ValueError for what is no schema."""
        if isinstance(wanted, type):
            return cls(schema_of(wanted), wanted)
        check_schema(wanted)
        return cls(wanted)

    def parse(self, text: str) -> Any:
        """The value that an answer's text holds, as plain JSON data. Raises OutputError."""
        try:
            value = _loads(_unfenced(text))
        except (ValueError, RecursionError) as exc:
            raise OutputError([f"it is not JSON: {exc}"]) from exc
        if self.model is None:
            if faults := problems(self.schema, value):
                raise OutputError(faults)
            return value
        try:
            return self.model.model_validate(value).model_dump(mode="json")
        except pydantic.ValidationError as exc:
            told = exc.errors(include_url=False, include_context=False, include_input=False)[:MOST_PROBLEMS]
            raise OutputError([f"{place(f['loc'])}: {f['msg']}" for f in told]) from exc


def _loads(text: str) -> Any:
    """The value, without the lone surrogates that escapes can make. Raises ValueError, for NaN and infinity too."""
    plain = json.dumps(json.loads(text), ensure_ascii=False, allow_nan=False)
    return json.loads(plain.encode("utf-8", "replace"))


def _unfenced(text: str) -> str:
    """The text without a Markdown fence around it, which models that are not held to a schema like to put there."""
    stripped = text.strip()
    if stripped.startswith("```") and stripped.endswith("```"):
        _, _, body = stripped.removesuffix("```").partition("\n")
        return body
    return stripped
