"""What commands print: tables and Markdown on a terminal, plain lines when piped, JSON when asked for."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, by which a text could move the cursor, name the window or turn the writing round."""


def on_terminal() -> bool:
    """Whether standard output is a terminal that can do more than print lines."""
    return sys.stdout.isatty() and not console().is_dumb_terminal


def console(stderr: bool = False) -> Any:
    """A rich console on standard output or standard error; it takes no markup from what it prints."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, highlight=False, soft_wrap=False)


def clean(text: str) -> str:
    """The text without what a terminal would act upon."""
    return UNSAFE.sub("\N{REPLACEMENT CHARACTER}", text)


def one_line(value: Any, length: int = 100) -> str:
    """A value on one line of at most `length` characters."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = clean(" ".join(text.split()))
    return text if len(text) <= length else f"{text[: length - 1]}…"


def say(text: str) -> None:
    """One line of diagnostics on standard error."""
    print(clean(text), file=sys.stderr, flush=True)


def line(text: str) -> None:
    """One line on standard output, at once."""
    print(clean(text), flush=True)


def print_json(data: Any) -> None:
    """JSON on standard output, on one line when piped."""
    json.dump(data, sys.stdout, indent=2 if sys.stdout.isatty() else None)
    sys.stdout.write("\n")
    sys.stdout.flush()


def print_text(text: str) -> None:
    """A result: Markdown rendered on a terminal, the bare text when piped."""
    if not on_terminal():
        sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
        sys.stdout.flush()
        return
    from rich.markdown import Markdown

    console().print(Markdown(clean(text)))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, totals: bool = False) -> None:
    """A table on a terminal; tab-separated lines with a header when piped. `totals` sets the last row apart."""
    texts = [["" if cell is None else clean(str(cell)) for cell in row] for row in rows]
    if not on_terminal():
        for row in [list(columns), *texts]:
            print("\t".join(" ".join(cell.split()) for cell in row))
        sys.stdout.flush()
        return
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(columns):
        numeric = bool(texts) and all(_is_number(row[index]) for row in texts)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for index, row in enumerate(texts):
        table.add_row(*row, end_section=totals and index == len(texts) - 2)
    console().print(table)


def print_fields(fields: Iterable[tuple[str, Any]]) -> None:
    """Names and values, one pair a line."""
    for name, value in fields:
        line(f"{name + ':':<14} {value}")


def duration(seconds: float) -> str:
    """A time for people: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _is_number(text: str) -> bool:
    return not text or bool(re.fullmatch(r"-?\$?[\d,.]+", text))
