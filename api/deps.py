"""What the endpoints work with: one set of services for the process, made at start-up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from api.guard import Guard
from api.live import Hub
from api.settings import Settings
from api.submission import Intake
from jobs.agents import AgentCatalogue
from jobs.audit_log import AuditLog
from jobs.estimate import Estimator
from jobs.files import FileStore
from jobs.keyring import Keyring
from jobs.kill_switch import KillSwitches
from jobs.limits import LimitBook
from jobs.link import RedisLink
from jobs.rate import RateLimiter
from jobs.store import JobStore
from memory.setup import LazyMemory


@dataclass(frozen=True, slots=True)
class Services:
    """Everything an endpoint may need."""

    settings: Settings
    link: RedisLink
    store: JobStore
    agents: AgentCatalogue
    keyring: Keyring
    audit_log: AuditLog
    limits: LimitBook
    rate: RateLimiter
    files: FileStore
    guard: Guard
    intake: Intake
    estimator: Estimator
    kill_switches: KillSwitches
    memory: LazyMemory
    hub: Hub


async def services(request: Request) -> Services:
    """The process's services."""
    found: Services = request.app.state.services
    return found


Deps = Annotated[Services, Depends(services)]
