"""The clients of the models that a worker's agents ask: its own server's, and those that targets name."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from agent_core.agent import Agent
from agent_core.claude import ClaudeModel
from agent_core.errors import UnknownPriceError
from agent_core.types import Role
from worker.errors import StartError
from worker.settings import Settings

log = structlog.get_logger("worker")
SIMULATED_KEY = "simulated"
NO_KEY = "none"
"""What a server gets that needs no key: the client insists on one."""
ROLES: tuple[Role, ...] = ("executor", "planner", "validator", "summariser", "router")


def make_model(settings: Settings) -> ClaudeModel:
    """The model's client. Raises StartError when there is neither a key nor a server to ask."""
    key = settings.anthropic_api_key.get_secret_value() if settings.anthropic_api_key else None
    if settings.simulate or key is None:
        if settings.model_base_url is None:
            raise StartError(
                "no model: set ANTHROPIC_API_KEY, or set NIGHTSHIFT_MODEL_BASE_URL to a server that speaks the "
                "Messages API; `nightshift simulator` starts a simulated one, and `nightshift up` does all of it"
            )
        key = SIMULATED_KEY if settings.simulate or key is None else key
    return ClaudeModel.connect(
        api_key=key,
        base_url=settings.model_base_url,
        prices=settings.price_list,
        connections=settings.concurrency + 10,
    )


def make_servers(settings: Settings) -> dict[str, ClaudeModel]:
    """The clients of the other servers, by their names in the settings."""
    keys = settings.model_server_keys
    return {
        name: ClaudeModel.connect(
            api_key=keys[name].get_secret_value() if name in keys else NO_KEY,
            base_url=url,
            prices=settings.price_list,
            connections=settings.concurrency + 10,
            plain=True,
        )
        for name, url in settings.model_servers.items()
    }


def warm_up(model: ClaudeModel, servers: Mapping[str, ClaudeModel], agents: Mapping[str, Agent]) -> None:
    """Loads the price data before the first job needs it, and says early which agents could not be paid for, and which
    ask servers that this worker does not know.
    """
    for name, agent in agents.items():
        try:
            for target in {target for role in ROLES for target in agent.targets(role)}:
                model.worst_case(target.model, 0, 0, agent.parameters)
                if target.server and target.server not in servers:
                    log.warning("an agent asks a server that NIGHTSHIFT_MODEL_SERVERS does not name",
                                agent=name, server=target.server)  # fmt: skip
        except UnknownPriceError as exc:
            log.warning("the jobs of an agent will fail: %s", exc, agent=name)
