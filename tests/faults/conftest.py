"""A platform of real processes for each experiment, and the figures that the experiments found."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.faults.rig import Rig
from tests.integration.conftest import simulator, simulator_server
from tests.integration.harness import Processes, Simulator
from tests.redis_server import RedisServer

__all__ = ["simulator", "simulator_server"]
FIGURES = pytest.StashKey[list[str]]()
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture
async def rig(simulator: Simulator) -> AsyncIterator[Rig]:
    """A platform with its API, and without workers. Its Redis survives a restart."""
    folder = Path(tempfile.mkdtemp(prefix="ns-faults-"))
    redis = RedisServer(Path(tempfile.mkdtemp(prefix="ns-")))
    redis.start(*DURABLE)
    processes = Processes(redis, simulator, folder)
    rig = Rig(processes, folder)
    try:
        await rig.open()
        yield rig
    finally:
        await rig.aclose()
        processes.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Notes the figures of an experiment; they stand at the end of the run's output."""
    figures = request.config.stash.setdefault(FIGURES, [])

    def note(promise: str, **found: object) -> None:
        figures.append(f"{promise}: " + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in found.items()))

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints the figures."""
    if figures := config.stash.get(FIGURES, []):
        terminalreporter.section("what the faults showed")
        for line in figures:
            terminalreporter.line(line)
