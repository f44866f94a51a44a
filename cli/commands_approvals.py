"""The commands on what jobs ask of people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from cli.options import AsJson, DataDir

ApprovalId = Annotated[str, typer.Argument(metavar="ID", help="The approval's id, like appr_…", show_default=False)]
Reason = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why.")]


def add_to(app: typer.Typer) -> None:
    """Registers the commands."""
    for command in (approvals, approve, deny):
        app.command()(command)


def approvals(
    status: Annotated[
        str, typer.Option("--status", help="pending, approved, denied, expired, withdrawn or all.")
    ] = "pending",
    job: Annotated[str | None, typer.Option("--job", metavar="JOB", help="Only of this job.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=200, help="At most this many.")] = 20,
    after: Annotated[str | None, typer.Option("--after", help="The next_cursor of the page before.")] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """List the tool calls and questions that wait for a person, the newest first."""
    from cli import approvalview, output
    from cli.session import call

    query = {"status": None if status == "all" else status, "job_id": job, "limit": limit, "after": after}
    page = call(data_dir, lambda client: client.get("/v1/approvals", query))
    if as_json:
        output.print_json(page)
        return
    approvalview.print_approvals(page["data"])
    if page["has_more"]:
        output.say(f"there are more: --after {page['next_cursor']}")


def approve(
    approval: ApprovalId,
    given: Annotated[
        str | None, typer.Option("--input", metavar="JSON", help="Let the call run with this input instead of its own.")
    ] = None,
    answer: Annotated[str | None, typer.Option("--answer", metavar="TEXT", help="The answer to a question.")] = None,
    reason: Reason = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Let a call run that waits for it, or answer a question. Its job goes on when nothing else is open."""
    body = {"decision": "approve", "input": _parsed(given), "answer": answer, "reason": reason}
    _decide(approval, body, as_json, data_dir)


def deny(approval: ApprovalId, reason: Reason = None, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Do not let a call run; the agent is told so, with the reason, and goes on without it."""
    _decide(approval, {"decision": "deny", "reason": reason}, as_json, data_dir)


def _decide(approval: str, body: dict[str, Any], as_json: bool, data_dir: Path | None) -> None:
    from cli import output
    from cli.session import call

    path = f"/v1/approvals/{quote(approval, safe='')}/decide"
    given = {name: value for name, value in body.items() if value is not None}
    decided = call(data_dir, lambda client: client.post(path, given))
    output.print_json(decided) if as_json else output.line(f"{decided['id']} {decided['status']}: {decided['tool']}")


def _parsed(text: str | None) -> Any:
    import json

    from cli.errors import UsageError

    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError as exc:
        raise UsageError(f"--input is no JSON: {exc}") from None
