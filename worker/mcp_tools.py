"""The MCP servers that a worker's agents name: one connection to each, and their tools as tools of the agents."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog
from redis.exceptions import RedisError

from agent_core.agent import Agent
from agent_core.mcp import SEPARATOR, McpServer
from agent_core.registry import called
from agent_core.tools import Tool
from agent_core.types import Effect, Json
from jobs.errors import JobsError
from jobs.mcp import Listing, McpPins, pin_of
from worker.errors import StartError

if TYPE_CHECKING:
    from worker.mcp_connection import Connection

START_SECONDS = 10.0
"""How long a worker that starts waits for its MCP servers; it starts all the same without them."""
ACCEPTED_SECONDS = 2.0
"""How often it looks whether an admin has accepted changed tools."""
Changed = Callable[[], Awaitable[None]]
log = structlog.get_logger("worker")


class McpTools:
    """The connections and the pinned tools. Raises StartError for servers that contradict each other, and for a
    variable that is not set.
    """

    def __init__(self, agents: Iterable[Agent], environment: Mapping[str, str]) -> None:
        self._servers = _servers(agents)
        for server in self._servers.values():
            if missing := sorted(server.variables - environment.keys()):
                raise StartError(f"MCP server {server.name!r}: {missing[0]} is not set; it takes a value from there")
        self._environment = environment
        self._pinned: dict[str, Listing] = {}
        self._connections: dict[str, Connection] = {}
        self._watch: asyncio.Task[None] | None = None

    async def start(self, pins: McpPins, on_change: Changed) -> None:
        """Connects, and waits a while for the first listings. `on_change` is called when there are other tools."""
        if not self._servers:
            return
        from worker.mcp_connection import Connection  # the SDK takes 25 MiB, which few workers need

        for name, server in self._servers.items():
            self._connections[name] = Connection(server, self._environment, functools.partial(self._see, pins, name))
            self._connections[name].start()
        tried = [asyncio.create_task(connection.tried.wait()) for connection in self._connections.values()]
        _, late = await asyncio.wait(tried, timeout=START_SECONDS)
        for task in late:
            task.cancel()
        await self._look_up(pins)
        self._watch = asyncio.create_task(self._follow(pins, on_change), name="mcp-pins")

    async def aclose(self) -> None:
        """Ends the connections."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await asyncio.gather(*(connection.aclose() for connection in self._connections.values()))

    def away(self) -> list[str]:
        """The servers that cannot be called at the moment."""
        return [name for name, connection in list(self._connections.items()) if connection.away]

    def bound(self, agents: Iterable[Agent]) -> list[Agent]:
        """The agents with the tools of their servers as they are pinned; without those of a server never seen."""
        found = []
        for agent in agents:
            if waiting := [server.name for server in agent.mcp if server.name not in self._pinned]:
                log.warning("an agent waits for MCP servers that were never seen", agent=agent.name, servers=waiting)
                continue
            tools = [*agent.tools, *(tool for server in agent.mcp for tool in self._tools_of(server))]
            found.append(replace(agent, tools=tools) if agent.mcp else agent)
        return found

    def tool(self, item: Json) -> Tool:
        """The tool of an item of a published definition. Raises KeyError when it is none of this worker's servers'."""
        connection, pin = self._connections[item["name"].partition(SEPARATOR)[0]], item["pin"]
        return _made(connection, item["name"], item["description"], item["input_schema"], item["effect"],
                     item["timeout"], pin)  # fmt: skip

    def _tools_of(self, server: McpServer) -> list[Tool]:
        connection = self._connections[server.name]
        found: dict[str, Tool] = {}
        for name, said in sorted(self._pinned[server.name].items()):
            exposed = server.exposed(name)
            if server.has(name) and said["input_schema"].get("type") == "object" and exposed not in found:
                text = said["description"] or name
                effect = server.effect(name, said["annotations"])
                found[exposed] = _made(
                    connection, exposed, text, said["input_schema"], effect, server.timeout, pin_of(name, said)
                )
        if missing := sorted(set(server.tools or ()) - self._pinned[server.name].keys()):
            log.warning("an MCP server lacks tools that an agent names", server=server.name, tools=missing)
        return list(found.values())

    async def _see(self, pins: McpPins, server: str, listing: Listing) -> None:
        """Takes down what a server offers."""
        if await pins.see(server, listing) != listing:
            log.warning("an MCP server has changed its tools; they are off until they are accepted", server=server)

    async def _look_up(self, pins: McpPins) -> bool:
        """Learns which tools are pinned; whether they are others than before."""
        before = self._pinned
        found = {name: await pins.pinned(name) for name in self._servers}
        self._pinned = {name: listing for name, listing in found.items() if listing is not None}
        return self._pinned != before

    async def _follow(self, pins: McpPins, on_change: Changed) -> None:
        """Calls back when other tools are pinned: a server came up for the first time, or an admin accepted."""
        news = False
        while True:
            await asyncio.sleep(ACCEPTED_SECONDS)
            try:
                news = await self._look_up(pins) or news
                if news:
                    await on_change()
                    news = False
            except (JobsError, RedisError) as exc:
                log.warning("pinned tools could not be looked up", error=str(exc))


def _servers(agents: Iterable[Agent]) -> dict[str, McpServer]:
    found: dict[str, McpServer] = {}
    for agent in agents:
        for server in agent.mcp:
            if found.setdefault(server.name, server).place != server.place:
                raise StartError(f"NIGHTSHIFT_AGENTS: two different MCP servers are named {server.name!r}; rename one")
    return found


def _made(connection: Connection, name: str, text: str, schema: Json, effect: Effect, timeout: float, pin: str) -> Tool:
    async def call(**arguments: Any) -> Any:
        return await connection.call(name, arguments, pin, repeatable=effect == "read")

    async def validated(arguments: Json) -> Any:
        return await called(functools.partial(call, **arguments))

    return Tool(
        name=name,
        description=text,
        input_schema=schema,
        effect=effect,
        timeout=timeout,
        idempotent=False,
        function=call,
        validated=validated,
        pin=pin,
    )
