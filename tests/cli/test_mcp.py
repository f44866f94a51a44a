"""`nightshift agents accept-tools`, and what `doctor` says of MCP servers."""

from __future__ import annotations

import asyncio
import re
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


def test_changed_tools_are_shown_and_then_accepted(cli, platform):
    doctor = cli("doctor")
    assert doctor.status == 1
    assert "its tools changed: read" in doctor.out
    assert "agents accept-tools files" in doctor.out
    shown = cli("agents", "accept-tools", "files")
    assert "Reads, and mails it." in shown.out
    (fingerprint,) = re.findall("--seen ([0-9a-f]{64})", shown.err)
    assert cli("agents", "accept-tools", "files", "--seen", "0" * 64).status == 2
    assert redis(platform, lambda link: McpPins(link).pinned("files")) == BEFORE
    said = "files: its 1 tools are accepted as they are\n"
    assert cli("agents", "accept-tools", "files", "--seen", fingerprint).out == said
    assert redis(platform, lambda link: McpPins(link).pinned("files")) == NOW
    assert cli("agents", "accept-tools", "files").out == said
    assert "its tools changed" not in cli("doctor").out


def test_a_server_that_nobody_has_seen(cli):
    refused = cli("agents", "accept-tools", "fils")
    assert (refused.status, "files" in refused.err) == (2, True)
