"""The commands on jobs. Each is thin: what it needs of the client is imported when it runs, so that help is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from cli.options import AsJson, BudgetUsd, DataDir, DryRun, Follow, IdempotencyKey, JobId, MaxSteps, Wait

Priority = Annotated[str | None, typer.Option("--priority", help="high, default or low.", show_default=False)]
Service = Annotated[
    str | None, typer.Option("--service", help="standard, or batch: half the price, up to a day.", show_default=False)
]


def add_to(app: typer.Typer) -> None:
    """Registers the commands, in the order in which help lists them."""
    for command in (
        submit,
        jobs,
        show,
        follow,
        explain,
        cancel,
        pause,
        resume,
        retry,
        fork,
        reconcile,
        ledger,
        artifacts,
    ):
        app.command()(command)


def submit(
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="The agent's name; `nightshift agents` lists them.")],
    text: Annotated[str, typer.Argument(metavar="INPUT", help="What it is to do; - reads standard input.")],
    files: Annotated[
        list[Path] | None,
        typer.Option("--file", "-F", help="A file to hand over; may be repeated.", exists=True, dir_okay=False),
    ] = None,
    follow: Follow = False,
    wait: Wait = False,
    dry_run: DryRun = False,
    budget_usd: BudgetUsd = None,
    max_steps: MaxSteps = None,
    session: Annotated[str | None, typer.Option("--session", help="Go on with this conversation.")] = None,
    user: Annotated[str | None, typer.Option("--user", help="On whose behalf.")] = None,
    priority: Priority = None,
    service: Service = None,
    tags: Annotated[list[str] | None, typer.Option("--tag", help="A tag; may be repeated.")] = None,
    idempotency_key: IdempotencyKey = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Submit a job to an agent, and with --follow or --wait stay until it ends.

    Prints the job's id. Exit status with --follow and --wait: 0 when the job completed, 1 when it ended otherwise.
    """
    from cli import estimating, output, running
    from cli.client import Client, Json
    from cli.errors import UsageError
    from cli.session import call

    if dry_run and (follow or wait):
        raise UsageError("--dry-run submits nothing, so there is nothing to follow or to wait for")

    body: Json = {"agent": agent, "input": _input(text)}
    body |= _given(session_id=session, user=user, priority=priority, service=service, tags=tags)
    body |= _given(budget=_budget(budget_usd, max_steps))

    async def work(client: Client) -> int:
        if dry_run:
            return await estimating.dry_run(client, body, files or (), as_json=as_json)
        job = await running.submit(client, body, files or (), idempotency_key)
        if not (follow or wait):
            output.print_json(job) if as_json else output.line(job["id"])
            return 0
        if not as_json:
            output.say(f"submitted {job['id']}")
        ended = await running.watch(client, job["id"], f"{agent} {job['id']}", silent=as_json or not follow)
        return running.finish(ended, as_json=as_json)

    raise typer.Exit(call(data_dir, work))


