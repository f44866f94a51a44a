"""The commands on budgets and usage."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli.options import AsJson, DataDir

CHECK_SECONDS = 600.0
"""How long a check may take: it reads the journal of every job."""
Scope = Annotated[
    str,
    typer.Argument(
        metavar="SCOPE",
        help="tenant, user:NAME, session:ID, agent:NAME; user:*, session:*, agent:* for all without their own; job:*.",
    ),
]
Period = Annotated[str, typer.Option("--period", help="total, month or day, in UTC.")]

budgets = typer.Typer(invoke_without_command=True, help="Limits on what tenant, users, sessions and agents may spend.")


def add_to(app: typer.Typer) -> None:
    """Registers the commands."""
    app.add_typer(budgets, name="budgets")
    app.command()(usage)


@budgets.callback()
def budgets_default(context: typer.Context, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Limits on what the tenant, its users, its sessions and its agents may spend; alone, lists them."""
    if context.invoked_subcommand is None:
        list_budgets(as_json, data_dir)


@budgets.command("list")
def list_budgets(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """List the budgets, with what is spent, reserved and left of each."""
    from cli import moneyview, output
    from cli.session import call

    page = call(data_dir, lambda client: client.get("/v1/budgets"))
    output.print_json(page) if as_json else moneyview.print_budgets(page["data"])


@budgets.command("set")
def set_budget(
    scope: Scope,
    usd: Annotated[str | None, typer.Option("--usd", metavar="USD", help="Most dollars, like 5.00.")] = None,
    tokens: Annotated[int | None, typer.Option("--tokens", min=1, help="Most tokens.", show_default=False)] = None,
    period: Period = "total",
    at_limit: Annotated[str, typer.Option("--at-limit", help="stop, pause or warn.")] = "stop",
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Set the budget of a scope for a period. Jobs that it held go on. Needs a key with the scope admin."""
    from cli import moneyview, output
    from cli.session import call

    body = {"scope": scope, "usd": usd, "tokens": tokens, "period": period, "at_limit": at_limit}
    found = call(data_dir, lambda client: client.put("/v1/budgets", body))
    output.print_json(found) if as_json else moneyview.print_budgets([found])


@budgets.command("remove")
def remove_budget(scope: Scope, period: Period = "total", data_dir: DataDir = None) -> None:
    """Lift a budget. Jobs that it held go on. Needs a key with the scope admin."""
    from cli import output
    from cli.session import call

    call(data_dir, lambda client: client.delete("/v1/budgets", {"scope": scope, "period": period}))
    output.line(f"the budget of {scope} for the period {period} is lifted")


def usage(
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by", help="day, agent, user, model or role; may be repeated. [default: day]", show_default=False
        ),
    ] = None,
    first: Annotated[str | None, typer.Option("--from", metavar="DAY", help="The first day, like 2026-11-01.")] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="DAY", help="The last day. [default: today]")] = None,
    agent: Annotated[str | None, typer.Option("--agent", help="Only of this agent.")] = None,
    user: Annotated[str | None, typer.Option("--user", help="Only of this user.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Only of this model.")] = None,
    export: Annotated[
        str | None, typer.Option("--export", metavar="FORMAT", help="Every row of those days instead: csv or jsonl.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Make every total again from the rows, and say where they differ.")
    ] = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Show what was used and what it cost, of the last 30 days unless you name some.

    Exit status of --check: 0 when every total is the sum of its rows, 1 when one is not.
    """
    from cli import billing, moneyview, output
    from cli.client import Client
    from cli.errors import UsageError
    from cli.session import call

    days = {"from": first, "to": last}
    only = {"by": by, "agent": agent, "user": user, "model": model}
    if check and (export or any({**days, **only}.values())):
        raise UsageError("--check looks at everything: it takes no other option but --json and --data-dir")
    if export and any(only.values()):
        raise UsageError("--export has every row: of the other options it takes --from and --to")

    async def work(client: Client) -> int:
        if check:
            found = await client.get("/v1/usage/check", timeout=CHECK_SECONDS)
            output.print_json(found) if as_json else moneyview.print_audit(found)
            return 0 if found["exact"] else 1
        if export:
            await moneyview.export(client.stream("/v1/ledger", {**days, "format": export}))
            return 0
        page: dict[str, Any] = await client.get("/v1/usage", {**days, **only})
        if as_json:
            output.print_json(page)
            return 0
        moneyview.print_usage(page["data"])
        agents = await client.get("/v1/usage", {**days, **only, "by": "agent"})
        await billing.say_if_simulated(client, agents["data"])
        return 0

    raise typer.Exit(call(data_dir, work))
