"""The commands on what a tenant may take at once, and on what was done in its name."""

from __future__ import annotations

from contextlib import aclosing
from typing import Annotated, Any

import typer

from cli.errors import UsageError
from cli.options import AsJson, DataDir

NONE = "none"
COLUMNS = ("created_at", "key_id", "action", "target", "status", "address", "request_id")
Tenant = Annotated[str | None, typer.Option("--tenant", help="Another tenant; for the bootstrap key alone.")]

limits = typer.Typer(invoke_without_command=True, help="How much a tenant may take of the platform at once.")


def add_to(app: typer.Typer) -> None:
    """Registers the commands."""
    app.add_typer(limits, name="limits")
    app.command()(audit)


@limits.callback()
def limits_default(
    context: typer.Context, tenant: Tenant = None, as_json: AsJson = False, data_dir: DataDir = None
) -> None:
    """How much a tenant may take of the platform at once; alone, lists it. It takes a key with the scope admin."""
    if context.invoked_subcommand is None:
        list_limits(tenant, as_json, data_dir)


@limits.command("list")
def list_limits(tenant: Tenant = None, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """List the limits of the tenant and of its agents."""
    from cli import output
    from cli.session import call

    page = call(data_dir, lambda client: client.get("/v1/limits", {"tenant": tenant}))
    output.print_json(page) if as_json else _print(page["data"])


@limits.command("set")
def set_limits(
    scope: Annotated[str, typer.Argument(metavar="SCOPE", help="tenant, or agent:NAME, which has --running alone.")],
    running: Annotated[
        str | None, typer.Option("--running", metavar="N", help="Most jobs that run at once; none lifts it.")
    ] = None,
    rate: Annotated[
        str | None, typer.Option("--requests-per-minute", metavar="N", help="Most requests; none lifts it.")
    ] = None,
    burst: Annotated[
        str | None, typer.Option("--burst", metavar="N", help="Most requests at once; none: as many as in a minute.")
    ] = None,
    tenant: Tenant = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Set or lift limits. Those that you do not name stay."""
    from cli import output
    from cli.session import call

    given = {"running": running, "requests_per_minute": rate, "burst": burst}
    body: dict[str, Any] = {"scope": scope}
    body |= {name: _number(name, text) for name, text in given.items() if text is not None}
    if len(body) == 1:
        raise UsageError("name a limit: --running, --requests-per-minute or --burst")
    if tenant:
        body["tenant"] = tenant
    found = call(data_dir, lambda client: client.put("/v1/limits", body))
    output.print_json(found) if as_json else _print([found])


def audit(
    since: Annotated[str | None, typer.Option("--since", metavar="TIME", help="Like 2026-11-20T00:00:00Z.")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Before that time.")] = None,
    action: Annotated[str | None, typer.Option("--action", help="Only of this kind, like revoke_key.")] = None,
    key: Annotated[str | None, typer.Option("--key", metavar="ID", help="Only by this API key.")] = None,
    target: Annotated[str | None, typer.Option("--target", help="Only about this id or scope.")] = None,
    tenant: Tenant = None,
    without_key: Annotated[
        bool, typer.Option("--without-key", help="Attempts without a valid key; for the bootstrap key alone.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="At most this many. [default: 50; with --json all]")
    ] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Show who changed what, the newest first; with --json all of it, an entry a line. It takes the scope admin."""
    import json

    from cli import output
    from cli.client import Client
    from cli.session import call

    most = limit or (None if as_json else 50)
    filters = {"created_after": since, "created_before": until, "action": action, "key_id": key, "target": target}

    async def work(client: Client) -> None:
        shown = 0
        rows: list[list[Any]] = []
        async with aclosing(client.audit(**filters, tenant=tenant, without_key=without_key)) as entries:
            async for entry in entries:
                output.line(json.dumps(entry)) if as_json else rows.append([entry[name] for name in COLUMNS])
                shown += 1
                if shown == most:
                    break
        if not as_json:
            output.print_table([name.removesuffix("_at").replace("_", " ") for name in COLUMNS], rows)

    call(data_dir, work)


def _number(name: str, text: str) -> int | None:
    if text != NONE and not (text.isascii() and text.isdigit()):
        raise UsageError(f"--{name.replace('_', '-')} is {text!r}: expected a number, or {NONE} to lift the limit")
    return None if text == NONE else int(text)


def _print(found: list[dict[str, Any]]) -> None:
    from cli import output

    columns = ("scope", "running", "requests_per_minute", "burst")
    rows = [[NONE if one[name] is None else one[name] for name in columns] for one in found]
    output.print_table([name.replace("_", " ") for name in columns], rows)
