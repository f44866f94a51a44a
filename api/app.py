"""Puts the API together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.util import find_spec

from fastapi import FastAPI
from starlette.routing import Route
from starlette.types import ASGIApp

from agent_core.redaction import Redactor
from api import agent_card, docs, errors
from api.deps import Services
from api.guard import Guard
from api.lazy import LazyApp
from api.live import Hub
from api.middleware import RequestMiddleware
from api.routes import (
    agents,
    approvals,
    audit,
    budgets,
    estimate,
    events,
    files,
    health,
    job_actions,
    keys,
    kill_switch,
    limits,
    memories,
    schedules,
    sessions,
    usage,
    webhooks,
)
from api.routes import jobs as job_routes
from api.routes import mcp as mcp_routes
from api.settings import Settings
from api.submission import Intake
from jobs.agents import AgentCatalogue
from jobs.audit_log import AuditLog
from jobs.estimate import Estimator
from jobs.files import FileStore
from jobs.keyring import Keyring
from jobs.kill_switch import KillSwitches
from jobs.limits import LimitBook
from jobs.link import RedisLink, connect
from jobs.rate import RateLimiter
from jobs.recent import Recent
from jobs.store import JobStore
from memory.setup import LazyMemory

REDIS_SECONDS = 1.5
"""How long Redis may be silent before a request is answered with 503."""
DESCRIPTION = "Runs AI-agent jobs unattended: submit, follow, steer. Errors are problem documents with a stable `code`."
ROUTES = (
    job_routes,
    estimate,
    job_actions,
    events,
    keys,
    files,
    agents,
    mcp_routes,
    kill_switch,
    budgets,
    usage,
    approvals,
    webhooks,
    schedules,
    sessions,
    memories,
    limits,
    audit,
)
"""What `/v1` has, in the order of the description."""


def create_app(settings: Settings) -> FastAPI:
    """The API. It connects to Redis when it is started, and not before."""

    mcp, a2a = LazyApp(_mcp), LazyApp(_a2a)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        services = _services(settings)
        app.state.services = services
        services.hub.start()
        services.guard.start()
        try:
            yield
        finally:
            await mcp.aclose()
            await a2a.aclose()
            await services.hub.aclose()
            await services.guard.aclose()
            await services.memory.aclose()
            await services.link.aclose()

    app = FastAPI(
        title="Nightshift",
        version="0.1.0",
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses=docs.REFUSALS,
        generate_unique_id_function=lambda route: route.name,
    )
    errors.install(app)
    docs.install(app)
    if settings.docs:
        docs.install_page(app)
    app.add_middleware(RequestMiddleware)
    for module in ROUTES:
        app.include_router(module.router, prefix="/v1")
    app.include_router(health.router)
    app.router.routes.append(Route("/mcp", mcp, include_in_schema=False))
    if find_spec("a2a"):  # the extra of that name
        card = Route(agent_card.PATH, agent_card.get_public_card, include_in_schema=False)
        app.router.routes += [card, Route(agent_card.ENDPOINT, a2a, methods=["POST"], include_in_schema=False)]
    return app


def _mcp() -> AbstractAsyncContextManager[ASGIApp]:
    from api.mcp import serving

    return serving()


def _a2a() -> AbstractAsyncContextManager[ASGIApp]:
    from api.a2a import serving

    return serving()


def _services(settings: Settings) -> Services:
    link = RedisLink(connect(settings.redis_url, REDIS_SECONDS))
    store = JobStore(link, settings.wait_replicas)
    agents = AgentCatalogue(link)
    files = FileStore(link, settings.files_location)
    guard = Guard(link)
    recent = Recent()
    admin_key = settings.admin_key.get_secret_value() if settings.admin_key else None
    return Services(
        settings=settings,
        link=link,
        store=store,
        agents=agents,
        keyring=Keyring(link, admin_key, recent),
        audit_log=AuditLog(link, Redactor(settings.secrets)),
        limits=LimitBook(link),
        rate=RateLimiter(link, recent),
        files=files,
        guard=guard,
        intake=Intake(store, agents, files, guard, settings.webhook_allow_private),
        estimator=Estimator(link, agents, files, settings.price_list),
        kill_switches=KillSwitches(link),
        memory=LazyMemory(settings),
        hub=Hub(settings.redis_url, recent),
    )
