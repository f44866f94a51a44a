"""The Lua files: each says what it takes and answers, each is used, and none names a key of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import jobs
import memory
from jobs.scripts import FOLDER, PRELUDE, script

PACKAGES = [Path(package.__path__[0]) for package in (jobs, memory)]
FILES = sorted(path for package in PACKAGES for path in (package / "lua").glob("*.lua"))
NUMBERED = re.compile(r"(\d+)(?:\.\.)? ")


def header(path: Path) -> str:
    """The comment that a file begins with."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return "\n".join(lines[: next(i for i, line in enumerate(lines) if not line.startswith("--"))])


def section(path: Path, name: str) -> str:
    match = re.search(rf"^-- {name} (.*?)(?=^-- (?:KEYS|ARGV|returns) |\Z)", header(path), re.MULTILINE | re.DOTALL)
    assert match is not None, f"{path.name} does not say its {name}"
    return match[1]


def used(path: Path, name: str) -> set[int]:
    """The numbers of KEYS or ARGV that the code names as constants."""
    code = path.read_text(encoding="utf-8").removeprefix(header(path))
    return {int(number) for number in re.findall(rf"{name}\[(\d+)\]", code)}


PRELUDES = {name for path in FILES for name in PRELUDE.findall(path.read_text(encoding="utf-8"))}
SCRIPTS = [path for path in FILES if path.stem not in PRELUDES]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_header_says_what_the_script_does_takes_and_answers(path: Path) -> None:
    assert header(path).startswith(f"-- {path.stem}: ")
    assert section(path, "returns").strip()
    for name in ("KEYS", "ARGV"):
        said = {int(number) for number in NUMBERED.findall(section(path, name))}
        assert used(path, name) <= said, f"{name} that the header does not explain"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_is_used(path: Path) -> None:
    package = path.parent.parent
    sources = "".join(p.read_text(encoding="utf-8") for p in package.glob("*.py"))
    assert f'script("{path.stem}")' in sources or f'"{path.name}"' in sources


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_script_names_a_key(path: Path) -> None:
    assert not re.findall(r"['\"](?:ns|rq):", path.read_text(encoding="utf-8").replace("'^rq:(%a+):'", ""))


def test_a_script_is_what_its_file_holds() -> None:
    found = script("flag")
    assert found.text == (FOLDER / "flag.lua").read_text(encoding="utf-8")
    assert found is script("flag")
    assert re.fullmatch(r"[0-9a-f]{40}", found.sha)


def test_a_script_begins_with_its_prelude_and_the_prelude_with_its_own() -> None:
    texts = [(FOLDER / f"{name}.lua").read_text(encoding="utf-8") for name in ("switches", "money", "outbox", "record")]
    assert script("record").text == "\n".join(texts)
