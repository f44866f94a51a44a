"""Every Redis key of the platform's own; they begin with `ns:`. Those of the queue are in `jobs.queue_keys`."""

from __future__ import annotations

from typing import Literal

PREFIX = "ns:"

# ---- jobs
QUEUED = f"{PREFIX}queued"
"""Sorted set: every queued job by the time in ms since when it waits. A job in it without a ticket gets a new one."""
DUE = f"{PREFIX}due"
"""Sorted set: jobs that wait for a time, by that time in ms: to be queued, or to be resumed when a budget held them."""
EXPIRING = f"{PREFIX}expiring"
"""Sorted set: jobs with an `expires_at`, by that time in ms."""
STATS = f"{PREFIX}stats"
"""Hash: fleet-wide counters; see `jobs.stats`."""
AGENTS = f"{PREFIX}agents"
"""Hash: the current version of each published agent by its name."""
WORKERS = f"{PREFIX}workers"
"""Sorted set: live workers by their last heartbeat in ms."""
DEAD_LETTERS = f"{PREFIX}dead_letters"
"""Sorted set: jobs whose records could not be read, by the time in ms at which they were set aside."""
ENDED = f"{PREFIX}ended"
"""Sorted set: every job that has ended and was not pruned, by the time of its end in ms."""
FILES = f"{PREFIX}files"
"""Sorted set: uploaded files that no job names, by the time of their upload in ms."""
UNNAMED = f"{PREFIX}unnamed"
"""Sorted set: contents that no file's record names, as the keys of their empty sets, by the time in ms since when."""
ORPHANS = f"{PREFIX}orphans"
"""Set: jobs that have ended before all of their children have, which are to be cancelled."""
HELD = f"{PREFIX}held"
"""Sorted set: jobs that a budget holds paused, by the time in ms at which its window ends; +inf for `total`."""
KILL_SWITCH = f"{PREFIX}kill_switch"
"""Hash: the kill switches that are on, by what they stop: `global`, `tenant:{t}`, `agent:{t}:{a}`."""
TENANTS = f"{PREFIX}tenants"
"""Set: every tenant that has submitted a job."""
AUDIT_LOGS = f"{PREFIX}audit_logs"
"""Set: keys of the audit logs that there are."""
ALERTS = f"{PREFIX}alerts"
"""Hash: the alerts that are raised, as JSON by condition, tenant and window; see `jobs.alerts`."""
ALERT_OUTBOX = f"{PREFIX}alert_outbox"
"""Hash: messages about alerts that a channel has not taken yet, as JSON by message and channel."""
ALERT_LOCK = f"{PREFIX}alert_lock"
"""String: some worker looks at the conditions, or did a moment ago."""
BATCHES = f"{PREFIX}batches"
"""Sorted set: batches that have calls of jobs, by the time in ms at which to look whether they have ended."""
BATCH_PREFIX = f"{PREFIX}batch:"
MCP_PINNED = f"{PREFIX}mcp_pinned"
"""Hash: what is pinned of each MCP server's tools, as JSON by the server's name; see `jobs.mcp`."""
MCP_SEEN = f"{PREFIX}mcp_seen"
"""Hash: what each MCP server was last seen to say of its tools, as JSON by the server's name."""
BREAKERS = f"{PREFIX}breakers"
"""Hash: the circuit breaker of each target that failed of late, as JSON by its name; see `jobs.breaker`."""
PENDING_APPROVALS = f"{PREFIX}pending_approvals"
"""Sorted set: every approval that is pending, by the time in ms at which it expires; +inf: never."""
DECIDED = f"{PREFIX}decided"
"""Sorted set: parked jobs of which every approval is decided, by the time in ms since when."""
LANES = f"{PREFIX}lanes"
"""Sorted set: the lanes of webhooks that have deliveries, by the time in ms at which the next one may be made."""
SETTLED = f"{PREFIX}settled"
"""Sorted set: deliveries that were made or given up, by the time in ms at which they were."""
SCHEDULES = f"{PREFIX}schedules"
"""Sorted set: schedules that are active, by the time in ms at which to look at them."""
FIRING = f"{PREFIX}firing"
"""Sorted set: slots whose jobs are being submitted, as `schedule slot`, by the time in ms at which another tries."""
PROBE = f"{PREFIX}probe"
"""String: written to find out whether Redis takes writes."""
CHANGED = f"{PREFIX}changed"
"""Pub/sub channel: names of keys that have changed and that processes remember; see `jobs.recent`."""
SERVER_SECRET = f"{PREFIX}server_secret"
"""String: 32 random bytes, of which the keys are derived that every API process must share; see `jobs.cursors`."""
JOB_PREFIX = f"{PREFIX}job:"
JOURNAL_PREFIX = f"{PREFIX}journal:"
CHANNEL_PREFIX = f"{PREFIX}events:"
CONTENT_PREFIX = f"{PREFIX}content:"
BUDGETS_PREFIX = f"{PREFIX}budgets:"
METER_PREFIX = f"{PREFIX}meter:"
USAGE_PREFIX = f"{PREFIX}usage:"
CHARGED_PREFIX = f"{PREFIX}charged:"
SAMPLES_PREFIX = f"{PREFIX}samples:"
KILL_EVIDENCE_PREFIX = f"{PREFIX}kill_evidence:"
STOPPED_PREFIX = f"{PREFIX}stopped:"
WAKE_PREFIX = f"{PREFIX}wake:"
LIMITS_PREFIX = f"{PREFIX}limits:"
APPROVAL_PREFIX = f"{PREFIX}approval:"
JOB_APPROVALS_PREFIX = f"{PREFIX}job_approvals:"
APPROVALS_PREFIX = f"{PREFIX}approvals:"
PENDING_PREFIX = f"{PREFIX}pending:"
LISTENERS_PREFIX = f"{PREFIX}listeners:"
ENDPOINT_PREFIX = f"{PREFIX}endpoint:"
DELIVERY_PREFIX = f"{PREFIX}delivery:"
DELIVERIES_PREFIX = f"{PREFIX}deliveries:"
LANE_PREFIX = f"{PREFIX}lane:"
BUSY_PREFIX = f"{PREFIX}busy:"


