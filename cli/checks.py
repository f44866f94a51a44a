"""The checks of `nightshift doctor`. Each says what there is, and, when that is wrong, what to do."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import datadir, embedded, probe, qdrant
from cli import settings as cli_settings
from cli.client import Client, Json
from cli.errors import CliError, RefusedError, UsageError
from cli.invocation import command
from cli.settings import Connection, Surroundings
from jobs import durability as jobs_durability
from jobs.link import RedisLink
from jobs.settings import MemorySettings, without_secrets

if TYPE_CHECKING:
    from memory.store import StoreFacts

OLDEST_PYTHON = (3, 11)
OLDEST_REDIS = (6, 2)
OLDEST_QDRANT = (1, 20)


@dataclass(frozen=True, slots=True)
class Check:
    """One check. `fix` says what to do, and is empty when there is nothing to do; with `ok` it is a warning."""

    check: str
    ok: bool
    detail: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Patient:
    """What is examined."""

    data_dir: Path
    connection: Connection
    around: Surroundings

    @property
    def elsewhere(self) -> bool:
        """Whether the platform is one that NIGHTSHIFT_URL names and this data directory knows nothing of."""
        return self.connection.url_from == "NIGHTSHIFT_URL" and self.connection.url != self._holder.get("url")

    @property
    def redis_url(self) -> str | None:
        """The Redis to look at, if this machine knows one: the one of the settings, else the running platform's."""
        return self.around.redis_url or (None if self.elsewhere else self._holder.get("redis_url"))

    @property
    def _holder(self) -> dict[str, Any]:
        return datadir.holder(self.data_dir)


def start() -> str:
    """What to do when nothing runs."""
    return f"start the platform with `{command('up')}`"


def python() -> Check:
    """Is this Python new enough?"""
    version = ".".join(map(str, sys.version_info[:3]))
    ok = sys.version_info >= OLDEST_PYTHON
    return Check("python", ok, version, "" if ok else "install Python 3.11 or newer")


def data_directory(directory: Path) -> Check:
    """Can the data directory be written, and is its key for its owner alone?"""
    nearest = next((p for p in (directory, *directory.absolute().parents) if p.exists()), Path("/"))
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        return Check("data directory", False, f"{directory} cannot be written", "choose another with --data-dir")
    key = directory / datadir.ADMIN_KEY
    if key.exists() and key.stat().st_mode & 0o077:
        return Check("data directory", False, f"{key} can be read by others", f"chmod 600 {key}, and change the key")
    made = "" if directory.exists() else f" (not there yet; `{command('up')}` makes it)"
    return Check("data directory", True, f"{directory.absolute()} can be written{made}")


def settings() -> Check:
    """Are the settings of the API and of the workers valid?"""
    from api.settings import Settings as ApiSettings
    from worker.settings import Settings as WorkerSettings

    try:
        cli_settings.load(ApiSettings)
        cli_settings.load(WorkerSettings)
    except CliError as exc:
        return Check("settings", False, str(exc), "correct the variable, or unset it")
    return Check("settings", True, "the API's and the workers' are valid")


def redis_server(patient: Patient) -> Check:
    """Is there a redis-server for `nightshift up` to run, if it needs one?"""
    found = embedded.find_redis_server(cli_settings.search_path())
    if found is not None:
        return Check("redis-server", True, f"{found} {embedded.server_version(found)}")
    if patient.around.redis_url or patient.elsewhere:
        named = "NIGHTSHIFT_REDIS_URL names one that runs" if patient.around.redis_url else "the platform has its own"
        return Check("redis-server", True, f"none here, and none needed: {named}")
    return Check("redis-server", False, "there is none to embed", embedded.INSTALL)


def model(patient: Patient) -> Check:
    """Which model would answer the jobs of a platform that is started here?"""
    around = patient.around
    if around.simulate or not (around.model_key or around.model_base_url):
        why = "NIGHTSHIFT_SIMULATE is set" if around.simulate else "ANTHROPIC_API_KEY is not set"
        return Check("model", True, f"simulated: {why}; answers come from a local stand-in and cost nothing")
    where = around.model_base_url or "Anthropic's API"
    key = "with the key in ANTHROPIC_API_KEY" if around.model_key else "without a key"
    return Check("model", True, f"{where}, {key}")


