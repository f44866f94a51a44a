"""The commands on API keys and agents."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from cli.errors import UsageError
from cli.invocation import command
from cli.options import AsJson, DataDir

Tenant = Annotated[str | None, typer.Option("--tenant", help="Another tenant; for the bootstrap key alone.")]

keys = typer.Typer(no_args_is_help=True, help="API keys: create, list, revoke. They need a key with the scope admin.")
agents = typer.Typer(invoke_without_command=True, help="The agents that workers have published.")


def add_to(app: typer.Typer) -> None:
    """Registers the groups of commands."""
    app.add_typer(agents, name="agents")
    app.add_typer(keys, name="keys")


@keys.callback()
def keys_options(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """API keys: create, list, revoke. They need a key with the scope admin."""


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is for.")],
    scopes: Annotated[
        list[str] | None,
        typer.Option("--scope", help="A scope; may be repeated. [default: jobs:read jobs:write]", show_default=False),
    ] = None,
    expires_at: Annotated[
        str | None, typer.Option("--expires-at", metavar="TIME", help="Like 2027-01-01T00:00:00Z.")
    ] = None,
    tenant: Tenant = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Make an API key. Its secret is shown this once."""
    from cli import output
    from cli.session import call

    body: dict[str, Any] = {"name": name, "scopes": scopes or ["jobs:read", "jobs:write"]}
    given = {"expires_at": expires_at, "tenant": tenant}
    body |= {name: value for name, value in given.items() if value}
    made = call(data_dir, lambda client: client.post("/v1/keys", body))
    if as_json:
        output.print_json(made)
        return
    output.say(f"{made['id']} for tenant {made['tenant']}: {', '.join(made['scopes'])}; the secret is shown this once:")
    output.line(made["secret"])


@keys.command("list")
def list_keys(tenant: Tenant = None, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """List the API keys of the tenant, without their secrets."""
    from cli import output
    from cli.session import call

    page = call(data_dir, lambda client: client.get("/v1/keys", {"tenant": tenant}))
    if as_json:
        output.print_json(page)
        return
    times = ("created_at", "expires_at", "last_used_at")
    rows = [
        (k["id"], k["name"], f"{k['hint']}…", " ".join(k["scopes"]), *(k[name] for name in times)) for k in page["data"]
    ]
    output.print_table(("key", "name", "begins", "scopes", "created", "expires", "last used"), rows)


@keys.command("revoke")
def revoke_key(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key's id, like key_…")],
    tenant: Tenant = None,
    data_dir: DataDir = None,
) -> None:
    """Revoke an API key; it stops working at once."""
    from cli import output
    from cli.session import call

    call(data_dir, lambda client: client.delete(f"/v1/keys/{quote(key, safe='')}", {"tenant": tenant}))
    output.line(f"{key} revoked")


@agents.callback()
def agents_default(context: typer.Context, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """The agents that workers have published."""
    if context.invoked_subcommand is None:
        list_agents(as_json, data_dir)


@agents.command("list")
def list_agents(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """List the agents."""
    from cli import output
    from cli.session import call

    page = call(data_dir, lambda client: client.get("/v1/agents"))
    if as_json:
        output.print_json(page)
        return
    rows = [
        (a["name"], a["version"], a["workers"] or "none is live", a["model"], a["description"]) for a in page["data"]
    ]
    output.print_table(("agent", "version", "workers", "model", "description"), rows)


@agents.command("show")
def show_agent(
    name: Annotated[str, typer.Argument(metavar="AGENT", help="The agent's name.")],
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Show an agent's definition."""
    from cli import output
    from cli.session import call

    found = call(data_dir, lambda client: client.get(f"/v1/agents/{quote(name, safe='')}"))
    if as_json:
        output.print_json(found)
        return
    fields = {**found, "workers": found["workers"] or "none that is live runs it"}
    output.print_fields((name, output.one_line(value, 300)) for name, value in fields.items() if value)


@agents.command("accept-tools")
def accept_tools(
    server: Annotated[str, typer.Argument(metavar="SERVER", help="The MCP server's name, as agents call it.")],
    seen: Annotated[
        str | None,
        typer.Option("--seen", metavar="FINGERPRINT", help="Accept these. Without it they are shown, with theirs."),
    ] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Show the tools that an MCP server has changed, or accept what was shown."""
    from cli import output
    from cli.session import call

    if seen is not None:
        path = f"/v1/mcp/{quote(server, safe='')}/accept"
        found = call(data_dir, lambda client: client.put(path, {"seen": seen}))
    else:
        page = call(data_dir, lambda client: client.get("/v1/mcp"))
        servers = {known["name"]: known for known in page["data"]}
        if server not in servers:
            names = ", ".join(servers) or "none"
            raise UsageError(f"no worker has seen an MCP server {server!r}; there are: {names}")
        found = servers[server]
    if as_json:
        output.print_json(found)
        return
    for change in found["changes"]:
        shown = {side: output.one_line(change[side], 2000) for side in ("pinned", "seen") if change[side]}
        output.print_fields([(change["change"], change["tool"]), *shown.items()])
    if found["changes"]:
        accepting = command(f"agents accept-tools {server} --seen {found['seen']}")
        output.say(f"accept them: {accepting}")
    else:
        output.line(f"{server}: its {len(found['tools'])} tools are accepted as they are")
