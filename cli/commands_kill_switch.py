"""The kill switch: stopping the platform, a tenant or an agent at once, and letting it go on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import AsJson, DataDir

if TYPE_CHECKING:
    from cli.client import Client, Json

PATH = "/v1/kill_switch"
PATIENCE = 5.0
"""Seconds in which the calls that were open must have been closed; two are promised."""
LOOK_SECONDS = 0.2
COUNTS = {"open": "open", "begun_since": "begun since", "refused_since": "refused since"}

kill_switch = typer.Typer(no_args_is_help=True, help="Stop everything, a tenant or an agent at once: on, off, status.")
Scope = Annotated[
    str,
    typer.Option(
        "--scope",
        metavar="SCOPE",
        help="What it stops: global (the whole platform), tenant (the one of your key) or agent:NAME.",
    ),
]
Reason = Annotated[
    str | None, typer.Option("--reason", metavar="TEXT", help="Why; everyone whose job is refused is told.")
]


def add_to(app: typer.Typer) -> None:
    """Registers the group of commands."""
    app.add_typer(kill_switch, name="kill-switch")


@kill_switch.callback()
def kill_switch_options(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Stop everything, a tenant or an agent at once, and let it go on. It takes a key with the scope admin."""


@kill_switch.command("on")
def turn_on(scope: Scope = "global", reason: Reason = None, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Stop: no job is accepted or started, running ones are handed back, and their model calls are cut off."""
    from cli.session import call

    switch = call(data_dir, lambda client: _on(client, {"scope": scope, "on": True, "reason": reason}))
    _print(switch, as_json)
    evidence = switch["evidence"]
    if not as_json and evidence["calls_open"]:
        from cli import output
        from cli.invocation import command

        output.say(f"{evidence['calls_open']} model calls are still open: see `{command('kill-switch status')}`")


@kill_switch.command("off")
def turn_off(scope: Scope = "global", as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Let go on: what was stopped goes on from its last recorded step."""
    from cli.session import call

    _print(call(data_dir, lambda client: client.put(PATH, {"scope": scope, "on": False})), as_json)


@kill_switch.command("status")
def show_status(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show the switches that are on, since when, by whom, why, and what has become of the model calls."""
    from cli import output
    from cli.session import call

    page = call(data_dir, lambda client: client.get(PATH))
    if as_json:
        output.print_json(page)
    elif page["data"]:
        _print_all(page["data"])
    else:
        output.line("no kill switch is on")


async def _on(client: Client, body: Json) -> Any:
    """Turns a switch on and waits for the open calls to be closed, for a while; the switch as it is then."""
    import asyncio

    switch = await client.put(PATH, body)
    for _ in range(int(PATIENCE / LOOK_SECONDS)):
        if not switch["evidence"]["calls_open"]:
            break
        await asyncio.sleep(LOOK_SECONDS)
        page = await client.get(PATH)
        switch = next((found for found in page["data"] if found["scope"] == body["scope"]), switch)
    return switch


def _print(switch: Json, as_json: bool) -> None:
    from cli import output

    if as_json:
        output.print_json(switch)
    else:
        _print_all([switch])


def _print_all(switches: Sequence[Json]) -> None:
    from cli import output

    for switch in switches:
        output.print_fields(
            (name, output.one_line(value, 500)) for name, value in _fields(switch).items() if value is not None
        )


def _fields(switch: Json) -> Json:
    known = {name: switch[name] for name in ("since", "by", "reason")}
    fields = {"kill switch": f"{switch['scope']} is {'ON' if switch['on'] else 'off'}", **known}
    evidence = switch["evidence"]
    if evidence is not None:
        counts = (f"{evidence[f'calls_{name}']} {word}" for name, word in COUNTS.items())
        fields["model calls"] = ", ".join(counts)
        fields["last began"], fields["last ended"] = evidence["last_call_began_at"], evidence["last_call_ended_at"]
    return fields
