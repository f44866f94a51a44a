"""A submission may be asked to wait for replicas; here with a real one."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.errors import UnavailableError
from jobs.link import RedisLink, connect
from jobs.store import JobStore
from tests.integration.harness import eventually
from tests.jobs.driver import Driver
from tests.redis_server import RedisServer


@pytest.fixture
def server() -> Iterator[RedisServer]:
    directory = Path(tempfile.mkdtemp(prefix="ns-"))
    server = RedisServer(directory)
    yield server
    server.kill()
    shutil.rmtree(directory, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_a_submission_waits_for_a_replica_and_says_when_there_is_none(
    redis_server: RedisServer, redis_url, server
):
    port = free_port()
    connect(redis_server.url).config_set("repl-diskless-sync-delay", "0")
    link = RedisLink(connect(redis_url))
    try:
        with pytest.raises(UnavailableError, match="reached 0 of 1 replicas") as missing:
            await Driver(JobStore(link, replicas=1)).submit()
        assert missing.value.code == "not_replicated"

        server.start("--port", str(port), "--bind", "127.0.0.1")
        connect(redis_server.url).execute_command("REPLICAOF", "127.0.0.1", str(port))
        replicated = RedisLink(connect(f"redis://127.0.0.1:{port}"))

        async def linked() -> bool:
            return (await replicated.command("INFO", "replication")).get("slave0", {}).get("state") == "online"

        await eventually(linked, "the replica is online")
        job = await Driver(JobStore(replicated, replicas=1)).submit()
        assert (await JobStore(link).get(None, job.id)).status == "queued", "the replica has it"
        await replicated.aclose()
    finally:
        await link.command("REPLICAOF", "NO", "ONE")
        await link.aclose()
