"""Kill switches: one stops the whole platform, a tenant, or one of a tenant's agents with all jobs under its jobs.

While one is on, what it covers is neither submitted nor claimed, and begins no model call; each is refused inside the
script that would do it. What runs is stopped by `worker.kill_switch`. The switches are in Redis, so they outlive every
process.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from agent_core.types import Json
from jobs import keys, lanes
from jobs.errors import StoppedError
from jobs.link import RedisLink
from jobs.records import JobSpec, rfc3339
from jobs.scripts import script

GLOBAL = "global"


@dataclass(frozen=True, slots=True)
class Switch:
    """A kill switch that is on. `name` is what it stops: `global`, `tenant:{tenant}` or `agent:{tenant}:{agent}`.

    `by` is the id of the API key that turned it on; `begun` and `refused` are what the evidence counted until then.
    """

    name: str
    since_ms: int
    by: str
    reason: str
    begun: int
    refused: int

    @classmethod
    def parse(cls, name: bytes, state: bytes) -> Switch:
        """From the hash in Redis."""
        return cls(name.decode(), **json.loads(state))

    @property
    def scope(self) -> str:
        """What it stops, in the words of the tenant that it stops: `global`, `tenant` or `agent:{agent}`."""
        kind, *rest = self.name.split(":", 2)
        return f"agent:{rest[1]}" if kind == "agent" else kind

    @property
    def tenant(self) -> str | None:
        """Whose it is; None for the platform's."""
        return None if self.name == GLOBAL else self.name.split(":")[1]

    def refusal(self) -> StoppedError:
        """What is told to whoever it stops."""
        why = f" ({self.reason})" if self.reason else ""
        return StoppedError(
            f"the kill switch of {describe(self.scope)} is on since {rfc3339(self.since_ms)}{why}; an admin turns it "
            f"off with `nightshift kill-switch off --scope {self.scope}`, or with PUT /v1/kill_switch"
        )


@dataclass(frozen=True, slots=True)
class Evidence:
    """What became of the model calls that a switch covers. Those that it refused and any begun all the same are counted
    since it was turned on.
    """

    open: int
    begun: int
    refused: int
    last_began_ms: int | None
    last_ended_ms: int | None

    def to_json(self) -> Json:
        return {
            "calls_open": self.open,
            "calls_begun_since": self.begun,
            "calls_refused_since": self.refused,
            "last_call_began_at": rfc3339(self.last_began_ms),
            "last_call_ended_at": rfc3339(self.last_ended_ms),
        }


class KillSwitches:
    """The switches in Redis. Raises UnavailableError when Redis is away."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    async def turn_on(self, name: str, by: str, reason: str = "") -> Switch:
        """Turns a switch on; one that is on stays as it was."""
        switch_keys = [keys.KILL_SWITCH, keys.kill_evidence(name)]
        state = await self._link.script(script("switch_on"), switch_keys, [name, by, reason])
        return Switch.parse(name.encode(), state)

    async def turn_off(self, name: str) -> int:
        """Turns a switch off and gives the jobs that it stopped their tickets back; how many."""
        switch_keys = [keys.KILL_SWITCH, keys.stopped(name)]
        return int(await self._link.script(script("switch_off"), switch_keys, [name, lanes.NAMES]))

    async def on(self) -> dict[str, Switch]:
        """Every switch that is on, by its name."""
        raw = await self._link.command("HGETALL", keys.KILL_SWITCH)
        pairs = raw.items() if isinstance(raw, dict) else zip(raw[::2], raw[1::2], strict=True)
        return {switch.name: switch for switch in (Switch.parse(*pair) for pair in pairs)}

    async def names(self) -> set[str]:
        """The names of those that are on."""
        return {name.decode() for name in await self._link.command("HKEYS", keys.KILL_SWITCH)}

    async def get(self, name: str) -> Switch | None:
        """The switch, if it is on."""
        state = await self._link.command("HGET", keys.KILL_SWITCH, name)
        return None if state is None else Switch.parse(name.encode(), state)

    async def evidence(self, switch: Switch) -> Evidence:
        """What has become of the calls that the switch covers."""
        fields = ("open", "begun", "refused", "last_began_ms", "last_ended_ms")
        raw = await self._link.command("HMGET", keys.kill_evidence(switch.name), *fields)
        open_, begun, refused, last_began_ms, last_ended_ms = (int(count) if count else 0 for count in raw)
        return Evidence(
            open_, begun - switch.begun, refused - switch.refused, last_began_ms or None, last_ended_ms or None
        )


def switch_name(tenant: str, scope: str) -> str:
    """The name of the switch that a tenant calls by a scope: `global`, `tenant` or `agent:{agent}`."""
    kind, _, agent = scope.partition(":")
    return {"global": GLOBAL, "tenant": f"tenant:{tenant}"}.get(kind, f"agent:{tenant}:{agent}")


def switches_of(tenant: str, spec: JobSpec) -> list[str]:
    """The switches that could stop a job: of the platform, its tenant, its agent and those of the jobs above it."""
    agents = dict.fromkeys([*spec.ancestor_agents, spec.agent])
    return [GLOBAL, f"tenant:{tenant}", *(f"agent:{tenant}:{agent}" for agent in agents)]


def describe(scope: str) -> str:
    """A scope in words."""
    kind, _, agent = scope.partition(":")
    return {"global": "the whole platform", "tenant": "the tenant"}.get(kind, f"the agent {agent}")
