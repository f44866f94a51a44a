"""The MCP servers that agents name: whether they have changed their tools, and accepting that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import structlog
from fastapi import APIRouter, Path, Response

from agent_core.types import Json
from api import docs
from api.auth import Admin
from api.body import StrictRoute
from api.errors import RefusedError
from api.responses import json_response, page
from api.schemas import AcceptTools
from jobs.fleet import WorkerReport, workers
from jobs.keyring import DEFAULT_TENANT
from jobs.mcp import McpPins, ServerTools

log = structlog.get_logger(__name__)
router = APIRouter(tags=["mcp"], route_class=StrictRoute)
ServerName = Annotated[str, Path(max_length=64)]


@router.get("/mcp", response_model=None, responses=docs.MCP_SERVERS)
async def get_servers(caller: Admin) -> Response:
    """The MCP servers that workers have seen, each with the tools that it changed since they were pinned."""
    live = await workers(caller.services.link)
    return json_response(page([_shown(server, live) for server in await McpPins(caller.services.link).servers()]))


@router.put("/mcp/{name}/accept", response_model=None, responses=docs.MCP_SERVER)
async def accept_tools(name: ServerName, body: AcceptTools, caller: Admin) -> Response:
    """Pins a server's tools as they are now; the agents that name it get a new version with them."""
    if caller.tenant != DEFAULT_TENANT:
        raise RefusedError(403, "global_scope", f"accepting tools takes an admin key of the tenant {DEFAULT_TENANT}")
    accepted = await McpPins(caller.services.link).accept(name, body.seen)
    log.warning("tools of an MCP server accepted", server=name, by=caller.key.key_id, fingerprint=body.seen)
    return json_response(_shown(accepted, await workers(caller.services.link)))


def _shown(server: ServerTools, live: Sequence[WorkerReport]) -> Json:
    return server.to_json() | {"away_from": [worker.name for worker in live if server.name in worker.mcp_away]}
