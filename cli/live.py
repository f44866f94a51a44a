"""Shows a job's progress while it runs: a live view on a terminal, a line for each event when piped."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from cli import output
from cli.progress import Json, Progress, describe

SHOWN_CALLS = 6
SHOWN_TEXT = 300
MARKS = {
    "running": ("●", "cyan"),
    "completed": ("✓", "green"),
    "failed": ("✗", "red"),
    "cancelled": ("✗", "red"),
    "expired": ("✗", "red"),
}


class View(Protocol):
    """Shows events one after another."""

    def show(self, event: Json) -> None: ...


class PlainView:
    """One line for each event that is kept."""

    def show(self, event: Json) -> None:
        if event["type"] != "message.delta":
            output.line(describe(event))


class SilentView:
    """Shows nothing."""

    def show(self, event: Json) -> None:
        pass


class LiveView:
    """A few lines at the foot of the terminal that are drawn anew as the job goes on."""

    def __init__(self, title: str) -> None:
        from rich.live import Live

        self.title = title
        self.progress = Progress()
        self._begun = time.monotonic()
        self._live = Live(console=output.console(), get_renderable=self.render, refresh_per_second=8)

    def __enter__(self) -> LiveView:
        self._live.__enter__()
        return self

    def __exit__(self, *failure: Any) -> None:
        self._live.__exit__(*failure)

    def show(self, event: Json) -> None:
        self.progress.apply(event)

    def render(self) -> Any:
        """The view as it is now."""
        from rich.console import Group
        from rich.text import Text

        p = self.progress
        mark, color = MARKS.get(p.status, ("●", "yellow"))
        head = Text.assemble((f"{mark} ", color), (self.title, "bold"), f"  {output.clean(p.now)}")
        figures = f"  step {p.step} · {p.tokens:,} tokens · ${p.cost:.4f} · {output.duration(self._elapsed())}"
        lines = [head, Text(figures, style="dim")]
        lines += [_call(call) for call in list(p.calls.values())[-SHOWN_CALLS:]]
        if p.saying:
            lines.append(Text(f"  {output.one_line(p.saying[-SHOWN_TEXT:], SHOWN_TEXT)}", style="italic"))
        for text in lines:
            text.no_wrap, text.overflow = True, "ellipsis"
        return Group(*lines)

    def _elapsed(self) -> float:
        p = self.progress
        if p.started and p.ended:
            return (p.ended - p.started).total_seconds()
        return time.monotonic() - self._begun


def view(title: str, *, silent: bool) -> AbstractContextManager[View]:
    """The view that fits standard output."""
    if silent:
        return nullcontext(SilentView())
    return LiveView(title) if output.on_terminal() else nullcontext(PlainView())


def _call(call: Any) -> Any:
    from rich.text import Text

    if call.seconds is None:
        mark, style, took = "…", "cyan", ""
    else:
        mark, style = ("✗", "red") if call.failed else ("✓", "green")
        took = f"  {call.seconds:.2f} s"
    return Text.assemble((f"  {mark} ", style), (call.name, "bold"), (took, "dim"), f"  {call.input}")