def alerts() -> Check:
    """Whom would the workers that are started here tell when something is wrong?"""
    from worker.alerts import make_notifier
    from worker.settings import AlertSettings

    names = make_notifier(cli_settings.load(AlertSettings)).names
    told = f"sent to {', '.join(names)}; `{command('alerts test')}` tries it" if names else "off: no channel is set"
    return Check("alerts", True, told)


async def sandbox() -> Check:
    """Could a worker that is started here run code that a model wrote? Only agents with `run_python` need it."""
    from agent_core.sandbox import Sandbox

    why_not = await Sandbox().available()
    if why_not is None:
        return Check("sandbox", True, "run_python runs code in it")
    return Check("sandbox", True, "off: run_python refuses every call, and runs nothing", why_not)


async def redis(patient: Patient) -> list[Check]:
    """Does Redis answer, may it keep jobs, what survives a power cut, and do workers live?"""
    url = patient.redis_url
    if url is None and patient.elsewhere:
        return [Check("redis", True, f"not checked: only the platform at {patient.connection.url} knows its Redis")]
    if url is None:
        detail = f"no platform runs in {patient.data_dir}, and NIGHTSHIFT_REDIS_URL is not set"
        return [Check("redis", False, detail, start())]
    try:
        async with probe.redis(url) as link:
            await probe.ping(link, url)
            facts = await probe.facts(link)
            return [version(url, facts), eviction(facts), durability(facts), await _workers(link)]
    except UsageError as exc:
        return [Check("redis", False, str(exc), "correct NIGHTSHIFT_REDIS_URL")]
    except CliError as exc:
        return [Check("redis", False, str(exc), start() if patient.around.redis_url is None else "start that Redis")]


async def memory(patient: Patient) -> Check:
    """Does Qdrant answer, and has every memory a vector of the embedder?"""
    found = cli_settings.memory(None if patient.elsewhere else patient.data_dir)
    if found.qdrant_url is None:
        none = f"none known here: `{command('up')}` has an embedded one, and NIGHTSHIFT_QDRANT_URL names another"
        return Check("memory", True, none)
    try:
        facts = await qdrant.facts(found)
    except UsageError as exc:
        return Check("memory", False, str(exc), "correct NIGHTSHIFT_QDRANT_API_KEY")
    except CliError as exc:
        return Check("memory", False, str(exc), "start it, or mend NIGHTSHIFT_QDRANT_URL; jobs go on without memory")
    return _remembered(found, facts)


def _remembered(settings: MemorySettings, facts: StoreFacts) -> Check:
    numbers = tuple(int(part) for part in facts.version.split(".")[:2] if part.isdigit())
    name = facts.title.partition(":")[0]
    where = f"{name} {facts.version} at {without_secrets(settings.qdrant_url or '')}"
    if numbers and numbers < OLDEST_QDRANT:
        return Check("memory", False, where, "upgrade to Qdrant 1.20 or newer")
    how = f"embedder {settings.embedder}" if settings.embedder else "no embedder: it finds by words alone"
    detail = f"{where}: {facts.memories:,} memories, {how}"
    if facts.waiting:
        fix = f"`{command('memories reembed')}` makes them; meanwhile those are found by words alone"
        return Check("memory", True, f"{detail}; {facts.waiting:,} have no vector of it", fix)
    return Check("memory", True, detail)


def version(url: str, facts: probe.RedisFacts) -> Check:
    """Is this Redis new enough?"""
    numbers = tuple(int(part) for part in facts.version.split(".")[:2] if part.isdigit())
    ok = not numbers or numbers >= OLDEST_REDIS
    fix = "" if ok else "upgrade to Redis 6.2 or newer"
    return Check("redis", ok, f"version {facts.version} answers at {without_secrets(url)}", fix)


def eviction(facts: probe.RedisFacts) -> Check:
    """Does it keep every job?"""
    ok = facts.policy in ("noeviction", "unknown")
    fix = "" if ok else "set maxmemory-policy to noeviction: any other throws away jobs in silence"
    return Check("redis eviction", ok, f"maxmemory-policy is {facts.policy}", fix)


