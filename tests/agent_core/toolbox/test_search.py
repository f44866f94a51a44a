"""Searching the workspace: what is found, what is left out, and that no pattern holds anything up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent_core.toolbox import search, search_files
from agent_core.types import Json
from tests.agent_core.toolbox.web import call, error


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("def pay(sum):\n    return sum  # TODO: VAT (19%)\n")
    (tmp_path / "notes.md").write_bytes("# Über uns\r\ntodo: rewrite\r\n".encode())
    (tmp_path / "image").write_bytes(b"todo\0todo")
    (tmp_path / "outside").symlink_to("/etc")
    return tmp_path


async def found(place: Path, **given: Any) -> Json:
    result = await call(search_files, place, **given)
    assert not result.is_error, result.content
    answer: Json = json.loads(result.content)
    return answer


async def test_texts_and_expressions(place: Path) -> None:
    assert await found(place, pattern="(19%)") == {
        "matches": [{"path": "src/a.py", "line": 2, "text": "    return sum  # TODO: VAT (19%)"}],
        "skipped_files": 1,
    }
    lines = await found(place, pattern="todo", ignore_case=True)
    assert [(m["path"], m["line"]) for m in lines["matches"]] == [("notes.md", 2), ("src/a.py", 2)]
    assert lines["matches"][0]["text"] == "todo: rewrite"
    assert [m["line"] for m in (await found(place, pattern=r"^\w+ \w+\(", regex=True))["matches"]] == [1]
    assert (await found(place, pattern="über", ignore_case=True))["matches"][0]["path"] == "notes.md"


@pytest.mark.parametrize(("glob", "paths"), [("*.py", ["src/a.py"]), ("src/*", ["src/a.py"]), ("*.txt", []),
                                             ("*", ["notes.md", "src/a.py"])])  # fmt: skip
async def test_globs(place: Path, glob: str, paths: list[str]) -> None:
    answer = await found(place, pattern="todo", ignore_case=True, glob=glob)
    assert [m["path"] for m in answer["matches"]] == paths


@pytest.mark.parametrize(
    ("pattern", "regex"),
    [("(", True), (r"(a)\1", True), ("(?=a)", True), ("", False), ("a\nb", False), ("x" * 1001, True)],
)
async def test_patterns_that_cannot_be_used(place: Path, pattern: str, regex: bool) -> None:
    assert error(await call(search_files, place, pattern=pattern, regex=regex))["code"] == "bad_pattern"


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*b", "(.*)*x", "(a?){200}a{200}b", "((a{1,30}){1,30})b"])
async def test_no_expression_explodes(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "trap").write_text("a" * 50_000 + "!")
    assert (await found(tmp_path, pattern=pattern, regex=True))["matches"] == []


def test_the_clock_is_looked_at(place: Path) -> None:
    (place / "long").write_text("no\n" * search.LOOK_EVERY * 2)
    expression = search.compiled("todo", regex=False, ignore_case=True)
    stopped = search.found_in(place, expression, "*", seconds=0)
    assert stopped["stopped"].startswith("stopped after 0 seconds")


async def test_limits_are_said(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "many").write_text("todo\n" * (search.MOST_MATCHES + 1))
    answer = await found(place, pattern="todo", glob="many")
    assert len(answer["matches"]) == search.MOST_MATCHES
    assert answer["stopped"].startswith("stopped after 200 matches")
    (place / "wide").write_text("x" * 5_000 + "needle" + "x" * 5_000)
    (match,) = (await found(place, pattern="needle"))["matches"]
    assert "needle" in match["text"]
    assert len(match["text"]) == search.MOST_LINE_CHARS + 2
    monkeypatch.setattr(search, "MOST_BYTES", 10)
    assert "stopped after 10 bytes" in (await found(place, pattern="todo"))["stopped"]
