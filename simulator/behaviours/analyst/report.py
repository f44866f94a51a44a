"""Writes the analyst's report: Markdown whose figures are the tools' own, none worked out here."""

from __future__ import annotations

from typing import Any

from simulator.behaviours.analyst.plan import GROUPS, LABELS
from simulator.behaviours.analyst.question import Question
from simulator.behaviours.analyst.table import Result, Table
from simulator.behaviours.plain import NOTE

CELL_CHARS = 80
ESCAPES = str.maketrans({"|": "\\|", "<": "&lt;", "`": "\\`", "*": "\\*", "\n": " ", "\r": " "})


def write(table: Table, question: Question, results: list[Result]) -> str:
    """The report on a table."""
    overview, *others = results
    parts = [
        f"# Report on {cell(table.file)}",
        f"{_headline(question, others)}{_size(table, overview)}",
        *(_section(result) for result in results),
        _caveats(table, question, results),
        "## How it was worked out",
        "\n".join(f"```sql\n{result.sql}\n```" for result in results),
        f"*{NOTE} The figures are real: they come from the queries above.*",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def failure(reason: str) -> str:
    """The report when no table could be read."""
    return (
        f"# Report\n\nThe data could not be read, so there are no figures. The tool said: {cell(reason)}\n\n*{NOTE}*\n"
    )


def _headline(question: Question, results: list[Result]) -> str:
    """The answer in a sentence, if a grouped query gave one."""
    group = next((r for r in results if r.query.kind == "group" and r.rows and r.sql == r.query.sql), None)
    if group is None or question.group is None:
        return ""
    wanted = LABELS["count"]
    if question.measure is not None and question.aggregate != "count":
        wanted = f"{LABELS[question.aggregate]} of {question.measure.name}"
    if wanted not in group.columns[1:]:
        return ""
    place = group.columns.index(wanted, 1)
    rank = "lowest" if question.lowest else "highest"
    first = group.rows[0]
    return (
        f"Of all values of {cell(question.group.name)}, **{cell(first[0])}** has the {rank} {cell(wanted)}: "
        f"**{figure(first[place])}**. "
    )


def _size(table: Table, overview: Result) -> str:
    rows = overview.rows[0][0] if overview.rows and overview.rows[0] else table.rows
    count = f"{rows:,}" if isinstance(rows, int) else cell(rows)
    noun = "row" if rows == 1 else "rows"
    columns = f"{len(table.columns)} column" + ("" if len(table.columns) == 1 else "s")
    return f"{cell(table.file)} holds {count} {noun} in {columns}."


def _section(result: Result) -> str:
    title = f"## {cell(result.query.title)}"
    if result.error is not None:
        return f"{title}\n\nThis query failed: {cell(result.error)}"
    if result.query.kind == "overview":
        pairs = zip(result.columns, result.rows[0] if result.rows else [], strict=False)
        shown = [pair for number, pair in enumerate(pairs) if number == 0 or pair[1] != 0]
        return f"{title}\n\n{grid(['figure', 'value'], [list(pair) for pair in shown])}"
    return f"{title}\n\n{grid(result.columns, result.rows)}" if result.rows else f"{title}\n\nNo rows."


def _caveats(table: Table, question: Question, results: list[Result]) -> str:
    points, overview, shown = [], results[0], question.top or GROUPS
    if overview.rows and not any(value for value in overview.rows[0][1:]):
        points.append("- No value is missing." if table.rows else "- The table is empty.")
    elif overview.rows:
        points.append("- Missing values are listed in the overview; averages leave them out.")
    if any(result.sql != result.query.sql for result in results):
        points.append("- A query failed and was replaced by a simpler one.")
    if any(result.query.kind == "group" and len(result.rows) >= shown for result in results):
        points.append(f"- Of the groups, no more than {shown} are shown.")
    if table.other_files:
        points.append(f"- Not looked at: {', '.join(map(cell, table.other_files))}.")
    return "## Caveats\n\n" + "\n".join(points) if points else ""


def grid(columns: list[str], rows: list[list[Any]]) -> str:
    """A Markdown table; columns that begin with a number are aligned to the right."""
    first = rows[0] if rows else []
    rules = ["---:" if i < len(first) and _is_number(first[i]) else "---" for i in range(len(columns))]
    lines = [[cell(c) for c in columns], rules, *([figure(v) for v in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def figure(value: Any) -> str:
    """A value as it is read: at most two decimals, or four significant digits for small numbers."""
    if not isinstance(value, float):
        return cell(value)
    if value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(round(value, 2)) if abs(value) >= 1 else f"{value:.4g}"


def cell(value: Any) -> str:
    """A value in a line of Markdown, with nothing in it that Markdown would read as its own."""
    if value is None:
        return "–"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return (text if len(text) <= CELL_CHARS else text[: CELL_CHARS - 1] + "…").translate(ESCAPES)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
