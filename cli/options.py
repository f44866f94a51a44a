"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def _or_of_the_group(context: typer.Context, parameter: typer.CallbackParam, value: Any) -> Any:
    """The option of a command, else what stands before it: `agents --data-dir D show A` as `agents show A …`."""
    group = context.parent.params if context.parent else {}
    return value or group.get(str(parameter.name), value)


JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id, like job_…", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON alone on standard output.", callback=_or_of_the_group)]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Data directory of the platform on this machine. [default: NIGHTSHIFT_DATA_DIR, else .nightshift]",
        show_default=False,
        file_okay=False,
        callback=_or_of_the_group,
    ),
]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Show the job's progress until it ends.")]
Wait = Annotated[bool, typer.Option("--wait", "-w", help="Wait until the job ends, then print its result.")]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Say what the job would cost. Its files are uploaded, and nothing is submitted."),
]
BudgetUsd = Annotated[
    str | None, typer.Option("--budget-usd", metavar="USD", help="Most that the job may cost, like 0.50.")
]
MaxSteps = Annotated[int | None, typer.Option("--max-steps", min=1, help="Most model turns.", show_default=False)]
IdempotencyKey = Annotated[
    str | None,
    typer.Option("--idempotency-key", metavar="KEY", help="The same key submits once, however often it is sent."),
]