def job(job_id: str) -> str:
    """Hash: the job's record."""
    return JOB_PREFIX + job_id


def children(job_id: str) -> str:
    """Set: the children of a job that have not ended."""
    return f"ns:children:{job_id}"


def journal(job_id: str) -> str:
    """Stream: all that happened to the job."""
    return JOURNAL_PREFIX + job_id


def blob(sha256: str) -> str:
    """Hash: `data`, what an entry has too much of for its stream, and `jobs`, how many jobs' journals refer to it."""
    return f"{PREFIX}blob:{sha256}"


def job_blobs(job_id: str) -> str:
    """Set: keys of the blobs that the job's journal refers to."""
    return f"{PREFIX}blobs:{job_id}"


def channel(job_id: str) -> str:
    """Pub/sub channel: an empty message says that the journal grew; anything else is a live event as JSON."""
    return CHANNEL_PREFIX + job_id


def all_jobs(tenant: str) -> str:
    """Sorted set: every job of a tenant by creation time in ms."""
    return f"{PREFIX}jobs:{tenant}:all"


def open_jobs(tenant: str) -> str:
    """Sorted set: jobs of a tenant that have not ended, by creation time in ms."""
    return f"{PREFIX}jobs:{tenant}:open"


def ended_jobs(tenant: str, status: str) -> str:
    """Sorted set: jobs of a tenant that ended in a status, by creation time in ms."""
    return f"{PREFIX}jobs:{tenant}:{status}"


def session_jobs(tenant: str, session_id: str) -> str:
    """List: unfinished jobs of a session, in the order in which they run."""
    return f"{PREFIX}session:{tenant}:{session_id}:jobs"


def idempotency(tenant: str, digest: str) -> str:
    """Hash: the first answer to an idempotency key, for 24 hours."""
    return f"{PREFIX}idempotency:{tenant}:{digest}"


def agent_version(name: str, version: str) -> str:
    """String: an agent's published definition as JSON."""
    return f"{PREFIX}agent:{name}:{version}"


