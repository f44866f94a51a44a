"""The platform's A2A agent card: what any client may know, and with a key the agents, as skills. It takes no SDK."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from agent_core.types import Json
from api.responses import json_response
from jobs.agents import Published

PATH = "/.well-known/agent-card.json"
ENDPOINT = "/a2a"
DESCRIPTION = "Runs AI-agent jobs unattended. A task is a job, and a context a session."
MODES = ["text/plain", "application/json"]
RUN_A_JOB: Json = {
    "id": "run_job",
    "name": "Run a job",
    "description": "Gives an agent a job. The extended card, which takes a key, lists the agents.",
    "tags": ["jobs"],
}


async def get_public_card(request: Request) -> Response:
    """The card without the agents, for whoever asks."""
    return json_response(card(request, [RUN_A_JOB]))


def card(request: Request, skills: Sequence[Json]) -> Json:
    """The card, with the address under which the client has found it."""
    return {
        "name": "Nightshift",
        "description": DESCRIPTION,
        "version": request.app.version,
        "supportedInterfaces": [
            {"url": f"{request.base_url}{ENDPOINT[1:]}", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
        ],
        "capabilities": {"streaming": True, "pushNotifications": False, "extendedAgentCard": True},
        "securitySchemes": {"api_key": {"httpAuthSecurityScheme": {"scheme": "Bearer", "bearerFormat": "ns_…"}}},
        "securityRequirements": [{"schemes": {"api_key": {"list": []}}}],
        "defaultInputModes": MODES,
        "defaultOutputModes": MODES,
        "skills": list(skills),
    }


def skill(agent: Published) -> Json:
    """An agent, as a skill of that id."""
    description = agent.definition.get("description") or f"Gives a job to the agent {agent.name}."
    return {"id": agent.name, "name": agent.name, "description": description, "tags": ["agent"]}
