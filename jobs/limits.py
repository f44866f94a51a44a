"""What a tenant may take of the platform at once: requests in a minute, and jobs that run.

The API holds the rate (`jobs.rate`), the claim script the running jobs; both read the fields that are written here.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from agent_core.types import Json
from jobs import keys
from jobs.errors import InvalidError
from jobs.link import Arg, RedisLink
from jobs.scripts import script

TENANT = "tenant"
AGENT = re.compile(r"agent:[A-Za-z][A-Za-z0-9_-]{0,63}")
OF_TENANT = ("running", "requests_per_minute", "burst")
RUNNING_OF = "running:"
"""What the field of an agent's limit begins with; its scope follows, as in `running:agent:analyst`."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a scope: of a tenant, or of one of its agents, which has `running` alone. None is no limit.

    `running` jobs may hold a worker at once. After a silence `burst` requests may come at once, as many as in a minute
    where it is None.
    """

    scope: str = TENANT
    running: int | None = None
    requests_per_minute: int | None = None
    burst: int | None = None

    def to_json(self) -> Json:
        return asdict(self)


class LimitBook:
    """The limits of tenants. Raises UnavailableError when Redis is away."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    async def put(self, tenant: str, scope: str, changes: Mapping[str, int | None]) -> Limits:
        """Sets limits of a scope by their names, or lifts them with None; all of them as they are then.

        Raises InvalidError for a scope that there is not, and for a limit that it cannot have.
        """
        names = _fields(scope)
        if unknown := [name for name in changes if name not in names]:
            raise InvalidError(f"{unknown[0]} is a limit of the scope tenant alone", code="invalid_scope")
        args: list[Arg] = []
        for name, value in changes.items():
            args += [names[name], "" if value is None else value]
        key = keys.limits(tenant)
        written = self._link.script(script("write_limits"), [key], args)
        await asyncio.gather(written, self._link.command("PUBLISH", keys.CHANGED, key))
        return next((limits for limits in await self.all(tenant) if limits.scope == scope), Limits(scope))

    async def all(self, tenant: str) -> list[Limits]:
        """Those of the tenant as a whole, and of each of its agents that has some, by name."""
        raw = await self._link.command("HGETALL", keys.limits(tenant))
        pairs = raw.items() if isinstance(raw, dict) else zip(raw[::2], raw[1::2], strict=True)
        found = {name.decode(): int(value) for name, value in pairs}
        of_agents = sorted(name for name in found if name.startswith(RUNNING_OF))
        of_tenant = Limits(TENANT, *(found.get(name) for name in OF_TENANT))
        return [of_tenant, *(Limits(name.removeprefix(RUNNING_OF), found[name]) for name in of_agents)]


def _fields(scope: str) -> dict[str, str]:
    """The fields that hold a scope's limits, by their names."""
    if scope == TENANT:
        return {name: name for name in OF_TENANT}
    if not AGENT.fullmatch(scope):
        raise InvalidError(f"{scope[:200]!r} is no scope; there are tenant, agent:NAME", code="invalid_scope")
    return {"running": RUNNING_OF + scope}