def agent_versions(name: str) -> str:
    """Sorted set: an agent's versions by the time of their first publication in ms."""
    return f"{PREFIX}agent:{name}:versions"


def worker(name: str) -> str:
    """Hash: what a live worker serves; it expires with the worker."""
    return f"{PREFIX}worker:{name}"


def wake(pool: str) -> str:
    """List: one element for each recent ticket of a pool; an idle worker blocks on it."""
    return WAKE_PREFIX + pool


def file(file_id: str) -> str:
    """Hash: `record` of an uploaded file or an artifact, the key of its `content`, and how many `jobs` name it."""
    return f"{PREFIX}file:{file_id}"


def content(sha256: str) -> str:
    """Set: ids of the files whose content it is."""
    return f"{CONTENT_PREFIX}{sha256}"


def content_lock(sha256: str) -> str:
    """String: a pruner is deleting the content at this moment."""
    return f"{PREFIX}content_lock:{sha256}"


def job_files(job_id: str) -> str:
    """Set: ids of the job's artifacts."""
    return f"{PREFIX}artifacts:{job_id}"


def api_key(digest: str) -> str:
    """Hash: an API key, under the SHA-256 of its secret."""
    return f"{PREFIX}key:{digest}"


def api_keys(tenant: str) -> str:
    """Hash: digests of a tenant's API keys by their ids."""
    return f"{PREFIX}keys:{tenant}"


def keys_used(tenant: str) -> str:
    """Sorted set: ids of a tenant's API keys by the time in ms at which they were last used."""
    return f"{PREFIX}keys_used:{tenant}"


def limits(tenant: str) -> str:
    """Hash: the tenant's limits by what they limit: `requests_per_minute`, `burst`, `running`, `running:agent:{a}`."""
    return LIMITS_PREFIX + tenant


def audit_log(tenant: str | None) -> str:
    """Stream: who changed what of a tenant; without one, who tried to without a valid key."""
    return f"{PREFIX}audit:{tenant or ''}"


def rate(tenant: str) -> str:
    """Hash: `level` and time `at` in µs of the bucket out of which a tenant's requests take tokens; see `rate.lua`."""
    return f"{PREFIX}rate:{tenant}"


def budgets(tenant: str) -> str:
    """Hash: the tenant's budgets, each as JSON under `scope|period`."""
    return BUDGETS_PREFIX + tenant


def meter(tenant: str, scope: str, window: str) -> str:
    """Hash: what a scope has settled and reserved in a window: `total`, a month `2026-11` or a day `2026-11-21`."""
    return f"{METER_PREFIX}{tenant}:{scope}:{window}"


def samples(tenant: str, agent: str, version: str, service: str) -> str:
    """List: what the newest jobs of an agent's version came to, for estimates; a batch's calls cost less."""
    return f"{SAMPLES_PREFIX}{tenant}:{agent}:{version}:{service}"


def usage(tenant: str, day: str) -> str:
    """Hash: counters of a day by `[agent,user,model,role]:counter`."""
    return f"{USAGE_PREFIX}{tenant}:{day}"


def charged(tenant: str, day: str) -> str:
    """Set: ids of the jobs with a ledger row of a day."""
    return f"{CHARGED_PREFIX}{tenant}:{day}"


def kill_evidence(switch: str) -> str:
    """Hash: the model calls of all that a kill switch stops, counted on or off; see `jobs.kill_switch`."""
    return KILL_EVIDENCE_PREFIX + switch


def stopped(switch: str) -> str:
    """Sorted set: tickets that a kill switch withholds, as `queue|job id`, by their place."""
    return STOPPED_PREFIX + switch


def batch(batch_id: str) -> str:
    """Set: the jobs that wait for a batch."""
    return BATCH_PREFIX + batch_id


def money_names() -> dict[str, str]:
    """The prefixes of which `money.lua` makes the keys of a job's account."""
    return {
        "job": JOB_PREFIX,
        "budgets": BUDGETS_PREFIX,
        "meter": METER_PREFIX,
        "usage": USAGE_PREFIX,
        "charged": CHARGED_PREFIX,
        "kill_switch": KILL_SWITCH,
        "kill_evidence": KILL_EVIDENCE_PREFIX,
        "batches": BATCHES,
        "batch": BATCH_PREFIX,
    }