def jobs(
    status: Annotated[str | None, typer.Option("--status", help="Only with this status.")] = None,
    agent: Annotated[str | None, typer.Option("--agent", help="Only of this agent.")] = None,
    tag: Annotated[str | None, typer.Option("--tag", help="Only with this tag.")] = None,
    session: Annotated[str | None, typer.Option("--session", help="Only of this session.")] = None,
    user: Annotated[str | None, typer.Option("--user", help="Only of this user.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=200, help="At most this many.")] = 20,
    after: Annotated[str | None, typer.Option("--after", help="The next_cursor of the page before.")] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """List jobs, the newest first."""
    from cli import billing, jobview, output
    from cli.session import call

    query: dict[str, Any] = {"status": status, "agent": agent, "tag": tag, "session_id": session, "user": user}
    query |= {"limit": limit, "after": after}
    page = call(data_dir, lambda client: client.get("/v1/jobs", query))
    if as_json:
        output.print_json(page)
        return
    jobview.print_jobs(page["data"])
    call(data_dir, lambda client: billing.say_if_simulated(client, page["data"]))
    if page["has_more"]:
        output.say(f"there are more: --after {page['next_cursor']}")


def show(job: JobId, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show a job: its status, usage, cost and output."""
    from cli import billing, jobview, output
    from cli.session import call

    found = _get(f"/v1/jobs/{quote(job, safe='')}", data_dir)
    if as_json:
        output.print_json(found)
        return
    jobview.print_job(found)
    call(data_dir, lambda client: billing.say_if_simulated(client, [found]))
    if found["status"] == "requires_action":
        jobview.print_waiting(_get(f"/v1/jobs/{quote(job, safe='')}/explain", data_dir))


def follow(job: JobId, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show a job's progress from its beginning until it ends, then its result.

    Exit status: 0 when the job completed, 1 when it ended otherwise.
    """
    from cli import running
    from cli.client import Client
    from cli.session import call

    async def work(client: Client) -> int:
        await running.get_job(client, job)  # a platform that is not there is not waited for
        ended = await running.watch(client, job, job, silent=as_json)
        return running.finish(ended, as_json=as_json)

    raise typer.Exit(call(data_dir, work))


def explain(job: JobId, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Say why a job is not finished: which gate holds it, and its place in the queue."""
    from cli import jobview, output

    found = _get(f"/v1/jobs/{quote(job, safe='')}/explain", data_dir)
    if as_json:
        output.print_json(found)
        return
    jobview.print_explanation(found)
    jobview.print_waiting(found)


def cancel(job: JobId, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Cancel a job; one that runs is stopped within a second."""
    _act(job, "cancel", as_json, data_dir)


def pause(job: JobId, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Pause a job; one that runs stops after its current step."""
    _act(job, "pause", as_json, data_dir)


def resume(
    job: JobId,
    budget_usd: BudgetUsd = None,
    max_steps: MaxSteps = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Let a paused job go on, with other limits if you name some."""
    _act(job, "resume", as_json, data_dir, _given(budget=_budget(budget_usd, max_steps)))


def retry(
    job: JobId,
    budget_usd: BudgetUsd = None,
    max_steps: MaxSteps = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Run a job that failed, was cancelled or expired again, from its last recorded step on."""
    _act(job, "retry", as_json, data_dir, _given(budget=_budget(budget_usd, max_steps)))


def fork(
    job: JobId,
    step: Annotated[int | None, typer.Option("--step", min=0, help="0 is the bare input. [default: the last]")] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="What the user says at that point.")] = None,
    text: Annotated[str | None, typer.Option("--input", help="Another input; needs --step 0.")] = None,
    budget_usd: BudgetUsd = None,
    max_steps: MaxSteps = None,
    tags: Annotated[list[str] | None, typer.Option("--tag", help="A tag; may be repeated.")] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Start a new job from a step of another one, with changes. What is before that step is not paid for again."""
    changes = _given(step=step, message=message, input=text, tags=tags, budget=_budget(budget_usd, max_steps))
    _act(job, "fork", as_json, data_dir, changes)


def reconcile(
    job: JobId,
    call: Annotated[
        str | None, typer.Argument(metavar="[CALL]", help="The call's id; may be left out when one waits.")
    ] = None,
    happened: Annotated[
        str | None, typer.Option("--happened", metavar="RESULT", help="It happened; what the model gets to see of it.")
    ] = None,
    not_happened: Annotated[bool, typer.Option("--not-happened", help="It did not happen: run it.")] = False,
    decisions: Annotated[
        str | None, typer.Option("--decisions", metavar="JSON", help="Several calls at once, as the API takes them.")
    ] = None,
    stop: Annotated[bool, typer.Option("--stop", help="Fail the job; what it came to is kept.")] = False,
    reason: Annotated[str | None, typer.Option("--reason", help="Why it is stopped.")] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Say what became of a tool call that a crash interrupted, so that its job goes on; or stop the job.

    `nightshift show JOB` lists the calls that wait. Every one of them needs its word.
    """
    from cli import reconciling

    choice = reconciling.Choice(call, happened, not_happened, decisions, stop, reason)
    body = reconciling.body(choice, lambda: _get(f"/v1/jobs/{quote(job, safe='')}/explain", data_dir))
    _act(job, "reconcile", as_json, data_dir, body)


def ledger(job: JobId, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show every money row of a job, and their totals."""
    from cli import jobview, output

    page = _get(f"/v1/jobs/{quote(job, safe='')}/ledger", data_dir)
    output.print_json(page) if as_json else jobview.print_ledger(page["data"])


def artifacts(
    job: JobId,
    save_to: Annotated[Path | None, typer.Option("--save-to", help="Save them all into this folder.")] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """List the files that a job has saved, or fetch them."""
    from cli import fetching, jobview, output
    from cli.client import Client
    from cli.session import call

    async def work(client: Client) -> Any:
        page = await client.get(f"/v1/jobs/{quote(job, safe='')}/artifacts")
        if save_to is not None:
            await fetching.save_all(client, page["data"], save_to)
        return page

    page = call(data_dir, work)
    output.print_json(page) if as_json else jobview.print_artifacts(page["data"])


def _get(path: str, data_dir: Path | None) -> Any:
    from cli.session import call

    return call(data_dir, lambda client: client.get(path))


def _act(job: str, action: str, as_json: bool, data_dir: Path | None, body: dict[str, Any] | None = None) -> None:
    from cli import output
    from cli.invocation import command
    from cli.session import call

    path = f"/v1/jobs/{quote(job, safe='')}/{action}"
    changed = call(data_dir, lambda client: client.post(path, body or None))
    if as_json:
        output.print_json(changed)
        return
    asked = changed["status"] == "running" and action in ("cancel", "pause")
    later = f" (its worker was asked to {action} it; `{command(f'show {job}')}` says when it has)" if asked else ""
    output.line(f"{changed['id']} {changed['status']}{later}")


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, [], {})}


def _budget(usd: str | None, steps: int | None) -> dict[str, Any]:
    return _given(usd=usd, steps=steps)


def _input(text: str) -> str:
    import sys

    return sys.stdin.read() if text == "-" else text
