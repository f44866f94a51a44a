"""The kill switch: turning it on and off, and the evidence that it holds."""

from __future__ import annotations

import structlog
from fastapi import APIRouter, Response

from agent_core.types import Json
from api import docs
from api.auth import Admin, Caller
from api.body import StrictRoute
from api.errors import RefusedError
from api.responses import json_response, page
from api.schemas import KillSwitchIn
from jobs.keyring import DEFAULT_TENANT
from jobs.kill_switch import GLOBAL, Switch, switch_name
from jobs.records import rfc3339

log = structlog.get_logger(__name__)
UNKNOWN: Json = dict.fromkeys(("since", "by", "reason", "evidence"))
"""What is shown of a switch that was off."""
router = APIRouter(tags=["kill switch"], route_class=StrictRoute)


@router.put("/kill_switch", response_model=None, responses=docs.KILL_SWITCH)
async def turn_kill_switch(body: KillSwitchIn, caller: Admin) -> Response:
    """Turns a kill switch on or off. One that is on already keeps its `since`, `by` and `reason`."""
    caller.changes(body.scope)
    switches, name = caller.services.kill_switches, _name(caller, body.scope)
    if body.on and body.scope.startswith("agent:"):
        await caller.services.agents.get(body.scope.removeprefix("agent:"))  # a misspelt one would stop nothing
    on = switches.turn_on(name, caller.key.key_id, body.reason or "") if body.on else switches.get(name)
    switch = await on
    shown = UNKNOWN if switch is None else await _shown(caller, switch)
    if not body.on:
        await switches.turn_off(name)
    log.warning("kill switch", switch=name, on=body.on, by=caller.key.key_id, reason=body.reason)
    return json_response({**shown, "scope": body.scope, "on": body.on})


@router.get("/kill_switch", response_model=None, responses=docs.KILL_SWITCHES)
async def get_kill_switches(caller: Admin) -> Response:
    """The switches that are on and stop the tenant or some of its agents, each with its evidence, the oldest first."""
    on = sorted((await caller.services.kill_switches.on()).values(), key=lambda switch: switch.since_ms)
    found = [switch for switch in on if switch.tenant in (None, caller.tenant)]
    return json_response(page([await _shown(caller, switch) for switch in found]))


def _name(caller: Caller, scope: str) -> str:
    name = switch_name(caller.tenant, scope)
    if name == GLOBAL and caller.tenant != DEFAULT_TENANT:
        detail = (
            f"the global kill switch takes an admin key of the tenant {DEFAULT_TENANT}; yours takes the scope tenant"
        )
        raise RefusedError(403, "global_scope", detail)
    return name


async def _shown(caller: Caller, switch: Switch) -> Json:
    mine = switch.tenant == caller.tenant or caller.tenant == DEFAULT_TENANT
    evidence = await caller.services.kill_switches.evidence(switch) if mine else None  # others' calls are not theirs
    return {
        "scope": switch.scope,
        "on": True,
        "since": rfc3339(switch.since_ms),
        "by": switch.by,
        "reason": switch.reason or None,
        "evidence": evidence and evidence.to_json(),
    }
