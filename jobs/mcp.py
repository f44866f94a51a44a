"""What MCP servers say of their tools: what is pinned, and what workers saw last.

The first listing of a server is pinned, and stays so until an admin accepts another one. Agents are published with the
tools that are pinned, so a server cannot change what a model is told by changing its mind.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from agent_core.types import Json
from jobs import keys
from jobs.errors import ConflictError, NotFoundError
from jobs.link import RedisLink

Listing = dict[str, Json]
"""What a server says of its tools, by their names: `description`, `input_schema` and `annotations` of each."""


def fingerprint(value: Any) -> str:
    """The SHA-256 of a value as canonical JSON, in hexadecimal digits."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def pin_of(tool: str, said: Json) -> str:
    """What pins a tool: a fingerprint of its name and all that its server says of it."""
    return fingerprint([tool, said])


@dataclass(frozen=True, slots=True)
class ServerTools:
    """The tools of one MCP server, as they are pinned and as they were last seen."""

    name: str
    pinned: Listing
    seen: Listing

    def to_json(self) -> Json:
        return {
            "name": self.name,
            "tools": sorted(self.pinned),
            "pinned": fingerprint(self.pinned),
            "seen": fingerprint(self.seen),
            "changes": [self._change(tool) for tool in sorted(self.changed)],
        }

    @property
    def changed(self) -> set[str]:
        """The tools that are off until the listing that was seen is accepted: changed, new, or no longer there."""
        names = self.pinned.keys() | self.seen.keys()
        return {tool for tool in names if self.pinned.get(tool) != self.seen.get(tool)}

    def _change(self, tool: str) -> Json:
        before, now = self.pinned.get(tool), self.seen.get(tool)
        return {"tool": tool, "change": "new" if before is None else "gone" if now is None else "changed",
                "pinned": before, "seen": now}  # fmt: skip


class McpPins:
    """The listings in Redis. Raises UnavailableError when Redis is away."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    async def see(self, server: str, listing: Listing) -> Listing:
        """Notes what a server says now, and pins it when it is the first time; what is pinned."""
        text = json.dumps(listing)
        await self._link.command("HSETNX", keys.MCP_PINNED, server, text)
        await self._link.command("HSET", keys.MCP_SEEN, server, text)
        pinned = await self.pinned(server)
        return listing if pinned is None else pinned

    async def pinned(self, server: str) -> Listing | None:
        """What is pinned of a server; None of one that nobody has seen."""
        text = await self._link.command("HGET", keys.MCP_PINNED, server)
        return None if text is None else json.loads(text)

    async def servers(self) -> list[ServerTools]:
        """Every server that has been seen, by name."""
        names = sorted(name.decode() for name in await self._link.command("HKEYS", keys.MCP_PINNED))
        return [await self.get(name) for name in names]

    async def get(self, server: str) -> ServerTools:
        """A server's tools. Raises NotFoundError."""
        pinned = await self.pinned(server)
        if pinned is None:
            raise NotFoundError(f"no worker has seen an MCP server {server!r}", code="mcp_server_not_found")
        seen = await self._link.command("HGET", keys.MCP_SEEN, server)
        return ServerTools(server, pinned, pinned if seen is None else json.loads(seen))

    async def accept(self, server: str, seen: str) -> ServerTools:
        """Pins the listing that was last seen, if it has the given fingerprint. Raises NotFoundError, ConflictError."""
        tools = await self.get(server)
        if fingerprint(tools.seen) != seen:
            raise ConflictError(
                f"the tools of {server} are no longer those that you looked at; look at them again",
                code="tools_changed",
            )
        await self._link.command("HSET", keys.MCP_PINNED, server, json.dumps(tools.seen))
        return ServerTools(server, tools.seen, tools.seen)
