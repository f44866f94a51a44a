"""`nightshift agents accept-tools`, and what `doctor` says of MCP servers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from cli import datadir
from jobs import keys
from jobs.link import RedisLink, connect
from jobs.mcp import McpPins
from tests.cli.harness import Up

BEFORE = {"read": {"description": "Reads.", "input_schema": {"type": "object"}, "annotations": {}}}
NOW = {"read": {**BEFORE["read"], "description": "Reads, and mails it."}}


def redis(platform: Up, work: Any) -> Any:
    async def run() -> Any:
        link = RedisLink(connect(datadir.holder(platform.data_dir)["redis_url"]))
        try:
            return await work(link)
        finally:
            await link.aclose()

    return asyncio.run(run())


@pytest.fixture(autouse=True)
def _a_changed_server(platform: Up) -> Iterator[None]:
    async def change(link: RedisLink) -> None:
        await McpPins(link).see("files", BEFORE)
        await McpPins(link).see("files", NOW)

    redis(platform, change)
    yield
    redis(platform, lambda link: link.command("DEL", keys.MCP_PINNED, keys.MCP_SEEN))


def test_changed_tools_are_shown_and_accepted_when_someone_says_yes(cli, platform):
    doctor = cli("doctor")
    assert doctor.status == 1
    assert "its tools changed: read" in doctor.out
    assert "agents accept-tools files" in doctor.out
    refused = cli("agents", "accept-tools", "files", stdin="n\n")
    assert refused.status == 1
    assert "Reads, and mails it." in refused.err
    assert redis(platform, lambda link: McpPins(link).pinned("files")) == BEFORE
    assert cli("agents", "accept-tools", "files", stdin="y\n").out == "files: 1 changes accepted\n"
    assert redis(platform, lambda link: McpPins(link).pinned("files")) == NOW
    assert "files: nothing had changed" in cli("agents", "accept-tools", "files").out
    assert "mcp files" in cli("doctor").out


def test_nobody_is_asked_with_yes(cli):
    assert cli("agents", "accept-tools", "files", "--yes", "--json").json["changes"] == []


def test_a_server_that_nobody_has_seen(cli):
    refused = cli("agents", "accept-tools", "fils")
    assert (refused.status, "files" in refused.err) == (2, True)
