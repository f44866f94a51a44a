"""The commands on alerts. They read the settings of the workers, not the API."""

from __future__ import annotations

from dataclasses import asdict

import typer

from cli.options import AsJson

alerts = typer.Typer(no_args_is_help=True, help="Alerts: try whether they reach anyone.")


def add_to(app: typer.Typer) -> None:
    """Registers the group of commands."""
    app.add_typer(alerts, name="alerts")


@alerts.callback()
def alerts_options(as_json: AsJson = False) -> None:
    """Alerts: try whether they reach anyone."""


@alerts.command("test")
def try_channels(as_json: AsJson = False) -> None:
    """Send a test message through every channel that NIGHTSHIFT_ALERT_… sets here, and say what each answered."""
    import asyncio

    from cli import output
    from cli.errors import UsageError
    from cli.settings import load
    from jobs.link import milliseconds
    from jobs.notifier import Alert
    from jobs.records import new_id
    from worker.alerts import make_notifier
    from worker.settings import AlertSettings

    notifier = make_notifier(load(AlertSettings))
    if not notifier.names:
        raise UsageError("no channel is set: see NIGHTSHIFT_ALERT_… among the settings of the workers")
    summary = "this is a test, and nothing is wrong"
    test = Alert(new_id("alert"), "alert.raised", milliseconds(), "test", "default", summary)
    outcomes = asyncio.run(notifier.send(test))
    if as_json:
        output.print_json([{"channel": name, **asdict(outcome)} for name, outcome in outcomes.items()])
    else:
        output.print_table(
            ("channel", "delivered", "it"),
            [(name, "yes" if outcome.delivered else "NO", outcome.detail) for name, outcome in outcomes.items()],
        )
    if not all(outcome.delivered for outcome in outcomes.values()):
        raise typer.Exit(1)
