"""The agents that workers have published: plain JSON definitions, by name and version."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Container, Sequence
from dataclasses import dataclass

from agent_core.types import Budget, Json
from jobs import keys
from jobs.errors import NotFoundError
from jobs.link import RedisLink, milliseconds


@dataclass(frozen=True, slots=True)
class Published:
    """One version of an agent."""

    name: str
    version: str
    definition: Json

    @property
    def budget(self) -> Budget:
        return Budget(**self.definition["budget"])

    @property
    def pool(self) -> str:
        return str(self.definition["pool"])


class AgentCatalogue:
    """Reads and writes the published definitions."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    async def publish(self, agents: Sequence[Published]) -> None:
        """Writes the definitions and makes each version the current one of its name."""
        now = milliseconds()
        for agent in agents:
            text = json.dumps(agent.definition, ensure_ascii=False)
            await self._link.command("SET", keys.agent_version(agent.name, agent.version), text)
            await self._link.command("ZADD", keys.agent_versions(agent.name), "NX", now, agent.version)
            await self._link.command("HSET", keys.AGENTS, agent.name, agent.version)

    async def names(self) -> dict[str, str]:
        """The current version of each agent by its name."""
        raw = await self._link.command("HGETALL", keys.AGENTS)
        pairs = raw.items() if isinstance(raw, dict) else zip(raw[::2], raw[1::2], strict=True)
        return {name.decode(): version.decode() for name, version in sorted(pairs)}

    async def get(self, name: str, version: str | None = None) -> Published:
        """A version of an agent, the current one for None. Raises NotFoundError that lists the names there are."""
        found = version
        if found is None:
            current = await self._link.command("HGET", keys.AGENTS, name)
            found = current.decode() if current else None
        text = await self._link.command("GET", keys.agent_version(name, found)) if found else None
        if not found or text is None:
            known = ", ".join(await self.names()) or "none; start a worker with NIGHTSHIFT_AGENTS set"
            raise NotFoundError(
                f"no worker has published an agent {name!r}; there are: {known}", code="agent_not_found"
            )
        return Published(name, found, json.loads(text))

    async def versions(self, name: str) -> list[str]:
        """All versions of an agent, the oldest first."""
        return [v.decode() for v in await self._link.command("ZRANGE", keys.agent_versions(name), 0, -1)]

    async def all_versions(self, known: Container[str] = ()) -> list[Published]:
        """Every version of every agent but those whose "name@version" is known."""
        pairs = [(name, version) for name in await self.names() for version in await self.versions(name)]
        unknown = [(name, version) for name, version in pairs if f"{name}@{version}" not in known]
        return list(await asyncio.gather(*(self.get(name, version) for name, version in unknown)))
