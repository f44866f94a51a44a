"""The commands on schedules."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from cli.options import AsJson, DataDir

ScheduleId = Annotated[str, typer.Argument(metavar="ID", help="The schedule's id, like sched_…", show_default=False)]
Cron = Annotated[
    str, typer.Argument(metavar="CRON", help='Like "0 9 * * MON-FRI", with seconds first if wanted, or "@every 15m".')
]
Timezone = Annotated[str | None, typer.Option("--timezone", "-z", metavar="ZONE", help="Like Europe/Berlin.")]
Overlap = Annotated[str | None, typer.Option("--overlap", help="skip, queue, cancel_previous or allow.")]
Concurrency = Annotated[int | None, typer.Option("--concurrency", min=1, help="Runs open before that.")]
CatchUp = Annotated[str | None, typer.Option("--catch-up", help="none, last or all of the times that were missed.")]
Window = Annotated[int | None, typer.Option("--catch-up-window", metavar="SECONDS", help="Of so long ago at most.")]
Jitter = Annotated[int | None, typer.Option("--jitter", metavar="SECONDS", help="Start up to so much later.")]
EndsAt = Annotated[str | None, typer.Option("--ends-at", metavar="TIME", help="Like 2026-12-31T00:00:00Z.")]
MaxRuns = Annotated[int | None, typer.Option("--max-runs", min=1, help="End after so many.")]
BudgetUsd = Annotated[str | None, typer.Option("--budget-usd", metavar="USD", help="Most that each job may cost.")]
Name = Annotated[str | None, typer.Option("--name", help="What you call it.")]

schedules = typer.Typer(invoke_without_command=True, help="What submits jobs by the clock, and what became of it.")


def add_to(app: typer.Typer) -> None:
    """Registers the commands."""
    app.add_typer(schedules, name="schedules")


@schedules.callback()
def schedules_default(context: typer.Context, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """What submits jobs by the clock; alone, lists it."""
    if context.invoked_subcommand is None:
        list_schedules(50, None, as_json, data_dir)


@schedules.command("list")
def list_schedules(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=200, help="At most this many.")] = 50,
    after: Annotated[str | None, typer.Option("--after", help="The next_cursor of the page before.")] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """List the schedules, the newest first."""
    from cli import scheduleview

    _page("/v1/schedules", limit, after, as_json, data_dir, scheduleview.print_schedules)


@schedules.command("create")
def create_schedule(
    cron: Cron,
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="The agent's name.")],
    text: Annotated[str, typer.Argument(metavar="INPUT", help="May hold {{ scheduled_at }}, {{ last_run.output }}.")],
    name: Name = None,
    timezone: Timezone = None,
    overlap: Overlap = None,
    concurrency: Concurrency = None,
    catch_up: CatchUp = None,
    catch_up_window: Window = None,
    jitter: Jitter = None,
    ends_at: EndsAt = None,
    max_runs: MaxRuns = None,
    budget_usd: BudgetUsd = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show its next ten times.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, on a terminal, before it is saved.")] = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Make a schedule. Its next ten times are shown before it is saved."""
    import sys

    from cli import output, scheduleview
    from cli.client import Client
    from cli.session import call

    given = {
        "name": name,
        "timezone": timezone,
        "overlap": overlap,
        "concurrency": concurrency,
        "catch_up": catch_up,
        "catch_up_window": catch_up_window,
        "jitter": jitter,
        "ends_at": ends_at,
        "max_runs": max_runs,
        "budget": {"usd": budget_usd} if budget_usd else None,
    }
    body = {"cron": cron, "agent": agent, "input": text, **_given(given)}

    async def preview(client: Client) -> Any:
        return await client.post("/v1/schedules", body, {"dry_run": "true"})

    shown = call(data_dir, preview)
    if dry_run and as_json:
        output.print_json(shown)
        return
    scheduleview.say_next(shown)
    if dry_run:
        return
    if sys.stdin.isatty() and not yes and not typer.confirm("Save it?", default=True, err=True):
        raise typer.Exit(1)
    made = call(data_dir, lambda client: client.post("/v1/schedules", body))
    output.print_json(made) if as_json else output.line(made["id"])


