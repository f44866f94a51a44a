"""How schedules look to a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cli import output

Json = dict[str, Any]


def print_schedules(schedules: Sequence[Json]) -> None:
    """The table of `nightshift schedules`."""
    rows = [
        (
            schedule["id"],
            schedule["name"],
            schedule["state"],
            schedule["cron"],
            schedule["timezone"],
            schedule["agent"],
            next(iter(schedule["next_runs"]), "none"),
        )
        for schedule in schedules
    ]
    output.print_table(("schedule", "name", "state", "cron", "zone", "agent", "next"), rows)


def print_schedule(schedule: Json) -> None:
    """One schedule, and its next times."""
    policy = f"{schedule['overlap']} with {schedule['concurrency']} open; catches up {schedule['catch_up']}"
    output.print_fields(
        [
            ("schedule", schedule["id"]),
            ("name", schedule["name"] or "none"),
            ("state", schedule["state"]),
            ("clock", f"{schedule['cron']} in {schedule['timezone']}"),
            ("policy", policy),
            ("agent", schedule["agent"]),
            ("input", output.one_line(schedule["input"])),
            ("runs", schedule["runs"]),
        ]
    )
    say_next(schedule)


def say_next(schedule: Json) -> None:
    """Its next times, as diagnostics."""
    if not schedule["next_runs"]:
        output.say("it has no next time")
    for at in schedule["next_runs"]:
        output.say(f"next: {at}")


def print_runs(slots: Sequence[Json]) -> None:
    """The table of `nightshift schedules runs`."""
    rows = [(slot["scheduled_at"], slot["outcome"], slot["reason"], slot["job_id"]) for slot in slots]
    output.print_table(("scheduled", "outcome", "reason", "job"), rows)
