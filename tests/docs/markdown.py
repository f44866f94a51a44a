"""Reads the documentation: its blocks of code, the commands in them, its tables and its links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUN = "<!-- run -->"
"""Stands before a `console` block whose commands the tests run; see `test_examples`."""
FENCE = re.compile(r"^```(\w*)$")
CODE = re.compile(r"`([^`\n]+)`")
CELL = re.compile(r"(?<!\\)\|")


def pages() -> list[Path]:
    """Every Markdown file of the tree."""
    found: list[Path] = []
    for top in ROOT.iterdir():
        if not top.name.startswith("."):
            found += top.rglob("*.md") if top.is_dir() else [top] * (top.suffix == ".md")
    return sorted(found)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Block:
    """A fenced block. `line` is the number of its first line; `marked` when RUN stands before it."""

    page: Path
    line: int
    language: str
    text: str
    marked: bool


@dataclass(frozen=True)
class Command:
    """A command of a `console` block and the output that is shown for it, "" when none is."""

    line: int
    text: str
    shown: str


def blocks(page: Path, *languages: str) -> list[Block]:
    """The page's blocks in these languages, in all when none is given."""
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    start, language = 0, None
    for number, line in enumerate(lines, 1):
        fence = FENCE.match(line)
        if language is not None and line == "```":
            text = "\n".join(lines[start : number - 1])
            found.append(Block(page, start + 1, language, text, lines[start - 2] == RUN))
            language = None
        elif language is None and fence is not None:
            start, language = number, fence[1]
    assert language is None, f"{name_of(page)}: the block after line {start} has no end"
    return [block for block in found if not languages or block.language in languages]


def commands(block: Block) -> list[Command]:
    """What follows each `$ `: the command, with its further lines while one ends in a backslash, and its output."""
    found: list[tuple[int, list[str], list[str]]] = []
    for number, line in enumerate(block.text.splitlines(), block.line):
        if line.startswith("$ "):
            found.append((number, [line[2:]], []))
        elif found and found[-1][1][-1].endswith("\\") and not found[-1][2]:
            found[-1][1].append(line)
        elif found:
            found[-1][2].append(line)
    return [Command(line, "\n".join(text), "\n".join(shown).strip()) for line, text, shown in found]


def code(page: Path) -> Iterator[str]:
    """Every piece of inline code."""
    fenced = {number for b in blocks(page) for number in range(b.line, b.line + b.text.count("\n") + 1)}
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if number not in fenced:
            yield from CODE.findall(line)


def shell_lines(page: Path) -> Iterator[str]:
    """Every command line, of `console` and `sh` blocks and of inline code."""
    for block in blocks(page, "console", "sh"):
        if block.language == "console":
            yield from (command.text.replace("\\\n", " ") for command in commands(block))
        else:
            yield from block.text.replace("\\\n", " ").splitlines()
    yield from code(page)


def table(page: Path, *header: str) -> list[list[str]]:
    """The rows of all tables of the page whose first columns have these titles."""
    rows: list[list[str]] = []
    inside = False
    for line in page.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in CELL.split(line.strip())[1:-1]]
        if not cells:
            inside = False
        elif cells[: len(header)] == list(header):
            inside = True
        elif inside and not set("".join(cells)) <= set("-: "):
            rows.append(cells)
    assert rows, f"{name_of(page)} has no table of {header}"
    return rows


def column(rows: list[list[str]], number: int = 0) -> list[str]:
    """The pieces of inline code in a column."""
    return [name for row in rows for name in CODE.findall(row[number])]


def anchors(page: Path) -> set[str]:
    """The names under which the page's headings can be linked to."""
    in_code = {number for b in blocks(page) for number in range(b.line, b.line + b.text.count("\n") + 1)}
    lines = enumerate(page.read_text(encoding="utf-8").splitlines(), 1)
    titles = [line.lstrip("#").strip() for number, line in lines if line.startswith("#") and number not in in_code]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
