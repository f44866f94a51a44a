"""How what jobs ask of people looks to a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cli import output
from cli.invocation import command

Json = dict[str, Any]


def print_approvals(approvals: Sequence[Json]) -> None:
    """The table of `nightshift approvals`, and how to decide."""
    rows = [
        (
            approval["id"],
            approval["job_id"],
            approval["tool"],
            approval["status"],
            approval["expires_at"] or "never",
            output.one_line(approval["input"], 80),
        )
        for approval in approvals
    ]
    output.print_table(("approval", "job", "tool", "status", "expires", "input"), rows)
    if any(approval["status"] == "pending" for approval in approvals):
        say_how()


def print_waiting(calls: Sequence[Json]) -> None:
    """The calls that a job waits with."""
    rows = [(call["approval_id"], call["tool"], output.one_line(call["input"], 120)) for call in calls]
    output.print_table(("approval", "tool", "input"), rows)
    say_how()


def say_how() -> None:
    """The commands that decide."""
    output.say(
        f"decide with: {command('approve')} ID [--input JSON | --answer TEXT] | {command('deny')} ID --reason TEXT"
    )