@schedules.command("show")
def show_schedule(schedule: ScheduleId, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show a schedule and its next ten times."""
    from cli.session import call

    _print(call(data_dir, lambda client: client.get(_path(schedule))), as_json)


@schedules.command("change")
def change_schedule(
    schedule: ScheduleId,
    cron: Annotated[str | None, typer.Option("--cron", metavar="CRON", help="Another clock, from now on.")] = None,
    text: Annotated[str | None, typer.Option("--input", metavar="INPUT", help="Another input.")] = None,
    name: Name = None,
    timezone: Timezone = None,
    overlap: Overlap = None,
    concurrency: Concurrency = None,
    catch_up: CatchUp = None,
    catch_up_window: Window = None,
    jitter: Jitter = None,
    ends_at: EndsAt = None,
    max_runs: MaxRuns = None,
    budget_usd: BudgetUsd = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Change what is named. One that had ended goes on."""
    from cli.session import call

    given = {
        "cron": cron,
        "input": text,
        "name": name,
        "timezone": timezone,
        "overlap": overlap,
        "concurrency": concurrency,
        "catch_up": catch_up,
        "catch_up_window": catch_up_window,
        "jitter": jitter,
        "ends_at": ends_at,
        "max_runs": max_runs,
        "budget": {"usd": budget_usd} if budget_usd else None,
    }
    _print(call(data_dir, lambda client: client.patch(_path(schedule), _given(given))), as_json)


@schedules.command("pause")
def pause_schedule(schedule: ScheduleId, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Let no time of it come until it is resumed."""
    _act(schedule, "pause", as_json, data_dir)


@schedules.command("resume")
def resume_schedule(schedule: ScheduleId, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Let its times come again, from now on."""
    _act(schedule, "resume", as_json, data_dir)


@schedules.command("trigger")
def trigger_schedule(schedule: ScheduleId, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Submit its job now."""
    from cli import output
    from cli.session import call

    job = call(data_dir, lambda client: client.post(_path(schedule, "/trigger")))
    output.print_json(job) if as_json else output.line(job["id"])


@schedules.command("runs")
def list_runs(
    schedule: ScheduleId,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=200, help="At most this many.")] = 20,
    after: Annotated[str | None, typer.Option("--after", help="The next_cursor of the page before.")] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """List every time that came, and what became of it, the newest first."""
    from cli import scheduleview

    _page(_path(schedule, "/runs"), limit, after, as_json, data_dir, scheduleview.print_runs)


@schedules.command("delete")
def delete_schedule(schedule: ScheduleId, data_dir: DataDir = None) -> None:
    """Remove a schedule and what is known of its times. Its jobs go on."""
    from cli import output
    from cli.session import call

    call(data_dir, lambda client: client.delete(_path(schedule)))
    output.line(f"{schedule} is removed")


def _act(schedule: str, action: str, as_json: bool, data_dir: Path | None) -> None:
    from cli.session import call

    _print(call(data_dir, lambda client: client.post(_path(schedule, f"/{action}"))), as_json)


def _print(schedule: dict[str, Any], as_json: bool) -> None:
    from cli import output, scheduleview

    output.print_json(schedule) if as_json else scheduleview.print_schedule(schedule)


def _page(path: str, limit: int, after: str | None, as_json: bool, data_dir: Path | None, show: Any) -> None:
    from cli import output
    from cli.session import call

    page = call(data_dir, lambda client: client.get(path, {"limit": limit, "after": after}))
    if as_json:
        output.print_json(page)
        return
    show(page["data"])
    if page["has_more"]:
        output.say(f"there are more: --after {page['next_cursor']}")


def _path(schedule: str, rest: str = "") -> str:
    return f"/v1/schedules/{quote(schedule, safe='')}{rest}"


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