def durability(facts: probe.RedisFacts) -> Check:
    """What survives a power cut?"""
    found = jobs_durability.durability(facts.aof, facts.fsync)
    if not facts.aof:
        return Check("durability", False, found.promise, "set appendonly to yes")
    fix = "" if found.sound else "set appendfsync to everysec or always"
    return Check("durability", found.sound, f"appendfsync is {facts.fsync}: {found.promise}", fix)


async def _workers(link: RedisLink) -> Check:
    live = await probe.workers(link)
    if not live:
        return Check(
            "workers", False, "none is live, so no job runs", f"{start()}, or a worker with `{command('worker')}`"
        )
    running, room = sum(w.running for w in live), sum(w.concurrency for w in live)
    versions = sorted({version for worker in live for version in worker.versions})
    runs = ", ".join(versions) or "no agent"
    return Check("workers", True, f"{len(live)} live, {running} of {room} slots busy; they run {runs}")


async def platform(patient: Patient) -> list[Check]:
    """Does the API answer, would it take a job, does it know our key, and are there agents?"""
    at = f"{patient.connection.url} ({patient.connection.url_from})"
    async with Client(patient.connection) as client:
        try:
            await client.get("/healthz")
        except CliError:
            fix = f"{start()}, or name yours in NIGHTSHIFT_URL"
            return [Check("api", False, f"nothing answers at {at}", fix)]
        checks = [Check("api", True, f"answers at {at}")]
        try:
            await client.get("/readyz")
            checks.append(Check("ready", True, "a submission would be accepted"))
        except CliError as exc:
            checks.append(Check("ready", False, str(exc), "do what it says, and see the checks of Redis"))
        return [*checks, *await _key_and_agents(client), *await _mcp_servers(client)]


async def _mcp_servers(client: Client) -> list[Check]:
    """Are the MCP servers of the agents there, and are their tools what they were?"""
    try:
        page = await client.get("/v1/mcp")
    except RefusedError:  # that takes an admin key
        return []
    found = []
    for server in page["data"]:
        name, away, changed = server["name"], server["away_from"], [change["tool"] for change in server["changes"]]
        if changed:
            detail, fix = f"its tools changed: {', '.join(changed)}; they are off", f"agents accept-tools {name}"
            found.append(Check(f"mcp {name}", False, detail, f"look at them with `{command(fix)}`"))
        elif away:
            detail = f"{len(away)} worker(s) cannot reach it"
            found.append(Check(f"mcp {name}", False, detail, "see their logs; its tools are those that are pinned"))
        else:
            found.append(Check(f"mcp {name}", True, f"{len(server['tools'])} tools"))
    return found


async def _key_and_agents(client: Client) -> list[Check]:
    if client.connection.key is None:
        fix = f"set NIGHTSHIFT_API_KEY, or --data-dir to where `{command('up')}` wrote admin.key"
        return [Check("api key", False, "none was found", fix)]
    try:
        page = await client.get("/v1/agents")
    except RefusedError as exc:
        fix = "it needs the scope jobs:read" if exc.status == 403 else "set NIGHTSHIFT_API_KEY to a valid one"
        return [Check("api key", False, f"it was refused with {exc.status} {exc.code}", fix)]
    except CliError as exc:
        return [Check("agents", False, str(exc), start())]
    return [Check("api key", True, "it is valid"), agents(page["data"])]


def agents(published: Sequence[Json]) -> Check:
    """Are there agents, and does a live worker run them?"""
    if not published:
        fix = "start a worker with NIGHTSHIFT_AGENTS set to modules or .py files that define agents"
        return Check("agents", False, "no worker has published any", fix)
    live, idle = ([a["name"] for a in published if bool(a["workers"]) is runs] for runs in (True, False))
    left = f"no live worker runs {', '.join(idle)}" if idle else ""
    if not live:
        return Check("agents", False, left, "start a worker that has them in NIGHTSHIFT_AGENTS")
    return Check("agents", True, "; ".join(filter(None, (", ".join(live), left))))
