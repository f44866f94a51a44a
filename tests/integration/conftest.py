"""Real processes for the tests of this folder; see `tests.integration.harness`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.integration.harness import Platform, Processes, Simulator, open_link
from tests.redis_server import RedisServer


@pytest.fixture(scope="session")
def simulator_server() -> Iterator[Simulator]:
    """The simulated model as a process of its own."""
    process = subprocess.Popen([sys.executable, "-m", "simulator"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Simulator(json.loads(process.stdout.readline())["url"])
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def simulator(simulator_server: Simulator) -> Simulator:
    """The simulated model, with nothing remembered of earlier tests."""
    simulator_server.forget()
    return simulator_server


def _processes(simulator: Simulator, folder: Path, *redis_options: str) -> Iterator[Processes]:
    redis = RedisServer(Path(tempfile.mkdtemp(prefix="ns-")))
    redis.start(*redis_options)
    processes = Processes(redis, simulator, folder)
    try:
        yield processes
    finally:
        processes.stop()


@pytest.fixture(scope="module")
def shared_processes(simulator_server: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """Redis and one worker with room for 400 jobs, for all tests of a module that do not harm them."""
    for processes in _processes(simulator_server, tmp_path_factory.mktemp("shared")):
        processes.start_worker(concurrency=400)
        yield processes


@pytest.fixture
async def shared(shared_processes: Processes, simulator: Simulator, tmp_path: Path) -> AsyncIterator[Platform]:
    """The module's platform; its worker has reported in."""
    link = open_link(shared_processes.redis.url)
    platform = Platform(shared_processes, link, tmp_path)
    await platform.reported(shared_processes.workers[0])
    yield platform
    await link.aclose()


@pytest.fixture
async def platform(simulator: Simulator, tmp_path: Path) -> AsyncIterator[Platform]:
    """A platform of the test's own, without workers. Its Redis survives a restart."""
    for processes in _processes(simulator, tmp_path, "--appendonly", "yes", "--appendfsync", "always"):
        link = open_link(processes.redis.url)
        yield Platform(processes, link, tmp_path)
        await link.aclose()
