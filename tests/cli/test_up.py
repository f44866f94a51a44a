"""`nightshift up` from its start to its several ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from nightshift_client import Client
from tests.cli.harness import Up, nightshift, script, still_alive

AGENT = """
from agent_core import Agent

greeter = Agent(name="greeter", instructions="Greet.", model="claude-sonnet-5-5")
"""
HELLO = script({"text": "Hello."})


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    up = Up(tmp_path / "data")
    try:
        yield up
    finally:
        up.close()


def show(up: Up, job_id: str) -> str:
    return str(nightshift("show", job_id, "--json", "--data-dir", up.data_dir, cwd=up.data_dir.parent).json["status"])


def test_it_runs_its_parts_and_keeps_the_key_to_its_owner(platform: Up):
    assert stat.S_IMODE((platform.data_dir / "admin.key").stat().st_mode) == 0o600
    assert set(platform.children()) == {"redis", "memory", "simulator", "api", "worker", "scheduler"}
    for child in platform.children().values():
        assert platform.key not in " ".join(child.cmdline())


def test_only_the_api_is_given_the_admin_key(platform: Up):
    holders = {role for role, child in platform.children().items() if platform.key in child.environ().values()}
    assert holders == {"api"}


def test_a_key_of_the_environment_goes_to_the_api_alone(tmp_path: Path):
    keys = {"NIGHTSHIFT_ADMIN_KEY": "ns_bootstrap", "NIGHTSHIFT_API_KEY": "ns_mine", "ANTHROPIC_API_KEY": "sk-model"}
    up = Up(tmp_path / "data", NIGHTSHIFT_MODEL_BASE_URL="http://127.0.0.1:9", **keys)
    try:
        up.wait_until_up()
        seen = {role: {n for n in keys if n in child.environ()} for role, child in up.children().items()}
        given = {"api": {"NIGHTSHIFT_ADMIN_KEY"}, "worker": {"ANTHROPIC_API_KEY"}}
        assert seen == {"redis": set(), "memory": set(), "scheduler": set(), **given}
    finally:
        up.close()


def test_what_jobs_write_is_for_its_owner_alone(platform: Up):
    folders = [platform.data_dir, *(path for path in platform.data_dir.iterdir() if path.is_dir())]
    assert {folder.name for folder in folders} >= {"data", "redis", "logs", "files", "work"}
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}


def test_a_second_up_on_the_same_directory_says_so(cli, platform: Up):
    refused = cli("up", "--data-dir", platform.data_dir, "--port", "0")
    assert (refused.status, refused.out) == (2, "")
    assert f"(process {platform.process.pid}) and answers at {platform.url}" in refused.err


def test_a_port_in_use_is_one_line(cli):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        refused = cli("up", "--data-dir", "data", "--port", port)
    assert (refused.status, refused.out) == (2, "")
    assert (
        refused.err
        == f"nightshift: port {port} on 127.0.0.1 is in use; choose another with --port (0 takes a free one)\n"
    )


def test_a_redis_that_is_not_there_is_one_line_without_its_password(cli, monkeypatch):
    monkeypatch.setenv("NIGHTSHIFT_REDIS_URL", "redis://:hunter2@127.0.0.1:9/0")
    refused = cli("up", "--data-dir", "data", "--port", "0")
    assert refused.status == 3
    assert "redis://***@127.0.0.1:9/0 does not answer" in refused.err
    assert "hunter2" not in refused.err


def test_a_redis_that_refuses_the_password_is_a_wrong_setting(cli, monkeypatch, guarded_redis: str):
    monkeypatch.setenv("NIGHTSHIFT_REDIS_URL", guarded_redis)
    refused = cli("up", "--data-dir", "data", "--port", "0")
    assert (refused.status, refused.out) == (2, "")
    assert "NIGHTSHIFT_REDIS_URL is wrong: " in refused.err
    assert "refuses its user or password" in refused.err


@pytest.mark.parametrize("command", ["up", "api", "worker"])
@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("NIGHTSHIFT_REDIS_URL", "foo", "'foo'"),
        ("NIGHTSHIFT_REDIS_URL", "http://:hunter2@127.0.0.1", "'http://***@127.0.0.1'"),
        ("NIGHTSHIFT_MODEL_BASE_URL", "foo", "'foo'"),
    ],
)
def test_a_wrong_url_stops_it_with_one_line(
    cli, monkeypatch, tmp_path: Path, command: str, name: str, value: str, shown: str
):
    if (command, name) == ("api", "NIGHTSHIFT_MODEL_BASE_URL"):
        pytest.skip("the API has no model")
    monkeypatch.setenv(name, value)
    refused = cli(command)
    assert (refused.status, refused.out) == (2, "")
    assert refused.err.startswith(f"nightshift: {name} is {shown}: expected ")
    assert len(refused.err.splitlines()) == 1
    assert not (tmp_path / ".nightshift").exists()


def test_agents_that_cannot_be_loaded_stop_it_with_what_the_worker_said(tmp_path: Path):
    (tmp_path / "broken.py").write_text("import sys; sys.exit('I will not')")
    refused = nightshift("up", "--data-dir", "data", "--port", "0", "--agents", "broken", cwd=tmp_path)
    assert refused.status == 2
    assert "worker-1 ended with status 2" in refused.err
    assert "NIGHTSHIFT_AGENTS: broken: " in refused.err


def test_sigterm_ends_it_in_good_order_and_what_was_done_is_kept(tmp_path: Path):
    first = Up(tmp_path / "data", "--workers", "2")
    try:
        banner = first.wait_until_up()
        assert f"Nightshift is up at {first.url}" in banner
        assert "SIMULATED MODEL: no key in ANTHROPIC_API_KEY" in banner
        assert "agents  analyst" in banner
        key, children = first.key, list(psutil.Process(first.process.pid).children(recursive=True))
        assert len(children) == 7
        words = ("submit", "analyst", HELLO, "--wait", "--json", "--data-dir", first.data_dir)
        job = nightshift(*words, cwd=tmp_path).json
        assert job["status"] == "completed"
        stopped = nightshift("kill-switch", "on", "--json", "--data-dir", first.data_dir, cwd=tmp_path)
        assert stopped.json["on"]
        assert first.signal(signal.SIGTERM) == 0
        assert still_alive(children) == []
        assert not (first.data_dir / "api.url").exists()
    finally:
        first.close()
    again = Up(first.data_dir)
    try:
        again.wait_until_up()
        assert again.key == key
        assert show(again, job["id"]) == "completed"
        status = nightshift("kill-switch", "status", "--json", "--data-dir", again.data_dir, cwd=tmp_path)
        assert [switch["since"] for switch in status.json["data"]] == [stopped.json["since"]]
        assert "STOPPED" in again.stderr.read_text()
        assert again.signal(signal.SIGINT) == 0
    finally:
        again.close()


def test_a_job_of_an_agent_from_here_is_drained_before_the_end(tmp_path: Path):
    (tmp_path / "my_agents.py").write_text(AGENT)
    up = Up(tmp_path / "data", "--agents", "my_agents")
    try:
        up.wait_until_up()
        slow = script({"text": "It took a while.", "latency": 1.5})
        job = nightshift("submit", "greeter", slow, "--data-dir", up.data_dir, cwd=tmp_path).out.strip()
        with Client(up.url, up.key) as client:  # a command of its own takes longer than the job may
            while (status := client.get(job)["status"]) != "running":
                assert status == "queued"
        assert up.signal(signal.SIGTERM) == 0
    finally:
        up.close()
    again = Up(up.data_dir, "--agents", "")
    try:
        banner = again.wait_until_up()
        assert "agents  none" in banner
        assert "submit --data-dir" in banner
        assert " AGENT 'what to do'" in banner
        listed = nightshift("agents", "--data-dir", again.data_dir, cwd=tmp_path).out.splitlines()
        assert listed[1].split("\t")[::2] == ["greeter", "none is live", ""]
        assert show(again, job) == "completed"
    finally:
        again.close()


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="only Linux tells a child that its parent is gone")
async def test_killed_children_come_back_and_a_killed_up_takes_them_with_it(up: Up, tmp_path: Path):
    await asyncio.to_thread(up.wait_until_up)
    before = up.children()
    for role in ("worker", "api", "redis"):
        before[role].kill()
    psutil.wait_procs([before[role] for role in ("worker", "api", "redis")])
    while (done := await _submit(up, tmp_path)).status == 3:
        assert "Traceback" not in done.err
    assert done.json["output"] == "Hello."
    after = up.children()
    assert set(after) == set(before)
    assert up.signal(signal.SIGKILL) == -signal.SIGKILL
    assert still_alive(list(after.values())) == []
    again = Up(up.data_dir)
    try:
        await asyncio.to_thread(again.wait_until_up)
        assert show(again, done.json["id"]) == "completed"
    finally:
        again.close()


async def _submit(up: Up, where: Path):
    words = ("submit", "analyst", HELLO, "--wait", "--json", "--data-dir", up.data_dir)
    return await asyncio.to_thread(nightshift, *words, cwd=where)
