"""The commands on long-term memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import AsJson, DataDir

if TYPE_CHECKING:
    from cli.client import Json

KINDS = "semantic, a fact, or episodic, something that happened"
User = Annotated[str, typer.Argument(metavar="USER", help="Whose memory, as jobs name the user.")]
MemoryId = Annotated[str, typer.Argument(metavar="ID", help="The memory's id, like mem_….")]
Kind = Annotated[str | None, typer.Option("--kind", metavar="KIND", help=f"Only this kind: {KINDS}.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

memories = typer.Typer(no_args_is_help=True, help="What is remembered of users. Writing takes memories:write.")


def add_to(app: typer.Typer) -> None:
    """Registers the commands."""
    app.add_typer(memories, name="memories")


@memories.command("list")
def list_memories(
    user: User,
    kind: Kind = None,
    past: Annotated[bool, typer.Option("--past", help="Also what was superseded or has expired.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=200, help="How many at most.")] = 50,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """List what is remembered of a user, the newest first."""
    _show({"user": user, "kind": kind, "past": past, "limit": limit}, as_json, data_dir)


@memories.command("search")
def search_memories(
    user: User,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What to look for.")],
    k: Annotated[int, typer.Option("-k", min=1, max=100, help="How many at most.")] = 8,
    explain: Annotated[bool, typer.Option("--explain", help="Why each was found.")] = False,
    kind: Kind = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Look for what fits a question, the best first."""
    _show({"user": user, "query": query, "k": k, "explain": explain, "kind": kind}, as_json, data_dir)


@memories.command("remember")
def remember(
    user: User,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="One sentence that stands on its own.")],
    slot: Annotated[
        str | None, typer.Option("--slot", help="A fact of which there is one at a time, like user.city.")
    ] = None,
    kind: Annotated[str, typer.Option("--kind", metavar="KIND", help=f"{KINDS}.")] = "semantic",
    importance: Annotated[float, typer.Option("--importance", min=0, max=1, help="From 0 to 1.")] = 0.5,
    expires_at: Annotated[
        str | None, typer.Option("--expires-at", metavar="TIME", help="Like 2027-01-01T00:00:00Z.")
    ] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Remember something of a user. Said again, it is confirmed; in a slot, it supersedes what was there."""
    from cli import output
    from cli.session import call

    body = {
        "user": user, "text": text, "slot": slot, "kind": kind, "importance": importance, "expires_at": expires_at
    }  # fmt: skip
    kept = call(data_dir, lambda client: client.post("/v1/memories", body))
    output.print_json(kept) if as_json else output.line(kept["id"])


@memories.command("show")
def show_memory(memory: MemoryId, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show a memory."""
    from cli import output
    from cli.session import call

    found = call(data_dir, lambda client: client.get(_path(memory)))
    if as_json:
        output.print_json(found)
        return
    output.print_fields(
        (name, output.one_line(value, 300)) for name, value in found.items() if value not in (None, "", [])
    )


@memories.command("history")
def show_history(memory: MemoryId, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show what was said in a memory's slot, or what superseded what, the oldest first."""
    from cli import output
    from cli.session import call

    page = call(data_dir, lambda client: client.get(f"{_path(memory)}/history"))
    output.print_json(page) if as_json else _print(page["data"])


@memories.command("forget")
def forget(memory: MemoryId, data_dir: DataDir = None) -> None:
    """Forget a memory for good."""
    from cli import output
    from cli.session import call

    call(data_dir, lambda client: client.delete(_path(memory)))
    output.line(f"{memory} forgotten")


@memories.command("forget-user")
def forget_user(
    user: User,
    jobs: Annotated[
        bool, typer.Option("--jobs", help="Also their ended jobs, with what they were told and said.")
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Forget a user for good: memories and sessions, and with --jobs their ended jobs."""
    from cli import output
    from cli.session import call

    what = f"{'memories, sessions and ended jobs' if jobs else 'memories and sessions'} of {user}"
    if not yes and not typer.confirm(f"Delete all {what}?", err=True):
        raise typer.Exit(1)
    query = {"user": user, "jobs": jobs}
    found = call(data_dir, lambda client: client.delete("/v1/memories", query))
    if as_json:
        output.print_json(found)
        return
    output.line(f"forgotten: {found['forgotten']} memories, {found['sessions']} sessions, {found['jobs']} jobs")
    if found["unfinished"]:
        output.say(f"{found['unfinished']} jobs have not ended; forget the user again when they have")


@memories.command("reembed")
def reembed(data_dir: DataDir = None) -> None:
    """Give every memory a vector of the embedder that the settings name. For operators: it speaks to Qdrant itself.

    It may be stopped and begun again; meanwhile, memories without a vector are found by their words.
    """
    import asyncio

    from cli import output, settings
    from cli.qdrant import reembed as run

    done = asyncio.run(run(settings.memory(data_dir), output.say))
    output.line(f"{done} memories were given a vector")


def _show(query: dict[str, Any], as_json: bool, data_dir: DataDir) -> None:
    from cli import output
    from cli.session import call

    page = call(data_dir, lambda client: client.get("/v1/memories", query))
    output.print_json(page) if as_json else _print(page["data"])


def _print(found: list[Json]) -> None:
    from cli import output

    names = [name for name in ("score", "why") if any(name in each for each in found)]
    shown = ("memory", *names, "slot", "said", "until", "text")
    output.print_table(shown, [_row(each, names) for each in found])


def _row(memory: Json, names: list[str]) -> tuple[Any, ...]:
    from cli import output

    of_search = {"score": f"{memory.get('score', 0):.3f}"}
    if "why" in memory:
        of_search["why"] = ", ".join(f"{name} {value:.3f}" for name, value in memory["why"].items())
    until = memory["valid_to"] or memory["expires_at"]
    said = memory["last_confirmed_at"][:10]
    return (
        memory["id"], *(of_search[name] for name in names), memory["slot"], said, until, output.one_line(memory["text"])
    )  # fmt: skip


def _path(memory: str) -> str:
    from urllib.parse import quote

    return f"/v1/memories/{quote(memory, safe='')}"
