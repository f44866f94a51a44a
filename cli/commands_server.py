"""The commands that start processes. A server's code is imported when its command runs, so that help is quick."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from cli.options import AsJson, DataDir

Host = Annotated[str, typer.Option("--host", help="Address to listen on.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Copy the processes' logs to standard error.")]


def add_to(app: typer.Typer) -> None:
    """Registers the commands, in the order in which help lists them."""
    commands: tuple[Callable[..., None], ...] = (up, demo, doctor, api, worker, scheduler, simulator)
    for command in commands:
        app.command()(command)


def up(
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port of the API; 0 takes a free one.")] = 8080,
    workers: Annotated[int, typer.Option("--workers", min=1, max=64, help="Worker processes.")] = 1,
    agents: Annotated[
        str | None,
        typer.Option(
            "--agents",
            metavar="LIST",
            help="Modules or .py files with agents, comma-separated. [default: NIGHTSHIFT_AGENTS, else the example]",
            show_default=False,
        ),
    ] = None,
    verbose: Verbose = False,
    data_dir: DataDir = None,
) -> None:
    """Start everything on this machine and keep it running: Redis, memory, API, workers, scheduler, simulated model.

    An embedded Redis unless NIGHTSHIFT_REDIS_URL names one, an embedded memory unless NIGHTSHIFT_QDRANT_URL names a
    Qdrant; the simulated model unless ANTHROPIC_API_KEY is set.
    SIGINT or SIGTERM ends it in good order.
    """
    import asyncio

    from cli import settings, startup, supervisor

    around = settings.surroundings()
    plan = supervisor.Plan(
        data_dir=settings.data_dir(data_dir),
        around=around,
        agents=startup.choose_agents(agents, around),
        host=host,
        port=port,
        workers=workers,
        verbose=verbose,
    )
    raise typer.Exit(asyncio.run(supervisor.run(plan, startup.stay_up, interrupted=0)))


def demo(
    example: Annotated[
        str, typer.Option("--example", "-e", help="analyst, code_fixer, research or support_desk.")
    ] = "analyst",
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            "-F",
            help="A file to ask about, for the analyst a CSV, JSON or log file. [default: what the example has; for "
            "the analyst an inventory of the Python packages here]",
            show_default=False,
            exists=True,
            dir_okay=False,
            readable=True,
        ),
    ] = None,
    question: Annotated[str | None, typer.Option("--question", "-q", help="What to ask about it.")] = None,
    verbose: Verbose = False,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", help="Data directory. [default: `demo` in the platform's]", file_okay=False),
    ] = None,
) -> None:
    """Start everything, run one real job on a real file, or another example, show result and cost, and stop.

    Exit status: 0 when the jobs completed, 1 when one ended otherwise.
    """
    from cli import demo as demonstration

    raise typer.Exit(demonstration.run(example, file, question, data_dir, verbose=verbose))


def doctor(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Check every part, and say what is wrong and what to do. Exit status 1 when something is wrong."""
    from cli import doctor as checkup

    raise typer.Exit(checkup.run(data_dir, as_json=as_json))


def api(
    host: Annotated[str | None, typer.Option("--host", help="[default: NIGHTSHIFT_HOST, else 127.0.0.1]")] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="[default: NIGHTSHIFT_PORT, else 8080]")
    ] = None,
) -> None:
    """Run one API process until SIGTERM. It needs Redis at NIGHTSHIFT_REDIS_URL."""
    from api.main import serve
    from api.settings import Settings
    from cli.settings import load

    changes = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    serve(load(Settings).model_copy(update=changes))


def worker() -> None:
    """Run one worker process until SIGTERM. It needs Redis at NIGHTSHIFT_REDIS_URL, and runs NIGHTSHIFT_AGENTS."""
    import sys

    from cli.settings import load
    from worker.settings import Settings

    settings = load(Settings)
    from worker.main import serve  # it imports the model's SDK, for which a wrong setting need not wait

    sys.path.append(str(Path.cwd()))  # NIGHTSHIFT_AGENTS may name a module that lies here
    raise typer.Exit(serve(settings))


def scheduler() -> None:
    """Run one scheduler process until SIGTERM. It needs Redis at NIGHTSHIFT_REDIS_URL; several share the work."""
    from cli.settings import load
    from jobs.settings import CommonSettings
    from worker.scheduler import serve

    raise typer.Exit(serve(load(CommonSettings)))


def simulator(
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 takes a free one.")] = 8090,
    latency: Annotated[float, typer.Option("--latency", min=0, help="Seconds before an answer begins.")] = 0.0,
    chunk_delay: Annotated[
        float, typer.Option("--chunk-delay", min=0, help="Seconds between pieces of a stream.")
    ] = 0.0,
) -> None:
    """Run the simulated model until SIGTERM: a server that speaks the Messages API and costs nothing."""
    from cli import output
    from cli.errors import UsageError
    from simulator.options import SimulatorOptions
    from simulator.server import run

    options = SimulatorOptions(latency=latency, chunk_delay=chunk_delay)
    try:
        run(
            host,
            port,
            options,
            lambda url: output.line(f"SIMULATED MODEL at {url}: set NIGHTSHIFT_MODEL_BASE_URL to it"),
        )
    except OSError as exc:
        raise UsageError(f"port {port} on {host} cannot be had: {exc.strerror}") from None
