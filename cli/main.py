"""The entry of the `nightshift` command."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from cli import (
    commands_admin,
    commands_alerts,
    commands_approvals,
    commands_jobs,
    commands_kill_switch,
    commands_memories,
    commands_money,
    commands_schedules,
    commands_server,
    commands_tenants,
    commands_webhooks,
)
from cli.errors import CliError

app = typer.Typer(
    name="nightshift",
    help="Runs AI-agent jobs unattended. `nightshift up` starts everything here; `nightshift demo` shows it.",
    no_args_is_help=True,
    rich_markup_mode=None,  # importing rich would take two thirds of the time of `nightshift --help`
    pretty_exceptions_enable=False,  # it prints local variables, and some hold keys
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 done, 1 the job failed, 2 wrong usage, 3 the platform can't be reached.",
)
commands_server.add_to(app)
commands_jobs.add_to(app)
commands_approvals.add_to(app)
commands_schedules.add_to(app)
commands_admin.add_to(app)
commands_tenants.add_to(app)
commands_money.add_to(app)
commands_alerts.add_to(app)
commands_webhooks.add_to(app)
commands_memories.add_to(app)
commands_kill_switch.add_to(app)


def _print_version(wanted: bool) -> None:
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version("nightshift")
    except PackageNotFoundError:
        found = "from a source tree that is not installed"
    print(f"nightshift {found}")
    raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options of the command itself."""


def main() -> None:
    """Runs the command line and exits: 0 done, 1 the job failed, 2 wrong usage, 3 the platform can't be reached."""
    try:
        app(prog_name="nightshift")
    except CliError as exc:
        print(f"nightshift: {exc}", file=sys.stderr)
        sys.exit(exc.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to flush has no reader
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
