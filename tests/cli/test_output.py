from __future__ import annotations

import json
from typing import Any

import pytest

from cli import jobview, output


def test_a_table_is_tab_separated_lines_when_piped(capsys):
    output.print_table(("name", "size"), [("a\tb", 1), ("c", None)])
    assert capsys.readouterr().out == "name\tsize\na b\t1\nc\t\n"


def test_a_table_is_drawn_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    output.print_table(("name", "size"), [("[bold]a[/bold]", 1)])
    shown = capsys.readouterr().out
    assert "\t" not in shown
    assert "[bold]a[/bold]" in shown
    assert "─" in shown


def test_a_result_is_the_bare_text_when_piped_and_rendered_on_a_terminal(capsys, monkeypatch):
    output.print_text("# Title\n\n**x**")
    assert capsys.readouterr().out == "# Title\n\n**x**\n"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    output.print_text("# Title\n\n**x** \x1b]0;evil\x07")
    shown = capsys.readouterr().out
    assert "# Title" not in shown
    assert "Title" in shown
    assert "\x1b]0" not in shown


def test_json_stands_alone_on_one_line_when_piped(capsys):
    output.print_json({"a": "é\x1b\u2028"})
    shown = capsys.readouterr().out
    assert shown.count("\n") == 1
    assert json.loads(shown) == {"a": "é\x1b\u2028"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.7, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations(seconds, text):
    assert output.duration(seconds) == text


ROWS: list[dict[str, Any]] = [
    {"usage": {"input_tokens": 3, "cache_creation_input_tokens": 4, "output_tokens": 5}, "settled_usd": "0.1"},
    {"usage": {"input_tokens": 1, "cache_read_input_tokens": 2, "output_tokens": 1}, "settled_usd": "0.02"},
    {"usage": None, "settled_usd": None},
]
USAGE: dict[str, Any] = {
    "input_tokens": 4,
    "output_tokens": 6,
    "cache_read_tokens": 2,
    "cache_write_tokens": 4,
    "cost_usd": "0.120",
}


def test_the_ledger_adds_up_to_the_usage():
    assert jobview.agrees(USAGE, jobview.ledger_totals(ROWS))


@pytest.mark.parametrize(("rows", "said"), [(ROWS, "cache: 20 % of the input was read from it\n"), (ROWS[2:], "")])
def test_the_ledger_says_how_much_of_the_input_came_from_the_cache(rows, said, capsys):
    shown = {"step": 1, "model": "m", "reserved_usd": "1", "reason": "settled"}
    jobview.print_ledger([{**row, **shown} for row in rows])
    printed = capsys.readouterr()
    assert printed.err == said
    assert printed.out.splitlines()[-1].startswith("total\t")


@pytest.mark.parametrize("changed", [{"cost_usd": "0.12001"}, {"output_tokens": 7}, {"cache_read_tokens": 0}])
def test_a_ledger_that_does_not_add_up_is_noticed(changed):
    assert not jobview.agrees({**USAGE, **changed}, jobview.ledger_totals(ROWS))
