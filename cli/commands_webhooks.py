"""The commands on webhook endpoints and their deliveries."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from cli.options import AsJson, DataDir

PATIENCE = 30.0
"""Seconds that `test` waits for a worker and the receiver."""
POLL_SECONDS = 0.2
EndpointId = Annotated[
    str, typer.Argument(metavar="ID", help="The endpoint's id, like whk_…; `jobs` for the webhooks of jobs.")
]
Events = Annotated[
    list[str] | None,
    typer.Option("--event", metavar="TYPE", help="An event to be told of; may be repeated.", show_default=False),
]
Description = Annotated[str | None, typer.Option("--description", metavar="TEXT", help="What it is for.")]

webhooks = typer.Typer(
    invoke_without_command=True, help="Where other programs are told of events. Needs a key with webhooks:write."
)


def add_to(app: typer.Typer) -> None:
    """Registers the commands."""
    app.add_typer(webhooks, name="webhooks")


@webhooks.callback()
def webhooks_default(context: typer.Context, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Where other programs are told of events; alone, lists the endpoints."""
    if context.invoked_subcommand is None:
        list_endpoints(as_json, data_dir)


@webhooks.command("list")
def list_endpoints(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """List the endpoints."""
    from cli import output, webhookview
    from cli.session import call

    page = call(data_dir, lambda client: client.get("/v1/webhook_endpoints"))
    output.print_json(page) if as_json else webhookview.print_endpoints(page["data"])


@webhooks.command("add")
def add_endpoint(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where to POST to.")],
    events: Events = None,
    description: Description = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Make an endpoint. Its secret is shown this once."""
    from cli import output
    from cli.session import call

    body = {"url": url, "events": events or None, "description": description}
    made = call(data_dir, lambda client: client.post("/v1/webhook_endpoints", body))
    if as_json:
        output.print_json(made)
        return
    output.say(f"{made['id']} is told at {made['url']}; the secret that signs is shown this once:")
    output.line(made["secret"])


@webhooks.command("show")
def show_endpoint(endpoint: EndpointId, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show an endpoint."""
    from cli import output
    from cli.session import call

    found = call(data_dir, lambda client: client.get(_path(endpoint)))
    if as_json:
        output.print_json(found)
        return
    output.print_fields((name, output.one_line(value, 300)) for name, value in found.items() if value not in (None, ""))


@webhooks.command("change")
def change_endpoint(
    endpoint: EndpointId,
    url: Annotated[str | None, typer.Option("--url", metavar="URL", help="Where to POST to.")] = None,
    events: Events = None,
    description: Description = None,
    enable: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Tell it again, or nothing more.", show_default=False)
    ] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Change an endpoint; what is not named stays."""
    from cli import output, webhookview
    from cli.session import call

    given = {"url": url, "events": events or None, "description": description, "enabled": enable}
    body = {name: value for name, value in given.items() if value is not None}
    found = call(data_dir, lambda client: client.patch(_path(endpoint), body))
    output.print_json(found) if as_json else webhookview.print_endpoints([found])


@webhooks.command("remove")
def remove_endpoint(endpoint: EndpointId, data_dir: DataDir = None) -> None:
    """Remove an endpoint; what was still to be delivered to it is dropped."""
    from cli import output
    from cli.session import call

    call(data_dir, lambda client: client.delete(_path(endpoint)))
    output.line(f"{endpoint} removed")


@webhooks.command("rotate-secret")
def rotate_secret(
    endpoint: EndpointId,
    overlap: Annotated[
        int | None,
        typer.Option(
            "--overlap", metavar="SECONDS", min=0, help="How long the old secret signs too. [default: a day]",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:  # fmt: skip
    """Make a new secret, shown this once. The old one signs beside it for a day."""
    from cli import output
    from cli.session import call

    body = {} if overlap is None else {"overlap_seconds": overlap}
    found = call(data_dir, lambda client: client.post(f"{_path(endpoint)}/rotate_secret", body))
    output.print_json(found) if as_json else output.line(found["secret"])


@webhooks.command("test")
def send_test(endpoint: EndpointId, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Send a test event and say what was answered.

    Exit status: 0 when it arrived, 1 when it did not.
    """
    import asyncio
    import time

    from cli import output, webhookview
    from cli.client import Client
    from cli.session import call

    async def work(client: Client) -> Any:
        delivery = await client.post(f"{_path(endpoint)}/test")
        path, deadline = f"{_path(endpoint)}/deliveries/{delivery['id']}", time.monotonic() + PATIENCE
        while delivery["status"] == "pending" and not delivery["tries"] and time.monotonic() < deadline:
            await asyncio.sleep(POLL_SECONDS)
            delivery = await client.get(path)
        return delivery

    delivery = call(data_dir, work)
    output.print_json(delivery) if as_json else webhookview.print_test(delivery)
    raise typer.Exit(0 if delivery["status"] == "delivered" else 1)


@webhooks.command("deliveries")
def list_deliveries(
    endpoint: EndpointId,
    status: Annotated[
        str | None, typer.Option("--status", help="Only pending, delivered, failed or dropped ones.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=200, help="At most this many.")] = 20,
    after: Annotated[str | None, typer.Option("--after", help="The next_cursor of the page before.")] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """List the deliveries of an endpoint, the newest first."""
    from cli import output, webhookview
    from cli.session import call

    query = {"status": status, "limit": limit, "after": after}
    page = call(data_dir, lambda client: client.get(f"{_path(endpoint)}/deliveries", query))
    if as_json:
        output.print_json(page)
        return
    webhookview.print_deliveries(page["data"])
    if page["has_more"]:
        output.say(f"there are more: --after {page['next_cursor']}")


@webhooks.command("redeliver")
def redeliver(
    endpoint: EndpointId,
    delivery: Annotated[
        str | None, typer.Argument(metavar="[DELIVERY]", help="The delivery's id, like dlv_…", show_default=False)
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="All since a time, like 2026-11-20T08:30:00Z.")
    ] = None,
    only_failed: Annotated[
        bool, typer.Option("--only-failed", help="With --since: those alone that never arrived.")
    ] = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Deliver again: one delivery, or all of events since a time. The ids stay, so a receiver can tell."""
    from cli import output
    from cli.errors import UsageError
    from cli.session import call

    if (delivery is None) == (since is None) or (only_failed and since is None):
        raise UsageError("name either a delivery or a time with --since; --only-failed goes with --since")
    if delivery is not None:
        path, body = f"{_path(endpoint)}/deliveries/{quote(delivery, safe='')}/redeliver", None
    else:
        path, body = f"{_path(endpoint)}/redeliver", {"since": since, "only_failed": only_failed}
    found = call(data_dir, lambda client: client.post(path, body))
    if as_json:
        output.print_json(found)
        return
    output.line(f"{found['id']} is delivered again" if delivery else f"{found['deliveries']} are delivered again")


def _path(endpoint: str) -> str:
    return f"/v1/webhook_endpoints/{quote(endpoint, safe='')}"
