"""What the OpenAPI description says of answers. Nothing here runs for a request."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi

from api.memories import ForgottenView, FoundView, MemoryView
from api.schedules import ScheduleView, SlotView
from api.tenants import AuditEntryView, KeyView, LimitsView, NewKey
from api.views import (
    AgentDetail,
    AgentView,
    ApprovalView,
    AuditView,
    BatchView,
    EstimateView,
    EventView,
    ExplanationView,
    FileView,
    Health,
    JobView,
    KillSwitchView,
    LedgerRow,
    McpServerView,
    Page,
    Problem,
    ScopeBudgetView,
    SessionView,
    TenantLedgerRow,
    UsageRow,
    VersionView,
)
from api.webhook_views import DeliveryView, NewWebhookEndpoint, RedeliveredView, WebhookEndpointView

Responses = dict[int | str, dict[str, Any]]


def _ok(model: Any, description: str, status: int = 200) -> Responses:
    return {status: {"model": model, "description": description}}


def _raw(description: str, *media_types: str) -> Responses:
    return {200: {"description": description, "content": {media_type: {} for media_type in media_types}}}


JOB_ACCEPTED = _ok(JobView, "The job is written down. `Location` says where it is.", 202)
JOB_RUN = _ok(JobView, "The job has ended.") | _ok(JobView, "The job goes on.", 202)
JOB = _ok(JobView, "The job.")
JOB_ACTION = _ok(JobView, "The job as it is now.")
JOBS = _ok(Page[JobView], "The newest first.")
BATCH = _ok(BatchView, "One answer for each job.")
ESTIMATE = _ok(EstimateView, "The estimate.")
EVENTS = _ok(Page[EventView], "The oldest first; or a stream of the same, each event's `data:` on one line.")
EVENTS[200]["content"] = {"text/event-stream": {"schema": {"type": "string"}}}
EVENTS[204] = {"description": "The stream is over: the job has ended, and its last event was seen."}
LEDGER = _ok(Page[LedgerRow], "In the order of the calls.")
TENANT_LEDGER = _ok(Page[TenantLedgerRow], "The oldest day first; or all of it in another format.")
TENANT_LEDGER[200]["content"] = {name: {"schema": {"type": "string"}} for name in ("application/jsonl", "text/csv")}
BUDGET = _ok(ScopeBudgetView, "The budget.")
BUDGETS = _ok(Page[ScopeBudgetView], "By scope and period.")
BUDGET_GONE: Responses = {204: {"description": "The budget is no more."}}
USAGE = _ok(Page[UsageRow], "By the dimensions in their order.")
AUDIT = _ok(AuditView, "The audit.")
EXPLANATION = _ok(ExplanationView, "The gate.")
APPROVAL = _ok(ApprovalView, "The approval.")
SESSION = _ok(SessionView, "The oldest message first.")
MEMORY_MADE = _ok(MemoryView, "The memory. `Location` says where it is.", 201) | _ok(MemoryView, "It was known.")
MEMORY = _ok(MemoryView, "The memory.")
MEMORIES = _ok(Page[FoundView], "The best first; without a query, the newest.")
MEMORY_HISTORY = _ok(Page[MemoryView], "The oldest first.")
MEMORY_GONE: Responses = {204: {"description": "The memory is no more."}}
FORGOTTEN = _ok(ForgottenView, "What was deleted.")
APPROVALS = _ok(Page[ApprovalView], "The newest first.")
FILES = _ok(Page[FileView], "The oldest first.")
FILE_MADE = _ok(FileView, "The file is kept.", 201)
DOWNLOAD = _raw("The content.", "application/octet-stream")
AGENTS = _ok(Page[AgentView], "By name.")
AGENT = _ok(AgentDetail, "The agent.")
VERSIONS = _ok(Page[VersionView], "The newest first.")
MCP_SERVER = _ok(McpServerView, "The server as it is now.")
MCP_SERVERS = _ok(Page[McpServerView], "By name.")
KEY_MADE = _ok(NewKey, "The key; its secret is shown this once.", 201)
KEYS = _ok(Page[KeyView], "The oldest first.")
AUDIT_LOG = _ok(Page[AuditEntryView], "The newest first.")
LIMITS = _ok(LimitsView, "The limits of the scope as they are now.")
ALL_LIMITS = _ok(Page[LimitsView], "Those of the tenant, then those of its agents by name.")
KILL_SWITCH = _ok(KillSwitchView, "The switch as it is now; when it was turned off, what its evidence came to.")
KILL_SWITCHES = _ok(Page[KillSwitchView], "Those that are on.")
SCHEDULE_MADE = _ok(ScheduleView, "The schedule.", 201) | _ok(ScheduleView, "What it would be; nothing is saved.")
SCHEDULE = _ok(ScheduleView, "The schedule as it is now.")
SCHEDULES = _ok(Page[ScheduleView], "The newest first.")
SCHEDULE_GONE: Responses = {204: {"description": "The schedule is no more."}}
SLOTS = _ok(Page[SlotView], "The newest first.")
REVOKED: Responses = {204: {"description": "The key is no more."}}
ENDPOINT = _ok(WebhookEndpointView, "The endpoint.")
ENDPOINTS = _ok(Page[WebhookEndpointView], "The oldest first.")
ENDPOINT_MADE = _ok(NewWebhookEndpoint, "The endpoint; its secret is shown this once.", 201)
ENDPOINT_ROTATED = _ok(NewWebhookEndpoint, "The endpoint; its new secret is shown this once.")
ENDPOINT_GONE: Responses = {204: {"description": "The endpoint is no more."}}
DELIVERY = _ok(DeliveryView, "The delivery.")
DELIVERY_MADE = _ok(DeliveryView, "The delivery, which is made as soon as it can be.", 202)
DELIVERIES = _ok(Page[DeliveryView], "The newest first.")
REDELIVERED = _ok(RedeliveredView, "They are made again as soon as they can be.", 202)
HEALTH = _ok(Health, "The process is alive.")
READY = _ok(Health, "A submission would be accepted.")
METRICS = _raw("Prometheus's text format.", "text/plain")
RAW_BODY = {"requestBody": {"required": True, "content": {"application/octet-stream": {"schema": {"type": "string"}}}}}
REFUSALS: Responses = {
    "default": {
        "description": "A refusal. With 503 `Retry-After` says when to try again; nothing was half done.",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
}
IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same key with the same body is answered with the first answer, for 24 hours.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}


PAGE_POLICY = (
    "default-src 'none'; connect-src 'self'; img-src https: data:; "
    "script-src https://cdn.jsdelivr.net 'unsafe-inline'; style-src https://cdn.jsdelivr.net 'unsafe-inline'; "
    "frame-ancestors 'none'"
)
"""Lets the interactive documentation load what it is made of, and nothing else in."""


def install_page(app: FastAPI) -> None:
    """Serves the interactive documentation at `/docs`."""

    @app.get("/docs", include_in_schema=False)
    async def page() -> Response:
        answer = get_swagger_ui_html(openapi_url="/openapi.json", title=app.title)
        answer.headers["Content-Security-Policy"] = PAGE_POLICY
        return answer


def install(app: FastAPI) -> None:
    """Makes the app describe its refusals and the Idempotency-Key of every POST."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
            )
            problem = Problem.model_json_schema()
            schema.setdefault("components", {}).setdefault("schemas", {})["Problem"] = problem
            for operations in schema["paths"].values():
                if "post" in operations:
                    operations["post"].setdefault("parameters", []).append(IDEMPOTENCY_KEY)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
