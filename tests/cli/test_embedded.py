from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
import redis

from cli import embedded, probe
from cli.children import Child
from cli.errors import UsageError

PATH = os.environ.get("PATH")


@asynccontextmanager
async def started(data_dir: Path) -> AsyncIterator[tuple[embedded.EmbeddedRedis, psutil.Process]]:
    server = embedded.prepare(data_dir, PATH)
    child = Child(server.program, data_dir / "redis.log")
    try:
        await asyncio.wait(
            {child.running, asyncio.ensure_future(embedded.wait_until_loaded(server))}, return_when="FIRST_COMPLETED"
        )
        yield server, psutil.Process(child.pid)
    finally:
        await child.stop()
        server.remove_scratch()


async def test_what_it_holds_survives_a_stop_and_nothing_else_is_left(tmp_path):
    async with started(tmp_path) as (server, process):
        with redis.Redis.from_url(server.url) as client:
            client.set("kept", "yes")
    assert not process.is_running()
    assert not server.socket.exists()
    async with started(tmp_path) as (server, _):
        with redis.Redis.from_url(server.url) as client:
            assert client.get("kept") == b"yes"


async def test_it_is_durable_never_evicts_and_listens_to_its_owner_alone(tmp_path):
    async with started(tmp_path) as (server, process), probe.redis(server.url) as link:
        facts = await probe.facts(link)
        assert (facts.policy, facts.aof, facts.fsync) == ("noeviction", True, "everysec")
        assert stat.S_IMODE((tmp_path / "redis").stat().st_mode) == 0o700
        assert stat.S_IMODE(server.socket.stat().st_mode) == 0o700
        assert process.net_connections(kind="inet") == []


async def test_a_directory_with_a_long_path_and_spaces_works(tmp_path):
    deep = tmp_path / "a directory" / ("x" * 100)
    deep.mkdir(parents=True)
    async with started(deep) as (server, _):
        assert len(str(server.socket)) <= embedded.LONGEST_SOCKET_PATH
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()
    assert server.scratch is not None
    assert not server.scratch.exists()


async def test_a_path_with_spaces_works(tmp_path):
    (tmp_path / "my data").mkdir()
    async with started(tmp_path / "my data") as (server, _):
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()


async def test_a_server_that_was_left_behind_is_ended_and_what_it_held_is_kept(tmp_path):
    async with started(tmp_path) as (server, process):
        with redis.Redis.from_url(server.url) as client:
            client.set("kept", "yes")
        process.suspend()
        copy = psutil.Process(process.pid)
        retiring = asyncio.create_task(embedded.retire_orphan(server))
        await asyncio.sleep(0)
        assert not retiring.done()
        copy.resume()
        await retiring
        assert not server.socket.exists()


def test_with_no_redis_to_be_found_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="apt install redis-server") as refused:
        embedded.prepare(tmp_path, str(tmp_path))
    assert refused.value.exit_code == 2
    assert "\n" not in str(refused.value)


def test_the_redis_on_the_path_comes_first(tmp_path):
    binary = tmp_path / "redis-server"
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    assert embedded.find_redis_server(str(tmp_path)) == str(binary)


def test_a_server_that_is_too_old_for_the_data_is_refused(tmp_path):
    (tmp_path / "redis" / "appendonlydir").mkdir(parents=True)
    binary = tmp_path / "redis-server"
    binary.write_text("#!/bin/sh\necho 'Redis server v=6.2.14 sha=0:0 malloc=libc bits=64'\n")
    binary.chmod(0o755)
    with pytest.raises(UsageError, match=r"was written by Redis 7 or newer, and .* is 6\.2\.14"):
        embedded.prepare(tmp_path, str(tmp_path))
