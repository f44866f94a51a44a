"""The input of scheduled jobs: texts in which `{{ name }}` stands for what is known when the job is submitted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from jobs.errors import InvalidError

NAMES = ("scheduled_at", "last_run.id", "last_run.output")
PLACE = re.compile(r"\{\{\s*(.*?)\s*\}\}", re.DOTALL)


def check_template(template: Any) -> None:
    """Raises InvalidError when it has a name that nobody knows."""

    def check(found: re.Match[str]) -> str:
        if found[1] not in NAMES:
            text = (
                f"input: nobody knows {found[0][:80]!r}; there are {', '.join(f'{{{{ {name} }}}}' for name in NAMES)}"
            )
            raise InvalidError(text, code="invalid_template")
        return ""

    _each_text(template, lambda text: PLACE.sub(check, text))


def names_in(template: Any) -> set[str]:
    """The names that it has."""
    found: set[str] = set()

    def note(text: str) -> str:
        found.update(match[1] for match in PLACE.finditer(text))
        return text

    _each_text(template, note)
    return found


def fill(template: Any, values: Mapping[str, Any]) -> Any:
    """The template with values in the place of names; once, so that what a value says is not a template itself.

    A value that is no text stands there as JSON, and None as nothing.
    """
    return _each_text(template, lambda text: PLACE.sub(lambda found: _shown(values.get(found[1])), text))


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    match value:
        case str():
            return change(value)
        case dict():
            return {name: _each_text(item, change) for name, item in value.items()}
        case list():
            return [_each_text(item, change) for item in value]
        case _:
            return value


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