def approval(approval_id: str) -> str:
    """Hash: what was asked about one call of a job, and what was decided."""
    return APPROVAL_PREFIX + approval_id


def job_approvals(job_id: str) -> str:
    """Set: ids of all approvals of a job."""
    return JOB_APPROVALS_PREFIX + job_id


def approvals(tenant: str, *, pending: bool = False) -> str:
    """Sorted set: a tenant's approvals, or those that are pending, by the time in ms at which they were asked for."""
    return (PENDING_PREFIX if pending else APPROVALS_PREFIX) + tenant


def approval_names() -> dict[str, str]:
    """The prefixes and keys of `approvals.lua`."""
    return {
        "approval": APPROVAL_PREFIX,
        "of_job": JOB_APPROVALS_PREFIX,
        "of_tenant": APPROVALS_PREFIX,
        "pending_of": PENDING_PREFIX,
        "pending": PENDING_APPROVALS,
        "decided": DECIDED,
    }


def spending(tenant: str) -> str:
    """Sorted set: samples of all that a tenant has spent, as `ms:micro-dollars` by their time in ms."""
    return f"{PREFIX}spending:{tenant}"


def listeners(tenant: str) -> str:
    """Hash: what each enabled webhook endpoint of a tenant is told of, as event types between blanks, by its id."""
    return LISTENERS_PREFIX + tenant


def endpoints(tenant: str) -> str:
    """Sorted set: ids of a tenant's webhook endpoints by the time in ms at which they were made."""
    return f"{PREFIX}endpoints:{tenant}"


def endpoint(endpoint_id: str) -> str:
    """Hash: a webhook endpoint, without its secrets."""
    return ENDPOINT_PREFIX + endpoint_id


def webhook_secrets(owner: str) -> str:
    """Hash: the secrets of a webhook endpoint, each with the ms until which it signs, '' for good. The owner of those
    that sign the webhooks of jobs is their tenant, behind `jobs:`.
    """
    return f"{PREFIX}webhook_secrets:{owner}"


def delivery(delivery_id: str) -> str:
    """Hash: one event for one listener; what it is, where it stands, and a field for each try by its number."""
    return DELIVERY_PREFIX + delivery_id


def deliveries(owner: str) -> str:
    """Sorted set: deliveries of a webhook endpoint, or of a tenant's jobs (see `webhook_secrets`), by the time in ms at
    which their events were written.
    """
    return DELIVERIES_PREFIX + owner


def lane(name: str) -> str:
    """Sorted set: deliveries of a lane that are not settled, by the time in ms at which they are due."""
    return LANE_PREFIX + name


def busy(name: str) -> str:
    """Sorted set: deliveries of a lane that a worker is making, by the time in ms at which it is taken for dead."""
    return BUSY_PREFIX + name


def outbox_names() -> dict[str, str]:
    """The prefixes and keys of `outbox.lua`."""
    return {
        "listeners": LISTENERS_PREFIX,
        "endpoint": ENDPOINT_PREFIX,
        "job": JOB_PREFIX,
        "delivery": DELIVERY_PREFIX,
        "deliveries": DELIVERIES_PREFIX,
        "lane": LANE_PREFIX,
        "busy": BUSY_PREFIX,
        "lanes": LANES,
    }


def schedules(tenant: str) -> str:
    """Sorted set: a tenant's schedules by the time in ms at which they were made."""
    return f"{PREFIX}schedules:{tenant}"


def schedule(schedule_id: str) -> str:
    """Hash: a schedule, and how far its slots are handled."""
    return f"{PREFIX}schedule:{schedule_id}"


def slots(schedule_id: str, part: Literal["index", "rows", "open", "waiting"]) -> str:
    """The slot ledger of a schedule. `index`, a sorted set: its slots by their times in ms, and those `waiting` for
    a run to end. `rows`, a hash: what became of each, as JSON. `open`, a hash: the jobs that had not ended when the
    schedule was last looked at, each with its slot.
    """
    return f"{PREFIX}slots:{schedule_id}:{part}"
